"""The training transform of av_fusion: a flip and a small rotation, the same for all frames of a clip."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..augment import flip, rotation


def augment_frames(frames: Sequence[np.ndarray], *, rng: Any = random) -> list[np.ndarray]:
    """uint8 frames (H, W, 3), cropped and resized already -> the same sizes. The flip is drawn first, then the angle."""
    return rotation(flip(frames, rng=rng), degrees=10, rng=rng)
