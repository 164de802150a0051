"""The options that the authors' training programs store in their checkpoints, as arguments of our models.

A checkpoint's shapes do not say how many frames a clip had or which tokens were pooled. Its stored options do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import WeightsError


@dataclass(frozen=True)
class StoredOptions:
    """What stored options mean here.

    Args:
        model_args: Arguments of the model's constructor.
        video: Fields of its `VideoSpec`.
        num_classes: The number of classes, to be compared with the checkpoint's.
    """

    model_args: dict[str, Any] = field(default_factory=dict)
    video: dict[str, Any] = field(default_factory=dict)
    num_classes: int | None = None


POOLED_TOKENS = {"region": "region", "org": "local", "all": "all"}  # MAE-DFER's word -> ours


def stored_options(arch: str, options: Mapping[str, Any], where: str) -> StoredOptions:
    """What the options of a training mean for one of our architectures.

    Args:
        arch: The architecture.
        options: Plain values by name; nested mappings, as yacs makes them, are searched too.
        where: The checkpoint, for error messages.

    Raises:
        WeightsError: An option has a value that the model does not know.

    >>> stored_options("mae_dfer", {"sampling_rate": 1, "lg_classify_token_type": "org"}, "best.pth").video
    {'rate': 1}
    """
    flat = _flat(options)
    if arch in ("mae_dfer", "video_mae"):
        return _mae_dfer(arch, flat, where)
    if arch == "dk_clip":
        return _dk_clip(flat)
    return StoredOptions()


def _flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """{name: plain value}, without the sections."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            flat |= _flat(value)
        elif isinstance(value, int | float | str | bool):
            flat[str(name)] = value
    return flat


def _mae_dfer(arch: str, options: Mapping[str, Any], where: str) -> StoredOptions:
    args: dict[str, Any] = {}
    if arch == "mae_dfer" and (pooled := options.get("lg_classify_token_type")) is not None:
        if pooled not in POOLED_TOKENS:
            raise WeightsError(
                f"{where}: its option lg_classify_token_type is '{pooled}'; known are {', '.join(POOLED_TOKENS)}."
            )
        args["pooled_tokens"] = POOLED_TOKENS[pooled]
    video = {"rate": _number(options, "sampling_rate"), "segments": _number(options, "test_num_segment")}
    return StoredOptions(args, {k: v for k, v in video.items() if v}, _number(options, "nb_classes"))


def _dk_clip(options: Mapping[str, Any]) -> StoredOptions:
    args = {"num_frames": _number(options, "NUM_FRAMES"), "frames_per_snippet": _number(options, "NUM_DIVIDE")}
    # the released file for MAFW says 7 classes where there are 11, so the number is not compared
    return StoredOptions({name: value for name, value in args.items() if value})


def _number(options: Mapping[str, Any], name: str) -> int | None:
    value = options.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
