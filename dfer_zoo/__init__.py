"""dfer_zoo: dynamic facial expression recognition, five published systems behind one call.

>>> import dfer_zoo
>>> dfer_zoo.list_models("*clip*")
['dfer_clip', 'dk_clip']

Nothing heavy is imported here: the names below are looked up when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__

_HOME = {
    "create_model": "factory",
    "load_weights": "factory",
    "save_pretrained": "factory",
    "list_models": "weights",
    "list_pretrained": "weights",
    "get_weights": "weights",
    "Weights": "records",
    "VideoSpec": "records",
    "AudioSpec": "records",
    "Metric": "records",
    "create_transform": "transforms",
    "Clip": "clip",
    "read_clip": "media",
    "Recognizer": "recognizer",
    "DferZooError": "errors",
    "UnknownModel": "errors",
    "UnknownTag": "errors",
    "WeightsError": "errors",
    "WeightsUnavailable": "errors",
    "MediaError": "errors",
    "InputError": "errors",
}

__all__ = ["__version__", *sorted(_HOME)]

if TYPE_CHECKING:
    from .clip import Clip as Clip
    from .errors import DferZooError as DferZooError
    from .factory import create_model as create_model
    from .factory import load_weights as load_weights
    from .factory import save_pretrained as save_pretrained
    from .records import AudioSpec as AudioSpec
    from .records import Metric as Metric
    from .records import VideoSpec as VideoSpec
    from .records import Weights as Weights
    from .transforms import create_transform as create_transform
    from .weights import get_weights as get_weights
    from .weights import list_models as list_models
    from .weights import list_pretrained as list_pretrained


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dfer_zoo' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
