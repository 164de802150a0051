"""Find the check of a case by its `architecture` and `kind`, and run it.

Checks take all sizes, seeds and options from the file and nothing from its name, so unseen cases run through the same code.
"""

from __future__ import annotations

import importlib
import json
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .compare import Comparison

ARCHITECTURES = (
    "av_fusion",
    "dfer_clip",
    "dk_clip",
    "emo_affectnet",
    "hicmae",
    "mae_dfer",
    "mini_xception",
    "mma_dfer",
    "s2d",
)


@dataclass(frozen=True)
class Case:
    """A case file: its content and its path (some cases use the table of a neighbour)."""

    path: Path
    data: dict

    @property
    def name(self) -> str:
        return f"{self.data.get('architecture')}/{self.path.stem}"

    def __getitem__(self, key: str):
        return self.data[key]

    def __contains__(self, key: str) -> bool:
        return key in self.data

    def get(self, key: str, default=None):
        return self.data.get(key, default)

    def neighbour(self, stem: str) -> Case:
        """Another case by name: next to this file, or in the repository."""
        name = stem.removesuffix(".json") + ".json"
        for folder in (self.path.parent, Path(__file__).parent / self.data["architecture"]):
            if (folder / name).exists():
                return read_case(folder / name)
        raise FileNotFoundError(
            f"{self.name} refers to the case {name}, which is neither next to it nor in the repository"
        )


def read_case(path: Path) -> Case:
    data = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise ValueError(f"a case is an object, and this is {type(data).__name__}")
    return Case(path, data)


def case_files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        yield from sorted(path.rglob("*.json")) if path.is_dir() else [path]


def find_check(architecture: str, kind: str):
    """The function for this kind of case, or None."""
    if architecture not in ARCHITECTURES:
        return None
    return importlib.import_module(f".checks.{architecture}", __package__).CHECKS.get(kind)


def check_file(path: Path) -> Iterator[Comparison]:
    """All comparisons of a case. Anything that cannot be compared is a failed comparison."""
    try:
        case = read_case(path)
    except (OSError, ValueError) as error:
        yield Comparison(str(path), f"unreadable: {error}", float("inf"), 0.0)
        return
    architecture, kind = str(case.get("architecture")), str(case.get("kind"))
    check = find_check(architecture, kind)
    if check is None:
        yield Comparison(case.name, f"no check for architecture '{architecture}', kind '{kind}'", float("inf"), 0.0)
        return
    count = 0
    try:
        for comparison in check(case):
            count += 1
            yield comparison.of(case.name)
    except Exception as error:
        traceback.print_exc()
        yield Comparison(case.name, f"raised {type(error).__name__}: {error}", float("inf"), 0.0)
        return
    if not count:
        yield Comparison(case.name, "the check compared nothing", float("inf"), 0.0)
