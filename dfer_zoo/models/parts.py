"""Small layers that several models share. They do not import timm, which takes longer than loading a small model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .shortcuts import Mlp, QuickGELU

__all__ = ["DropPath", "Mlp", "QuickGELU", "call", "init_linears"]


def call(block: Callable, *args: Any) -> Any:
    """Call a block. The default for arguments that accept `run_block`, which supports gradient checkpointing."""
    return block(*args)


_truncated_normal = functools.partial(nn.init.trunc_normal_, std=0.02)


def init_linears(module: nn.Module, init: Callable[[Tensor], Any] = _truncated_normal) -> None:
    """Initialize all linear layers: weights with ``init``, biases with zeros."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            init(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class DropPath(nn.Module):
    """Stochastic depth: drop the output of a branch for some training samples, with the same random draws as timm."""

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.drop_prob or not self.training:
            return x
        keep = 1 - self.drop_prob
        kept = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * (kept.div_(keep) if keep > 0 else kept)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob:.3f}"
