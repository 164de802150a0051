"""Download from Google Drive with gdown (the extra "fetch"). Its errors become one sentence each."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import WeightsError, WeightsUnavailable
from .transfer import Meter, timeout


def _gdown() -> Any:
    try:
        import gdown
    except ImportError as error:
        raise WeightsUnavailable("Google Drive needs gdown: pip install 'dfer-zoo[fetch]'.") from error
    return gdown


def fetch_file(file_id: str, part: Path, meter: Meter) -> None:
    """Download a Drive file by its id. gdown keeps an unfinished download next to ``part`` and continues it."""
    gdown = _gdown()
    started = False

    def progress(have: int, announced: int | None) -> None:
        nonlocal started
        if not started:
            meter.start(have, announced)
            started = True
        meter.check(have)

    part.unlink(missing_ok=True)  # gdown moves the complete file here, so this one is from an earlier call
    try:
        with _explained(gdown):
            gdown.download(
                id=file_id,
                output=os.fspath(part),
                quiet=True,
                use_cookies=False,
                resume=True,
                timeout=timeout(),
                progress=progress,
            )
    except WeightsError:
        for unfinished in part.parent.glob(f"{part.name}*"):
            unfinished.unlink()
        raise
    finally:
        meter.stop()


def list_folder(folder_id: str) -> list[tuple[str, str]]:
    """List (file id, path) of all files in a Drive folder."""
    gdown = _gdown()
    with _explained(gdown):
        listed = gdown.download_folder(
            id=folder_id, output=os.devnull, quiet=True, use_cookies=False, skip_download=True, timeout=timeout()
        )
        return [(file.id, file.path) for file in listed or []]


@contextlib.contextmanager
def _explained(gdown: Any) -> Iterator[None]:
    import requests

    try:
        yield
    except (WeightsError, WeightsUnavailable):
        raise
    except gdown.exceptions.FileURLRetrievalError as error:
        text = _plain(error)
        if "many" in text.lower() or "quota" in text.lower():
            raise WeightsUnavailable(
                f"Drive's download quota of this file is used up, or the file is not public ({text}). "
                "Open the link in a browser, or try again in a day."
            ) from error
        raise WeightsUnavailable(f"Drive does not give the file ({text}). Open the link in a browser.") from error
    except gdown.exceptions.DownloadError as error:
        raise WeightsUnavailable(f"the connection broke ({_plain(error)}). The same call continues.") from error
    except requests.Timeout as error:
        raise WeightsUnavailable(f"nothing arrived for {timeout():g} seconds. The same call continues.") from error
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else "unknown"
        raise WeightsUnavailable(f"Drive answers with status {status}. Open the link in a browser.") from error
    except requests.RequestException as error:
        if "timed out" in str(error):
            raise WeightsUnavailable(f"nothing arrived for {timeout():g} seconds. The same call continues.") from error
        raise WeightsUnavailable(f"Drive cannot be reached ({_plain(error)}).") from error
    except (KeyError, AttributeError, AssertionError, ValueError) as error:  # a reply that gdown cannot parse
        raise WeightsUnavailable(
            f"Drive's answer was not understood ({type(error).__name__}: {_plain(error)}). Open the link in a browser."
        ) from error


def _plain(error: BaseException) -> str:
    return re.sub(r"<[^>]*>|\s+", " ", str(error)).strip()[:200]
