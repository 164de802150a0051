"""Parameter groups for an optimiser: learning rates by name, weight decay by shape. Layer decay is timm's
`param_groups_layer_decay`, which reads `model.group_matcher()`."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping

from torch import nn


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    rates: Mapping[str, float] | None = None,
    decay_all: bool = False,
) -> list[dict]:
    """Trainable parameters by (learning rate, weight decay).

    ``rates`` maps shell patterns of parameter names to learning rates; the first that matches counts, else ``lr``.
    Vectors, biases and `model.no_weight_decay()` are not decayed unless ``decay_all``.
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
