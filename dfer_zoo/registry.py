"""The table of architectures, and the records of their weights."""

from __future__ import annotations

import fnmatch
import functools
import importlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .errors import InputError, UnknownModel, UnknownTag, suggest
from .weights.manifest import manifest_path, read_manifest
from .weights.record import Weights

if TYPE_CHECKING:
    from .models.base import DferModel

MODELS = {
    "av_fusion": "av_fusion:AVFusion",
    "efficient_face": "efficient_face:EfficientFace",
    "hicmae": "hicmae:HiCMAE",
    "hicmae_pretrain": "hicmae_pretrain:HiCMAEPretrain",
    "mae_dfer": "mae_dfer:MAEDFER",
    "mae_dfer_pretrain": "mae_dfer_pretrain:MAEDFERPretrain",
    "video_mae": "video_mae:VideoMAE",
    "emo_affectnet": "emo_affectnet:EmoAffectNet",
    "emo_affectnet_static": "emo_affectnet:EmoAffectNetStatic",
    "mini_xception": "mini_xception:MiniXception",
    "mma_dfer": "mma_dfer:MMADFER",
    "mae_face": "mae_face:MAEFace",
    "audio_mae": "audio_mae:AudioMAE",
    "dfer_clip": "dfer_clip:DFERCLIP",
    "dk_clip": "dk_clip:DKCLIP",
    "s2d": "s2d:S2D",
    "s2d_image": "s2d:S2DImage",
    "mobile_face_net": "mobile_face_net:MobileFaceNet",
}


def check_name(name: str) -> str:
    if name not in MODELS:
        raise UnknownModel(f"There is no model '{name}'.{suggest(name, MODELS)}")
    return name


def model_class(name: str) -> type[DferModel]:
    """Return the class of an architecture. Imports torch and the model's file."""
    module, _, cls = MODELS[check_name(name)].partition(":")
    return getattr(importlib.import_module(f".models.{module}", __package__), cls)


@functools.cache
def manifest() -> dict[tuple[str, str], Weights]:
    """Return the records of the manifest by (architecture, tag)."""
    return read_manifest(manifest_path(), MODELS)


Patterns = str | Iterable[str]


def list_models(pattern: Patterns = "*", *, pretrained: bool = False, exclude_filters: Patterns = ()) -> list[str]:
    """List the names that `create_model` takes.

    Args:
        pattern: A shell pattern or several, for the architecture ("mae*") or for "arch.tag" ("*.dfew*").
        pretrained: Only architectures that have weights.
        exclude_filters: Patterns of names to leave out.

    Returns:
        Sorted architecture names.

    Example:
        >>> list_models("mae*")
        ['mae_dfer', 'mae_dfer_pretrain', 'mae_face']
        >>> list_models(["mae*", "*.mafw_fold1"], exclude_filters="*_pretrain")[:3]
        ['dfer_clip', 'hicmae', 'mae_dfer']
    """
    pattern, exclude_filters = _checked(pattern), _checked(exclude_filters)
    with_weights = {arch for arch, _ in list_pretrained()}
    by_tag = {arch for arch, tag in list_pretrained(pattern) if not _matches(f"{arch}.{tag}", exclude_filters)}
    return sorted(
        name
        for name in MODELS
        if (_matches(name, pattern) or name in by_tag)
        and not _matches(name, exclude_filters)
        and (name in with_weights or not pretrained)
    )


def list_pretrained(pattern: Patterns = "*", *, exclude_filters: Patterns = ()) -> list[tuple[str, str]]:
    """List the (name, tag) pairs that `create_model(name, pretrained=tag)` takes.

    Args:
        pattern: A shell pattern or several, for the architecture or for "arch.tag".
        exclude_filters: Patterns of architectures or of "arch.tag" to leave out.

    Returns:
        Sorted pairs.

    Example:
        >>> list_pretrained("mma_dfer", exclude_filters="*.mafw*")[:2]
        [('mma_dfer', 'backbone'), ('mma_dfer', 'dfew_fold1')]
    """
    pattern, exclude_filters = _checked(pattern), _checked(exclude_filters)
    return sorted(
        (arch, tag)
        for arch, tag in manifest()
        if any(_matches(name, pattern) for name in (arch, f"{arch}.{tag}"))
        and not any(_matches(name, exclude_filters) for name in (arch, f"{arch}.{tag}"))
    )


def _checked(patterns: Patterns) -> list[str]:
    found = (
        [patterns] if isinstance(patterns, str) else list(patterns) if isinstance(patterns, Iterable) else [patterns]
    )
    for pattern in found:
        if not isinstance(pattern, str):
            raise InputError(f"A pattern is {pattern!r}; expected a string such as 'mae*', or a list of them.")
    return found


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def get_weights(arch: str, tag: str | None = None) -> Weights:
    """Return the record of one weights file.

    Args:
        arch: The architecture, or "arch.tag".
        tag: Which of its weights.

    Returns:
        The frozen record: labels, preprocessing, licence, origin, published numbers.

    Raises:
        UnknownModel: No architecture has this name.
        UnknownTag: The architecture has no such weights. The message lists those that exist.

    Example:
        >>> get_weights("mma_dfer", "dfew_fold1").labels[:2]
        ('happiness', 'sadness')
        >>> get_weights("mma_dfer.dfew_fold1").name
        'mma_dfer.dfew_fold1'
    """
    if not isinstance(arch, str) or not isinstance(tag, str | None):
        raise InputError(f"Weights have names, such as get_weights('mma_dfer', 'dfew_fold1'); found {arch!r}, {tag!r}.")
    if tag is None:
        arch, _, tag = arch.partition(".")
    check_name(arch)
    if (arch, tag) not in manifest():
        tags = [t for a, t in manifest() if a == arch]
        if not tag:
            raise UnknownTag(f"Name the weights of {arch}. Available: {', '.join(sorted(tags)) or 'none'}.")
        raise UnknownTag(f"{arch} has no weights '{tag}'.{suggest(tag, tags)}")
    return manifest()[arch, tag]


@functools.cache
def systems_without(modality: str) -> tuple[str, ...]:
    """Return the trained video classifiers that take a clip without this modality.

    >>> "mae_dfer" in systems_without("audio"), "hicmae" in systems_without("audio")
    (True, False)
    """
    trained = {record.arch for record in manifest().values() if record.dataset and record.labels}

    def takes(kind: type[DferModel]) -> bool:
        return "video" in kind.inputs and (modality not in kind.inputs or modality in kind.optional_inputs)

    return tuple(name for name in sorted(trained) if takes(model_class(name)))
