"""Write files atomically, and hash them. Readers never see a partial file, and failures leave no file behind."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

SUFFIX = ".dfer_zoo_tmp"


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
    path on the same machine.
    """
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
    """Remove the temporary files of ``path`` whose processes on this machine are dead."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.{re.escape(_host())}-(\d+)\..*{re.escape(SUFFIX)}")
    for other in path.parent.glob(f".*{SUFFIX}"):
        match = pattern.fullmatch(other.name)
        if match and not _is_alive(int(match[1])):
            other.unlink(missing_ok=True)


def _prefix(path: Path) -> str:
    return f".{path.name}.{_host()}-{os.getpid()}."


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
