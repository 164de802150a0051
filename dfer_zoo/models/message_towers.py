"""DK-CLIP's two image towers: CLIP's image transformer, where neighbouring frames exchange messages in every block."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn

from .layers import Attention
from .parts import DropPath, Mlp, QuickGELU, call

HEAD_WIDTH = 64  # of every attention, as in CLIP


class MessageBlock(nn.Module):
    """CLIP's block with one additional token per frame: a message from the neighbouring frames."""

    def __init__(self, width: int, drop_path: float = 0.0) -> None:
        super().__init__()
        heads = width // HEAD_WIDTH
        self.message = nn.Linear(width, width)
        self.message_norm = nn.LayerNorm(width)
        self.message_attn = Attention(width, heads, qkv_bias=True)
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads, qkv_bias=True)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, 4 * width, act_layer=QuickGELU)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, neighbours: int) -> Tensor:
        """tokens (frames, 1 + P, D), class token first; groups of ``neighbours`` consecutive frames exchange messages."""
        messages = rearrange(self.message(tokens[:, 0]), "(groups near) d -> groups near d", near=neighbours)
        messages = messages + self.drop_path(self.message_attn(self.message_norm(messages)))
        messages = rearrange(messages, "groups near d -> (groups near) 1 d")
        attended = self.attn(self.norm1(torch.cat([tokens, messages], dim=1)))
        tokens = tokens + self.drop_path(attended[:, :-1])  # drop the message: every block makes its own
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class MessageTower(nn.Module):
    """CLIP's image transformer with message blocks. Subclasses provide the patch tokens."""

    def __init__(self, width: int, depth: int, num_patches: int, embed_dim: int, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.empty(width))
        self.positions = nn.Parameter(torch.empty(1 + num_patches, width))
        self.norm_pre = nn.LayerNorm(width)
        rates = [drop_path_rate * i / max(1, depth - 1) for i in range(depth)]
        self.blocks = nn.ModuleList(MessageBlock(width, rate) for rate in rates)
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Parameter(torch.empty(width, embed_dim))

    def transform(self, patches: Tensor, neighbours: int, run_block: Callable = call) -> Tensor:
        """Patch tokens (frames, P, D) -> (frames, 1 + P, D), not normalised."""
        class_token = self.class_token.to(patches.dtype).expand(patches.shape[0], 1, -1)
        tokens = self.norm_pre(torch.cat([class_token, patches], dim=1) + self.positions)
        for block in self.blocks:
            tokens = run_block(block, tokens, neighbours)
        return tokens

    def embed(self, class_tokens: Tensor) -> Tensor:
        """(..., D) -> (..., E), CLIP's joint space of images and texts."""
        return self.norm(class_tokens) @ self.projection

    def init_weights(self) -> None:
        scale = self.class_token.shape[0] ** -0.5
        for parameter in (self.class_token, self.positions, self.projection):
            nn.init.normal_(parameter, std=scale)
        init_attention(self)


class LocalTower(MessageTower):
    """Encodes every frame, with messages within short groups of frames."""

    def __init__(self, img_size: int, patch_size: int, width: int, depth: int, embed_dim: int, drop_path_rate: float):
        super().__init__(width, depth, (img_size // patch_size) ** 2, embed_dim, drop_path_rate)
        self.patch_embed = nn.Conv2d(3, width, patch_size, stride=patch_size, bias=False)

    def forward(self, images: Tensor, neighbours: int, run_block: Callable = call) -> Tensor:
        """(frames, 3, H, W) -> (frames, 1 + P, D)"""
        patches = self.patch_embed(images).flatten(2).transpose(1, 2)
        return self.transform(patches, neighbours, run_block)


class SemanticTower(MessageTower):
    """Encodes snippets for the comparison with texts, from the output tokens of the local tower."""

    def forward(self, patches: Tensor, run_block: Callable = call) -> Tensor:
        """Patch tokens of the snippets (B, S, P, D) -> (B * S, 1 + P, D); the snippets of a clip are neighbours."""
        return self.transform(patches.flatten(0, 1), patches.shape[1], run_block)


def init_attention(module: nn.Module, projection: bool = True) -> None:
    """Initialise timm's attention modules like torch's own multi-head attention."""
    for part in module.modules():
        if isinstance(part, Attention):
            nn.init.xavier_uniform_(part.qkv.weight)
            nn.init.zeros_(part.qkv.bias)
            if projection:
                nn.init.zeros_(part.proj.bias)
