"""Open media files with ffmpeg without access to any other file or URL."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import MediaError

# Allowed ffmpeg demuxers. Others open more files or URLs (hls, concat, dash, vobsub, image2), draw text (tty),
# synthesize sound from scripts (sbg), or are too rare to be worth the risk.
DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
    "avi",
    "mpegts",
    "mpeg",
    "mpegvideo",
    "flv",
    "asf",
    "ogg",
    "mxf",
    "gif",
    "dv",
    "nut",
    "rm",
    "ivf",
    "h264",
    "hevc",
    "m4v",
    "mjpeg",
    "wav",
    "w64",
    "aiff",
    "au",
    "caf",
    "flac",
    "mp3",
    "aac",
    "ac3",
    "eac3",
    "amr",
    "wv",
    "ape",
    "tta",
)


def existing(path: str | os.PathLike) -> Path:
    """Check that a path is a regular file or a folder, and return it.

    Args:
        path: A file or a folder.

    Returns:
        The path.

    Raises:
        MediaError: It does not exist, cannot be accessed, is empty, or is a pipe, a socket or a device.
    """
    found = Path(path)
    try:
        status = found.stat()
    except FileNotFoundError as error:
        raise MediaError(f"{found}: no such file or folder.") from error
    except (OSError, ValueError) as error:  # no permission, or an invalid name
        raise MediaError(f"{found}: cannot be accessed ({getattr(error, 'strerror', None) or error}).") from error
    if stat.S_ISDIR(status.st_mode):
        return found
    if not stat.S_ISREG(status.st_mode):
        raise MediaError(f"{found}: not a file or a folder (pipes, sockets and devices are not read).")
    if status.st_size == 0:
        raise MediaError(f"{found}: the file is empty.")
    return found


@contextlib.contextmanager
def open_container(path: Path) -> Iterator[Any]:
    """Open a media file; every error of the decoder becomes a `MediaError`.

    ffmpeg gets an open file descriptor instead of a name, and all other protocols are disabled. So neither the content
    nor the name of a file can make it open another file or a URL.
    """
    av = _pyav()
    try:
        with open_file(path) as stream:
            # Container options only: PyAV before 18 crashes with stream options if a stream appears late.
            options = {"fd": str(stream.fileno()), "protocol_whitelist": "fd", "format_whitelist": ",".join(DEMUXERS)}
            with av.open("fd:", container_options=options, **_metadata_errors(av)) as container:
                if container.format.name not in DEMUXERS:
                    raise MediaError(f"{path}: not a video or sound file (detected format: {container.format.name}).")
                yield container
    except (av.error.FFmpegError, ValueError, ArithmeticError, LookupError) as error:  # the latter from PyAV's tables
        raise MediaError(f"{path}: this file cannot be decoded ({_reason(error)}).") from error
    except MemoryError as error:
        raise MediaError(f"{path}: this file cannot be decoded (it needs more memory than is available).") from error


def _metadata_errors(av: Any) -> dict[str, str]:
    """Accept titles and the like that are not UTF-8. PyAV 19 always does, and no longer has the option."""
    return {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


@contextlib.contextmanager
def open_file(path: str | os.PathLike) -> Iterator[Any]:
    """Open a regular file for reading bytes. It never blocks, even if a pipe replaces the file.

    Args:
        path: The file.

    Yields:
        The open file.

    Raises:
        MediaError: It cannot be opened, or is a pipe, a socket or a device.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise MediaError(f"{path}: cannot be opened ({getattr(error, 'strerror', None) or error}).") from error
    with open(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise MediaError(f"{path}: not a file (pipes, sockets and devices are not read).")
        yield stream


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise MediaError('Reading media files needs PyAV: pip install "dfer-zoo[video]".') from error
    if av.logging.get_level() == av.logging.ERROR:
        # Older versions of torchvision set this level on import, which can deadlock with PyAV before 18: a decoding
        # thread needs the GIL to log, while the thread that closes the file holds the GIL and waits for it.
        av.logging.set_level(None)
    return av


def _reason(error: BaseException) -> str:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if reason == "Invalid argument":  # ffmpeg's error for a format that is not allowed
        return "damaged, or not a video or sound file"
    return reason
