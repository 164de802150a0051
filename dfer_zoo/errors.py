"""Exceptions. A message says what was requested, what was found, and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

MAX_MESSAGE = 4000


class DferZooError(Exception):
    """Base class of the exceptions of dfer_zoo.

    Messages may contain file names, tensor names and replies of servers, so they are made safe to print: control
    characters are escaped, passwords in URLs are masked, and the length is bounded.
    """

    def __init__(self, message: object = ""):
        super().__init__(printable(mask_passwords(str(message)), MAX_MESSAGE))


class UnknownModel(DferZooError):
    """No architecture has this name."""


class UnknownTag(DferZooError):
    """The architecture has no weights under this tag."""


class WeightsError(DferZooError):
    """A weights file is damaged, or does not fit what it is loaded into."""


class WeightsUnavailable(DferZooError):
    """The weights are not on this machine and cannot be downloaded. The message says how to get them."""


class MediaError(DferZooError):
    """A file or clip cannot be used: not decodable, no frames, no sound, no face."""


class InputError(DferZooError, ValueError):
    """An argument or a tensor is not what the function takes."""


def printable(text: str, limit: int | None = None) -> str:
    """Escape control characters and lone surrogates, and cut text longer than ``limit`` in the middle.

    >>> printable("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    text = "".join(char if char.isprintable() or char == "\n" else _escaped(char) for char in text)
    if limit is not None and len(text) > limit:
        text = f"{text[: limit // 2]} [... {len(text) - limit:,} characters ...] {text[-limit // 2 :]}"
    return text


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def mask_passwords(text: str) -> str:
    """Mask the credentials of URLs in a text.

    >>> mask_passwords("https://me:secret@host/x")
    'https://***@host/x'
    """
    return re.sub(r"(?<=\w)://[^/\s]*@", "://***@", text)  # linear, also in very long names


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message. Those of torch have many.

    >>> first_line(ValueError("wrong shape\\nCandidates: ..."))
    'wrong shape'
    """
    return str(error).strip().partition("\n")[0]


def suggest(wanted: str, known: Iterable[str]) -> str:
    """Return the end of an error message: ``' Did you mean a, b?'``, or all names if none is similar."""
    known = sorted(known)
    close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    if close:
        return f" Did you mean {', '.join(close)}?"
    return f" Available: {', '.join(known) or 'none'}."
