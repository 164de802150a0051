"""Share clips between the processes that `torchrun` or `accelerate launch` started."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ..errors import InputError


def count() -> int:
    """Return the number of processes; 1 without a launcher."""
    return max(1, _number("WORLD_SIZE", 1))


def rank() -> int:
    """Return the index of this process, from 0."""
    return _number("RANK", 0) if count() > 1 else 0


def is_main() -> bool:
    """Return whether this is the process that prints and writes files."""
    return rank() == 0


def device(name: str | None) -> str | None:
    """Return the device of this process: "cuda" becomes "cuda:1" in the second process of a machine.

    >>> device("cpu")
    'cpu'
    """
    return f"cuda:{_number('LOCAL_RANK', 0)}" if name == "cuda" and count() > 1 else name


def share(items: Sequence[Any]) -> list[Any]:
    """Return the items of this process.

    >>> share(["a", "b"])
    ['a', 'b']
    """
    return list(items[rank() :: count()])


def gather(items: list[Any]) -> list[Any]:
    """Return the items of all processes, in every process.

    >>> gather([1, 2])
    [1, 2]
    """
    if count() == 1:
        return items
    import torch.distributed

    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group(
            "gloo"
        )  # Python objects are sent, so the CPU backend is right for every device
    parts: list[Any] = [None] * count()
    torch.distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def leave() -> None:
    """Destroy the process group, if there is one."""
    if count() > 1:
        import torch.distributed

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if text and not text.isdecimal():
        raise InputError(f"The environment variable {name} is '{text}'; expected a number.")
    return int(text) if text else default
