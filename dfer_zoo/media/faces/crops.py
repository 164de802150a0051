"""Published crop rules: compute crops from the boxes of a face detector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from ...errors import MediaError
from ..resize import opencv_gray

Corners = Sequence[float]  # left, top, right, bottom, in pixels


class Box(NamedTuple):
    left: int
    top: int
    width: int
    height: int


def crop(frame: np.ndarray, box: Box) -> np.ndarray:
    """Crop like Pillow: pixels outside of the frame are black."""
    corners = (box.left, box.top, box.left + box.width, box.top + box.height)
    return np.asarray(Image.fromarray(frame).crop(corners))


def largest_box(corners: Corners, width: int, height: int) -> Box:
    """The published crop of RAVDESS: the detector's box, rounded (halves to even), without margin, not squared.

    The box is clipped to the frame; the published script used negative numbers as indices from the end.
    """
    left, top, right, bottom = (round(float(value)) for value in corners)
    left, top, right, bottom = max(0, left), max(0, top), min(width, right), min(height, bottom)
    if right <= left or bottom <= top:
        raise _no_pixel(corners, width, height)
    return Box(left, top, right - left, bottom - top)


def _no_pixel(corners: Corners, width: int, height: int) -> MediaError:
    return MediaError(f"The face box {[float(v) for v in corners]} has no pixel in a frame of {width} x {height}.")


def union_square(boxes: Sequence[Corners], width: int, height: int) -> Box:
    """The published crop of MAFW's frames for MMA-DFER: around all faces of the frame, made square within the frame.

    Without a face it is the center square, half as wide as the frame's shorter side.
    """
    if not len(boxes):
        side = max(1, min(width, height) // 2)
        return Box((width - side) // 2, (height - side) // 2, side, side)
    lefts, tops, rights, bottoms = zip(*boxes)
    left, top = max(0, round(float(min(lefts)))), max(0, round(float(min(tops))))
    right, bottom = round(float(max(rights))), round(float(max(bottoms)))
    more = abs((right - left) - (bottom - top)) // 2
    if right - left < bottom - top:
        left, right = left - more, right + more
    else:
        top, bottom = top - more, bottom + more
    return largest_box((left, top, right, bottom), width, height)


def aligned_square(corners: Corners, width: int, height: int, margin: float = 0.2) -> Box:
    """A crop like those of the data sets: a square with a margin around the face, moved into the frame."""
    left, top, right, bottom = (float(value) for value in corners)
    side = round(max(right - left, bottom - top) * (1 + margin))
    columns, rows = (max(1, min(side, limit)) for limit in (width, height))
    left = min(max(0, round((left + right) / 2 - columns / 2)), width - columns)
    top = min(max(0, round((top + bottom) / 2 - rows / 2)), height - rows)
    return Box(left, top, columns, rows)


def detector_box(corners: Corners, width: int, height: int) -> Box:
    """The published crop of EMO-AffectNet: the detector's box with its corners cut to whole numbers, without margin.

    Right and bottom are at most the last column and row, and are not part of the crop.
    """
    left, top, right, bottom = (int(value) for value in corners)
    left, top, right, bottom = max(0, left), max(0, top), min(right, width - 1), min(bottom, height - 1)
    if right <= left or bottom <= top:
        raise _no_pixel(corners, width, height)
    return Box(left, top, right - left, bottom - top)


GRAY_PADDING = 40  # pixels around the frame
GRAY_OFFSETS = (10, 10)  # pixels added to a square box, left and right, top and bottom


def gray_square(
    frame: np.ndarray, corners: Corners, offsets: tuple[int, int] = GRAY_OFFSETS, padding: int = GRAY_PADDING
) -> np.ndarray:
    """The published crop of mini-Xception's most used package: (H, W, 3) uint8 -> a gray face (h, w, 3) uint8.

    The box is made square along its shorter side and enlarged by ``offsets``, independent of its size. Outside of the frame
    there is one gray value for ``padding`` pixels, the mean of the frame's last two rows; a face near that edge gives a
    crop that is not square.
    """
    gray = opencv_gray(frame)
    edge = np.rint(gray[-2:].mean()).astype(np.uint8)
    padded = np.pad(gray, padding, constant_values=edge)
    left, top, right, bottom = (round(float(value)) for value in corners)
    width, height = right - left, bottom - top
    if height > width:
        left, width = left - (height - width) // 2, height
    else:
        top, height = top - (width - height) // 2, width
    left, right = left - offsets[0] + padding, left + width + offsets[0] + padding
    top, bottom = top - offsets[1] + padding, top + height + offsets[1] + padding
    face = padded[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    if not face.size:
        raise _no_pixel(corners, frame.shape[1], frame.shape[0])
    return face[..., None].repeat(3, axis=2)
