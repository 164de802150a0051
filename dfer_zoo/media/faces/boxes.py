"""Store face boxes in a file, so that later runs do not search the same frames again."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import threading
from pathlib import Path
from typing import Any

from ...errors import InputError
from . import detect
from .detect import BOXES, Detector

Key = tuple[str, int, str, str]  # clip, number of frames, detector, search mode
Found = dict[int, tuple[tuple[float, ...], ...]]  # boxes by frame number


LARGEST_SIDE = 1e6  # pixels; a box may extend beyond its frame


class BoxFile:
    """A file with one JSON object per line: a clip, a detector, and the boxes that it found, by frame number.

    Several processes may append lines at once. Incomplete lines are ignored. Clip names are relative to the folder of
    the file, so that a data folder can be moved together with its boxes. A clip is searched again if its number of
    frames has changed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[Key, Found] = {}
        self._read_until = 0
        self._lock = threading.Lock()

    def boxes(self, place: tuple[Any, ...]) -> Found:
        """Return the known boxes of a clip by frame number."""
        with self._lock:
            self._read_new_lines()
            return self._known.get(self._key(place), {})

    def add(self, place: tuple[Any, ...], found: Found) -> None:
        """Append the boxes of a clip; clips that are not files are skipped."""
        source, frames, detector, how = place
        if not os.path.exists(source):
            return
        row = {"clip": self._key(place)[0], "frames": frames, "detector": detector, "search": how, "boxes": found}
        line = json.dumps(row, separators=(",", ":")) + "\n"
        with self._lock:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                _append(self.path, line.encode())
            except OSError as error:
                raise InputError(f"The boxes cannot be written to {self.path} ({error.strerror}).") from error

    def _key(self, place: tuple[Any, ...]) -> Key:
        source, frames, detector, how = place
        path = os.path.abspath(source)
        with contextlib.suppress(ValueError):  # on another drive
            path = os.path.relpath(path, os.path.abspath(self.path.parent))
        return Path(path).as_posix(), frames, detector, how

    def _read_new_lines(self) -> None:
        """Read lines that any process has appended since the last call."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(self._read_until)
                lines = stream.read()
        except FileNotFoundError:
            return
        except OSError as error:
            raise InputError(f"The boxes cannot be read from {self.path} ({error.strerror}).") from error
        whole = lines.rfind(b"\n") + 1  # another process may be writing the last line
        for number, line in enumerate(lines[:whole].splitlines()):
            try:
                key, boxes = self._parsed(line)
            except InputError:
                if self._read_until + number == 0:  # the first line of the file
                    raise
                continue  # incomplete line of a killed process
            self._known.setdefault(key, {}).update(boxes)
        self._read_until += whole

    def _parsed(self, line: bytes) -> tuple[Key, Found]:
        try:
            row = json.loads(line)
            key = (str(row["clip"]), int(row["frames"]), str(row["detector"]), str(row["search"]))
            boxes = {int(n): tuple(_box(box) for box in found) for n, found in row["boxes"].items()}
            return key, boxes
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            text = line[:60].decode(errors="replace")
            raise InputError(f"{self.path} is not a file of face boxes; it has a line that starts {text!r}.") from error


def _append(path: Path, line: bytes) -> None:
    """Append a line atomically: one writer at a time. An incomplete line before it is terminated first."""
    with path.open("ab+", buffering=0) as stream:
        _lock(stream)
        end = stream.seek(0, os.SEEK_END)
        if end:
            stream.seek(end - 1)
            if stream.read(1) != b"\n":
                line = b"\n" + line
        written = stream.write(line)
        while written < len(line):  # the disk is almost full
            written += stream.write(line[written:])


def _lock(stream: Any) -> None:
    """Lock the file for writing until it is closed. Windows has no such locks."""
    try:
        import fcntl
    except ImportError:
        return
    with contextlib.suppress(OSError):  # some network file systems have no locks either
        fcntl.flock(stream, fcntl.LOCK_EX)


def _box(values: Any) -> tuple[float, ...]:
    left, top, right, bottom = map(float, values)
    if not all(abs(side) <= LARGEST_SIDE for side in (left, top, right, bottom)):  # nan is not either
        raise ValueError("a box is outside of every frame")
    return left, top, right, bottom


@functools.lru_cache(maxsize=8)
def _opened(path: str) -> BoxFile:
    return BoxFile(Path(path))


def box_file(path: str) -> BoxFile:
    """Return the `BoxFile` at a path, cached per process."""
    if not path or os.path.isdir(path):
        raise InputError(f"boxes is {path!r}; expected a file; it is created if it does not exist.")
    return _opened(os.path.abspath(path))


def detector_and_file(faces: Any) -> tuple[Detector, BoxFile | None]:
    """Split "DETECTOR+boxes:FILE" into a detector and a `BoxFile`."""
    if not isinstance(faces, str):
        return detect.find_detector(faces), None
    name, separator, path = faces.partition(BOXES)
    return detect.find_detector(name), box_file(path) if separator else None
