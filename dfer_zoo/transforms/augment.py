"""Pieces of the published training transforms: uint8 frames in, uint8 frames out, one draw for a whole clip.

Draws come from ``rng``: anything with the methods of Python's `random`, which is what the published code draws from.
Seeded alike it gives the same numbers in the same order.

>>> rng = random.Random(0)
>>> frames = [np.full((48, 64, 3), 200, np.uint8)] * 2
>>> flip(random_resized_crop(brightness(frames, rng=rng), 32, rng=rng), rng=rng)[0].shape
(32, 32, 3)
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from ..media.faces.crops import Box, crop
from ..media.resize import pillow_bilinear

Frames = Sequence[np.ndarray]  # (H, W, 3) uint8 each


def brightness(frames: Frames, low: float = 0.5, high: float = 1.5, *, rng: Any = random) -> list[np.ndarray]:
    """One factor, uniform between the bounds, for all frames."""
    return scale_brightness(frames, rng.uniform(low, high))


def scale_brightness(frames: Frames, factor: float) -> list[np.ndarray]:
    """To the byte what Pillow's `ImageEnhance.Brightness` makes: rounded down in single precision, cut at 255."""
    values = np.arange(256, dtype=np.float32) * np.float32(factor)
    table = np.minimum(values, np.float32(255)).astype(np.uint8)
    return [table[frame] for frame in frames]


def tilt(frames: Frames, low: float = -4, high: float = 4, *, rng: Any = random) -> list[np.ndarray]:
    """One angle in degrees, uniform between the bounds, for all frames: counter-clockwise, nearest pixel, the size is
    kept and the corners are black."""
    angle = rng.uniform(low, high)
    return [np.asarray(Image.fromarray(frame).rotate(angle)) for frame in frames]


def flip(frames: Frames, *, rng: Any = random) -> list[np.ndarray]:
    """Left and right exchanged in all frames, or in none."""
    if rng.random() < 0.5:
        return [frame[:, ::-1] for frame in frames]
    return list(frames)


def rotation(frames: Frames, degrees: int = 10, *, rng: Any = random) -> list[np.ndarray]:
    """One angle in whole degrees, counter-clockwise, for all frames; what comes from outside is black."""
    angle = rng.randint(-degrees, degrees)
    return [np.asarray(Image.fromarray(frame).rotate(angle, Image.Resampling.BILINEAR)) for frame in frames]


def random_resized_crop(
    frames: Frames,
    size: int,
    *,
    rng: Any = random,
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    fallback: str = "per_frame",
) -> list[np.ndarray]:
    """A part of random area and aspect, the same in all frames, resized to size x size by Pillow's bilinear filter.

    Where ten tries give no part that fits, the shorter side is resized to `size` and a square is cut out instead:
    at one place for the clip (``fallback="per_clip"``) or at a place of its own in every frame ("per_frame").
    """
    if fallback not in ("per_frame", "per_clip"):
        raise InputError(f"fallback is '{fallback}'; expected 'per_frame' or 'per_clip'.")
    height, width = frames[0].shape[:2]
    box = draw_box(width, height, rng=rng, area=area, aspect=aspect)
    if box is not None:
        return [pillow_bilinear(crop(frame, box), size, size) for frame in frames]
    resized = [resize_shorter(frame, size) for frame in frames]
    if fallback == "per_frame":
        return [crop(frame, draw_square(frame, size, rng=rng)) for frame in resized]
    square = draw_square(resized[0], size, rng=rng)
    return [crop(frame, square) for frame in resized]


def draw_box(
    width: int,
    height: int,
    *,
    rng: Any = random,
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box | None:
    """The published draw: the aspect is uniform itself, not its logarithm, and turned round half of the times."""
    for _ in range(10):
        pixels = rng.uniform(*area) * (width * height)
        ratio = rng.uniform(*aspect)
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if rng.random() < 0.5:  # drawn in every try, before the fit is looked at
            w, h = h, w
        if w <= width and h <= height:
            left = rng.randint(0, width - w)
            return Box(left, rng.randint(0, height - h), w, h)
    return None


def draw_square(frame: np.ndarray, size: int, *, rng: Any = random) -> Box:
    """A place for a square of this size; both corners are drawn even where there is one place only."""
    height, width = frame.shape[:2]
    left = rng.randint(0, width - size)
    return Box(left, rng.randint(0, height - size), size, size)


def resize_shorter(frame: np.ndarray, size: int) -> np.ndarray:
    """The shorter side becomes `size`, the longer one is rounded down."""
    height, width = frame.shape[:2]
    if width < height:
        return pillow_bilinear(frame, int(size * height / width), size)
    return pillow_bilinear(frame, size, int(size * width / height))
