"""Parts of the published training code that only the parity checks need: losses, parameter groups, learning rates."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from dfer_zoo.models.dk_clip import DKCLIP
from dfer_zoo.training.optim import cosine, parameter_groups


def soft_target_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the clips of the cross entropy with soft labels (B, K), as the authors write it out."""
    return -(targets * F.log_softmax(logits, dim=-1)).sum(-1).mean()


def dk_clip_groups(
    model: DKCLIP, *, lr: float = 2e-6, weight_decay: float = 1e-4, published_freeze: bool = False
) -> list[dict]:
    """Freezes the texts of a DK-CLIP and groups the rest: ten times the rate for all that CLIP does not bring along.

    ``published_freeze`` freezes as the released training did, whose filter of names also caught the semantic tower and
    the snippet interaction: they stayed at random numbers.
    """
    model.freeze(*(model.frozen_parameters if published_freeze else model.texts_and_scale))
    rates = {"*.message*": 10 * lr, "local_tower.*": lr}
    return parameter_groups(model, lr=10 * lr, weight_decay=weight_decay, rates=rates)


def step_decay(epoch: int, *, lr: float, milestones: Sequence[int], factor: float = 0.1) -> float:
    """The rate of an epoch, multiplied by ``factor`` from every milestone on; epochs count as the milestones do.

    >>> [step_decay(epoch, lr=0.04, milestones=(40, 55)) for epoch in (39, 40)]
    [0.04, 0.004]
    """
    return lr * factor ** sum(epoch >= milestone for milestone in milestones)


def cosine_with_restarts(
    step: int,
    *,
    lr: float,
    floor: float,
    cycle: int,
    warmup: int = 0,
    stretch: float = 1.0,
    decay: float = 1.0,
) -> float:
    """A straight rise over `warmup` steps, half a cosine down to `floor` at the end of the cycle, and again.

    After each cycle its length without the rise is multiplied by `stretch`, and the peak by `decay`. Step 0 is at the
    floor even without a rise; later cycles without one start at the peak.
    """
    if step == 0:
        return floor
    within, number = step, 0
    while within >= cycle:
        within -= cycle
        cycle = int((cycle - warmup) * stretch) + warmup
        number += 1
    peak = lr * decay**number
    if within < warmup:
        return floor + (peak - floor) * within / warmup
    return cosine(within - warmup, lr=peak, epochs=cycle - warmup, floor=floor)
