"""Training recipes: the validated content of a TOML file.

>>> read_recipe("mma_dfer_dfew", ["train.epochs=1", "data.train=puppets:clips=16"]).train.epochs
1
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, suggest
from ..weights.structure import Reader

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # the extra "train"


@dataclass(frozen=True)
class ModelSection:
    name: str
    pretrained: str = ""  # a tag, or "backbone"; empty: from scratch
    backbones: Mapping[str, str] = field(default_factory=dict)  # part: a folder with weights, as `pretrain` writes it
    labels: tuple[str, ...] = ()  # empty: those of the weights or the model
    freeze: tuple[str, ...] = ()  # shell patterns; "published": what `model.freeze()` does
    args: Mapping[str, Any] = field(default_factory=dict)  # arguments of the constructor


@dataclass(frozen=True)
class DataSection:
    train: str  # a source of `read_rows`; in every value {fold} stands for the number of the fold
    valid: str
    train_subset: str = ""  # for annotation files that name subsets
    valid_subset: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)  # options of the list reader
    without: tuple[str, ...] = ()  # inputs to withhold: ["audio"] trains a model of video and audio without sound
    faces: str = "none"  # a detector, as in `create_transform`, for data that are not cropped to faces
    no_face: str = "error"  # or "frame": use whole frames of a clip without a face
    transform: Mapping[str, Any] = field(default_factory=dict)  # changes to the video record, as in `create_transform`
    augment: str = "none"  # a key of `transforms.train.AUGMENTATIONS`
    workers: int = 0


@dataclass(frozen=True)
class TrainSection:
    epochs: int
    batch_size: int  # clips per update, over all processes
    micro_batch: int = 0  # clips per forward pass and device; gradients are accumulated. 0: all
    drop_last: bool = False
    balanced: bool = False  # draw clips with replacement, each class equally often
    seed: int = 0
    precision: str = "no"  # "no", "fp16", "bf16"
    clip_norm: float = 0.0  # 0: no clipping
    smoothing: float = 0.0
    class_weights: str = "none"  # of the loss; "balanced": inverse to the number of clips of a class
    mix: str = "none"  # a key of `training.mixing.MIXES`
    mix_options: Mapping[str, Any] = field(default_factory=dict)
    best: str = "uar"  # the validation metric that selects OUT/best; or "war"
    save_every: int = 0  # updates between two saved states; 0: only at the end of an epoch


@dataclass(frozen=True)
class OptimizerSection:
    name: str  # "adamw", "sgd"
    lr: float
    weight_decay: float = 0.0
    decay_all: bool = False  # weight decay on vectors, biases and position embeddings too
    layer_decay: float = 1.0  # below 1: timm's layer-wise learning rate decay
    rates: Mapping[str, float] = field(default_factory=dict)  # shell patterns of parameter names -> learning rates
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.0
    dampening: float = 0.0


@dataclass(frozen=True)
class ScheduleSection:
    name: str = "constant"  # "constant", "steps", "cosine"
    per: str = "update"  # when the rate changes; or "epoch"
    milestones: tuple[int, ...] = ()  # epochs, from 0, at which the rate is multiplied by `gamma`
    gamma: float = 0.1
    min_lr: float = 0.0
    warmup_epochs: float = 0.0
    delay: float = 0.0  # updates by which a cosine lags; DK-CLIP sets the rate after every second iteration
    cosine_from: str = "warmup"  # the phase of the cosine counts from the end of warmup, or from the "start"


@dataclass(frozen=True)
class Recipe:
    source: str  # where the values come from
    model: ModelSection
    data: DataSection
    train: TrainSection
    optimizer: OptimizerSection
    schedule: ScheduleSection = field(default_factory=ScheduleSection)


RECIPES = Path(__file__).parent.parent / "recipes"
_READER = Reader(InputError, defaults=True)


def list_recipes() -> dict[str, str]:
    """List the recipes of the package: {name: first sentence}.

    >>> [name for name in list_recipes() if name.startswith("mma")]
    ['mma_dfer_dfew', 'mma_dfer_mafw']
    """
    return {path.stem: _first_sentence(path) for path in sorted(RECIPES.glob("*.toml"))}


def _first_sentence(path: Path) -> str:
    first = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
    return first.partition(". ")[0].rstrip(".")


def find_recipe(name: str | Path) -> Path:
    """Return the file of a recipe, given its name or path."""
    inside = RECIPES / f"{name}.toml"
    if Path(name).suffix != ".toml" and Path(name).name == str(name) and not inside.is_file():
        known = [path.stem for path in RECIPES.glob("*.toml")]
        raise InputError(f"There is no recipe '{name}'.{suggest(str(name), known)} `dfer-zoo train --list` lists them.")
    return inside if Path(name).name == str(name) and inside.is_file() else Path(name)


def read_recipe(path: str | Path, changes: Sequence[str] = (), fold: int | None = None) -> Recipe:
    """Read and validate a recipe.

    Args:
        path: The name of a recipe of the package, or a TOML file.
        changes: Values to change: ``["train.epochs=3", 'model.labels=["yes", "no"]']``.
        fold: The number that replaces {fold} in the values.

    Raises:
        InputError: A value is missing, unknown or wrong.
    """
    path = find_recipe(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"The recipe {path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # ValueError also for numbers with thousands of digits
        raise InputError(f"The recipe {path} is not TOML: {error}.") from error
    for change in changes:
        place, separator, value = change.partition("=")
        if not separator:
            raise InputError(f"'{change}' has no value; expected SECTION.NAME=VALUE.")
        section = content
        *sections, name = place.strip().split(".")
        for part in sections:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise InputError(f"'{change}': {place.strip().rpartition('.')[0]} is a value, not a section.")
        section[name] = _toml_value(value.strip())
    try:
        recipe = _READER.read(Recipe, _with_fold(content, fold, str(path)), str(path))
        _check(recipe, str(path))
    except OverflowError as error:
        raise InputError(f"{path}: a number is too large ({error}).") from error
    return recipe


def _with_fold(value: Any, fold: int | None, where: str) -> Any:
    """Replace {fold} in all values by the number of the fold."""
    if isinstance(value, dict):
        return {name: _with_fold(item, fold, where) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_fold(item, fold, where) for item in value]
    if not isinstance(value, str) or "{fold}" not in value:
        return value
    if fold is None:
        raise InputError(f"{where}: '{value}' needs a fold; give --folds.")
    return _toml_value(value.replace("{fold}", str(fold)))


def _toml_value(text: str) -> Any:
    """Parse a TOML value; anything else is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


# field -> its lowest value, and the value that it must stay below
RANGES: dict[str, tuple[float, float]] = {
    "data.workers": (0, math.inf),
    "train.epochs": (1, math.inf),
    "train.batch_size": (1, math.inf),
    "train.micro_batch": (0, math.inf),
    "train.seed": (0, math.inf),
    "train.clip_norm": (0, math.inf),
    "train.smoothing": (0, 1),
    "train.save_every": (0, math.inf),
    "optimizer.lr": (0, math.inf),
    "optimizer.weight_decay": (0, math.inf),
    "optimizer.rates": (0, math.inf),
    "optimizer.betas": (0, 1),
    "optimizer.eps": (0, math.inf),
    "optimizer.momentum": (0, 1),
    "optimizer.dampening": (0, 1),
    "schedule.milestones": (0, math.inf),
    "schedule.gamma": (0, math.inf),
    "schedule.min_lr": (0, math.inf),
    "schedule.warmup_epochs": (0, math.inf),
    "schedule.delay": (0, math.inf),
}


def _check(recipe: Recipe, where: str) -> None:
    _check_choices(recipe, where)
    for name, (low, high) in RANGES.items():
        section, _, field_name = name.partition(".")
        values = getattr(getattr(recipe, section), field_name)
        values = values.values() if isinstance(values, Mapping) else values if isinstance(values, tuple) else [values]
        for value in values:
            if not low <= value < high:  # NaN fails too
                below = "" if high == math.inf else f" and less than {high}"
                raise InputError(f"{where}: {name} is {value}; expected {low} or more{below}.")
    options = recipe.optimizer
    if not 0 < options.layer_decay <= 1:
        raise InputError(
            f"{where}: optimizer.layer_decay is {options.layer_decay}; expected more than 0 and at most 1."
        )
    if options.layer_decay < 1 and (options.rates or options.decay_all):
        raise InputError(f"{where}: optimizer.layer_decay excludes optimizer.rates and optimizer.decay_all.")
    _check_mix(recipe.train, where)


def _check_mix(train: TrainSection, where: str) -> None:
    from .mixing import MIXES, draw_mix

    if train.mix not in MIXES:
        raise InputError(f"{where}: train.mix is '{train.mix}'.{suggest(train.mix, MIXES)}")
    parameters = [*inspect.signature(MIXES[train.mix]).parameters.values()]
    if parameters[-1].kind is inspect.Parameter.VAR_KEYWORD:  # options of `draw_mix`
        parameters = [*inspect.signature(draw_mix).parameters.values()]
    known = {p.name: type(p.default) for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not None}
    for name, value in train.mix_options.items():
        place = f"{where}: train.mix_options.{name}"
        if name not in known:
            raise InputError(f"{place}: '{train.mix}' has no such option.{suggest(name, known)}")
        _READER.value(known[name], value, where, f"train.mix_options.{name}")


def _check_choices(recipe: Recipe, where: str) -> None:
    choices = {
        "train.precision": (recipe.train.precision, ("no", "fp16", "bf16")),
        "train.best": (recipe.train.best, ("uar", "war")),
        "train.class_weights": (recipe.train.class_weights, ("none", "balanced")),
        "optimizer.name": (recipe.optimizer.name, ("adamw", "sgd")),
        "schedule.name": (recipe.schedule.name, ("constant", "steps", "cosine")),
        "schedule.per": (recipe.schedule.per, ("update", "epoch")),
        "schedule.cosine_from": (recipe.schedule.cosine_from, ("warmup", "start")),
    }
    for name, (value, known) in choices.items():
        if value not in known:
            raise InputError(f"{where}: {name} is '{value}'.{suggest(value, known)}")
