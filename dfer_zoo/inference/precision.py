"""Check precisions for a device, and compile models."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..models.base import DferModel


@functools.cache
def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device has native bfloat16 arithmetic.

    Args:
        device: A CPU or an accelerator.

    Returns:
        False if bfloat16 is slower than float32.

    >>> has_bfloat16(torch.device("meta"))
    False
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type != "cpu":
        return device.type in ("mps", "xpu")
    known = [getattr(torch.cpu, f"_is_{unit}_supported", None) for unit in ("avx512_bf16", "amx_tile")]
    if any(supported is not None and supported() for supported in known):
        return True
    try:  # Linux, also on Arm, which calls it bf16
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as stream:
            flags = {word for line in stream if line.startswith(("flags", "Features")) for word in line.split()}
    except OSError:
        return False
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


@functools.cache
def _said(note: str) -> None:
    print(f"dfer_zoo: {note}", file=sys.stderr)


def advise(device: torch.device, dtype: torch.dtype) -> None:
    """Warn once if a precision is slower than float32.

    Args:
        device: The device of the model.
        dtype: The precision of its parameters.

    >>> advise(torch.device("cpu"), torch.float32)
    """
    if dtype is torch.bfloat16 and not has_bfloat16(device):
        _said("this processor has no bfloat16 units, so bfloat16 is slower than float32 here; leave dtype out.")
    if dtype is torch.float16 and device.type == "cpu":
        _said("float16 is slower than float32 on a CPU; leave dtype out.")


COMPILE_NOTE = (
    "compiling at the first clip takes 6 to 70 seconds for a model on two cores. On a CPU with AVX-512, transformers can be "
    "slower than without compile=True; compare both on your machine."
)


def compiled(model: DferModel, backend: str = "inductor") -> DferModel:
    """Compile the forward passes of a model in place: once for batch size 1, and once for larger batches.

    Args:
        model: A model in eval mode.
        backend: The backend of `torch.compile`.

    Returns:
        The same model. Compilation starts at the first clip.
    """
    _said(COMPILE_NOTE)
    for name in ("forward", "encode_frames", "forward_frames"):
        setattr(model, name, _for_any_batch(torch.compile(getattr(model, name), backend=backend)))
    return model


def _for_any_batch(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Mark the first axis of every input as dynamic for the compiler."""

    @functools.wraps(run)
    def marked(*args: Any, **inputs: Any) -> Tensor:
        for tensor in (*args, *inputs.values()):
            if isinstance(tensor, Tensor) and len(tensor) > 1:  # batch size 1 is compiled separately
                torch._dynamo.maybe_mark_dynamic(tensor, 0)
        return run(*args, **inputs)

    return marked
