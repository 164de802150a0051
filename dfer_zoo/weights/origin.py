"""Fetch the authors' checkpoint from where they publish it.

Each kind of origin has one downloader. All of them continue an interrupted download, stop at the announced or recorded
size, and turn every fault into one sentence. No limit of a host is worked around: a quota, consent or login page is
reported, with the link for a browser.
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
    """The checkpoint from the first origin that gives it.

    Args:
        name: The weights' name, for messages.
        origins: The places to try, in order. Pages are for people and are not tried.
        folder: Where the file goes; an interrupted download there is continued.

    Returns:
        A file whose size and digest agree with what the origin states.

    Raises:
        WeightsUnavailable: No origin gave the file.
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
    """The checkpoint from one origin, checked."""
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
    """What a person pasted, as an origin: an https or ftp link, a Drive link or id. None: it is not a link.

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
    """Bounds a download by the recorded size, which is that of the member and not of its archive."""
    size = None if _is_archive(origin) else origin.size
    return Meter(name, most_bytes() if size is None else size, size)


def _is_archive(origin: Origin) -> bool:
    return origin.member is not None and origin.kind != "gdrive_folder"


def _file_name(origin: Origin) -> str:
    """A plain file name with the suffix that tells the checkpoint's format."""
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
            f"the file's sha256 is {digest}, expected {origin.sha256}. Its authors replaced it, or something between "
            "here and there changes files."
        )
    if origin.sha256 is None:
        print(f"note: sha256 {digest}, {size:,} bytes; the manifest states no digest for this file", file=sys.stderr)


def _refuse_page(path: Path) -> None:
    with path.open("rb") as stream:
        start = stream.read(64).lstrip().lower()
    if start.startswith(WEB_PAGE):
        path.unlink()
        raise WeightsUnavailable("the host answers with a web page instead of the file. Open the link in a browser.")


def _extract(archive: Path, origin: Origin, target: Path) -> None:
    """One member of a zip archive, bounded by its recorded size."""
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
    """Faults of the local disk as one sentence; those of the network are the downloaders' business."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            part.unlink(missing_ok=True)
            free = shutil.disk_usage(folder).free
            raise WeightsUnavailable(
                f"there is no room left in {folder} ({free:,} bytes are free). Make room, or set DFER_ZOO_WEIGHTS to "
                "another folder."
            ) from error
        raise WeightsUnavailable(
            f"{folder} cannot be written to ({error.strerror or error}). Set DFER_ZOO_WEIGHTS to another folder."
        ) from error


# -- one downloader per kind -------------------------------------------------------------------------------------------


def _https(origin: Origin, part: Path, name: str) -> None:
    fetch_http(origin.where, part, _meter(origin, name))


def _ftp(origin: Origin, part: Path, name: str) -> None:
    fetch_ftp(origin.where, part, _meter(origin, name))


def _hub(origin: Origin, part: Path, name: str) -> None:
    """Through the Hub's own client, which brings tokens, mirrors and its own way to continue."""
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
        raise WeightsUnavailable(f"{len(matching)} files in the folder match '{pattern}'; it holds {names}.")
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
    """One line on stderr, once per process and file."""
    print(f"{what}: fetching from {place} (licence: {licence}; {licence_source})", file=sys.stderr)
