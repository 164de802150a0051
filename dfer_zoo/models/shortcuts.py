"""Inference shortcuts: the same outputs up to rounding, with fewer operations or less memory traffic.

They apply in eval mode without gradients. They are disabled with hooks on inner modules, with layers of another class
(adapters, quantization), under autocast, and while tracing or compiling. `plain()` disables them.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

QUICK_GELU = 1.702  # slope inside CLIP's activation, x * sigmoid(1.702 x)

_plain = contextvars.ContextVar("plain", default=False)


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Disable all shortcuts inside the block."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def is_watched(module: nn.Module) -> bool:
    """Return whether the module or a submodule has a forward hook."""
    return any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def applies(module: nn.Module, x: Tensor) -> bool:
    """Return whether a module may use its shortcut for this input."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # first: torch 2.6 cannot trace a ContextVar
        return False
    if module.training or torch.is_grad_enabled() or _plain.get() or torch.is_autocast_enabled(x.device.type):
        return False
    return x.dtype in (torch.float32, torch.float64) and not is_watched(module)


def are_linear(*layers: nn.Module) -> bool:
    """Return whether all layers are plain `nn.Linear`, so that their weights can be used directly."""
    return all(type(layer) is nn.Linear for layer in layers)


class QuickGELU(nn.Module):
    """The activation of CLIP."""

    def forward(self, x: Tensor) -> Tensor:
        return quick_gelu(x)


def quick_gelu(x: Tensor) -> Tensor:
    """Compute x * sigmoid(1.702 x). With gradients, use `silu`, which saves one tensor for backward instead of two."""
    if x.requires_grad and not torch.compiler.is_compiling():
        return F.silu(QUICK_GELU * x) / QUICK_GELU
    return x * torch.sigmoid(QUICK_GELU * x)


class Mlp(nn.Module):
    """The MLP of a transformer block, with timm's parameter names and an in-place activation.

    ``drop`` is the dropout rate after the activation and after the output, or a pair of rates.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        norm_layer: Callable[[int], nn.Module] | None = None,
        bias: bool = True,
        drop: float | tuple[float, float] = 0.0,
        **place: Any,
    ) -> None:
        """``place``: the device and dtype that timm's blocks pass."""
        super().__init__()
        first, second = drop if isinstance(drop, tuple) else (drop, drop)
        self.fc1 = nn.Linear(in_features, hidden_features, bias=bias, **place)
        self.act = act_layer()
        self.drop1 = nn.Dropout(first)
        self.norm = nn.Identity() if norm_layer is None else norm_layer(hidden_features)
        self.fc2 = nn.Linear(hidden_features, in_features, bias=bias, **place)
        self.drop2 = nn.Dropout(second)

    def forward(self, x: Tensor) -> Tensor:
        usual = are_linear(self.fc1, self.fc2) and type(self.norm) is nn.Identity
        if usual and applies(self, x):
            if type(self.act) is QuickGELU:
                return quick_mlp(self.fc1, self.fc2, x)
            if isinstance(self.act, nn.GELU):
                return self.fc2(torch.ops.aten.gelu_(self.fc1(x), approximate=self.act.approximate))
        return self.drop2(self.fc2(self.norm(self.drop1(self.act(self.fc1(x))))))


class ClipMlp(nn.Sequential):
    """The MLP of open_clip's blocks, with the same parameter names."""

    def forward(self, x: Tensor) -> Tensor:
        fc1, _, fc2 = self
        return quick_mlp(fc1, fc2, x) if are_linear(fc1, fc2) and applies(self, x) else super().forward(x)


def quick_mlp(fc1: Any, fc2: Any, x: Tensor) -> Tensor:
    """Compute fc2(quick_gelu(fc1(x))): h * sigmoid(s h) = silu(s h) / s, with s = 1.702 folded into the weights."""
    bias = None if fc1.bias is None else fc1.bias * QUICK_GELU
    hidden = F.silu(F.linear(x, fc1.weight * QUICK_GELU, bias), inplace=True)
    return F.linear(hidden, fc2.weight / QUICK_GELU, fc2.bias)


def in_chunks(run: Callable[..., Tensor], block: nn.Module, tokens: Tensor, *args: Any, size: int = 4) -> Tensor:
    """Call ``run(block, tokens)`` on chunks of the batch, so that activations fit in the CPU cache."""
    if tokens.device.type != "cpu" or tokens.shape[0] <= size or not applies(block, tokens):
        return run(block, tokens, *args)
    out = torch.empty_like(tokens)
    for chunk, place in zip(tokens.split(size), out.split(size)):
        place.copy_(run(block, chunk, *args))
    return out
