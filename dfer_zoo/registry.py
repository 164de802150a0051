"""Which architectures there are, and where their classes stand. A table: adding a model is adding a line."""

from __future__ import annotations

import fnmatch
import functools
import importlib
from typing import TYPE_CHECKING

from .errors import UnknownModel, UnknownTag, suggest
from .weights.manifest import manifest_path, read_manifest
from .weights.record import Weights

if TYPE_CHECKING:
    from .models.base import DferModel

MODELS = {
    "av_fusion": "av_fusion:AVFusion",
    "efficient_face": "efficient_face:EfficientFace",
    "mae_dfer": "mae_dfer:MAEDFER",
    "mae_dfer_pretrain": "mae_dfer_pretrain:MAEDFERPretrain",
    "video_mae": "mae_dfer:VideoMAE",
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
    """The class behind a name; this is what imports torch and the model's file."""
    module, _, cls = MODELS[check_name(name)].partition(":")
    return getattr(importlib.import_module(f".models.{module}", __package__), cls)


@functools.cache
def manifest() -> dict[tuple[str, str], Weights]:
    """The records of the manifest by (architecture, tag)."""
    return read_manifest(manifest_path(), MODELS)


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """The names that `create_model` takes, filtered by a shell pattern and by having weights.

    >>> list_models("mae*")
    ['mae_dfer', 'mae_dfer_pretrain', 'mae_face']
    """
    names = [name for name in MODELS if fnmatch.fnmatch(name, pattern)]
    if pretrained:
        with_weights = {arch for arch, _ in list_pretrained()}
        names = [name for name in names if name in with_weights]
    return sorted(names)


def list_pretrained(pattern: str = "*") -> list[tuple[str, str]]:
    """(name, tag) pairs that `create_model(name, pretrained=tag)` takes; the pattern is for the name or for "name.tag".

    >>> list_pretrained("mma_dfer")[:2]
    [('mma_dfer', 'backbone'), ('mma_dfer', 'dfew_fold1')]
    """
    return sorted(
        (arch, tag)
        for arch, tag in manifest()
        if fnmatch.fnmatch(arch, pattern) or fnmatch.fnmatch(f"{arch}.{tag}", pattern)
    )


def get_weights(arch: str, tag: str | None = None) -> Weights:
    """The record of one weights file: ``get_weights("mma_dfer", "dfew_fold1")``, or both in one as "mma_dfer.dfew_fold1"."""
    if tag is None:
        arch, _, tag = arch.partition(".")
    check_name(arch)
    if (arch, tag) not in manifest():
        raise UnknownTag(f"{arch} has no weights '{tag}'.{suggest(tag, (t for a, t in manifest() if a == arch))}")
    return manifest()[arch, tag]
