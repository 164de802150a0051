"""Fetch and verify the file of a record."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, UnknownTag, WeightsError, WeightsUnavailable, suggest
from . import store
from .cache import Cache
from .origin import announce, fetch_first
from .record import CONVERTED, Weights
from .safetensors import read_safetensors
from .schema import upgraded

if TYPE_CHECKING:
    from torch import Tensor

    from .hub import HubFile

BUNDLED = Path(__file__).parent / "bundled"
MODEL_FILE = "model.safetensors"  # of a repository or folder that `save_pretrained` wrote

# Converts the authors' file of (arch, tag) and returns the converted file. Passed as an argument, since importing the
# converters here would be circular: they import the models, and the models import the records.
Convert = Callable[[str, str, Path, Cache], Path]


def fetch(record: Weights, cache: Cache | None = None, convert: Convert | None = None) -> Path:
    """Return the file of a record, downloaded if needed. Its size and sha256 are checked.

    Args:
        record: Which weights.
        cache: Where files are cached, and whether to download.
        convert: Converts an authors' file. Without it, a record that must be converted raises an error.

    Returns:
        The path of the file.

    Raises:
        WeightsUnavailable: The file is not on this machine and cannot be downloaded.
        WeightsError: The file is damaged.
    """
    cache = cache or Cache()
    if record.distribution == "bundled":
        return _bundled(record, cache)
    if record.distribution in CONVERTED:
        return _converted(record, cache, convert)
    if record.distribution == "hub":
        fault = lambda path: check(path, cache.verify, record.sha256, record.size)  # noqa: E731
        return _from_hub(record.name, hub_file(record), cache, fault, record.size)
    raise InputError(f"{record.name} has no file of its own (distribution '{record.distribution}').")


def hub_repository(name: str, cache: Cache | None = None) -> Path:
    """Return the model file of ``owner/repo@revision``; by default of the current ``main``.

    A cached file at a full commit needs no request. The file is checked against the digest that the Hub states, since
    the zoo has no record of a user's repository.
    """
    from .hub import HubFile, check_repo_id

    cache = cache or Cache()
    repo_id, at, revision = name.partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id) or (at and not re.fullmatch(r"[\w./-]+", revision)):
        raise InputError(f"'hf-hub:{name}' is not of the form 'hf-hub:owner/repo' or 'hf-hub:owner/repo@revision'.")
    check_repo_id(repo_id)
    file = HubFile(repo_id, MODEL_FILE, revision or "main")
    return _from_hub(f"hf-hub:{name}", file, cache, lambda path: hub_fault(path, cache.verify))


def _bundled(record: Weights, cache: Cache) -> Path:
    assert record.filename is not None
    path = BUNDLED / record.filename
    if not path.is_file():
        raise WeightsError(f"{record.name} is missing from the package ({path}). Reinstall dfer_zoo.")
    if fault := check(path, cache.verify, record.sha256, record.size):
        raise WeightsError(f"{record.name} inside the package is damaged: {fault}. Reinstall dfer_zoo.")
    return path


# -- the authors' files ------------------------------------------------------------------------------------------------


def _converted(record: Weights, cache: Cache, convert: Convert | None) -> Path:
    path = store.stored_path(record)
    if not path.is_file() or (_fetchable(record) and not store.is_complete(path)):
        _obtain(record, cache, convert)
    noted = store.noted_digest(path)
    fault = check(path, cache.verify, noted, None)  # the file is hashed once; the record's digest is compared to that
    fault = fault or check(path, cache.verify, None if record.sha256 == noted else record.sha256, record.size)
    if fault:
        raise WeightsError(f"{path} was changed after its conversion: {fault}. Convert it again: {command(record)}")
    return path


def _fetchable(record: Weights) -> bool:
    return any(origin.kind != "page" for origin in record.origin)


def _obtain(record: Weights, cache: Cache, convert: Convert | None) -> None:
    """Fetch and convert the authors' file. If several processes ask for it, one does the work and the others wait."""
    if not _fetchable(record) or convert is None or not cache.may_download:
        off = " Downloads are switched off." if _fetchable(record) and not cache.may_download else ""
        raise WeightsUnavailable(f"{how_to_convert(record)}{off}")
    with store.lock(record.name):
        if store.is_complete(store.stored_path(record)):
            return
        try:
            original = fetch_original(record)
            try:
                convert(record.arch, record.tag, original, cache)
            except WeightsError:  # another file than the record's: the next call downloads again
                shutil.rmtree(originals(record), ignore_errors=True)
                raise
        except (WeightsError, WeightsUnavailable) as error:
            raise type(error)(f"{error} By hand: {by_hand(record)}") from error
        if not (cache.keep or os.environ.get("DFER_ZOO_KEEP") == "1"):
            shutil.rmtree(originals(record), ignore_errors=True)


def fetch_original(record: Weights) -> Path:
    """Fetch the authors' file, without converting it."""
    if not _fetchable(record):
        raise WeightsUnavailable(how_to_convert(record))
    place = next(origin.link for origin in record.origin if origin.kind != "page")
    announce(record.name, place, record.license, record.license_source)
    return fetch_first(record.name, record.origin, originals(record))


def originals(record: Weights) -> Path:
    """Return the folder of a record's downloads."""
    return store.weights_folder() / "downloads" / record.name


# -- the Hub -----------------------------------------------------------------------------------------------------------


def _from_hub(
    what: str,
    file: HubFile,
    cache: Cache,
    fault_of: Callable[[Path], str | None],
    size: int | None = None,
) -> Path:
    """Return a file from the cache, without a request if possible. A damaged file is downloaded again once."""
    from . import hub

    cache_dir, offline = cache.folder, not cache.may_download
    path = hub.cached(file, cache_dir) if file.pinned or offline else None
    if path is None:
        if offline:
            raise hub.not_cached(what, file, cache_dir)
        path = hub.download(what, file, cache_dir, size=size)
    fault = fault_of(path)
    if fault is None:
        return path
    if offline:
        raise WeightsError(f"{what} is damaged in the cache ({path}): {fault}. Delete the file, or try again online.")
    try:
        path = hub.download(what, file, cache_dir, size=size, again=True)
    except WeightsUnavailable as error:
        raise WeightsError(f"{what} is damaged in the cache: {fault}. Fetching it again failed: {error}") from error
    if fault := fault_of(path):
        raise WeightsError(
            f"{what} was fetched twice from {hub.shown_endpoint()} and is damaged ({path}): {fault}. A mirror or a proxy "
            "may be changing files: try without it, and report it if that does not help."
        )
    return path


def hub_file(record: Weights) -> HubFile:
    from .hub import HubFile

    assert record.repo_id and record.filename and record.revision
    return HubFile(record.repo_id, record.filename, record.revision)


def hub_fault(path: Path, verify: str) -> str | None:
    """Compare a cached file with its name: the Hub names large files by their sha256, and so does the cache."""
    name = path.resolve().name
    return check(path, verify, name, None) if re.fullmatch("[0-9a-f]{64}", name) else None


# -- verification ------------------------------------------------------------------------------------------------------


def check(path: Path, verify: str, sha256: str | None, size: int | None) -> str | None:
    """Return why a file is not the expected one, or None if it is. A value of None is not checked."""
    found = path.stat().st_size
    if sha256 is None:
        return None if size in (None, found) else f"it has {found:,} bytes, expected {size:,}"
    digest = store.digest_of(path, verify if size in (None, found) else "always", sha256)
    if digest == sha256 and size in (None, found):
        return None
    return f"its sha256 is {digest} ({found:,} bytes), expected {sha256}" + (f" ({size:,} bytes)" if size else "")


def check_present(
    records: Iterable[Weights], pattern: str = "*", cache: Cache | None = None
) -> Iterator[tuple[str, Path, str | None]]:
    """Hash all weights on this machine.

    Args:
        records: The records to look for.
        pattern: A shell pattern for the names of converted files.
        cache: Where fetched files are.

    Yields:
        (name, file, fault or None).
    """
    cache = cache or Cache()
    for record in records:
        if record.distribution == "bundled" and record.filename:
            path = BUNDLED / record.filename
            yield record.name, path, check(path, "always", record.sha256, record.size) if path.is_file() else "missing"
        elif record.distribution == "hub":
            from . import hub

            if cached := hub.cached(hub_file(record), cache.folder):
                yield record.name, cached, check(cached, "always", record.sha256, record.size)
    for path in store.stored_files():  # includes files of an older manifest
        name = path.name.removesuffix(".safetensors")
        if fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(name.partition(".")[0], pattern):
            try:
                yield name, path, check(path, "always", store.noted_digest(path), None)
            except WeightsError as error:
                yield name, path, str(error)


def command(record: Weights) -> str:
    return f"dfer-zoo convert {record.arch} {record.tag} FILE"


def how_to_convert(record: Weights) -> str:
    """Explain how to get weights by hand: the authors' page, the licence, and the command."""
    return (
        f"{record.name} is not on this machine; it is converted from its authors' file. "
        f"{by_hand(record)} "
        f"The result goes to {store.weights_folder()} (DFER_ZOO_WEIGHTS sets the folder), where this call finds it."
    )


def by_hand(record: Weights) -> str:
    return (
        f"(1) Get the file from {record.origin_page or 'its authors'} "
        f"(licence: {record.license}; {record.license_source}). (2) Run: {command(record)}."
    )


def converted_args(record: Weights, header: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the constructor arguments in the header of a converted file."""
    if not header or (header.get("arch"), header.get("tag")) != (record.arch, record.tag):
        raise WeightsError(
            f"The converted file of {record.name} contains another model. Convert it again: {command(record)}"
        )
    return upgraded(header, record.name)["model_args"]


# -- the backbones of composed models ----------------------------------------------------------------------------------


def backbone_state(
    source: str | Weights, cache: Cache | None = None, convert: Convert | None = None
) -> Mapping[str, Tensor]:
    """Return the state dict of a backbone: a record of the zoo, or ``open_clip:NAME/TAG``, optionally with
    ``@revision``."""
    cache = cache or Cache()
    if isinstance(source, Weights):
        return read_safetensors(fetch(source, cache, convert))[0]
    return _open_clip_state(source.removeprefix("open_clip:"), cache)


def _open_clip_state(source: str, cache: Cache) -> Mapping[str, Tensor]:
    """Read a file of open_clip with its own loader."""
    import pickle

    import open_clip
    from open_clip.factory import load_state_dict
    from safetensors import SafetensorError

    source, _, revision = source.partition("@")
    name, _, tag = source.partition("/")
    config = open_clip.get_pretrained_cfg(name, tag)
    if not config:
        known = [f"{model}/{t}" for model, t in open_clip.list_pretrained()]
        raise UnknownTag(f"open_clip has no weights '{source}'.{suggest(source, known)}")
    path = _open_clip_file(f"open_clip:{source}", config, revision or "main", cache)
    if fault := hub_fault(path, cache.verify):
        raise WeightsError(f"open_clip:{source} is damaged ({path}): {fault}. Delete the file and try again.")
    try:
        return load_state_dict(str(path), device="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, ValueError, OSError) as error:
        raise WeightsError(
            f"open_clip:{source} cannot be read ({path}: {error}). Delete the file and try again."
        ) from error


def _open_clip_file(what: str, config: Mapping[str, Any], revision: str, cache: Cache) -> Path:
    import open_clip
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    from . import hub

    repo_id, _, filename = str(config.get("hf_hub") or "").rpartition("/")
    names = [filename] if filename else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
    files = [hub.HubFile(repo_id, name, revision) for name in names]
    for file in files if repo_id else []:
        if path := hub.cached(file, cache.folder):
            return path
    if not cache.may_download:
        raise hub.not_cached(what, files[0], cache.folder)
    if repo_id and files[0].pinned:
        return hub.download(what, files[0], cache.folder)
    with hub.explained(what, files[0], cache.folder, "it cannot be fetched"):
        if repo_id:
            hub.ask(what, files[0], cache.folder)  # open_clip would retry for a minute and hide the reason
        folder = None if cache.folder is None else str(cache.folder)
        return Path(open_clip.download_pretrained(dict(config), cache_dir=folder))
