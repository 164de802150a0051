"""Write files atomically, and hash them. Readers never see a partial file, and failures leave no file behind."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import DferZooError

SUFFIX = ".dfer_zoo_tmp"
LONGEST_NAME = 100  # bytes of a file's name in the name of its temporary file; file systems allow 255
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class WriteError(DferZooError, OSError):
    """A file cannot be written. It is also an `OSError`, for callers that add their own message."""

    __str__ = Exception.__str__  # that of `OSError` would show the number and the reason only


def write_error(path: Path, error: OSError) -> WriteError:
    """Turn an `OSError` into a `WriteError` with the path, the reason and advice."""
    reason = error.strerror or str(error) or type(error).__name__
    advice = "Make room" if error.errno in NO_ROOM else "Choose a place that you may write to"
    told = WriteError(f"{path}: this file cannot be written ({reason}). {advice}, and try again.")
    told.errno, told.strerror = error.errno, reason
    return told


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, and move the file to ``path`` at the end of the block.

    The temporary file is removed after a failure. Files of killed processes are removed by the next call with the same
    path on the same machine. A path that is itself such a temporary path is yielded as it is.

    Raises:
        WriteError: The disk is full, or the place cannot be written to.
    """
    if path.name.startswith(".") and path.name.endswith(SUFFIX):
        with _explained(path):
            yield path
        return
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path), suffix=SUFFIX)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            temporary.chmod(0o644)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder, and move it to ``path`` at the end of the block. An existing folder is replaced.

    Raises:
        WriteError: The disk is full, or the place cannot be written to.
    """
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path), suffix=SUFFIX))
        try:
            yield temporary
            temporary.chmod(0o755)
            if path.exists():
                shutil.rmtree(path)
            os.replace(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error


def writable_folder(path: Path) -> None:
    """Create a folder, and check that files can be written there, before hours of work.

    Raises:
        WriteError: The folder cannot be created or written to.
    """
    with _explained(path):
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()


@contextlib.contextmanager
def temporary_file(name: str) -> Iterator[Path]:
    """Yield an empty file in the system's temporary folder, and remove it at the end of the block.

    The first call in a process removes files of this name that killed processes left behind.
    """
    folder = Path(tempfile.gettempdir())
    _remove_abandoned_once(folder / name)
    handle, path = tempfile.mkstemp(dir=folder, prefix=_prefix(folder / name), suffix=SUFFIX)
    os.close(handle)
    try:
        yield Path(path)
    finally:
        Path(path).unlink(missing_ok=True)


@functools.cache
def _remove_abandoned_once(path: Path) -> None:
    remove_abandoned(path)


def remove_abandoned(path: Path) -> None:
    """Remove the temporary files and folders of ``path`` whose processes on this machine are dead."""
    pattern = re.compile(rf"\.{re.escape(_short_name(path))}\.{re.escape(_host())}-(\d+)\..*{re.escape(SUFFIX)}")
    for other in path.parent.glob(f".*{SUFFIX}"):
        match = pattern.fullmatch(other.name)
        if match and not _is_alive(int(match[1])):
            shutil.rmtree(other, ignore_errors=True) if other.is_dir() else other.unlink(missing_ok=True)


def _prefix(path: Path) -> str:
    return f".{_short_name(path)}.{_host()}-{os.getpid()}."


def _short_name(path: Path) -> str:
    """Return the file name, or a digest if the temporary name would be too long."""
    encoded = os.fsencode(path.name)
    return path.name if len(encoded) <= LONGEST_NAME else hashlib.sha256(encoded).hexdigest()[:32]


def _host() -> str:
    return re.sub(r"\W+", "_", socket.gethostname())[:40]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's process, or not known
        return True
    return True


def write_atomically(path: Path, content: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
