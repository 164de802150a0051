"""Blocks that several models share. timm's parts enter the zoo here and nowhere else."""

from __future__ import annotations

import torch
from timm.layers import DropPath, Mlp
from timm.models.vision_transformer import Attention, Block
from torch import Tensor, nn

__all__ = ["Attention", "Block", "DropPath", "Mlp", "QuickGELU", "TanhGELU"]


class TanhGELU(nn.GELU):
    """GELU in its tanh approximation."""

    def __init__(self) -> None:
        super().__init__(approximate="tanh")


class QuickGELU(nn.Module):
    """CLIP's activation."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)
