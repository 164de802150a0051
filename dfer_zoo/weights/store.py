"""The folder of converted weights: what `dfer-zoo convert` writes and `create_model` finds.

    <folder>/mma_dfer.dfew_fold1.safetensors
    <folder>/mma_dfer.dfew_fold1.sha256           noted at conversion, in the format of sha256sum
    <folder>/verified/<sha256>                    which file had this digest when it was last read (verify="once")

The folder is ``$DFER_ZOO_WEIGHTS``, or ``dfer_zoo`` in the user's cache folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from ..atomic import atomic_path, sha256_of, write_atomically
from ..errors import InputError, WeightsError
from .record import Weights

VERIFY = ("always", "once")


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
            f"{path} has no digest beside it ({note.name}), so its conversion was not finished. Convert it again."
        )
    return digest


def add(record: Weights, write: Callable[[Path], None]) -> Path:
    """Let ``write`` make the file of a record under a temporary name, then put it and its digest into the store.

    The old note goes before the new file comes: whenever this is interrupted, a file with the wrong note never stands
    there, only one without, which is an error that says what to do.
    """
    path = stored_path(record)
    note = path.with_suffix(".sha256")
    with atomic_path(path) as temporary:
        write(temporary)
        digest = sha256_of(temporary)
        if not (path.exists() and _note_says(path, digest)):  # two at once that convert the same do not disturb
            note.unlink(missing_ok=True)
    write_atomically(note, f"{digest}  {path.name}\n".encode("ascii"))
    return path


def _note_says(path: Path, digest: str) -> bool:
    try:
        return noted_digest(path) == digest
    except WeightsError:
        return False


def stored_files() -> Iterator[Path]:
    folder = weights_folder()
    if folder.is_dir():
        yield from sorted(folder.glob("*.safetensors"))


# -- digests -----------------------------------------------------------------------------------------------------------


def digest_of(path: Path, verify: str, expected: str) -> str:
    """The sha256 of a file. With ``verify="once"`` a file that had the expected digest before, and has had the same
    place, size and time of change since, is not read again."""
    if verify not in VERIFY:
        raise InputError(f"verify is {verify!r}; expected one of {', '.join(VERIFY)}.")
    if verify == "once" and _seen(expected) == _fingerprint(path):
        return expected
    before = _fingerprint(path)
    digest = sha256_of(path)
    if verify == "once" and digest == expected and before == _fingerprint(path):
        with contextlib.suppress(OSError):  # a store that cannot be written to: the file is read again next time
            write_atomically(weights_folder() / "verified" / digest, json.dumps(before).encode())
    return digest


def _fingerprint(path: Path) -> list[str | int]:
    found = path.resolve().stat()
    return [str(path.resolve()), found.st_size, found.st_mtime_ns]


def _seen(digest: str) -> object:
    try:
        return json.loads((weights_folder() / "verified" / digest).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
