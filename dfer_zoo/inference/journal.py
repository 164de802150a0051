"""The journal of a batch: results are appended one by one, so that an interrupted run can be resumed.

It is a text file next to the output with one JSON object per line. The first line contains the settings of the
run, every other line the rows of one item. An incomplete last line is removed.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ..atomic import write_error
from ..errors import DferZooError, InputError

SCHEMA = 1


class Journal:
    """An append-only file with the results of a batch.

    Only the offsets of lines are kept in memory, so that long runs use little memory.
    """

    def __init__(self, path: Path, stream: IO[bytes], places: dict[str, tuple[int, bool]]) -> None:
        self.path, self._stream, self._places = path, stream, places

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path, settings: Mapping[str, Any], *, resume: bool) -> Iterator[Journal]:
        """Start a journal, or continue one that has the same settings.

        Args:
            path: The file.
            settings: All settings that affect the results. Resuming with other settings is an error.
            resume: Continue an existing journal. Without it, an existing journal is an error.
        """
        header = {"schema": SCHEMA, "settings": dict(settings)}
        if path.exists() and not resume:
            raise InputError(
                f"{path}: an earlier run was not finished. Continue it with --resume, or delete this file to start again."
            )
        try:
            stream = path.open("r+b" if path.exists() else "w+b")
        except OSError as error:
            raise DferZooError(f"{path}: this file cannot be written ({error.strerror}).") from error
        try:
            yield cls(path, stream, _read(path, stream, header))
        finally:
            with contextlib.suppress(OSError):  # a failed write was reported already
                stream.close()
            if path.is_file() and path.stat().st_size == 0:  # the disk had no room for the header
                path.unlink()

    def done(self, key: str, *, retry_errors: bool = False) -> bool:
        """Return whether the journal contains the rows or the error of an item."""
        found = self._places.get(key)
        return found is not None and not (retry_errors and found[1])

    def add(self, key: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append the rows of an item and flush them."""
        failed = any(row.get("error") is not None for row in rows)
        line = json.dumps({"key": key, "failed": failed, "rows": list(rows)}).encode("ascii") + b"\n"
        try:
            place = self._stream.seek(0, os.SEEK_END)
            self._stream.write(line)
            self._stream.flush()
        except OSError as error:
            raise DferZooError(
                f"{self.path}: the answer cannot be appended ({error.strerror}). Free some space and continue with --resume."
            ) from error
        self._places[key] = (place, failed)

    def rows(self, keys: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Yield the rows of these items in this order; skip items that are not done."""
        for key in keys:
            if key in self._places:
                self._stream.seek(self._places[key][0])
                yield from json.loads(self._stream.readline())["rows"]

    def failed(self, keys: Iterable[str]) -> int:
        """Return the number of these items that have an error."""
        return sum(self._places[key][1] for key in keys if key in self._places)

    def __len__(self) -> int:
        return len(self._places)


def _read(path: Path, stream: IO[bytes], header: Mapping[str, Any]) -> dict[str, tuple[int, bool]]:
    """Return the offset of each item's last line. Write a missing header, and remove an incomplete line."""
    places: dict[str, tuple[int, bool]] = {}
    whole = 0
    for line in stream:
        if not line.endswith(b"\n"):
            break
        try:
            entry = json.loads(line)
            if whole == 0:
                _check_header(path, entry, header)
            else:
                if not all(isinstance(row, dict) for row in entry["rows"]):
                    raise TypeError("a row is not an object")
                places[entry["key"]] = (whole, bool(entry["failed"]))
        except DferZooError:
            raise
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{path}: this is not the journal of a batch ({error}). Name another output.") from error
        whole += len(line)
    stream.seek(whole)
    stream.truncate()
    if whole == 0:
        try:
            stream.write(json.dumps(header).encode("ascii") + b"\n")
            stream.flush()
        except OSError as error:
            raise write_error(path, error) from error
    return places


def _check_header(path: Path, found: Any, wanted: Mapping[str, Any]) -> None:
    if not (isinstance(found, dict) and found.get("schema") == SCHEMA and isinstance(found.get("settings"), dict)):
        raise InputError(f"{path}: this is not the journal of a batch of this version. Name another output.")
    wanted = json.loads(json.dumps(wanted))  # convert tuples to lists, as after reading
    different = [
        name
        for name in sorted({*wanted["settings"], *found["settings"]})
        if wanted["settings"].get(name) != found["settings"].get(name)
    ]
    if different:
        shown = ", ".join(
            f"{name} was {found['settings'].get(name)!r} and is {wanted['settings'].get(name)!r}" for name in different
        )
        raise InputError(f"{path}: the earlier run had other settings ({shown}). Use the same, or name another output.")
