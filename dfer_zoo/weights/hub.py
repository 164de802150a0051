"""Download from the Hugging Face Hub. Errors of its client become one sentence that says what to do.

This module does not check whether a file is intact: `fetch` compares digests.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from filelock import FileLock, Timeout
from huggingface_hub import constants, errors
from huggingface_hub.utils import validate_repo_id

from ..errors import InputError, WeightsError, WeightsUnavailable, mask_passwords
from ..version import __version__

log = logging.getLogger(__name__)

# The base class of the errors of the client's HTTP library: requests or httpx, depending on its version. A connection
# that breaks in the middle of a file raises one of these, which is neither a Hub error nor an OSError.
_HTTPError: type[Exception] = errors.HfHubHTTPError.__bases__[0]
_FAULTS: tuple[type[Exception], ...] = (_HTTPError, OSError, RuntimeError, errors.EntryNotFoundError)

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_WRITING = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


@dataclass(frozen=True)
class HubFile:
    """One file of a repository on the Hub."""

    repo_id: str
    filename: str
    revision: str

    @property
    def pinned(self) -> bool:
        """Whether the revision is a full commit. It cannot move, so a cached file needs no request."""
        return re.fullmatch("[0-9a-f]{40}", self.revision) is not None

    def __str__(self) -> str:
        return f"{self.repo_id}@{self.revision}/{self.filename}"

    @property
    def by_hand(self) -> str:
        return f"hf download {self.repo_id} {self.filename} --revision {self.revision}"


def endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def shown_endpoint() -> str:
    """Return the endpoint without a password, for messages and logs."""
    return mask_passwords(endpoint())


def check_repo_id(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except errors.HFValidationError as error:
        raise InputError(f"'{repo_id}' is not a valid repository name: {error}") from error


def cache_folder(cache_dir: str | Path | None) -> Path:
    return Path(cache_dir or constants.HF_HUB_CACHE).expanduser()


def cached(file: HubFile, cache_dir: str | Path | None) -> Path | None:
    """Return the file in the Hub's cache, or None. Sends no request."""
    found = huggingface_hub.try_to_load_from_cache(
        file.repo_id, file.filename, cache_dir=cache_folder(cache_dir), revision=file.revision
    )
    return Path(found) if isinstance(found, str) else None


def not_cached(what: str, file: HubFile, cache_dir: str | Path | None) -> WeightsUnavailable:
    return WeightsUnavailable(
        f"{what} is not in the cache ({cache_folder(cache_dir)}), and offline mode is on. With a network, "
        f"`{file.by_hand}` gets it. The cache folder can also be copied from another machine."
    )


def ask(what: str, file: HubFile, cache_dir: str | Path | None, size: int | None = None) -> None:
    """Check with one request that the file exists and has this commit and size.

    The client's own download would retry for half a minute first."""
    url = huggingface_hub.hf_hub_url(file.repo_id, file.filename, revision=file.revision, endpoint=endpoint())
    with explained(what, file, cache_dir, f"{shown_endpoint()} cannot be reached"):
        found = huggingface_hub.get_hf_file_metadata(url)
    if found.commit_hash is None or found.etag is None:
        raise WeightsUnavailable(
            f"{what}: the reply of {shown_endpoint()} is not that of a Hub; it may come from a proxy, or from the login page "
            "of this network. Log in with a browser, or set HF_ENDPOINT to a mirror, and try again."
        )
    if file.pinned and found.commit_hash != file.revision:
        raise WeightsError(
            f"{what}: {shown_endpoint()} has the commit {found.commit_hash}, expected {file.revision}. "
            "Nothing was downloaded. Try without the mirror (unset HF_ENDPOINT)."
        )
    if size is not None and found.size is not None and found.size != size:
        raise WeightsError(
            f"{what}: {shown_endpoint()} has {found.size:,} bytes as {file}, expected {size:,}. Nothing was downloaded."
        )


def download(
    what: str, file: HubFile, cache_dir: str | Path | None, *, size: int | None = None, again: bool = False
) -> Path:
    """Download a file into the Hub's cache; ``again`` replaces the cached file."""
    ask(what, file, cache_dir, size)
    log.info("fetching %s (%s) from %s", what, file, shown_endpoint())
    with explained(what, file, cache_dir, "the connection broke in the middle of the file"):
        path = Path(
            huggingface_hub.hf_hub_download(
                file.repo_id,
                file.filename,
                revision=file.revision,
                cache_dir=cache_folder(cache_dir),
                endpoint=endpoint(),
                force_download=again,
                library_name="dfer_zoo",
                library_version=__version__,
            )
        )
    _remove_incomplete(path.resolve(), cache_folder(cache_dir))
    return path


def _remove_incomplete(blob: Path, cache: Path) -> None:
    """Remove what killed downloads left of a file that is whole now; the client begins a new one each time."""
    left = list(blob.parent.glob(f"{blob.name}*.incomplete"))
    if not left or blob.parent.name != "blobs":
        return
    lock = cache / ".locks" / blob.parent.parent.name / f"{blob.name}.lock"  # held while the client writes
    with contextlib.suppress(OSError, Timeout), FileLock(lock, timeout=0):
        for path in left:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def explained(what: str, file: HubFile, cache_dir: str | Path | None, otherwise: str) -> Iterator[None]:
    """Raise errors of the client as `WeightsUnavailable`; ``otherwise`` describes unknown ones."""
    try:
        yield
    except errors.HFValidationError as error:
        raise InputError(f"'{file.repo_id}' is not a valid repository name: {error}") from error
    except _FAULTS as error:
        # the client hides the reason of a LocalEntryNotFoundError behind a general sentence
        reason = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ else error
        sentence = (
            _refusal(file, reason)
            or _disk_fault(cache_dir, reason)
            or (
                f"{otherwise} ({type(reason).__name__}). Try again with a network, set HF_ENDPOINT to a mirror, or copy the "
                f"file from another machine (`{file.by_hand}`)."
            )
        )
        raise WeightsUnavailable(f"{what}: {sentence}") from error


def _refusal(file: HubFile, error: BaseException) -> str | None:
    """Explain a reply of the Hub; None if the error is another one."""
    page = f"{shown_endpoint()}/{file.repo_id}"
    log_in = "run `hf auth login` (or set HF_TOKEN)"
    status = getattr(getattr(error, "response", None), "status_code", None)
    # the order matters: GatedRepoError is a subclass of RepositoryNotFoundError
    if isinstance(error, errors.GatedRepoError):
        return f"{file.repo_id} is gated. (1) Accept its conditions at {page}. (2) Then {log_in}. (3) Try again."
    if isinstance(error, errors.DisabledRepoError):
        return f"{file.repo_id} was disabled by the Hub; {page} says why."
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return (
            f"there is no repository {file.repo_id} at {shown_endpoint()}, or it is private. If it is yours, {log_in}."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{file.repo_id} has no revision {file.revision}. {page}/commits/main lists the revisions."
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return f"{file.repo_id} has no file {file.filename} at {file.revision}. {page}/tree/{file.revision} lists them."
    if status == 403:
        return (
            f"{shown_endpoint()} refuses access to {file.repo_id}: the token has no permission, or a proxy blocks it."
        )
    if status == 429:
        wait = error.response.headers.get("Retry-After")  # type: ignore[attr-defined]
        how_long = f"{wait} seconds" if wait else "a while"
        return f"{shown_endpoint()} got too many requests from this address. Wait {how_long}, fetch in one process first, or {log_in}."
    if status is not None:
        return f"{shown_endpoint()} has an internal error (status {status}). Try later, or set HF_ENDPOINT to a mirror."
    return None


def _disk_fault(cache_dir: str | Path | None, error: BaseException) -> str | None:
    """Explain an error of the local disk; None if the error is another one."""
    number = error.errno if isinstance(error, OSError) else None
    if number in _NO_ROOM:
        return (
            f"no space left in {cache_folder(cache_dir)}. "
            "Free some space, or set another folder with cache_dir= or HF_HUB_CACHE."
        )
    if number in _NO_WRITING:
        return (
            f"the cache folder {cache_folder(cache_dir)} is not writable ({os.strerror(number or 0)}). "
            "Set another one with cache_dir= or HF_HUB_CACHE."
        )
    return None
