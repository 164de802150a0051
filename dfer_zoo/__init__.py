"""dfer_zoo: a model zoo for dynamic facial expression recognition.

>>> import dfer_zoo
>>> dfer_zoo.list_models("*clip*")
['dfer_clip', 'dk_clip']

Importing this package loads nothing heavy: public names and submodules are resolved on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__

# public name -> the module that defines it
_HOME = {
    "create_model": "factory",
    "load_weights": "factory",
    "save_pretrained": "saving",
    "push_to_hub": "saving",
    "list_models": "registry",
    "list_pretrained": "registry",
    "get_weights": "registry",
    "Weights": "weights.record",
    "VideoSpec": "weights.record",
    "AudioSpec": "weights.record",
    "Metric": "weights.record",
    "Origin": "weights.record",
    "create_transform": "transforms",
    "Clip": "media.clip",
    "read_clip": "media.files",
    "Recognizer": "inference.recognizer",
    "DferZooError": "errors",
    "UnknownModel": "errors",
    "UnknownTag": "errors",
    "WeightsError": "errors",
    "WeightsUnavailable": "errors",
    "MediaError": "errors",
    "InputError": "errors",
}

_SUBMODULES = frozenset(
    (
        "checkpoints",
        "cli",
        "convert",
        "data",
        "errors",
        "factory",
        "inference",
        "media",
        "models",
        "registry",
        "training",
        "transforms",
        "weights",
    )
)

__all__ = ["__version__", *sorted(_HOME)]

if TYPE_CHECKING:
    from .errors import DferZooError as DferZooError
    from .errors import InputError as InputError
    from .errors import MediaError as MediaError
    from .errors import UnknownModel as UnknownModel
    from .errors import UnknownTag as UnknownTag
    from .errors import WeightsError as WeightsError
    from .errors import WeightsUnavailable as WeightsUnavailable
    from .factory import create_model as create_model
    from .factory import load_weights as load_weights
    from .inference.recognizer import Recognizer as Recognizer
    from .media.clip import Clip as Clip
    from .media.files import read_clip as read_clip
    from .registry import get_weights as get_weights
    from .registry import list_models as list_models
    from .registry import list_pretrained as list_pretrained
    from .saving import push_to_hub as push_to_hub
    from .saving import save_pretrained as save_pretrained
    from .transforms import create_transform as create_transform
    from .weights.record import AudioSpec as AudioSpec
    from .weights.record import Metric as Metric
    from .weights.record import Origin as Origin
    from .weights.record import VideoSpec as VideoSpec
    from .weights.record import Weights as Weights


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f".{name}", __name__)
    if name not in _HOME:
        raise AttributeError(f"module 'dfer_zoo' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
