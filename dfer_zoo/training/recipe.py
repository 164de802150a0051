"""A training recipe as data: the checked content of a TOML file.

>>> read_recipe("mma_dfer_dfew", ["train.epochs=1", "data.train=puppets:clips=16"]).train.epochs
1
"""

from __future__ import annotations

import dataclasses
import fnmatch
import inspect
import math
import sys
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, suggest
from .schedules import warmup_into_cosine, warmup_then_cosine

if TYPE_CHECKING:
    from torch.optim import Optimizer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # the extra "train"


@dataclass(frozen=True)
class ModelSection:
    name: str
    pretrained: str = ""  # a tag, "backbone", or empty: from scratch
    labels: tuple[str, ...] = ()  # empty: the weights' or the model's own
    freeze: tuple[str, ...] = ()  # shell patterns; "published": what `model.freeze()` does
    args: Mapping[str, Any] = field(default_factory=dict)  # of the constructor


@dataclass(frozen=True)
class DataSection:
    train: str  # as `read_rows` takes it; here and in all other values {fold} is the number of the fold
    valid: str
    train_subset: str = ""  # of annotation files that name subsets
    valid_subset: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)  # of the annotation's reader
    without: tuple[str, ...] = ()  # modalities to withhold: ["audio"] trains a model of video and audio without sound
    faces: str = "none"  # a detector, as `read_clip` takes it, for data that are no face crops yet
    no_face: str = "error"  # or "frame": a clip without a face is taken whole
    transform: Mapping[str, Any] = field(default_factory=dict)  # changes of the video record, see `create_transform`
    augment: str = "none"  # a key of `transforms.train.AUGMENTATIONS`
    workers: int = 0


@dataclass(frozen=True)
class TrainSection:
    epochs: int
    batch_size: int  # clips per update, over all processes
    micro_batch: int = 0  # most clips at once on one device; more of them are accumulated. 0: all
    drop_last: bool = False
    balanced: bool = False  # clips are drawn with replacement, those of rare classes as often as those of frequent ones
    seed: int = 0
    precision: str = "no"  # "no", "fp16", "bf16"
    clip_norm: float = 0.0  # 0: no clipping
    smoothing: float = 0.0
    class_weights: str = "none"  # of the loss; "balanced": inverse to the number of clips of the class
    mix: str = "none"  # a key of `training.mixing.MIXES`
    mix_options: Mapping[str, Any] = field(default_factory=dict)
    best: str = "uar"  # of the validation clips, by which OUT/best is chosen; or "war"
    save_every: int = 0  # updates between two states within an epoch; 0: at its end only


@dataclass(frozen=True)
class OptimizerSection:
    name: str  # "adamw", "sgd"
    lr: float
    weight_decay: float = 0.0
    decay_all: bool = False  # vectors, biases and position tables too
    layer_decay: float = 1.0  # below 1: timm's groups
    rates: Mapping[str, float] = field(default_factory=dict)  # learning rates by shell patterns of names
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.0
    dampening: float = 0.0


@dataclass(frozen=True)
class ScheduleSection:
    name: str = "constant"  # "constant", "steps", "cosine"
    per: str = "update"  # or "epoch": constant within an epoch
    milestones: tuple[int, ...] = ()  # epochs, counted from 0, from which on the rate is `gamma` times lower
    gamma: float = 0.1
    min_lr: float = 0.0
    warmup_epochs: float = 0.0
    delay: float = 0.0  # updates by which a cosine per update is late: DK-CLIP's is set after every second iteration
    cosine_from: str = "warmup"  # the cosine begins after the warm-up, or was running below it from the "start"


@dataclass(frozen=True)
class Recipe:
    source: str  # where the values are from
    model: ModelSection
    data: DataSection
    train: TrainSection
    optimizer: OptimizerSection
    schedule: ScheduleSection = field(default_factory=ScheduleSection)


RECIPES = Path(__file__).parent.parent / "recipes"


def list_recipes() -> dict[str, str]:
    """The recipes of the package: their names, and the first sentence of each.

    >>> list(list_recipes())[:2]
    ['av_fusion_ravdess', 'av_fusion_ravdess_it']
    """
    return {path.stem: _first_sentence(path) for path in sorted(RECIPES.glob("*.toml"))}


def _first_sentence(path: Path) -> str:
    first = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
    return first.partition(". ")[0].rstrip(".")


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe, by its name or its path."""
    inside = RECIPES / f"{name}.toml"
    if Path(name).suffix != ".toml" and Path(name).name == str(name) and not inside.is_file():
        known = [path.stem for path in RECIPES.glob("*.toml")]
        raise InputError(f"There is no recipe '{name}'.{suggest(str(name), known)} `dfer-zoo train --list` lists them.")
    return inside if Path(name).name == str(name) and inside.is_file() else Path(name)


def read_recipe(path: str | Path, changes: Sequence[str] = (), fold: int | None = None) -> Recipe:
    """Read a recipe and check it.

    Args:
        path: The name of a recipe of the package, or a TOML file.
        changes: Values to change: ``["train.epochs=3", 'model.labels=["yes", "no"]']``.
        fold: The number that takes the place of {fold} in the values.

    Raises:
        InputError: A value is missing, unknown or wrong.
    """
    path = find_recipe(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"The recipe {path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # the former also for numbers of thousands of digits
        raise InputError(f"The recipe {path} is not TOML: {error}.") from error
    for change in changes:
        place, separator, value = change.partition("=")
        if not separator:
            raise InputError(f"'{change}' changes nothing; write SECTION.NAME=VALUE.")
        section = content
        *sections, name = place.strip().split(".")
        for part in sections:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise InputError(f"'{change}': {place.strip().rpartition('.')[0]} is a value, and holds no other.")
        section[name] = _toml_value(value.strip())
    try:
        recipe = _section(Recipe, _with_fold(content, fold, str(path)), str(path))
        _check(recipe, str(path))
    except OverflowError as error:
        raise InputError(f"{path}: a number is too large ({error}).") from error
    return recipe


def _with_fold(value: Any, fold: int | None, where: str) -> Any:
    """The values with the number of the fold in place of {fold}."""
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
    """TOML where it is TOML, and a plain word where it is not."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _section(cls: Any, content: Mapping[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(cls)
    for name in content:
        if name not in hints:
            raise InputError(f"{where}: there is no '{name}' here.{suggest(name, hints)}")
    needed = [f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING]
    missing = [name for name in needed if name not in content]
    if missing:
        raise InputError(f"{where}: {', '.join(missing)} must be given.")
    return cls(**{name: _value(hints[name], value, f"{where}: {name}") for name, value in content.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return _section(hint, value, where)
    if origin is tuple and isinstance(value, list):
        kinds = args[:1] * len(value) if args[-1] is Ellipsis else args
        if len(kinds) == len(value):
            return tuple(_value(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value)))
    if origin is Mapping and isinstance(value, Mapping):
        return {name: _value(args[1], item, f"{where}.{name}") for name, item in value.items()}
    if origin is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(origin, type) and isinstance(value, origin) and isinstance(value, bool) == (origin is bool):
        return value
    raise InputError(f"{where} is {value!r}; expected {hint if args else hint.__name__}.")


# the lowest value of a field, and the one that it must be below
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
            if not low <= value < high:  # NaN is never
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
    from .mixes import MIXES
    from .mixing import draw_mix

    if train.mix not in MIXES:
        raise InputError(f"{where}: train.mix is '{train.mix}'.{suggest(train.mix, MIXES)}")
    parameters = [*inspect.signature(MIXES[train.mix]).parameters.values()]
    if parameters[-1].kind is inspect.Parameter.VAR_KEYWORD:  # handed on
        parameters = [*inspect.signature(draw_mix).parameters.values()]
    known = {p.name: type(p.default) for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not None}
    for name, value in train.mix_options.items():
        place = f"{where}: train.mix_options.{name}"
        if name not in known:
            raise InputError(f"{place}: '{train.mix}' has no such option.{suggest(name, known)}")
        _value(known[name], value, place)


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


def learning_rate(schedule: ScheduleSection, base: float, update: int, per_epoch: int, epochs: int) -> float:
    """The rate of one update (counted from 0) of a group whose highest rate is ``base``.

    >>> cosine = ScheduleSection(name="cosine", per="epoch")
    >>> [round(learning_rate(cosine, 1.0, update, per_epoch=2, epochs=4), 3) for update in range(8)]
    [1.0, 1.0, 0.854, 0.854, 0.5, 0.5, 0.146, 0.146]
    """
    epoch = update // per_epoch
    if schedule.name == "constant":
        return base
    if schedule.name == "steps":
        return base * schedule.gamma ** sum(epoch >= milestone for milestone in schedule.milestones)
    now, total, warm = max(0.0, update - schedule.delay), epochs * per_epoch, round(schedule.warmup_epochs * per_epoch)
    if schedule.per == "epoch":
        now, total, warm = epoch, epochs, round(schedule.warmup_epochs)
    # as DK-CLIP: up to a cosine that runs from update 0; as MAE-DFER: both ends of the rise are among its values
    rate = warmup_into_cosine if schedule.cosine_from == "start" else warmup_then_cosine
    return rate(now, lr=base, steps=total, warmup=warm, floor=schedule.min_lr)


def set_learning_rates(optimizer: Any, recipe: Recipe, update: int, per_epoch: int) -> float:
    """Set the rates of one update (counted from 0 over all epochs) in every group; the highest of them."""
    for group in optimizer.param_groups:
        rate = learning_rate(recipe.schedule, group["base_lr"], update, per_epoch, recipe.train.epochs)
        group["lr"] = rate * group.get("lr_scale", 1.0)
    return max(group["lr"] for group in optimizer.param_groups)


def create_optimizer(model: Any, recipe: Recipe) -> Optimizer:
    """AdamW or SGD, with the recipe's groups. ``base_lr`` of a group is its highest rate; ``lr_scale``, where timm's
    layer decay sets it, multiplies whatever the schedule gives."""
    options = recipe.optimizer
    import torch

    from .groups import parameter_groups

    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(f"Everything is frozen by {list(recipe.model.freeze)}; a training needs a parameter.")
    if options.layer_decay < 1:
        from ..models.layers import param_groups_layer_decay

        groups = param_groups_layer_decay(
            model, options.weight_decay, model.no_weight_decay(), layer_decay=options.layer_decay
        )
    else:
        groups = parameter_groups(
            model, lr=options.lr, weight_decay=options.weight_decay, rates=options.rates, decay_all=options.decay_all
        )
        names = [name for name, _ in model.named_parameters()]  # the frozen ones too: what to freeze is another choice
        for pattern in options.rates:
            if not fnmatch.filter(names, pattern):
                raise InputError(f"optimizer.rates: no parameter is called '{pattern}'.")
    for group in groups:
        group["base_lr"] = group.get("lr", options.lr)
    if options.name == "sgd":
        return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum, dampening=options.dampening)
    return torch.optim.AdamW(groups, lr=options.lr, betas=options.betas, eps=options.eps)
