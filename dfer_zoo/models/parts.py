"""Small parts that several models share. They need torch alone: importing timm takes longer than loading many a model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .shortcuts import Mlp, QuickGELU

__all__ = ["DropPath", "Mlp", "QuickGELU", "call", "init_linears"]


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


class DropPath(nn.Module):
    """Stochastic depth: in training the output of a branch is dropped for some samples, with the draws of timm."""

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
