"""Bounded, resumable transfers over HTTP and FTP, with the standard library."""

from __future__ import annotations

import base64
import contextlib
import contextvars
import ftplib
import http.client
import os
import re
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from ..errors import InputError, WeightsError, WeightsUnavailable
from ..version import __version__

BLOCK = 1 << 18


Watcher = Callable[[int, "int | None"], None]  # (bytes received, total bytes or None)
_watcher: contextvars.ContextVar[Watcher | None] = contextvars.ContextVar("watcher", default=None)


@contextlib.contextmanager
def watch_downloads(watcher: Watcher) -> Iterator[None]:
    """Report the progress of this thread's downloads to a function.

    Args:
        watcher: Called with the number of bytes received, and the total if the host announces it.
    """
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


class Meter:
    """Progress bar and size limit of one download."""

    def __init__(self, what: str, limit: int, expected: int | None):
        self.what, self.limit, self.expected = what, limit, expected
        self.bar: Any = None
        self.total: int | None = expected

    def start(self, have: int, announced: int | None) -> None:
        """Check the announced size before the download begins."""
        if self.expected is not None and announced not in (None, self.expected):
            raise WeightsError(f"the host announces {announced:,} bytes, expected {self.expected:,}. Nothing was kept.")
        self.total = self.total if announced is None else announced
        if (announced or 0) > self.limit:
            self.check(announced or 0)
        if announced is not None:
            self.limit = min(self.limit, announced)
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=announced, initial=have, unit="B", unit_scale=True, desc=self.what, leave=False)

    def check(self, have: int) -> None:
        if have > self.limit:
            raise WeightsError(f"the host sends more than {self.limit:,} bytes. Nothing was kept.")
        if self.bar is not None:
            self.bar.update(have - self.bar.n)
        if (watcher := _watcher.get()) is not None:
            watcher(have, self.total)

    def stop(self) -> None:
        if self.bar is not None:
            self.bar.close()


def timeout() -> float:
    """Seconds to wait for the next bytes (DFER_ZOO_TIMEOUT, 30 by default)."""
    text = os.environ.get("DFER_ZOO_TIMEOUT", "30")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise InputError(f"DFER_ZOO_TIMEOUT is {text!r}; expected a number of seconds.")
    return seconds


def most_bytes() -> int:
    """Bytes of a download whose size no record says (DFER_ZOO_MAX_DOWNLOAD_BYTES, 16 GiB by default)."""
    text = os.environ.get("DFER_ZOO_MAX_DOWNLOAD_BYTES", str(16 << 30))
    if not (text.isascii() and text.isdecimal() and len(text) <= 18 and int(text) > 0):
        raise InputError(f"DFER_ZOO_MAX_DOWNLOAD_BYTES is {text[:40]!r}; expected a positive integer.")
    return int(text)


# -- HTTP --------------------------------------------------------------------------------------------------------------


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but never from https to an unencrypted protocol."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.type == "https" and not newurl.startswith("https://"):
            raise WeightsUnavailable(f"the host redirects to {newurl}, which is not https. Nothing was downloaded.")
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None and urlsplit(newurl).netloc != urlsplit(req.full_url).netloc:
            new.remove_header("Authorization")
        return new


def open_url(url: str, headers: dict[str, str] | None = None) -> Any:
    """Send a GET request and return the response. Credentials in the URL are sent as basic authentication."""
    parts = urlsplit(url)
    sent = {"User-Agent": f"dfer_zoo/{__version__}", **(headers or {})}
    if parts.username:
        password = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        sent["Authorization"] = f"Basic {base64.b64encode(password.encode()).decode()}"
        url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    opener = urllib.request.build_opener(_Redirects)
    return opener.open(urllib.request.Request(url, headers=sent), timeout=timeout())


def fetch_http(url: str, part: Path, meter: Meter, *, secure: bool = True) -> None:
    """Download a URL into ``part``, and continue an interrupted download.

    Args:
        url: An https URL, or with ``secure=False`` an http URL.
        part: The file to write.
        meter: Shows the progress and limits the size.
        secure: Refuse http.

    Raises:
        WeightsUnavailable: The download failed. What was received is kept for the next call.
        WeightsError: The host sends another file than expected. Nothing is kept.
    """
    if secure and not url.startswith("https://"):
        raise WeightsUnavailable(f"{url} is not an https link.")
    tag = part.with_name(f"{part.name}.etag")
    with _network(part), _cleaned(part, tag, meter):
        have = part.stat().st_size if part.is_file() and tag.is_file() else 0
        headers = {"Range": f"bytes={have}-", "If-Range": tag.read_text(encoding="utf-8")} if have else {}
        with _answer(url, headers) as answer:
            have = have if answer.status == 206 and _continues(answer, have) else 0
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length and length.isdecimal() else None
            meter.start(have, total)
            _note_version(answer, tag)
            _write(answer, part, have, total, meter)
        tag.unlink(missing_ok=True)


def _answer(url: str, headers: dict[str, str]) -> Any:
    try:
        return open_url(url, headers)
    except urllib.error.HTTPError as error:
        if error.code == 416 and headers:  # more bytes here than on the host: start again
            return open_url(url)
        raise


def _continues(answer: Any, have: int) -> bool:
    return str(answer.headers.get("Content-Range", "")).startswith(f"bytes {have}-")


def _note_version(answer: Any, tag: Path) -> None:
    """Store the validator of the file; only a strong one may be used to continue."""
    validator = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
    if validator and not validator.startswith("W/"):
        tag.write_text(validator, encoding="utf-8")
    else:
        tag.unlink(missing_ok=True)


def _write(source: Any, part: Path, have: int, total: int | None, meter: Meter) -> None:
    with part.open("r+b" if have else "wb") as sink:
        sink.seek(have)
        sink.truncate()
        while block := source.read1(BLOCK):
            have += len(block)
            meter.check(have)
            sink.write(block)
    if total is not None and have < total:
        raise WeightsUnavailable(
            f"the connection broke after {have:,} of {total:,} bytes. The same call continues from there."
        )


# -- FTP ---------------------------------------------------------------------------------------------------------------


def fetch_ftp(url: str, part: Path, meter: Meter) -> None:
    """Download an ``ftp://`` URL into ``part`` anonymously, and continue an interrupted download."""
    parts = urlsplit(url)
    with _network(part), _cleaned(part, part.with_name(f"{part.name}.etag"), meter), ftplib.FTP() as client:
        client.connect(parts.hostname or "", parts.port or 21, timeout=timeout())
        client.login()
        client.voidcmd("TYPE I")
        path = unquote(parts.path)
        total = None
        with contextlib.suppress(ftplib.error_perm):
            total = client.size(path)
        have = part.stat().st_size if part.is_file() else 0
        have = have if total is not None and have <= total else 0
        meter.start(have, total)
        if have == total:
            return
        connection, _ = client.ntransfercmd(f"RETR {path}", rest=have or None)
        connection.settimeout(timeout())
        with connection, connection.makefile("rb") as source:
            _write(source, part, have, total, meter)


# -- faults ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _cleaned(part: Path, tag: Path, meter: Meter) -> Iterator[None]:
    """Remove a file that is known to be wrong."""
    try:
        yield
    except WeightsError:
        part.unlink(missing_ok=True)
        tag.unlink(missing_ok=True)
        raise
    finally:
        meter.stop()


_STATUS = {
    401: "the host requires a login",
    403: "the host refuses access",
    404: "the file no longer exists",
    410: "the file was removed",
    429: "the host got too many requests from this address; try again later",
}


@contextlib.contextmanager
def _network(part: Path) -> Iterator[None]:
    """Report errors of the network in one sentence."""
    try:
        yield
    except urllib.error.HTTPError as error:
        reason = _STATUS.get(error.code, "the host has an internal error" if error.code >= 500 else error.reason)
        raise WeightsUnavailable(f"{reason} (status {error.code}).") from error
    except ssl.SSLCertVerificationError as error:
        raise WeightsUnavailable(f"the host's certificate is not trusted ({error.verify_message}).") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            message = error.reason.verify_message
            raise WeightsUnavailable(f"the host's certificate is not trusted ({message}).") from error
        raise WeightsUnavailable(f"the host cannot be reached ({_reason(error.reason)}).") from error
    except TimeoutError as error:
        raise WeightsUnavailable(
            f"nothing arrived for {timeout():g} seconds. The same call continues from {_size(part):,} bytes."
        ) from error
    except (http.client.HTTPException, ftplib.Error, EOFError, ConnectionError, ValueError) as error:
        raise WeightsUnavailable(
            f"the transfer failed ({_reason(error)}). The same call continues from {_size(part):,} bytes."
        ) from error


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _reason(error: object) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return re.sub(r"\s+", " ", str(text))[:200]
