"""A record -> a verified file on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .errors import WeightsUnavailable
from .weights import Weights


def fetch(
    record: Weights, *, cache_dir: str | Path | None = None, local_files_only: bool = False, verify: str = "always"
) -> Path:
    """The file of a record, fetched if need be, its size and sha256 checked."""
    raise WeightsUnavailable(f"{record.name}: not written yet.")


def hub_repository(name: str, *, cache_dir: str | Path | None = None, local_files_only: bool = False) -> Path:
    """The model file of ``owner/repo`` or ``owner/repo@revision``."""
    raise WeightsUnavailable(f"{name}: not written yet.")


def part_state(source: str, **location: Any) -> Mapping[str, Tensor]:
    """The state dict of one part of a composed model: ``arch.tag`` of this zoo, or ``open_clip:NAME/TAG``."""
    raise WeightsUnavailable(f"{source}: not written yet.")
