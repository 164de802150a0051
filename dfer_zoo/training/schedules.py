"""Learning rates of the published recipes, as plain functions of an epoch or an update."""

from __future__ import annotations

import math


def cosine(epoch: float, *, lr: float, epochs: int, floor: float = 0.0) -> float:
    """Half a cosine from ``lr`` at epoch 0 to ``floor`` at the end.

    >>> cosine(0, lr=1e-4, epochs=25)
    0.0001
    """
    return floor + (lr - floor) * (1 + math.cos(math.pi * epoch / epochs)) / 2


def warmup_into_cosine(step: float, *, lr: float, steps: int, warmup: int, floor: float = 0.0) -> float:
    """DK-CLIP's: a straight rise from 0 over the first updates, then half a cosine that has been running since update 0,
    so the rate steps down a little where the rise ends. ``floor`` is the same for all groups, whatever their ``lr``.

    >>> warmup_into_cosine(2919, lr=2e-6, steps=29200, warmup=2920, floor=2e-8) < 2e-6
    True
    """
    if step < warmup:
        return lr * step / warmup
    return cosine(step, lr=lr, epochs=steps, floor=floor)


def warmup_then_cosine(step: float, *, lr: float, steps: int, warmup: int = 0, floor: float = 0.0) -> float:
    """MAE-DFER's: a straight rise from 0 that reaches ``lr`` in its last update, then half a cosine down towards ``floor``;
    it starts at ``lr`` once more, and would be at the floor one update after the last.

    >>> [warmup_then_cosine(step, lr=1.0, steps=8, warmup=2) for step in (0, 1, 2, 5)]
    [0.0, 1.0, 1.0, 0.5]
    """
    if step < warmup:
        return lr * step / max(1, warmup - 1)
    return cosine(step - warmup, lr=lr, epochs=steps - warmup, floor=floor)
