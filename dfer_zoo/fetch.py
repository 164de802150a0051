"""A record -> a verified file on this machine."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import store
from .errors import InputError, UnknownTag, WeightsError, WeightsUnavailable, near
from .files import read_safetensors
from .weights import Weights, get_weights, list_pretrained

if TYPE_CHECKING:
    from torch import Tensor

EMBEDDED = Path(__file__).parent / "demo"


def fetch(
    record: Weights, *, cache_dir: str | Path | None = None, local_files_only: bool = False, verify: str = "always"
) -> Path:
    """The file of a record, fetched if need be, its size and sha256 checked.

    ``verify="once"`` reads a file through only when it has changed since it was last found good.
    """
    if record.distribution == "embedded":
        return _embedded(record, verify)
    if record.distribution == "convert":
        return _converted(record, verify)
    if record.distribution == "hub":
        raise WeightsUnavailable(f"{record.name}: not written yet.")
    raise InputError(f"{record.name} has no file of its own (distribution '{record.distribution}').")


def _embedded(record: Weights, verify: str) -> Path:
    assert record.filename is not None
    path = EMBEDDED / record.filename
    if not path.is_file():
        raise WeightsError(f"{record.name} should be inside the package ({path}) and is not. Install dfer_zoo again.")
    fault = check(path, verify, record.sha256, record.size)
    if fault:
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


def check(path: Path, verify: str, sha256: str | None, size: int | None) -> str | None:
    """What is wrong with a file, in words, or None. An expectation that is None is not checked."""
    found = path.stat().st_size
    if size is not None and found != size:
        return f"its size is {found:,} bytes, expected {size:,}"
    if sha256 is not None:
        digest = store.digest_of(path, verify, sha256)
        if digest != sha256:
            return f"its sha256 is {digest}, expected {sha256}"
    return None


def check_present(pattern: str = "*", *, cache_dir: str | Path | None = None) -> Iterator[tuple[str, Path, str | None]]:
    """(name, file, what is wrong with it or None) of all weights on this machine; every file is read through."""
    for arch, tag in list_pretrained(pattern):
        record = get_weights(arch, tag)
        if record.distribution == "embedded" and record.filename:
            path = EMBEDDED / record.filename
            yield record.name, path, check(path, "always", record.sha256, record.size) if path.is_file() else "missing"
        elif record.distribution == "hub" and (cached := _in_hub_cache(record, cache_dir)):
            yield record.name, cached, check(cached, "always", record.sha256, record.size)
    for path in store.stored_files():  # also what an older manifest knew
        name = path.name.removesuffix(".safetensors")
        if fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(name.partition(".")[0], pattern):
            try:
                yield name, path, check(path, "always", store.noted_digest(path), None)
            except WeightsError as error:
                yield name, path, str(error)


def _in_hub_cache(record: Weights, cache_dir: str | Path | None) -> Path | None:
    return None


def command(record: Weights) -> str:
    return f"dfer-zoo convert {record.arch} {record.tag} FILE"


def how_to_convert(record: Weights) -> str:
    """Step by step: where the authors' file is, under which licence, and the command."""
    return (
        f"{record.name}: these weights cannot be fetched, they are made from the authors' file. "
        f"(1) Get it from {record.origin_url or 'its authors'} (licence: {record.license}; {record.license_source}). "
        f"(2) Run: {command(record)}. "
        f"The result goes to {store.weights_folder()} (DFER_ZOO_WEIGHTS sets the folder), "
        "where this same call will find it."
    )


def hub_repository(name: str, *, cache_dir: str | Path | None = None, local_files_only: bool = False) -> Path:
    """The model file of ``owner/repo`` or ``owner/repo@revision``."""
    raise WeightsUnavailable(f"{name}: not written yet.")


# -- parts of composed models ------------------------------------------------------------------------------------------


def part_state(
    source: str, *, cache_dir: str | Path | None = None, local_files_only: bool = False, verify: str = "always"
) -> Mapping[str, Tensor]:
    """The state dict of one part of a composed model: ``arch.tag`` of this zoo, or ``open_clip:NAME/TAG``."""
    if source.startswith("open_clip:"):
        return _open_clip_state(source.removeprefix("open_clip:"), cache_dir, local_files_only)
    path = fetch(get_weights(source), cache_dir=cache_dir, local_files_only=local_files_only, verify=verify)
    return read_safetensors(path)[0]


def _open_clip_state(source: str, cache_dir: str | Path | None, local_files_only: bool) -> Mapping[str, Tensor]:
    import open_clip
    from open_clip.factory import load_state_dict

    name, _, tag = source.partition("/")
    config = open_clip.get_pretrained_cfg(name, tag)
    if not config:
        known = [f"{model}/{t}" for model, t in open_clip.list_pretrained()]
        raise UnknownTag(f"open_clip has no weights '{source}'.{near(source, known)}")
    path = open_clip.download_pretrained(config, cache_dir=None if cache_dir is None else str(cache_dir))
    return load_state_dict(path, device="cpu", weights_only=True)


def converted_args(record: Weights, header: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The constructor arguments noted in a converted file: what its shapes told goes before what the record knows."""
    if not header or (header.get("arch"), header.get("tag")) != (record.arch, record.tag):
        raise WeightsError(
            f"The converted file of {record.name} is another model's. Convert it again: {command(record)}"
        )
    return header["model_args"]
