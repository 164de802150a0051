"""Turn command line arguments into items: files, folders, globs, lists and tables of clips.

| argument | meaning |
| --- | --- |
| a file | that file |
| a folder with images and without videos | one clip: its frames |
| any other folder | every media file below it |
| `clips/*.mp4`, also quoted | the files that match; `**` goes through folders |
| `@list.txt` | one path per line; empty lines and lines that start with `#` are ignored |
| `clips.csv`, `clips.parquet` with a column `path` | one item per row; `start`, `stop` (seconds), `audio`, `box`, `id` are optional |
| `-` | paths from standard input |
| `s3://bucket/clip.mp4` | a URL, if `schemes` contains its scheme; opened by fsspec |
"""

from __future__ import annotations

import csv
import dataclasses
import glob
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..media.files import IMAGE_SUFFIXES, SOUND_SUFFIXES, VIDEO_SUFFIXES

TABLE_COLUMNS = ("path", "start", "stop", "audio", "box", "id")
AS = ("auto", "clip", "files")


@dataclass(frozen=True)
class Remote:
    """A URL with an enabled scheme; opened by fsspec."""

    url: str

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True)
class Item:
    """One clip to predict: a file or folder, and optionally a part of it."""

    source: Any  # a path or a `Remote`; in Python also an array, a `Clip`, bytes or an open file
    name: str  # its name in tables
    start: float | None = None  # seconds
    stop: float | None = None
    audio: str | None = None
    box: tuple[float, float, float, float] | None = None
    id: str | None = None

    @property
    def part(self) -> str:
        """Return a suffix for output names, such as ".0.5-2"; empty for a whole file."""
        if self.start is None and self.stop is None:
            return ""
        return f".{self.start or 0:g}-{'end' if self.stop is None else f'{self.stop:g}'}"


def expand(
    given: Iterable[Any], *, treat_as: str = "auto", stdin: Any = None, schemes: Sequence[str] = ()
) -> Iterator[Item]:
    """Turn arguments into items, in order.

    Args:
        given: Paths, globs, `@lists`, tables, `-`, `Item`s, or, in Python, arrays and `Clip`s.
        treat_as: For folders: "clip" (its images are the frames of one clip), "files" (every media file below it), or
            "auto": a folder with images and without videos is a clip.
        stdin: The stream that `-` reads; the standard input by default.
        schemes: Names of URL schemes, such as "s3" and "https": fsspec opens names that start with one. By
            default no URL is opened.

    Yields:
        One `Item` per clip.

    >>> [str(item.source) for item in expand(["s3://bucket/a.mp4"], schemes=["s3"])]
    ['s3://bucket/a.mp4']
    """
    for item in _expanded(given, treat_as, stdin):
        source = item.source
        if isinstance(source, str) and source.partition("://")[0] in schemes and "://" in source:
            item = dataclasses.replace(item, source=Remote(source))
        yield item


def _expanded(given: Iterable[Any], treat_as: str, stdin: Any) -> Iterator[Item]:
    if treat_as not in AS:
        raise InputError(f"--as {treat_as}: expected {', '.join(AS)}.")
    for number, one in enumerate(given):
        if isinstance(one, Item):
            yield one
        elif isinstance(one, str | Path):
            yield from _named(str(one), treat_as, stdin)
        else:
            yield Item(one, str(getattr(one, "source", f"item {number}")))


def _named(text: str, treat_as: str, stdin: Any) -> Iterator[Item]:
    path = Path(text)
    kind = _kind(path)
    if text == "-":
        yield from _paths(sys.stdin if stdin is None else stdin, treat_as)
    elif text.startswith("@") and kind is None:
        yield from _listed(Path(text[1:]), treat_as)
    elif path.suffix.lower() in (".csv", ".parquet") and kind == "file":
        yield from _tabled(path)
    elif kind is None and glob.has_magic(text):
        found = sorted(glob.glob(text, recursive=True))
        if not found:
            raise InputError(f"{text}: no file matches this pattern.")
        for one in found:
            yield from _one(one, treat_as)
    else:
        yield from _one(text, treat_as)


def _kind(path: Path) -> str | None:
    """Return "file", "folder", or None for a missing or invalid path; reading it raises the error."""
    try:
        return "folder" if path.is_dir() else "file" if path.exists() else None
    except (OSError, ValueError):
        return None


def _one(text: str, treat_as: str) -> Iterator[Item]:
    path = Path(text)
    if _kind(path) == "folder":
        yield from _folder(path, treat_as)
    else:
        yield Item(text, text)


def _paths(lines: Iterable[str], treat_as: str) -> Iterator[Item]:
    for line in lines:
        text = line.strip("\r\n")
        if text.strip() and not text.startswith("#"):
            yield from _one(text, treat_as)


def _listed(path: Path, treat_as: str) -> Iterator[Item]:
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as stream:
            yield from _paths(stream, treat_as)
    except OSError as error:
        raise InputError(f"@{path}: this list cannot be read ({error.strerror}).") from error


def _folder(path: Path, treat_as: str) -> Iterator[Item]:
    """Yield the clips of a folder: by default one clip if it contains images and no videos."""
    try:
        files = [path / name for name in sorted(os.listdir(path)) if not name.startswith(".")]
    except OSError:  # reading it raises the error
        yield Item(str(path), str(path))
        return
    suffixes = {p.suffix.lower() for p in files if p.is_file()}
    is_clip = bool(suffixes & IMAGE_SUFFIXES) and not suffixes & VIDEO_SUFFIXES
    if treat_as == "clip" or (treat_as == "auto" and is_clip):
        yield Item(str(path), str(path))
        return
    wanted = VIDEO_SUFFIXES | SOUND_SUFFIXES | (IMAGE_SUFFIXES if treat_as == "files" else frozenset())
    for one in files:
        if one.is_dir():
            yield from _folder(one, treat_as)
        elif one.suffix.lower() in wanted:
            yield Item(str(one), str(one))


def _tabled(path: Path) -> Iterator[Item]:
    rows: Iterable[Mapping[str, Any]] = _parquet_rows(path) if path.suffix.lower() == ".parquet" else _csv_rows(path)
    for number, row in enumerate(rows, 1):
        where = f"{path}, row {number}"
        if not row.get("path"):
            raise InputError(f"{where}: no path. The columns are {', '.join(map(str, row))}; `path` is required.")
        place = Path(str(row["path"]))
        full = str(row["path"]) if "://" in str(row["path"]) else str(path.parent / place)
        start, stop = (_number(row.get(name), f"{where}, {name}") for name in ("start", "stop"))
        if start is not None and stop is not None and not 0 <= start < stop:
            raise InputError(
                f"{where}: start is {start:g} and stop is {stop:g}; expected 0 <= start < stop, in seconds."
            )
        audio = row.get("audio") or None
        if audio is not None and not Path(str(audio)).is_absolute():
            audio = str(path.parent / str(audio))
        box = _box(row.get("box"), f"{where}, box")
        id = row.get("id")
        yield Item(full, str(row["path"]), start, stop, audio, box, None if id in (None, "") else str(id))


def _csv_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            yield from csv.DictReader(stream)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: this table cannot be read ({error}).") from error


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    from .tables import _pyarrow

    pyarrow, parquet = _pyarrow()
    try:
        file = parquet.ParquetFile(path)
        for batch in file.iter_batches(columns=[n for n in file.schema_arrow.names if n in TABLE_COLUMNS]):
            yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path}: this table cannot be read ({error}).") from error


def _number(value: Any, where: str) -> float | None:
    if value in (None, ""):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {value!r} is not a number.") from error
    if number != number or number in (float("inf"), float("-inf")):
        raise InputError(f"{where}: {value!r} is not a finite number.")
    return number


def _box(value: Any, where: str) -> tuple[float, float, float, float] | None:
    """Parse a box: a list of four numbers, or text separated by commas or spaces."""
    if value is None or value == "":
        return None
    parts = value.replace(",", " ").split() if isinstance(value, str) else list(value)
    numbers = [_number(part, where) for part in parts]
    if len(numbers) != 4 or None in numbers:
        raise InputError(f"{where}: {value!r} is not a box; expected left, top, right, bottom in pixels.")
    left, top, right, bottom = (float(n) for n in numbers if n is not None)
    return left, top, right, bottom
