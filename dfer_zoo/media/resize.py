"""Resize frames byte-exactly as the libraries with which the published weights were trained."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from PIL import Image


def pillow_bilinear(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pillow's bilinear: antialiased when it shrinks. torch's antialiased resize sometimes differs by one gray level."""
    if frame.shape[:2] == (height, width):
        return frame
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))


def pillow_nearest(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pillow's nearest: source pixel floor((i + 0.5) * n / size), where OpenCV's INTER_NEAREST takes floor(i * n / size)."""
    if frame.shape[:2] == (height, width):
        return frame
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.NEAREST))


def opencv_gray(frame: np.ndarray) -> np.ndarray:
    """OpenCV's RGB2GRAY, to the pixel: (H, W, 3) uint8 -> (H, W) uint8. A gray frame stays what it is."""
    red, green, blue = (frame[..., channel].astype(np.int32) for channel in range(3))
    return ((red * 9798 + green * 19235 + blue * 3735 + 16384) >> 15).astype(np.uint8)


def opencv_bilinear(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """OpenCV's INTER_LINEAR on uint8, without OpenCV and to the pixel: not antialiased, in whole numbers.

    A rounded float bilinear differs by one gray level in every eighth pixel.
    """
    if frame.shape[:2] == (height, width):
        return frame
    left, right, left_weight, right_weight = _linear_taps(frame.shape[1], width, True)
    top, bottom, top_weight, bottom_weight = _linear_taps(frame.shape[0], height, False)
    rows, places = np.unique(np.concatenate([top, bottom]), return_inverse=True)  # skip rows that no output needs
    source = frame[rows].astype(np.int32)  # (rows, W, 3)
    across = source.take(left, axis=1)
    across *= left_weight[:, None]
    far = source.take(right, axis=1)
    far *= right_weight[:, None]
    across += far
    across >>= 4  # (rows, width, 3), the weights' 11 bits less 4: the products below then fit 32 bits
    above = across.take(places[:height], axis=0)
    above *= top_weight[:, None, None]
    above >>= 16
    below = across.take(places[height:], axis=0)
    below *= bottom_weight[:, None, None]
    below >>= 16
    above += below
    above += 2
    above >>= 2
    return above.astype(np.uint8)


@functools.lru_cache(maxsize=64)
def _linear_taps(length: int, target: int, flat_ends: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For every target pixel along an axis its two source pixels and their weights in 2048ths.

    ``flat_ends``: at the ends the outermost pixel counts alone. OpenCV does so along rows; along columns it weighs the
    edge row with itself, which rounds differently.
    """
    place = ((np.arange(target) + 0.5) * (1.0 / (target / length)) - 0.5).astype(np.float32)
    first = np.floor(place)
    part = place - first
    first = first.astype(np.int64)
    if flat_ends:
        part[(first < 0) | (first >= length - 1)] = 0
    weights = [np.rint(np.float32(2048) * share).astype(np.int32) for share in (np.float32(1) - part, part)]
    return first.clip(0, length - 1), (first + 1).clip(0, length - 1), weights[0], weights[1]


# name -> (uint8 frame (H, W, 3), height, width) -> uint8 frame
RESIZES: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "pillow_bilinear": pillow_bilinear,
    "pillow_nearest": pillow_nearest,
    "opencv_bilinear": opencv_bilinear,
}


def shorter_side_size(frame: np.ndarray, side: int) -> tuple[int, int]:
    """(height, width) where the shorter side becomes ``side`` and the longer one follows, rounded."""
    height, width = frame.shape[:2]
    scale = side / min(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)
