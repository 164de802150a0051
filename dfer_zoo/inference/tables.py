"""Convert predictions to table rows, and write CSV, JSON lines and Parquet.

One row per file, person (from 1) and window (from 0). The columns do not depend on the file format:

    file, id, person, window, start, stop, label, p_<label>..., face_share, left, top, right, bottom, missing, weights, error
"""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic import atomic_path
from ..errors import DferZooError, InputError

if TYPE_CHECKING:
    import numpy as np

    from .prediction import Prediction

SUFFIXES = (".csv", ".jsonl", ".parquet")
VECTOR_COLUMNS = ("file", "id", "start", "stop", "weights", "error", "embedding")
BOX = ("left", "top", "right", "bottom")
_ROWS_PER_GROUP = 10_000  # of a Parquet file; bounds memory


def columns(labels: Sequence[str]) -> list[str]:
    """Return the column names for a model with these labels, in order.

    >>> columns(["happy", "sad"])[5:10]
    ['stop', 'label', 'p_happy', 'p_sad', 'face_share']
    """
    before = ["file", "id", "person", "window", "start", "stop", "label"]
    after = ["face_share", *BOX, "missing", "weights", "error"]
    return [*before, *(f"p_{label}" for label in labels), *after]


def prediction_rows(prediction: Prediction, *, file: str | None = None, id: str | None = None) -> list[dict[str, Any]]:
    """Return one row per window.

    Args:
        prediction: The prediction for a clip or a person.
        file: The file name in the rows; by default the source of the prediction.
        id: An identifier from the user's list.

    Returns:
        Dictionaries with the keys of `columns`.
    """
    faces = prediction.faces or {}
    searched = faces.get("searched") or 0
    box = faces.get("median_box") or [None] * 4
    shared = {
        "file": prediction.source if file is None else file,
        "id": id,
        "person": faces.get("person", 1),
        "face_share": faces.get("found", 0) / searched if searched else None,
        **dict(zip(BOX, box)),
        "weights": "+".join(identity(model) for model in prediction.models),
        "error": None,
    }
    rows = []
    for number, window in enumerate(prediction.windows):
        best = max(range(len(prediction.labels)), key=window.probabilities.__getitem__)
        chances = {f"p_{label}": value for label, value in zip(prediction.labels, window.probabilities)}
        values = {
            **shared,
            **chances,
            "window": number,
            "start": window.start,
            "stop": window.stop,
            "label": prediction.labels[best],
            "missing": " ".join(window.missing) or None,
        }
        rows.append({name: values[name] for name in columns(prediction.labels)})
    return rows


def error_row(file: str, error: object, labels: Sequence[str], *, id: str | None = None) -> dict[str, Any]:
    """Return the row of a file that failed."""
    return {**dict.fromkeys(columns(labels)), "file": file, "id": id, "error": str(error)}


def vector_row(
    file: str,
    vector: np.ndarray | DferZooError,
    weights: str,
    *,
    id: str | None,
    start: float | None,
    stop: float | None,
) -> dict[str, Any]:
    """Return the row of an embedding or an error, with the keys of `VECTOR_COLUMNS`."""
    failed = isinstance(vector, DferZooError)
    return {
        "file": file,
        "id": id,
        "start": start,
        "stop": stop,
        "weights": None if failed else weights,
        "error": str(vector) if failed else None,
        "embedding": None if isinstance(vector, DferZooError) else vector.tolist(),
    }


def identity(model: Mapping[str, Any]) -> str:
    """Return the value of the column `weights`: arch.tag@sha256."""
    name = f"{model['model']}.{model['weights']}" if model.get("weights") else str(model["model"])
    return f"{name}@{model['sha256'][:12]}" if model.get("sha256") else name


# -- files -------------------------------------------------------------------------------------------------------------


def check_table_path(path: str | Path, suffixes: Sequence[str] = SUFFIXES) -> Path:
    """Return the path if its table format is known and the required library is installed."""
    path = Path(path)
    if path.suffix not in suffixes:
        raise InputError(f"{path}: the table format is the suffix; expected one of {', '.join(suffixes)}.")
    if path.suffix == ".parquet":
        _pyarrow()
    return path


def write_table(path: str | Path, rows: Iterable[Mapping[str, Any]], labels: Sequence[str]) -> Path:
    """Write all rows to a file atomically.

    Args:
        path: `.csv`, `.jsonl` or `.parquet`.
        rows: Dictionaries with the keys of `columns`; they are consumed one by one.
        labels: The labels of the model, for the probability columns.

    Returns:
        The path.
    """
    return _written(check_table_path(path), rows, columns(labels), WRITERS)


def write_vectors(path: str | Path, rows: Iterable[Mapping[str, Any]], width: int) -> Path:
    """Write embeddings: the formats of `write_table`, and `.npz` with the arrays ``source`` and ``embedding``.

    Args:
        path: `.csv` (columns e0, e1, ...), `.jsonl`, `.parquet` (a list column `embedding`) or `.npz` (without errors).
        rows: Dictionaries with the keys of `VECTOR_COLUMNS`.
        width: The embedding dimension.

    Returns:
        The path.
    """
    path = check_table_path(path, VECTOR_SUFFIXES)
    if path.suffix == ".csv":
        names = [*VECTOR_COLUMNS[:-1], *(f"e{number}" for number in range(width))]
        return _written(path, (_spread(row) for row in rows), names, WRITERS)
    return _written(path, rows, list(VECTOR_COLUMNS), {**WRITERS, ".npz": _write_npz})


def _spread(row: Mapping[str, Any]) -> dict[str, Any]:
    """Split an embedding into one column per dimension."""
    numbers = {f"e{number}": value for number, value in enumerate(row["embedding"] or ())}
    return {**{name: value for name, value in row.items() if name != "embedding"}, **numbers}


Writer = Callable[[Path, Iterable[Mapping[str, Any]], list[str]], None]


def _written(path: Path, rows: Iterable[Mapping[str, Any]], names: list[str], writers: Mapping[str, Writer]) -> Path:
    try:
        with atomic_path(path) as temporary:
            writers[path.suffix](temporary, rows, names)
    except OSError as error:
        raise DferZooError(f"{path}: this file cannot be written ({error.strerror or error}).") from error
    return path


def _write_csv(path: Path, rows: Iterable[Mapping[str, Any]], names: list[str]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(rows)


def _write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]], names: list[str]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for row in rows:
            print(json.dumps({name: row[name] for name in names}), file=stream)


def _write_parquet(path: Path, rows: Iterable[Mapping[str, Any]], names: list[str]) -> None:
    pyarrow, parquet = _pyarrow()
    kinds = {name: pyarrow.string() for name in ("file", "id", "label", "missing", "weights", "error")}
    kinds |= {"person": pyarrow.int32(), "window": pyarrow.int32(), "embedding": pyarrow.list_(pyarrow.float32())}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.float64())) for name in names])
    with contextlib.closing(parquet.ParquetWriter(path, schema)) as writer:
        for group in _groups(rows, _ROWS_PER_GROUP):
            clean = [{**row, "file": _encodable(row["file"])} for row in group]
            writer.write_table(pyarrow.Table.from_pylist(clean, schema=schema))


def _write_npz(path: Path, rows: Iterable[Mapping[str, Any]], names: list[str]) -> None:
    import numpy as np

    good = [(row["file"], row["embedding"]) for row in rows if row["embedding"] is not None]
    with path.open("wb") as stream:
        np.savez(stream, source=np.array([f for f, _ in good]), embedding=np.array([v for _, v in good], np.float32))


WRITERS: dict[str, Writer] = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}
VECTOR_SUFFIXES = (*SUFFIXES, ".npz")


def _encodable(text: str) -> str:
    """Escape the bytes of a file name that is not valid UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _groups(rows: Iterable[Mapping[str, Any]], size: int) -> Iterator[list[Mapping[str, Any]]]:
    group: list[Mapping[str, Any]] = []
    for row in rows:
        group.append(row)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            "Parquet files need pyarrow: pip install 'dfer-zoo[tables]'; .csv and .jsonl do not."
        ) from error
    return pyarrow, pyarrow.parquet
