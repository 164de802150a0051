"""From the boxes of a face detector to crops: the published arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from ...errors import InputError, MediaError
from ..resize import RESIZES

Corners = Sequence[float]  # left, top, right, bottom, in pixels


class Box(NamedTuple):
    left: int
    top: int
    width: int
    height: int


def crop(frame: np.ndarray, box: Box) -> np.ndarray:
    """Pillow's crop: what lies outside a smaller frame is black."""
    corners = (box.left, box.top, box.left + box.width, box.top + box.height)
    return np.asarray(Image.fromarray(frame).crop(corners))


def largest_box(corners: Corners, width: int, height: int) -> Box:
    """The published crop of RAVDESS: the detector's box, rounded (halves to even), without margin, not squared.

    What sticks out of the frame is cut off; the published script took a negative number as an index from the other end.
    """
    left, top, right, bottom = (round(float(value)) for value in corners)
    left, top, right, bottom = max(0, left), max(0, top), min(width, right), min(height, bottom)
    if right <= left or bottom <= top:
        raise MediaError(f"The face box {[float(v) for v in corners]} has no pixel in a frame of {width} x {height}.")
    return Box(left, top, right - left, bottom - top)


def crop_faces(
    frames: Sequence[np.ndarray], boxes: Sequence[Corners | None], size: int = 224, resize: str = "opencv_bilinear"
) -> list[np.ndarray]:
    """One face of size x size per frame. Where no face was found (None) the box of the frame before is used again."""
    if len(frames) != len(boxes):
        raise InputError(f"There are {len(frames)} frames and {len(boxes)} boxes.")
    faces: list[np.ndarray] = []
    last: Corners | None = None
    for number, (frame, corners) in enumerate(zip(frames, boxes)):
        last = last if corners is None else corners
        if last is None:
            raise MediaError(f"No face was found in frame {number} or before it, so there is no box to cut out.")
        box = largest_box(last, frame.shape[1], frame.shape[0])
        face = frame[box.top : box.top + box.height, box.left : box.left + box.width]
        faces.append(RESIZES[resize](face, size, size))
    return faces


def union_square(boxes: Sequence[Corners], width: int, height: int) -> Box:
    """The published crop of MAFW's frames for MMA-DFER: around all faces of the frame, made square as far as the frame
    goes. Without a face it is the square in the middle, half as wide as the frame's shorter side."""
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
    """A crop like those that the data sets ship: the face with a little around it, square, moved into the frame."""
    left, top, right, bottom = (float(value) for value in corners)
    side = round(max(right - left, bottom - top) * (1 + margin))
    columns, rows = (max(1, min(side, limit)) for limit in (width, height))
    left = min(max(0, round((left + right) / 2 - columns / 2)), width - columns)
    top = min(max(0, round((top + bottom) / 2 - rows / 2)), height - rows)
    return Box(left, top, columns, rows)
