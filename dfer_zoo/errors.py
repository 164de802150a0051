"""The one family of exceptions. A message says what was asked, what was found, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DferZooError(Exception):
    """Anything that dfer_zoo raises on purpose."""


class UnknownModel(DferZooError):
    """No architecture has this name."""


class UnknownTag(DferZooError):
    """The architecture has no weights under this tag."""


class WeightsError(DferZooError):
    """A weights file is damaged, or does not fit what it is loaded into."""


class WeightsUnavailable(DferZooError):
    """The weights cannot be had from here; the message says how to get them."""


class MediaError(DferZooError):
    """A file or clip cannot be used: not decodable, no frames, no sound, no face."""


class InputError(DferZooError, ValueError):
    """An argument or a tensor is not what the function takes."""


def suggest(wanted: str, known: Iterable[str]) -> str:
    """``' Did you mean a, b?'``, or all names where nothing is near: the tail of an error message."""
    known = sorted(known)
    close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    if close:
        return f" Did you mean {', '.join(close)}?"
    return f" There are: {', '.join(known) or 'none'}."
