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
from torch.autograd import forward_ad
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

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
    parts = [module]
    while parts:  # several times as fast as module.modules()
        part = parts.pop()
        if part._forward_hooks or part._forward_pre_hooks:
            return True
        parts.extend(child for child in part._modules.values() if child is not None)
    return False


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


# -- matrix products ---------------------------------------------------------------------------------------------------

# PyTorch multiplies float32 matrices with MKL, which uses AVX2 on other vendors' processors. oneDNN uses AVX-512 on all.
_HAS_FAST_PRODUCTS = torch.backends.cpu.get_cpu_capability() == "AVX512" and hasattr(
    torch.ops.mkldnn, "_linear_pointwise"
)


def suits_onednn(x: Tensor, weight: Tensor) -> bool:
    """Return whether oneDNN can be called directly: float32 values on the CPU, and nothing that records operations."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if torch.is_grad_enabled() or _plain.get() or torch.is_autocast_enabled("cpu") or is_in_torch_dispatch_mode():
        return False
    if forward_ad._current_level >= 0:  # forward derivatives are computed, also without gradients
        return False
    if type(x) is not Tensor or type(weight) not in (Tensor, nn.Parameter) or not torch.backends.mkldnn.enabled:
        return False
    return x.dtype is weight.dtype is torch.float32 and x.is_cpu and weight.is_cpu and x.numel() > 0


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, act: str = "none", approximate: str = "none"
) -> Tensor:
    """Compute `F.linear` and an activation: "none", "relu", "gelu" or "silu"."""
    whole = weight.is_contiguous() and (bias is None or bias.is_contiguous())  # the operator ignores strides
    if _HAS_FAST_PRODUCTS and whole and suits_onednn(x, weight):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "swish" if act == "silu" else act, [], approximate)
    x = F.linear(x, weight, bias)
    if act == "gelu":
        return torch.ops.aten.gelu_(x, approximate=approximate)
    if act == "relu":
        return x.relu_()
    return F.silu(x, inplace=True) if act == "silu" else x


def call_linear(layer: nn.Module, x: Tensor) -> Tensor:
    """Call a layer. If it is a plain `nn.Linear` without hooks, use the faster product."""
    if type(layer) is nn.Linear and not layer._forward_hooks and not layer._forward_pre_hooks:
        return linear(x, layer.weight, layer.bias)
    return layer(x)


# -- attention ---------------------------------------------------------------------------------------------------------


def self_attention(
    x: Tensor, num_heads: int, weight: Tensor, bias: Tensor | None, proj: Any, mask: Tensor | None = None
) -> Tensor:
    """Attention (N, L, D) -> (N, L, D). ``weight`` and ``bias`` compute queries, keys and values, in this order."""
    q, k, v = (
        linear(x, weight, bias).unflatten(-1, (3, num_heads, x.shape[-1] // num_heads)).permute(2, 0, 3, 1, 4).unbind(0)
    )
    seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return linear(seen.transpose(1, 2).flatten(2), proj.weight, proj.bias)


def attention_of_few(
    q: Tensor, context: Tensor, num_heads: int, key: Tensor, value: Tensor, value_bias: Tensor | None
) -> Tensor:
    """Attention of few queries (N, P, D) to many tokens (N, L, C) -> (N, P, D), before the output projection.

    The key matrix is applied to the queries, and the value matrix to the weighted mean of the tokens: P * heads rows
    instead of L. A bias of the keys has no effect, because it shifts all scores of a query equally.
    """
    n, places, width = q.shape
    depth = width // num_heads
    q = q.reshape(n * places, num_heads, depth).transpose(0, 1) * depth**-0.5  # (heads, N * P, depth)
    asked = q @ key.view(num_heads, depth, -1)  # (heads, N * P, C)
    asked = asked.unflatten(1, (n, places)).transpose(0, 1).flatten(1, 2)  # (N, heads * P, C)
    mixed = (asked @ context.mT).softmax(-1) @ context
    mixed = mixed.unflatten(1, (num_heads, places)).transpose(0, 1).flatten(1, 2)  # (heads, N * P, C)
    seen = mixed @ value.view(num_heads, depth, -1).mT  # (heads, N * P, depth)
    seen = seen.transpose(0, 1).reshape(n, places, width)
    return seen if value_bias is None else seen + value_bias


def attention_to_few(
    queries: Tensor, k: Tensor, v: Tensor, num_heads: int, weight: Tensor, bias: Tensor | None, proj: Any
) -> Tensor:
    """Attention of many tokens (N, L, D) to few keys and values (N, M, D) -> (N, L, D), with the output projection.

    The query matrix is folded into the keys, and the output projection into the values, so that the tokens are multiplied
    by matrices with heads * M columns instead of D.
    """
    n, few, width = k.shape
    depth = width // num_heads
    k, v = (x.view(n, few, num_heads, depth).transpose(1, 2) for x in (k * depth**-0.5, v))
    keys = (k @ weight.view(num_heads, depth, -1)).flatten(1, 2)  # (N, heads * M, D)
    values = (v @ proj.weight.view(width, num_heads, depth).permute(1, 2, 0)).flatten(1, 2)
    scores = queries @ keys.mT
    if bias is not None:
        scores = scores + (k @ bias.view(num_heads, depth, 1)).flatten(1)[:, None]
    mixed = scores.unflatten(-1, (num_heads, few)).softmax(-1).flatten(-2) @ values
    return mixed if proj.bias is None else mixed.add_(proj.bias)


class ClipAttention(nn.MultiheadAttention):
    """The attention of open_clip's blocks."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Any:
        known = not args and options.keys() == {"need_weights", "attn_mask"} and not options["need_weights"]
        usual = known and key is value and self.batch_first and query.ndim == 3 and self.in_proj_bias is not None
        mask, proj = options.get("attn_mask"), self.out_proj
        if not usual or not applies(self, query):
            return super().forward(query, key, value, *args, **options)
        if query is key and (mask is None or mask.ndim == 2):
            weight, bias = self.in_proj_weight, self.in_proj_bias
            return self_attention(query, self.num_heads, weight, bias, proj, mask), None
        if mask is None and query.shape[1] == 1:
            (q, k, v), (q_bias, _, v_bias) = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
            seen = attention_of_few(linear(query, q, q_bias), key, self.num_heads, k, v, v_bias)
            return linear(seen, proj.weight, proj.bias), None
        return super().forward(query, key, value, *args, **options)


# -- MLPs --------------------------------------------------------------------------------------------------------------


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
                return call_linear(self.fc2, linear(x, self.fc1.weight, self.fc1.bias, "gelu", self.act.approximate))
        return self.drop2(self.fc2(self.norm(self.drop1(self.act(self.fc1(x))))))


class ClipMlp(nn.Sequential):
    """The MLP of open_clip's blocks, with the same parameter names."""

    def forward(self, x: Tensor) -> Tensor:
        fc1, _, fc2 = self
        return quick_mlp(fc1, fc2, x) if are_linear(fc1, fc2) and applies(self, x) else super().forward(x)


def quick_mlp(fc1: Any, fc2: Any, x: Tensor) -> Tensor:
    """Compute fc2(quick_gelu(fc1(x))) by h * sigmoid(s h) = silu(s h) / s, with s = 1.702."""
    bias = None if fc1.bias is None else fc1.bias * QUICK_GELU
    hidden = linear(x * QUICK_GELU, fc1.weight, bias, "silu")
    bias = None if fc2.bias is None else fc2.bias * QUICK_GELU
    return linear(hidden, fc2.weight, bias).div_(QUICK_GELU)


# -- convolutions ------------------------------------------------------------------------------------------------------


def folded(layer: nn.Conv2d | nn.Linear, norm: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of one layer that includes a batch norm, whose statistics are constant in eval mode."""
    scale = norm_scale(norm)
    return layer.weight * scale.view(-1, *[1] * (layer.weight.ndim - 1)), folded_bias(layer, norm)


def norm_scale(norm: Any) -> Tensor:
    """The factor by which a batch norm multiplies each channel in eval mode."""
    return norm.weight * (norm.running_var + norm.eps).rsqrt()


def folded_bias(layer: nn.Conv2d | nn.Linear, norm: Any) -> Tensor:
    """The bias of a layer that includes a batch norm."""
    mean = norm.running_mean if layer.bias is None else norm.running_mean - layer.bias
    return norm.bias - mean * norm_scale(norm)


# -- batches -----------------------------------------------------------------------------------------------------------


def in_chunks(run: Callable[..., Tensor], block: nn.Module, tokens: Tensor, *args: Any, size: int = 4) -> Tensor:
    """Call ``run(block, tokens)`` on chunks of the batch, so that activations fit in the CPU cache."""
    if tokens.device.type != "cpu" or tokens.shape[0] <= size or not applies(block, tokens):
        return run(block, tokens, *args)
    out = torch.empty_like(tokens)
    for chunk, place in zip(tokens.split(size), out.split(size)):
        place.copy_(run(block, chunk, *args))
    return out
