"""Which architectures there are, and where their classes stand. A table: adding a model is adding a line."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .errors import UnknownModel, near

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
        raise UnknownModel(f"There is no model '{name}'.{near(name, MODELS)}")
    return name


def model_class(name: str) -> type[DferModel]:
    """The class behind a name; this is what imports torch and the model's file."""
    module, _, cls = MODELS[check_name(name)].partition(":")
    return getattr(importlib.import_module(f".models.{module}", __package__), cls)
