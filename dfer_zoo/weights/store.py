"""The folder of converted weights, written by `dfer-zoo convert` and read by `create_model`.

    <folder>/mma_dfer.dfew_fold1.safetensors
    <folder>/mma_dfer.dfew_fold1.sha256           written at conversion, in the format of sha256sum
    <folder>/verified/<sha256>                    the file that had this digest when it was last hashed (verify="once")
    <folder>/downloads/mma_dfer.dfew_fold1/       the authors' file, until it is converted
    <folder>/locks/mma_dfer.dfew_fold1            locked by the process that fetches it

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
from ..errors import WeightsError, WeightsUnavailable
from .record import Weights


def weights_folder() -> Path:
    chosen = os.environ.get("DFER_ZOO_WEIGHTS")
    if chosen:
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "dfer_zoo"


def stored_path(record: Weights) -> Path:
    """Return the path of a record's converted file."""
    return weights_folder() / f"{record.name}.safetensors"


def noted_digest(path: Path) -> str:
    """Return the sha256 that was written when this file was converted."""
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
    """Add the file of a record, which ``write`` writes to a temporary path, and its digest.

    The old digest is removed before the new file is moved. An interruption therefore leaves a file without a digest,
    which is reported, and never a file with the wrong digest.
    """
    path = stored_path(record)
    note = path.with_suffix(".sha256")
    with atomic_path(path) as temporary:
        write(temporary)
        digest = sha256_of(temporary)
        # kept if it is the same: another process may be converting the same file
        if not (path.exists() and _has_digest(path, digest)):
            note.unlink(missing_ok=True)
    write_atomically(note, f"{digest}  {path.name}\n".encode("ascii"))
    return path


def _has_digest(path: Path, digest: str) -> bool:
    try:
        return noted_digest(path) == digest
    except WeightsError:
        return False


def is_complete(path: Path) -> bool:
    """Whether a converted file and its digest both exist."""
    if not path.is_file():
        return False
    try:
        return bool(noted_digest(path))
    except WeightsError:
        return False


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold a lock between processes. The system releases it when a process dies."""
    from filelock import FileLock  # imports asyncio; bundled weights need no lock

    path = weights_folder() / "locks" / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(path)
        held.acquire()
    except OSError as error:
        raise WeightsUnavailable(
            f"{weights_folder()} is not writable ({error.strerror or error}). Set DFER_ZOO_WEIGHTS to a writable "
            "folder with enough space."
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
    """Return the sha256 of a file.

    With ``verify="once"`` a file that had the expected digest before is not read again, unless its path, size or time
    stamps have changed."""
    before = _checked[str(path)] = _fingerprint(path)
    if verify == "once" and _seen(expected) == before:
        return expected
    digest = sha256_of(path)
    if verify == "once" and digest == expected and before == _fingerprint(path):
        with contextlib.suppress(OSError):  # not writable: the file is hashed again next time
            write_atomically(weights_folder() / "verified" / digest, json.dumps(before).encode())
    return digest


def _fingerprint(path: Path) -> list[str | int]:
    found = path.resolve().stat()
    return [str(path.resolve()), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


_checked: dict[str, list[str | int]] = {}  # path -> fingerprint of the file that was hashed


def check_unchanged(path: Path) -> None:
    """Raise an error if a file was replaced after it was hashed, before or while it was loaded."""
    before = _checked.get(str(path))
    if before is not None and before != _fingerprint(path):
        raise WeightsError(f"{path} was replaced between its check and its loading. It is not used; try again.")


def _seen(digest: str) -> object:
    try:
        return json.loads((weights_folder() / "verified" / digest).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
