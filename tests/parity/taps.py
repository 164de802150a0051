"""Hooks that keep the tensors on their way into and out of modules, under the names that a case has for them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container
from typing import Any

from torch import Tensor, nn

from dfer_zoo.models.shortcuts import plain


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


class Taps:
    """What modules get and give while a model runs, call by call. As a context manager it removes its hooks.

    Until the hooks are removed, models run without shortcuts: cases hold a few values of each intermediate tensor, and
    these are compared with those of the same operations. Outputs are compared again with shortcuts.

    Args:
        wanted: Names to keep; None keeps all. The tensors of a large model take gigabytes.
    """

    def __init__(self, wanted: Container[str] | None = None) -> None:
        self.wanted = wanted
        self.calls: dict[str, list[Tensor]] = {}
        self.handles: list[Any] = []
        self.plain = contextlib.ExitStack()
        self.plain.enter_context(plain())

    def output(self, name: str, module: nn.Module, change: Callable[[Tensor], Tensor] = _as_it_is) -> None:
        """Keep what the module returns, after ``change``."""
        if self.wanted is None or name in self.wanted:
            self.handles.append(module.register_forward_hook(lambda _, __, given: self.keep(name, change(given))))

    def input(self, name: str, module: nn.Module, place: int = 0) -> None:
        """Keep a positional argument of the module."""
        if self.wanted is None or name in self.wanted:
            self.handles.append(module.register_forward_pre_hook(lambda _, taken: self.keep(name, taken[place])))

    def outputs_of(self, model: nn.Module) -> None:
        """Keep what every submodule returns, under the submodule's name."""
        for name, module in model.named_modules():
            if name:
                self.output(name, module)

    def keep(self, name: str, tensor: Tensor) -> None:  # returns None: a hook's result would replace the tensor
        self.calls.setdefault(name, []).append(tensor.detach())

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.plain.close()

    def __enter__(self) -> Taps:
        return self

    def __exit__(self, *failure: Any) -> None:
        self.remove()

    @property
    def first(self) -> dict[str, Tensor]:
        """The tensors of the first call of each module."""
        return {name: tensors[0] for name, tensors in self.calls.items()}

    @property
    def last(self) -> dict[str, Tensor]:
        return {name: tensors[-1] for name, tensors in self.calls.items()}
