"""The records: what is known of a weights file, and how a clip becomes its input. Frozen, and read strictly."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, WeightsError

DISTRIBUTIONS = ("hub", "convert", "embedded", "backbone", "local")  # "local": written by save_pretrained


@dataclass(frozen=True)
class Metric:
    """One published or measured number, in per cent, and where it is from."""

    name: str  # "uar", "war", "accuracy"
    value: float
    protocol: str
    source: str


@dataclass(frozen=True)
class VideoSpec:
    """How a clip becomes the ``video`` argument. Rules are named as in `transforms.sampling` and `transforms.images`."""

    frames: int
    size: int
    sampling: str  # which frames: "segment_centres", "strided", "leading_window"
    rate: int = 1  # stride of "strided"
    segments: int = 1  # views along time whose probabilities are averaged
    short_clip: str = "pad_last"  # fewer frames than wanted: "pad_last", "repeat_first", "stretch", "black"
    fps: float | None = None  # the rate that the sampling rule counts in; None: the clip's own frames
    window: int | None = None  # frames, at `fps`, that "leading_window" and "centred_window" choose from
    resize: str = "pillow_bilinear"  # "pillow_bilinear" (antialiased), "opencv_bilinear" (not)
    resize_shorter: int | None = None  # shorter side first, then a centre crop; None: straight to size x size
    channel_order: str = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of values in [0, 1]
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    face_crop: str = "aligned"  # what the weights saw: "aligned" (the data set's own crops), "largest", "union_square"


@dataclass(frozen=True)
class AudioSpec:
    """How a waveform becomes the ``audio`` argument. The front ends are the keys of `transforms.audio`."""

    front_end: str  # "mfcc", "kaldi_fbank"
    shape: tuple[int, ...]  # of one clip, as forward takes it
    sample_rate: int | None = None  # None: the file's own, never resampled
    seconds: float | None = None  # cut or padded to this length first
    missing: float = 0.0  # the constant that stands for "no sound"


@dataclass(frozen=True)
class Weights:
    """The identity of a weights file and everything that belongs to it."""

    arch: str
    tag: str
    distribution: str  # "hub", "convert", "embedded", or "backbone": put together from `parts`
    repo_id: str | None
    revision: str | None  # 40 hexadecimal digits
    filename: str | None
    sha256: str | None
    size: int | None
    params: int
    model_args: Mapping[str, Any]
    labels: tuple[str, ...]
    video: VideoSpec | None
    audio: AudioSpec | None
    dataset: str | None
    fold: int | None
    metrics: tuple[Metric, ...]
    license: str
    license_source: str
    origin_url: str | None
    origin_sha256: str | None
    parts: Mapping[str, str]  # distribution "backbone": {part of the model: "arch.tag" or "open_clip:NAME/TAG"}

    @property
    def name(self) -> str:
        return f"{self.arch}.{self.tag}"

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "weights record") -> Weights:
        record = _parse(cls, data, where)
        _check_identity(record, where)
        return record

    @classmethod
    def from_header(cls, data: Mapping[str, Any], where: str) -> Weights:
        """A record out of a weights file. The file may be older than a field, which then has its default: a field that
        comes later must not make files unreadable that are out in the world."""
        return _parse(cls, data, where, defaults=True)


def _parse(cls: Any, data: Any, where: str, *, defaults: bool = False) -> Any:
    """A frozen record from JSON values: every field present, none unknown, each of its declared type."""
    if not isinstance(data, Mapping):
        raise WeightsError(
            f"{where}: expected an object with the fields of {cls.__name__}, found {type(data).__name__}."
        )
    hints = typing.get_type_hints(cls)
    if defaults:
        has_default = {f.name: f.default for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}
        data = {**has_default, **data}
    missing, unknown = sorted(hints.keys() - data.keys()), sorted(data.keys() - hints.keys())
    if missing or unknown:
        raise WeightsError(
            f"{where}: {cls.__name__} has missing fields {missing} and unknown fields {unknown}. "
            "The file is damaged or was written by another version of dfer_zoo."
        )
    return cls(**{name: _value(hints[name], data[name], f"{where}.{name}", defaults) for name in hints})


def _value(hint: Any, value: Any, where: str, defaults: bool = False) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    kind = next(option for option in options if option is not type(None))
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _parse(kind, value, where, defaults=defaults)
    if origin is tuple and isinstance(value, list | tuple):
        item_kinds = [args[0]] * len(value) if args[-1] is Ellipsis else args
        if len(item_kinds) == len(value):
            return tuple(_value(k, v, f"{where}[{i}]", defaults) for i, (k, v) in enumerate(zip(item_kinds, value)))
    elif origin is not None and isinstance(value, Mapping):
        if args[1] is Any:
            return dict(value)
        return {key: _value(args[1], item, f"{where}[{key}]", defaults) for key, item in value.items()}
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif origin is None and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise WeightsError(f"{where}: expected {getattr(hint, '__name__', hint)}, found {value!r}.")


def _check_identity(record: Weights, where: str) -> None:
    if record.distribution not in DISTRIBUTIONS:
        raise WeightsError(f"{where}: distribution '{record.distribution}' is none of {', '.join(DISTRIBUTIONS)}.")
    if record.distribution == "hub" and not re.fullmatch(r"[0-9a-f]{40}", record.revision or ""):
        raise WeightsError(
            f"{where}: revision {record.revision!r} is not a 40-digit commit, so the weights could move."
        )
    for name in ("params", "size"):
        if (getattr(record, name) or 0) < 0:
            raise WeightsError(f"{where}: {name} is {getattr(record, name)}; expected 0 or more.")
    if not re.fullmatch(r"([\w-][\w.-]*/)*[\w-][\w.-]*", record.filename or "none"):
        raise WeightsError(f"{where}: filename {record.filename!r} is no path inside a repository.")
    if len(set(record.labels)) != len(record.labels):
        raise WeightsError(f"{where}: the labels {list(record.labels)} are not distinct.")
    for name in ("sha256", "origin_sha256"):
        if not re.fullmatch(r"[0-9a-f]{64}", getattr(record, name) or "0" * 64):
            raise WeightsError(f"{where}: {name} is {getattr(record, name)!r}, not 64 hexadecimal digits.")
    if record.distribution in ("hub", "embedded"):
        identity = ("filename", "sha256", "size", *(("repo_id",) if record.distribution == "hub" else ()))
        unknown = [field for field in identity if getattr(record, field) is None]
        if unknown:
            raise WeightsError(f"{where}: {', '.join(unknown)} may be null for the distribution 'convert' only.")
    if (record.distribution == "backbone") != bool(record.parts):
        raise WeightsError(f"{where}: 'parts' belongs to the distribution 'backbone', and to it alone.")


def check_count(name: str, value: Any) -> None:
    if not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is {value!r}; expected a whole number from 1 on.")


def check_labels(labels: Sequence[str]) -> None:
    if isinstance(labels, str):
        raise InputError(f"labels is the text {labels!r}; expected a list of class names.")
    if not isinstance(labels, Collection) or not all(isinstance(name, str) for name in labels):
        raise InputError(f"labels is {labels!r}; expected a list of class names.")
    if len(set(labels)) != len(labels):
        raise InputError(f"The labels {list(labels)} are not distinct.")
