"""What there is: the models, and the manifest of their weights."""

from __future__ import annotations

import fnmatch
import functools
import json
from pathlib import Path

from .errors import UnknownTag, WeightsError, near
from .records import Weights
from .registry import MODELS, check_name


def manifest_path() -> Path:
    """Inside the package in a wheel; at the top of the repository in a checkout or an editable install."""
    package = Path(__file__).parent
    inside = package / "weights_manifest.json"
    return inside if inside.exists() else package.parent / "weights_manifest.json"


def read_manifest(path: Path) -> dict[tuple[str, str], Weights]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"The weights manifest {path} cannot be read ({error}). Install dfer_zoo again.") from error
    if not isinstance(rows, list):
        raise WeightsError(f"The weights manifest {path} is not a list of records. Install dfer_zoo again.")
    records: dict[tuple[str, str], Weights] = {}
    for number, row in enumerate(rows):
        record = Weights.from_dict(row, f"{path.name}, record {number}")
        if (record.arch, record.tag) in records:
            raise WeightsError(f"{path.name}, record {number}: {record.name} stands there twice.")
        if record.arch not in MODELS:
            raise WeightsError(f"{path.name}, record {number}: no model is called '{record.arch}'.")
        records[record.arch, record.tag] = record
    return records


@functools.cache
def manifest() -> dict[tuple[str, str], Weights]:
    return read_manifest(manifest_path())


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """The names that `create_model` takes, filtered by a shell pattern and by having weights.

    >>> list_models("mae*")
    ['mae_dfer', 'mae_dfer_pretrain', 'mae_face']
    """
    names = [name for name in MODELS if fnmatch.fnmatch(name, pattern)]
    if pretrained:
        with_weights = {arch for arch, _ in list_pretrained()}
        names = [name for name in names if name in with_weights]
    return sorted(names)


def list_pretrained(pattern: str = "*") -> list[tuple[str, str]]:
    """(name, tag) pairs that `create_model(name, pretrained=tag)` takes; the pattern is for the name or for "name.tag".

    >>> list_pretrained("mma_dfer")[:2]
    [('mma_dfer', 'backbone'), ('mma_dfer', 'dfew_fold1')]
    """
    return sorted(
        (arch, tag)
        for arch, tag in manifest()
        if fnmatch.fnmatch(arch, pattern) or fnmatch.fnmatch(f"{arch}.{tag}", pattern)
    )


def get_weights(arch: str, tag: str | None = None) -> Weights:
    """The record of one weights file: ``get_weights("mma_dfer", "dfew_fold1")``, or both in one as "mma_dfer.dfew_fold1"."""
    if tag is None:
        arch, _, tag = arch.partition(".")
    check_name(arch)
    if (arch, tag) not in manifest():
        raise UnknownTag(f"{arch} has no weights '{tag}'.{near(tag, (t for a, t in manifest() if a == arch))}")
    return manifest()[arch, tag]
