"""Learning rates of the published recipes, as plain functions of an epoch or an update."""

from __future__ import annotations

from collections.abc import Sequence


def step_decay(epoch: int, *, lr: float, milestones: Sequence[int], factor: float = 0.1) -> float:
    """The rate of an epoch, multiplied by ``factor`` from every milestone on; epochs count as the milestones do.

    >>> [step_decay(epoch, lr=0.04, milestones=(40, 55)) for epoch in (39, 40)]
    [0.04, 0.004]
    """
    return lr * factor ** sum(epoch >= milestone for milestone in milestones)
