"""Building blocks of the published training transforms: uint8 frames in, uint8 frames out, one draw per clip.

``rng`` is anything with the methods of Python's `random`, the module that the published code draws from. With the same
seed it gives the same numbers in the same order.

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

Pictures = Sequence[np.ndarray]  # (H, W, 3) uint8 each


def brightness(frames: Pictures, low: float = 0.5, high: float = 1.5, *, rng: Any = random) -> list[np.ndarray]:
    """Scale the brightness of all frames by one factor, uniform between the bounds."""
    return scale_brightness(frames, rng.uniform(low, high))


def scale_brightness(frames: Pictures, factor: float) -> list[np.ndarray]:
    """Scale the brightness. Bytes equal Pillow's `ImageEnhance.Brightness`: float32, rounded down, clipped at 255."""
    values = np.arange(256, dtype=np.float32) * np.float32(factor)
    table = np.minimum(values, np.float32(255)).astype(np.uint8)
    return [table[frame] for frame in frames]


def tilt(frames: Pictures, low: float = -4, high: float = 4, *, rng: Any = random) -> list[np.ndarray]:
    """Rotate all frames by one angle in degrees, uniform between the bounds: counter-clockwise, nearest pixel, same size,
    black corners."""
    angle = rng.uniform(low, high)
    return [np.asarray(Image.fromarray(frame).rotate(angle)) for frame in frames]


def flip(frames: Pictures, *, rng: Any = random) -> list[np.ndarray]:
    """Mirror all frames horizontally with probability 0.5."""
    if rng.random() < 0.5:
        return [frame[:, ::-1] for frame in frames]
    return list(frames)


def rotation(frames: Pictures, degrees: int = 10, *, rng: Any = random) -> list[np.ndarray]:
    """Rotate all frames counter-clockwise by one whole number of degrees: bilinear, same size, black corners."""
    angle = rng.randint(-degrees, degrees)
    return [np.asarray(Image.fromarray(frame).rotate(angle, Image.Resampling.BILINEAR)) for frame in frames]


# -- crops of random area and aspect (DFER-CLIP, MMA-DFER) -------------------------------------------------------------


def random_resized_crop(
    frames: Pictures,
    size: int,
    *,
    rng: Any = random,
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    fallback: str = "per_frame",
) -> list[np.ndarray]:
    """Crop all frames to one box of random area and aspect, resized to size x size with Pillow's bilinear filter.

    If no box fits in ten tries, the shorter side is resized to ``size`` and a square is cropped instead.

    Args:
        frames: The frames of a clip.
        size: The side of the result.
        rng: The generator.
        area: Bounds of the box's share of the frame's area.
        aspect: Bounds of width / height.
        fallback: Where that square lies: at one place for the clip ("per_clip"), or at a new place in every frame
            ("per_frame").
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
    """Draw a box as published: the aspect itself is uniform, not its logarithm, and is inverted half of the time."""
    for _ in range(10):
        pixels = rng.uniform(*area) * (width * height)
        ratio = rng.uniform(*aspect)
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if rng.random() < 0.5:  # drawn in every try, before the box is checked
            w, h = h, w
        if w <= width and h <= height:
            left = rng.randint(0, width - w)
            return Box(left, rng.randint(0, height - h), w, h)
    return None


def draw_square(frame: np.ndarray, size: int, *, rng: Any = random) -> Box:
    """Draw the place of a square. Both coordinates are drawn even if only one place is possible."""
    height, width = frame.shape[:2]
    left = rng.randint(0, width - size)
    return Box(left, rng.randint(0, height - size), size, size)


def resize_shorter(frame: np.ndarray, size: int) -> np.ndarray:
    """Resize the shorter side to ``size``; the longer one is rounded down."""
    height, width = frame.shape[:2]
    if width < height:
        return pillow_bilinear(frame, int(size * height / width), size)
    return pillow_bilinear(frame, size, int(size * width / height))


# -- crops of a few fixed sizes and places (DK-CLIP, MAE-DFER's pre-training) ------------------------------------------

CROP_SCALES = (1, 0.875, 0.75, 0.66)  # of the shorter side

# (x, y) in quarters of the free space: corners and center; middles of the sides; halfway from center to corners
FIVE_PLACES = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2))
THIRTEEN_PLACES = (*FIVE_PLACES, (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3))


def draw_fixed_box(width: int, height: int, size: int, places: Sequence[tuple[int, int]], *, rng: Any = random) -> Box:
    """Draw a size of `crop_sizes`, then one of the places.

    Args:
        width: Width of the frame.
        height: Height of the frame.
        size: The input size of the network, see `snap`.
        places: `FIVE_PLACES` or `THIRTEEN_PLACES`.
        rng: The generator.
    """
    w, h = (snap(side, size) for side in rng.choice(crop_sizes(width, height)))
    left, top = rng.choice(fixed_places(width, height, w, h, places))
    return Box(left, top, w, h)


def crop_sizes(width: int, height: int) -> list[tuple[int, int]]:
    """List the (width, height) to choose from: the two scales are equal or next to each other in `CROP_SCALES`."""
    sides = [int(min(width, height) * scale) for scale in CROP_SCALES]
    return [(w, h) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1]


def snap(side: int, size: int) -> int:
    """Return ``size`` for sides that differ from it by at most two pixels."""
    return size if abs(side - size) <= 2 else side


def fixed_places(width: int, height: int, w: int, h: int, places: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """List (left, top) of a w x h crop at these places."""
    x, y = (width - w) // 4, (height - h) // 4
    return [(i * x, j * y) for i, j in places]
