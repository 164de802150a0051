"""Transformer blocks that several models share. All parts of timm are imported here, and only where a model needs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.data.auto_augment import RandAugment, rand_augment_transform
from timm.data.random_erasing import RandomErasing
from timm.models.vision_transformer import Attention as TimmAttention
from timm.models.vision_transformer import Block as TimmBlock
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from ..errors import InputError
from .parts import DropPath, Mlp
from .shortcuts import applies, are_linear, self_attention

__all__ = [
    "Attention",
    "Block",
    "RandAugment",
    "RandomErasing",
    "TanhGELU",
    "TemporalTransformer",
    "param_groups_layer_decay",
    "rand_augment_transform",
]


class TanhGELU(nn.GELU):
    """GELU in its tanh approximation."""

    def __init__(self) -> None:
        super().__init__(approximate="tanh")


class Attention(TimmAttention):
    """timm's self-attention."""

    def forward(self, x: Tensor, *args: Any, **options: Any) -> Tensor:
        asked = args or any(value is not None and value is not False for value in options.values())  # for a mask
        if asked or not are_linear(self.qkv, self.proj) or not applies(self, x):
            return super().forward(x, *args, **options)
        return self_attention(x, self.num_heads, self.qkv.weight, self.qkv.bias, self.proj)


class Block(TimmBlock):
    """timm's ViT block with this package's attention, MLP and stochastic depth."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"mlp_layer": Mlp, **options})
        self.attn.__class__ = Attention  # not an argument in older versions of timm
        if rate := options.get("drop_path", 0.0):
            self.drop_path1, self.drop_path2 = DropPath(rate), DropPath(rate)  # type: ignore[assignment]


class TemporalTransformer(nn.Module):
    """Frame features (B, T, width) -> a clip feature (B, width): a class token attends to all frames.

    DFER-CLIP introduced it; MMA-DFER and DK-CLIP reuse it. ``pool="mean"`` averages the frames instead, and "none"
    returns all of them, (B, T, width); neither has a class token.

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
            raise InputError(f"The temporal transformer's width of {width} is not a multiple of {num_heads} heads.")
        self.num_frames = num_frames
        self.pool = pool
        self.class_token = nn.Parameter(torch.empty(1, 1, width)) if pool == "token" else None
        self.positions = nn.Parameter(torch.empty(1, num_frames + (pool == "token"), width))
        self.blocks = nn.ModuleList(
            Block(
                width,
                num_heads,
                mlp_ratio=((mlp_width or 2 * width) + 0.5)
                / width,  # timm truncates the product, which may fall just below the integer
                qkv_bias=False,
                norm_layer=nn.LayerNorm,  # eps 1e-5; timm's ViTs have 1e-6
                act_layer=TanhGELU,
            )
            for _ in range(depth)
        )
        self.init_weights()

    def init_weights(self) -> None:
        """Class token and positions with a standard deviation of 1, as published; blocks with torch's default."""
        if self.class_token is not None:
            nn.init.normal_(self.class_token)
        nn.init.normal_(self.positions)

    def forward(self, frames: Tensor, run_block: Callable[..., Any] | None = None) -> Tensor:
        """Pass the model's `run_block` to support gradient checkpointing."""
        tokens = frames
        if self.class_token is not None:
            tokens = torch.cat([self.class_token.expand(frames.shape[0], -1, -1).to(frames.dtype), frames], dim=1)
        tokens = tokens + self.positions[:, : tokens.shape[1]]
        for block in self.blocks:
            tokens = block(tokens) if run_block is None else run_block(block, tokens)
        if self.pool == "token":
            return tokens[:, 0]
        return tokens.mean(dim=1) if self.pool == "mean" else tokens
