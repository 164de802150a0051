"""Limits on the resources that a file or an argument may use, with defaults and environment variables.

An untrusted file may declare any size. The limits bound memory and time; the defaults are well above what recordings
need. Set ``DFER_ZOO_MAX_<NAME>`` to change a limit; worker processes inherit it:

    DFER_ZOO_MAX_SOUND_BYTES=8000000000 dfer-zoo predict lecture.wav --model mma_dfer
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..errors import DferZooError, InputError, MediaError

PREFIX = "DFER_ZOO_MAX_"


@dataclass(frozen=True)
class Limit:
    default: int
    meaning: str


LIMITS: dict[str, Limit] = {
    "frame_pixels": Limit(1 << 26, "pixels of one frame or image (8192 x 8192)"),
    "frames": Limit(2_000_000, "frames of one file, folder or array (18 hours at 30 frames per second)"),
    "fps": Limit(10_000, "frames per second"),
    "sample_rate": Limit(384_000, "samples per second of a sound track"),
    "channels": Limit(64, "channels of a sound track"),
    "sound_bytes": Limit(1 << 31, "bytes of decoded sound in memory (1.5 hours of 48 kHz stereo)"),
    "array_bytes": Limit(1 << 32, "bytes of one .npy file of prepared faces"),
    "list_bytes": Limit(1 << 28, "bytes of one annotation file"),
    "label": Limit(100_000, "class number in an annotation file"),
    "depth": Limit(256, "layers of the model that a weights file asks for"),
    "argument": Limit(1 << 20, "a number among the arguments of a model that a weights file asks for"),
    "pickle_bytes": Limit(64 << 20, "bytes of the pickles in a checkpoint, without its tensors"),
    "pickle_operations": Limit(5_000_000, "operations of a pickle in a checkpoint"),
    "upload_megabytes": Limit(200, "megabytes of a clip that is uploaded to the page of `dfer-zoo app`"),
    "workers": Limit(256, "worker processes"),
    "puppets": Limit(10_000_000, "clips of a set of puppets"),
    "puppet_size": Limit(2048, "pixels along one side of a puppet's frames"),
}


def limit(name: str) -> int:
    """Return a limit: the value of its environment variable, or the default.

    Args:
        name: A key of `LIMITS`.

    Returns:
        The largest accepted value.

    Raises:
        InputError: The environment variable is not a positive integer.

    >>> limit("channels")
    64
    """
    text = os.environ.get(PREFIX + name.upper())
    if text is None:
        return LIMITS[name].default
    if not (text.isascii() and text.isdecimal() and len(text) <= 18 and int(text) > 0):
        raise InputError(f"{PREFIX}{name.upper()} is {text[:40]!r}; expected a positive integer.")
    return int(text)


def check_limit(name: str, value: float, what: str, error: type[DferZooError] = MediaError) -> None:
    """Raise an error if a value is above its limit.

    Args:
        name: A key of `LIMITS`.
        value: The value to check.
        what: The start of the error message, such as "clip.wav: the sample rate".
        error: The type of the error.

    Raises:
        DferZooError: The value is above the limit. The message names the environment variable that raises it.

    >>> check_limit("channels", 2, "song.wav: the number of channels")
    """
    highest = limit(name)
    if value > highest:
        raise error(f"{what} is {_short(value)}; at most {highest} is accepted. {raised_by(name)}")


def raised_by(name: str) -> str:
    """Return the last sentence of an error message about a limit.

    >>> raised_by("depth")
    'DFER_ZOO_MAX_DEPTH raises this limit.'
    """
    return f"{PREFIX}{name.upper()} raises this limit."


def _short(value: float) -> str:
    """Format a number; use powers of ten if it is too long to print."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"above 10^{int(value.bit_length() * 0.30103)}"
    return str(value)
