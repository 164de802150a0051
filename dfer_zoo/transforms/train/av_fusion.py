"""The training transform of av_fusion: a flip and a small rotation, the same for all frames of a clip."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from ..augment import Pictures, flip, rotation


def augment_frames(frames: Pictures, *, rng: Any = random) -> list[np.ndarray]:
    """Flip and rotate uint8 frames (H, W, 3) that are already cropped and resized. The flip is drawn before the angle."""
    return rotation(flip(frames, rng=rng), degrees=10, rng=rng)
