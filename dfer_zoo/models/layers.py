"""Blocks that several models share. timm's parts enter the zoo here and nowhere else."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from timm.data.auto_augment import RandAugment, rand_augment_transform
from timm.data.random_erasing import RandomErasing
from timm.layers import DropPath
from timm.models.vision_transformer import Attention
from timm.models.vision_transformer import Block as TimmBlock
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from ..errors import InputError
from .shortcuts import Mlp, QuickGELU

__all__ = [
    "Attention",
    "Block",
    "DropPath",
    "Mlp",
    "QuickGELU",
    "RandAugment",
    "RandomErasing",
    "TanhGELU",
    "TemporalTransformer",
    "call",
    "init_linears",
    "param_groups_layer_decay",
    "rand_augment_transform",
]


def call(block: Callable, *args: Any) -> Any:
    """Run a block plainly: the default where a model may pass its `run_block`, which saves memory in training."""
    return block(*args)


_truncated_normal = functools.partial(nn.init.trunc_normal_, std=0.02)


def init_linears(module: nn.Module, init: Callable[[Tensor], Any] = _truncated_normal) -> None:
    """Initialise all linear layers: weights by ``init``, biases with zeros."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            init(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class TanhGELU(nn.GELU):
    """GELU in its tanh approximation."""

    def __init__(self) -> None:
        super().__init__(approximate="tanh")


class Block(TimmBlock):
    """timm's ViT block, with the MLP of this package."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"mlp_layer": Mlp, **options})


class TemporalTransformer(nn.Module):
    """Frame features (B, T, width) -> a clip feature (B, width): a class token that has looked at all frames.

    DFER-CLIP's, and after it MMA-DFER's and DK-CLIP's. ``pool="mean"`` averages the frames instead, and "none" gives
    them all, (B, T, width); both do without the class token.

    >>> TemporalTransformer(512, depth=1)(torch.zeros(2, 16, 512)).shape
    torch.Size([2, 512])
    """

    def __init__(
        self,
        width: int = 512,
        depth: int = 1,
        num_heads: int = 8,
        mlp_width: int | None = None,
        num_frames: int = 16,
        pool: str = "token",
    ) -> None:
        super().__init__()
        if pool not in ("token", "mean", "none"):
            raise InputError(f"pool is '{pool}'; expected 'token', 'mean' or 'none'.")
        if depth < 0:
            raise InputError(f"The temporal transformer's depth is {depth}; expected 0 blocks or more.")
        if num_heads < 1 or width % num_heads:
            raise InputError(f"The temporal transformer's width of {width} cannot be cut into {num_heads} heads.")
        self.num_frames = num_frames
        self.pool = pool
        self.class_token = nn.Parameter(torch.empty(1, 1, width)) if pool == "token" else None
        self.positions = nn.Parameter(torch.empty(1, num_frames + (pool == "token"), width))
        self.blocks = nn.ModuleList(
            Block(
                width,
                num_heads,
                mlp_ratio=((mlp_width or 2 * width) + 0.5) / width,  # timm cuts the product, which may lie just below
                qkv_bias=False,
                norm_layer=nn.LayerNorm,  # torch's, with an eps of 1e-5; timm's own ViTs have 1e-6
                act_layer=TanhGELU,
            )
            for _ in range(depth)
        )
        self.init_weights()

    def init_weights(self) -> None:
        """Token and positions as published, with a standard deviation of 1; the blocks are as torch makes them."""
        if self.class_token is not None:
            nn.init.normal_(self.class_token)
        nn.init.normal_(self.positions)

    def forward(self, frames: Tensor, run_block: Callable[..., Any] | None = None) -> Tensor:
        """``run_block`` is the model's `run_block`, if it shall checkpoint."""
        tokens = frames
        if self.class_token is not None:
            tokens = torch.cat([self.class_token.expand(frames.shape[0], -1, -1).to(frames.dtype), frames], dim=1)
        tokens = tokens + self.positions[:, : tokens.shape[1]]
        for block in self.blocks:
            tokens = block(tokens) if run_block is None else run_block(block, tokens)
        if self.pool == "token":
            return tokens[:, 0]
        return tokens.mean(dim=1) if self.pool == "mean" else tokens
