"""Where weights are cached, whether they may be downloaded, and how they are checked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

VERIFY = ("always", "once")
DOWNLOAD = ("", "never")


@dataclass(frozen=True)
class Cache:
    """The options of every call that may fetch weights.

    Args:
        folder: Where files from the Hub are cached. None: the default folder of huggingface_hub.
        offline: Use only what is on this machine.
        verify: "always" hashes a file on every load, "once" only after it has changed.
        keep: Keep the authors' file after its conversion, in ``downloads`` of the weights folder.

    Example:
        >>> Cache(offline=True).may_download
        False
    """

    folder: Path | None = None
    offline: bool = False
    verify: str = "always"
    keep: bool = False

    def __post_init__(self) -> None:
        if self.verify not in VERIFY:
            raise InputError(f"verify is {self.verify!r}; expected one of {', '.join(VERIFY)}.")

    @property
    def may_download(self) -> bool:
        """Whether neither an argument nor the environment forbids downloads."""
        setting = os.environ.get("DFER_ZOO_DOWNLOAD", "")
        if setting not in DOWNLOAD:
            raise InputError(f"DFER_ZOO_DOWNLOAD is {setting!r}; expected 'never', or unset it.")
        return not (self.offline or setting == "never" or _hub_is_offline())


def _hub_is_offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE
