"""The folder of converted weights: what `dfer-zoo convert` writes and `create_model` finds.

    <folder>/mma_dfer.dfew_fold1.safetensors
    <folder>/mma_dfer.dfew_fold1.sha256           noted at conversion, in the format of sha256sum
    <folder>/verified/<sha256>                    which file had this digest when it was last read (verify="once")
    <folder>/downloads/mma_dfer.dfew_fold1/       the authors' file, while it is fetched and converted
    <folder>/locks/mma_dfer.dfew_fold1            held by the process that fetches it

The folder is ``$DFER_ZOO_WEIGHTS``, or ``dfer_zoo`` in the user's cache folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock

from ..atomic import atomic_path, sha256_of, write_atomically
from ..errors import WeightsError, WeightsUnavailable
from .record import Weights


def weights_folder() -> Path:
    chosen = os.environ.get("DFER_ZOO_WEIGHTS")
    if chosen:
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "dfer_zoo"


def stored_path(record: Weights) -> Path:
    """Where the converted file of a record is, or will be."""
    return weights_folder() / f"{record.name}.safetensors"


def noted_digest(path: Path) -> str:
    """The sha256 that was noted when this file was converted."""
    note = path.with_suffix(".sha256")
    try:
        digest = note.read_text(encoding="ascii").split()[0]
    except (OSError, ValueError, IndexError):
        digest = ""
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise WeightsError(
            f"{path} has no digest next to it ({note.name}): its conversion was not finished. Convert it again."
        )
    return digest


def add(record: Weights, write: Callable[[Path], None]) -> Path:
    """Let ``write`` make the file of a record under a temporary name, then move it and its digest into the store.

    The old note is removed before the new file arrives. An interruption therefore leaves a file without a note, which
    is an error that says what to do, and never a file with the wrong note.
    """
    path = stored_path(record)
    note = path.with_suffix(".sha256")
    with atomic_path(path) as temporary:
        write(temporary)
        digest = sha256_of(temporary)
        if not (
            path.exists() and _note_says(path, digest)
        ):  # two conversions of the same file at once do not disturb each other
            note.unlink(missing_ok=True)
    write_atomically(note, f"{digest}  {path.name}\n".encode("ascii"))
    return path


def _note_says(path: Path, digest: str) -> bool:
    try:
        return noted_digest(path) == digest
    except WeightsError:
        return False


def is_complete(path: Path) -> bool:
    """A converted file and its note are both there."""
    if not path.is_file():
        return False
    try:
        return bool(noted_digest(path))
    except WeightsError:
        return False


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Held by one process at a time; released by the system when that process dies."""
    path = weights_folder() / "locks" / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(path)
        held.acquire()
    except OSError as error:
        raise WeightsUnavailable(
            f"{weights_folder()} cannot be written to ({error.strerror or error}). Set DFER_ZOO_WEIGHTS to a folder "
            "with room that you may write to."
        ) from error
    try:
        yield
    finally:
        held.release()


def stored_files() -> Iterator[Path]:
    folder = weights_folder()
    if folder.is_dir():
        yield from sorted(folder.glob("*.safetensors"))


# -- digests -----------------------------------------------------------------------------------------------------------


def digest_of(path: Path, verify: str, expected: str) -> str:
    """The sha256 of a file. With ``verify="once"`` a file that had the expected digest before, and whose place, size
    and time of change are the same, is not read again."""
    before = _checked[str(path)] = _fingerprint(path)
    if verify == "once" and _seen(expected) == before:
        return expected
    digest = sha256_of(path)
    if verify == "once" and digest == expected and before == _fingerprint(path):
        with contextlib.suppress(OSError):  # a store that cannot be written to: the file is read again next time
            write_atomically(weights_folder() / "verified" / digest, json.dumps(before).encode())
    return digest


def _fingerprint(path: Path) -> list[str | int]:
    found = path.resolve().stat()
    return [str(path.resolve()), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


_checked: dict[str, list[str | int]] = {}  # path -> the file that was hashed there last


def check_unchanged(path: Path) -> None:
    """Raise if the file is not the one that was hashed: another was put in its place before or while it was loaded."""
    before = _checked.get(str(path))
    if before is not None and before != _fingerprint(path):
        raise WeightsError(f"{path} was replaced between its check and its loading. Nothing of it is used; try again.")


def _seen(digest: str) -> object:
    try:
        return json.loads((weights_folder() / "verified" / digest).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
