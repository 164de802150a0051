"""Simulate a full disk inside a block, also for root."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

from dfer_zoo.atomic import SUFFIX


@contextlib.contextmanager
def full_disk(room: int = 0) -> Iterator[None]:
    """Limit the size of files of this process and its children; larger writes fail as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def leftovers(folder: Path) -> list[str]:
    """Return leftover temporary files and folders."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(f"*{SUFFIX}"))
