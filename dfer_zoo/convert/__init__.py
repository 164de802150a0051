"""Convert the authors' state dicts to ours. Only this package knows the authors' names.

One pure function per architecture, from a state dict to a `Conversion`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..errors import DferZooError, InputError, WeightsError, suggest

# architecture -> "module:function" below dfer_zoo.convert
KEY_MAPS = {
    "av_fusion": "av_fusion:convert_av_fusion",
    "efficient_face": "av_fusion:convert_efficient_face",
    "hicmae": "hicmae:convert_hicmae",
    "hicmae_pretrain": "hicmae:convert_hicmae_pretrain",
    "emo_affectnet": "emo_affectnet:convert_emo_affectnet",
    "emo_affectnet_static": "emo_affectnet:convert_emo_affectnet_static",
    "mae_dfer": "mae_dfer:convert_mae_dfer",
    "mae_dfer_pretrain": "mae_dfer:convert_mae_dfer_pretrain",
    "video_mae": "mae_dfer:convert_video_mae",
    "mini_xception": "mini_xception:convert_mini_xception",
    "mma_dfer": "mma_dfer:convert_mma_dfer",
    "mae_face": "mma_dfer:convert_mae_face",
    "audio_mae": "mma_dfer:convert_audio_mae",
    "dfer_clip": "dfer_clip:convert_dfer_clip",
    "dk_clip": "dk_clip:convert_dk_clip",
    "s2d": "s2d:convert_s2d",
    "s2d_image": "s2d:convert_s2d_image",
    "mobile_face_net": "mobile_face_net:convert_mobile_face_net",
}

# the same for backbones whose files use other names: `load_backbones` takes ours
PART_MAPS = {
    "dfer_clip": "dfer_clip:convert_part",
    "dk_clip": "dk_clip:convert_part",
}


@dataclass(frozen=True)
class Conversion:
    """The result of converting a state dict."""

    state: dict[str, Tensor]  # our names
    model_args: dict[str, Any] = field(default_factory=dict)  # constructor arguments, read from names and shapes
    dropped: tuple[str, ...] = ()  # authors' names of entries that no output depends on


def convert_state_dict(arch: str, state: Mapping[str, Tensor]) -> Conversion:
    """Rename and reshape the authors' state dict, without wrapper keys and `module.` prefixes. Does not copy tensors."""
    if arch not in KEY_MAPS:
        raise InputError(f"There is no converter for '{arch}'.{suggest(arch, KEY_MAPS)}")
    convert = _function(KEY_MAPS[arch])
    try:
        return convert(state)
    except DferZooError:
        raise
    except KeyError as error:
        raise WeightsError(
            f"This is not a checkpoint of {arch}: it has no entry {error}. It holds {len(state)} entries, "
            f"the first are {', '.join(list(state)[:3])}."
        ) from error
    except (IndexError, TypeError, ValueError, ZeroDivisionError, RuntimeError) as error:  # RuntimeError: torch's own
        raise WeightsError(
            f"This is not a checkpoint of {arch}: an entry has a shape that does not occur in its checkpoints "
            f"({str(error).partition(chr(10))[0]})."
        ) from error


def convert_parts(arch: str, states: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Mapping[str, Tensor]]:
    """The state dicts of backbones, under our names."""
    if arch not in PART_MAPS:
        return dict(states)
    convert = _function(PART_MAPS[arch])
    return {part: convert(part, state).state for part, state in states.items()}


def _function(place: str) -> Any:
    module, _, function = place.partition(":")
    return getattr(importlib.import_module(f".{module}", __name__), function)
