"""A record -> a verified file on this machine."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, UnknownTag, WeightsError, WeightsUnavailable, suggest
from ..registry import get_weights, list_pretrained
from . import store
from .record import CONVERTED, Weights
from .safetensors import read_safetensors

if TYPE_CHECKING:
    from torch import Tensor

    from .hub import HubFile

BUNDLED = Path(__file__).parent / "bundled"
MODEL_FILE = "model.safetensors"  # of a repository or folder that `save_pretrained` wrote


def fetch(
    record: Weights, *, cache_dir: str | Path | None = None, local_files_only: bool = False, verify: str = "always"
) -> Path:
    """The file of a record, fetched if need be, its size and sha256 checked.

    ``verify="once"`` reads a file through only when it has changed since it was last found good.
    """
    if verify not in store.VERIFY:
        raise InputError(f"verify is {verify!r}; expected one of {', '.join(store.VERIFY)}.")
    if record.distribution == "bundled":
        return _embedded(record, verify)
    if record.distribution in CONVERTED:
        return _converted(record, verify)
    if record.distribution == "hub":
        fault = lambda path: check(path, verify, record.sha256, record.size)  # noqa: E731
        return _from_hub(record.name, hub_file(record), cache_dir, local_files_only, fault, record.size)
    raise InputError(f"{record.name} has no file of its own (distribution '{record.distribution}').")


def hub_repository(
    name: str, *, cache_dir: str | Path | None = None, local_files_only: bool = False, verify: str = "always"
) -> Path:
    """The model file of ``owner/repo@revision``; without a revision, of what ``main`` is at this moment.

    A revision of 40 digits that is in the cache needs no request. The digest is the one that the Hub itself gave for the
    file: nothing else is known of a user's repository.
    """
    from .hub import HubFile

    repo_id, at, revision = name.partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id) or (at and not revision):
        raise InputError(f"'hf-hub:{name}' is not of the form 'hf-hub:owner/repo' or 'hf-hub:owner/repo@revision'.")
    file = HubFile(repo_id, MODEL_FILE, revision or "main")
    return _from_hub(f"hf-hub:{name}", file, cache_dir, local_files_only, lambda path: hub_fault(path, verify))


def _embedded(record: Weights, verify: str) -> Path:
    assert record.filename is not None
    path = BUNDLED / record.filename
    if not path.is_file():
        raise WeightsError(f"{record.name} should be inside the package ({path}) and is not. Install dfer_zoo again.")
    if fault := check(path, verify, record.sha256, record.size):
        raise WeightsError(f"{record.name} inside the package is damaged: {fault}. Install dfer_zoo again.")
    return path


def _converted(record: Weights, verify: str) -> Path:
    path = store.stored_path(record)
    if not path.is_file():
        raise WeightsUnavailable(how_to_convert(record))
    fault = check(path, verify, store.noted_digest(path), None) or check(path, verify, record.sha256, record.size)
    if fault:
        raise WeightsError(f"{path} was changed after its conversion: {fault}. Convert it again: {command(record)}")
    return path


# -- the Hub -----------------------------------------------------------------------------------------------------------


def _from_hub(
    what: str,
    file: HubFile,
    cache_dir: str | Path | None,
    local_files_only: bool,
    fault_of: Callable[[Path], str | None],
    size: int | None = None,
) -> Path:
    """From the cache without a request where that is possible, else over the network. A damaged file, in the cache or
    just fetched, is fetched again once."""
    from . import hub

    offline = hub.offline(local_files_only)
    path = hub.cached(file, cache_dir) if file.pinned or offline else None
    if path is None:
        if offline:
            raise hub.not_cached(what, file, cache_dir)
        path = hub.download(what, file, cache_dir, size=size)
    fault = fault_of(path)
    if fault is None:
        return path
    if offline:
        raise WeightsError(f"{what} is damaged in the cache ({path}): {fault}. Go online once, or delete the file.")
    try:
        path = hub.download(what, file, cache_dir, size=size, again=True)
    except WeightsUnavailable as error:
        raise WeightsError(
            f"{what} is damaged in the cache: {fault}. It was to be fetched again, and {error}"
        ) from error
    if fault := fault_of(path):
        raise WeightsError(
            f"{what} was fetched twice from {hub.endpoint()} and is damaged ({path}): {fault}. A mirror or a proxy in "
            "between may change files; try without it, and report it if that does not help."
        )
    return path


def hub_file(record: Weights) -> HubFile:
    from .hub import HubFile

    assert record.repo_id and record.filename and record.revision
    return HubFile(record.repo_id, record.filename, record.revision)


def hub_fault(path: Path, verify: str) -> str | None:
    """Where the Hub stores a large file it calls it by its sha256, and so does the cache."""
    name = path.resolve().name
    return check(path, verify, name, None) if re.fullmatch("[0-9a-f]{64}", name) else None


# -- what is there -----------------------------------------------------------------------------------------------------


def check(path: Path, verify: str, sha256: str | None, size: int | None) -> str | None:
    """What is wrong with a file, in words, or None. An expectation that is None is not checked."""
    found = path.stat().st_size
    if sha256 is None:
        return None if size in (None, found) else f"it has {found:,} bytes, expected {size:,}"
    digest = store.digest_of(path, verify if size in (None, found) else "always", sha256)
    if digest == sha256 and size in (None, found):
        return None
    return f"its sha256 is {digest} ({found:,} bytes), expected {sha256}" + (f" ({size:,} bytes)" if size else "")


def check_present(pattern: str = "*", *, cache_dir: str | Path | None = None) -> Iterator[tuple[str, Path, str | None]]:
    """(name, file, what is wrong with it or None) of all weights on this machine; every file is read through."""
    for arch, tag in list_pretrained(pattern):
        record = get_weights(arch, tag)
        if record.distribution == "bundled" and record.filename:
            path = BUNDLED / record.filename
            yield record.name, path, check(path, "always", record.sha256, record.size) if path.is_file() else "missing"
        elif record.distribution == "hub":
            from . import hub

            if cached := hub.cached(hub_file(record), cache_dir):
                yield record.name, cached, check(cached, "always", record.sha256, record.size)
    for path in store.stored_files():  # also what an older manifest knew
        name = path.name.removesuffix(".safetensors")
        if fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(name.partition(".")[0], pattern):
            try:
                yield name, path, check(path, "always", store.noted_digest(path), None)
            except WeightsError as error:
                yield name, path, str(error)


def command(record: Weights) -> str:
    return f"dfer-zoo convert {record.arch} {record.tag} FILE"


def how_to_convert(record: Weights) -> str:
    """Step by step: where the authors' file is, under which licence, and the command."""
    return (
        f"{record.name}: these weights cannot be fetched, they are made from the authors' file. "
        f"(1) Get it from {record.origin_page or 'its authors'} (licence: {record.license}; {record.license_source}). "
        f"(2) Run: {command(record)}. "
        f"The result goes to {store.weights_folder()} (DFER_ZOO_WEIGHTS sets the folder), "
        "where this same call will find it."
    )


def converted_args(record: Weights, header: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The constructor arguments noted in a converted file: the record's, and those that its shapes told."""
    if not header or (header.get("arch"), header.get("tag")) != (record.arch, record.tag):
        raise WeightsError(
            f"The converted file of {record.name} is another model's. Convert it again: {command(record)}"
        )
    return header["model_args"]


# -- parts of composed models ------------------------------------------------------------------------------------------


def part_state(
    source: str, *, cache_dir: str | Path | None = None, local_files_only: bool = False, verify: str = "always"
) -> Mapping[str, Tensor]:
    """The state dict of one part of a composed model: ``arch.tag`` of this zoo, or ``open_clip:NAME/TAG``."""
    if source.startswith("open_clip:"):
        return _open_clip_state(source.removeprefix("open_clip:"), cache_dir, local_files_only, verify)
    path = fetch(get_weights(source), cache_dir=cache_dir, local_files_only=local_files_only, verify=verify)
    return read_safetensors(path)[0]


def _open_clip_state(
    source: str, cache_dir: str | Path | None, local_files_only: bool, verify: str
) -> Mapping[str, Tensor]:
    """Through open_clip's own download and reading, so that its names for its files stay its business."""
    import pickle

    import open_clip
    from open_clip.factory import load_state_dict
    from safetensors import SafetensorError

    name, _, tag = source.partition("/")
    config = open_clip.get_pretrained_cfg(name, tag)
    if not config:
        known = [f"{model}/{t}" for model, t in open_clip.list_pretrained()]
        raise UnknownTag(f"open_clip has no weights '{source}'.{suggest(source, known)}")
    path = _open_clip_file(f"open_clip:{source}", config, cache_dir, local_files_only)
    if fault := hub_fault(path, verify):
        raise WeightsError(f"open_clip:{source} is damaged ({path}): {fault}. Delete the file and try again.")
    try:
        return load_state_dict(str(path), device="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, ValueError, OSError) as error:
        raise WeightsError(
            f"open_clip:{source} cannot be read ({path}: {error}). Delete the file and try again."
        ) from error


def _open_clip_file(what: str, config: Mapping[str, Any], cache_dir: str | Path | None, local_files_only: bool) -> Path:
    import open_clip
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    from . import hub

    repo_id, _, filename = str(config.get("hf_hub") or "").rpartition("/")
    names = [filename] if filename else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
    files = [hub.HubFile(repo_id, name, "main") for name in names]
    for file in files if repo_id else []:
        if path := hub.cached(file, cache_dir):
            return path
    if hub.offline(local_files_only):
        raise hub.not_cached(what, files[0], cache_dir)
    with hub.explained(what, files[0], cache_dir, "it cannot be fetched"):
        if repo_id:
            hub.ask(what, files[0], cache_dir)  # open_clip would keep trying for a minute, and hide why
        folder = None if cache_dir is None else str(cache_dir)
        return Path(open_clip.download_pretrained(dict(config), cache_dir=folder))
