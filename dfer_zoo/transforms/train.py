"""A clip for training: which augmentation a recipe names, and its draws from one generator per clip and epoch."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..clip import Clip
from ..errors import InputError, near
from . import Transform

Sample = dict[str, Tensor | None]


def no_augmentation(clip: Clip, transform: Transform, rng: random.Random) -> Sample:
    return transform(clip)


def flip(clip: Clip, transform: Transform, rng: random.Random) -> Sample:
    """Left and right exchanged in all frames, or in none."""
    sample = transform(clip)
    video = sample.get("video")
    if video is not None and rng.random() < 0.5:
        sample["video"] = video.flip(-1)
    return sample


# name -> (clip, the evaluation transform, generator) -> sample
AUGMENTATIONS: dict[str, Callable[[Clip, Transform, random.Random], Sample]] = {
    "none": no_augmentation,
    "flip": flip,
}


def augmentation(name: str) -> Callable[[Clip, Transform, random.Random], Any]:
    if name not in AUGMENTATIONS:
        raise InputError(f"There is no augmentation '{name}'.{near(name, AUGMENTATIONS)}")
    return AUGMENTATIONS[name]
