"""Run the networks of the checks on another device. Checks build models and inputs on the CPU and compare there."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

METHODS = ("forward_features", "forward_head", "encode_frames", "forward_frames", "embed_video", "scores", "loss")


@contextlib.contextmanager
def networks_on(device: str) -> Iterator[list[int]]:
    """Move a module and its inputs to the device whenever a check calls it, and its outputs back.

    Calls inside such a call are left alone. Without gradients the module returns to the CPU, where checks read its
    weights; with gradients it stays, because the graph refers to its parameters.

    Yields:
        A list with the number of calls that ran on the device.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    count, inside = [0], [False]

    def there(run: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(run)
        def moved(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if inside[0]:
                return run(module, *args, **kwargs)
            inside[0] = True
            count[0] += 1
            try:
                module.to(device)
                return to(run(module, *to(args, device), **to(kwargs, device)), "cpu")
            finally:
                inside[0] = False
                if not torch.is_grad_enabled():
                    to((module, args, kwargs), "cpu")

        return moved

    changed = [(nn.Module, "__call__")]
    changed += [(kind, name) for kind in subclasses(nn.Module) for name in METHODS if name in vars(kind)]
    kept = [
        (kind, name, getattr(kind, name)) for kind, name in changed if kind.__module__.startswith(("torch", "dfer"))
    ]
    for kind, name, run in kept:
        setattr(kind, name, there(run))
    try:
        yield count
    finally:
        for kind, name, run in kept:
            setattr(kind, name, run)


def subclasses(kind: type) -> set[type]:
    return {below for child in kind.__subclasses__() for below in {child, *subclasses(child)}}


def to(values: Any, device: str) -> Any:
    """Move the tensors and modules of nested containers."""
    if isinstance(values, Tensor | nn.Module):
        return values.to(device)
    if isinstance(values, dict):
        return {name: to(value, device) for name, value in values.items()}
    if isinstance(values, list | tuple):
        moved = [to(value, device) for value in values]
        return type(values)(*moved) if hasattr(values, "_fields") else type(values)(moved)
    return values
