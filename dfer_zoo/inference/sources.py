"""Read bytes, open files and URLs as clips, through a temporary file."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ..atomic import temporary_file
from ..errors import DferZooError, InputError, MediaError
from ..media.clip import Clip
from ..media.images import ImageFiles
from .inputs import Item, Remote

IMAGE_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"P6", b"P5", b"II*\0", b"MM\0*")


def is_bytes_like(source: Any) -> bool:
    """Return whether the source is the content of a file or an open file."""
    return isinstance(source, bytes | bytearray | memoryview) or hasattr(source, "read")


def sendable(source: Any) -> Any:
    """Convert open files and memory views to bytes, which can be sent to another process."""
    if hasattr(source, "read"):
        return _content(source)
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    if isinstance(source, Item) and is_bytes_like(source.source):
        return dataclasses.replace(source, source=sendable(source.source))
    return source


@contextlib.contextmanager
def local(source: Any) -> Iterator[tuple[Any, str | None]]:
    """Yield a source for `read_clip`, valid in the block, and the clip's name if it is not a file.

    Args:
        source: Anything that `Recognizer` takes, or an `Item` with it.

    Yields:
        (the source, with a temporary file if needed; a name, or None)
    """
    inner = source.source if isinstance(source, Item) else source
    if not (isinstance(inner, Remote) or is_bytes_like(inner)):
        yield source, None
        return
    name = inner.url if isinstance(inner, Remote) else str(getattr(source, "name", "bytes"))
    with temporary_file("clip") as path:
        _copy(inner, path, name)
        with path.open("rb") as stream:
            is_image = stream.read(4).startswith(IMAGE_STARTS)
        here = Clip(ImageFiles((path,)), source=name) if is_image else path
        try:
            yield (dataclasses.replace(source, source=here) if isinstance(source, Item) else here), name
        except DferZooError as error:
            raise type(error)(str(error).replace(str(path), name)) from error


def _copy(source: Any, path: Path, name: str) -> None:
    try:
        with path.open("wb") as stream:
            if isinstance(source, Remote):
                with _opened(source.url) as remote:
                    shutil.copyfileobj(remote, stream, 1 << 20)
            else:
                stream.write(_content(source))
    except OSError as error:
        raise MediaError(f"{name}: this clip cannot be copied into {path.parent} ({error}).") from error


def _content(source: Any) -> Any:
    content = source.read() if hasattr(source, "read") else source
    if not isinstance(content, bytes | bytearray | memoryview):
        raise InputError(f"The open file gives {type(content).__name__}; open it in binary mode ('rb').")
    return content


@contextlib.contextmanager
def _opened(url: str) -> Iterator[IO[bytes]]:
    try:
        import fsspec
    except ImportError as error:
        raise InputError("URLs need fsspec: pip install 'dfer-zoo[urls]', and the package for the scheme.") from error
    try:
        with fsspec.open(url, "rb") as stream:
            yield stream
    except DferZooError:
        raise
    except Exception as error:  # the file systems of fsspec raise many types of errors
        raise MediaError(f"{url}: this URL cannot be read ({type(error).__name__}: {error}).") from error
