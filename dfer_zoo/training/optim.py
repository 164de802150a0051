"""The optimizer of a recipe: parameter groups, AdamW or SGD, and the learning rate of every update."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..models.layers import param_groups_layer_decay
from .recipe import Recipe, ScheduleSection


def create_optimizer(model: Any, recipe: Recipe) -> torch.optim.Optimizer:
    """Create AdamW or SGD with the parameter groups of a recipe.

    ``base_lr`` of a group is its peak learning rate. ``lr_scale``, which timm's layer decay sets, multiplies the rate of
    the schedule.
    """
    options = recipe.optimizer
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(f"All parameters are frozen by {list(recipe.model.freeze)}; training needs at least one.")
    if options.layer_decay < 1:  # timm reads `model.group_matcher()`
        groups = param_groups_layer_decay(
            model, options.weight_decay, model.no_weight_decay(), layer_decay=options.layer_decay
        )
    else:
        groups = parameter_groups(
            model, lr=options.lr, weight_decay=options.weight_decay, rates=options.rates, decay_all=options.decay_all
        )
        names = [name for name, _ in model.named_parameters()]  # frozen ones included: a recipe may freeze more
        for pattern in options.rates:
            if not fnmatch.filter(names, pattern):
                raise InputError(f"optimizer.rates: no parameter is called '{pattern}'.")
    for group in groups:
        group["base_lr"] = group.get("lr", options.lr)
    if options.name == "sgd":
        return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum, dampening=options.dampening)
    return torch.optim.AdamW(groups, lr=options.lr, betas=options.betas, eps=options.eps)


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    rates: Mapping[str, float] | None = None,
    decay_all: bool = False,
) -> list[dict]:
    """Group the trainable parameters by learning rate and weight decay.

    Args:
        model: The model.
        lr: The learning rate of parameters that match no pattern.
        weight_decay: The weight decay. Vectors, biases and `model.no_weight_decay()` get none.
        rates: Shell patterns of parameter names and their learning rates; the first match counts.
        decay_all: Decay vectors, biases and `model.no_weight_decay()` too.
    """
    spared: set[str] = getattr(model, "no_weight_decay", set)()
    groups: dict[tuple[float, float], dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = next((r for pattern, r in (rates or {}).items() if fnmatch.fnmatchcase(name, pattern)), lr)
        spare = not decay_all and (parameter.ndim <= 1 or name.endswith(".bias") or name in spared)
        key = (rate, 0.0 if spare else weight_decay)
        group = groups.setdefault(key, {"params": [], "names": [], "lr": key[0], "weight_decay": key[1]})
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


# -- schedules ---------------------------------------------------------------------------------------------------------


def set_learning_rates(optimizer: Any, recipe: Recipe, update: int, per_epoch: int) -> float:
    """Set the learning rates of one update, counted from 0 over all epochs, and return the highest."""
    for group in optimizer.param_groups:
        rate = learning_rate(recipe.schedule, group["base_lr"], update, per_epoch, recipe.train.epochs)
        group["lr"] = rate * group.get("lr_scale", 1.0)
    return max(group["lr"] for group in optimizer.param_groups)


def learning_rate(schedule: ScheduleSection, base: float, update: int, per_epoch: int, epochs: int) -> float:
    """Return the learning rate of one update, counted from 0, for a group with the peak rate ``base``.

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
    rate = warmup_into_cosine if schedule.cosine_from == "start" else warmup_then_cosine
    return rate(now, lr=base, steps=total, warmup=warm, floor=schedule.min_lr)


def cosine(epoch: float, *, lr: float, epochs: int, floor: float = 0.0) -> float:
    """Half a cosine from ``lr`` at epoch 0 to ``floor`` at the end.

    >>> cosine(0, lr=1e-4, epochs=25)
    0.0001
    """
    return floor + (lr - floor) * (1 + math.cos(math.pi * epoch / epochs)) / 2


def warmup_into_cosine(step: float, *, lr: float, steps: int, warmup: int, floor: float = 0.0) -> float:
    """DK-CLIP's schedule: linear warmup from 0, then a cosine whose phase counts from step 0, not from the end of warmup.

    The rate therefore drops a little where the warmup ends. ``floor`` is the same for all groups, whatever their ``lr``.

    >>> warmup_into_cosine(2919, lr=2e-6, steps=29200, warmup=2920, floor=2e-8) < 2e-6
    True
    """
    if step < warmup:
        return lr * step / warmup
    return cosine(step, lr=lr, epochs=steps, floor=floor)


def warmup_then_cosine(step: float, *, lr: float, steps: int, warmup: int = 0, floor: float = 0.0) -> float:
    """MAE-DFER's schedule: linear warmup from 0 that reaches ``lr`` in its last step, then a cosine that starts at ``lr``.

    ``lr`` is used twice, and ``floor`` would be reached one step after the last.

    >>> [warmup_then_cosine(step, lr=1.0, steps=8, warmup=2) for step in (0, 1, 2, 5)]
    [0.0, 1.0, 1.0, 0.5]
    """
    if step < warmup:
        return lr * step / max(1, warmup - 1)
    return cosine(step - warmup, lr=lr, epochs=steps - warmup, floor=floor)
