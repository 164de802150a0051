"""The manifest: one record per weights file."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path

from ..atomic import write_atomically
from ..errors import WeightsError
from .record import Weights


def manifest_path() -> Path:
    """Return the manifest's path: inside the package, or at the top of the repository in an editable install."""
    package = Path(__file__).parent.parent
    inside = package / "weights_manifest.json"
    return inside if inside.exists() else package.parent / "weights_manifest.json"


def read_manifest(path: Path, architectures: Collection[str]) -> dict[tuple[str, str], Weights]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"The weights manifest {path} cannot be read ({error}). Reinstall dfer_zoo.") from error
    if not isinstance(rows, list):
        raise WeightsError(f"The weights manifest {path} is not a list of records. Reinstall dfer_zoo.")
    records: dict[tuple[str, str], Weights] = {}
    for number, row in enumerate(rows):
        record = Weights.from_dict(row, f"{path.name}, record {number}")
        if (record.arch, record.tag) in records:
            raise WeightsError(f"{path.name}, record {number}: {record.name} is listed twice.")
        if record.arch not in architectures:
            raise WeightsError(f"{path.name}, record {number}: no model is called '{record.arch}'.")
        records[record.arch, record.tag] = record
    return records


def write_manifest(path: Path, records: Iterable[Weights]) -> None:
    """Write records in the current schema, sorted by name."""
    rows = [record.to_dict() for record in sorted(records, key=lambda record: (record.arch, record.tag))]
    write_atomically(path, (json.dumps(rows, indent=1, ensure_ascii=False) + "\n").encode())


if (
    __name__ == "__main__"
):  # python -m dfer_zoo.weights.manifest upgrades the manifest of this checkout to the current schema
    names = {row["arch"] for row in json.loads(manifest_path().read_text(encoding="utf-8"))}
    write_manifest(manifest_path(), read_manifest(manifest_path(), names).values())
