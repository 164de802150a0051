"""Frames -> the tensor (T, 3, H, W) that a record asks for. Resizing is to the byte what the weights were trained with."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import InputError
from ..records import VideoSpec


def pillow_bilinear(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pillow's bilinear: antialiased when it shrinks. torch's own antialiased resize is a grey level off at times."""
    if frame.shape[:2] == (height, width):
        return frame
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))


def opencv_bilinear(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """OpenCV's INTER_LINEAR on uint8, without OpenCV and to the pixel: not antialiased, in whole numbers.

    A rounded float bilinear is one grey level off in every eighth pixel.
    """
    if frame.shape[:2] == (height, width):
        return frame
    left, right, left_weight, right_weight = _linear_taps(frame.shape[1], width, True)
    top, bottom, top_weight, bottom_weight = _linear_taps(frame.shape[0], height, False)
    rows, places = np.unique(np.concatenate([top, bottom]), return_inverse=True)  # rows that nothing reads cost nothing
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
    "opencv_bilinear": opencv_bilinear,
}


def prepare(frames: Sequence[np.ndarray], spec: VideoSpec) -> Tensor:
    """uint8 frames of any sizes -> float (T, 3, size, size), as the record says."""
    if spec.resize not in RESIZES:
        raise InputError(f"There is no resize '{spec.resize}'; there are {sorted(RESIZES)}.")
    resized = np.stack([to_square(frame, spec) for frame in frames])
    return to_tensor(resized, spec)


def to_tensor(frames: np.ndarray, spec: VideoSpec) -> Tensor:
    """(T, H, W, 3) uint8 -> (T, 3, H, W) float, scaled and normalised."""
    video = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float().div(255)
    if spec.channel_order == "bgr":
        video = video.flip(1)
    elif spec.channel_order != "rgb":
        raise InputError(f"There is no channel order '{spec.channel_order}'; there are 'rgb' and 'bgr'.")
    if spec.mean == (0.0, 0.0, 0.0) and spec.std == (1.0, 1.0, 1.0):
        return video.contiguous()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (spec.mean, spec.std))
    return (video - mean) / std


def shorter_side(frame: np.ndarray, side: int, resize: str) -> np.ndarray:
    return RESIZES[resize](frame, *shorter_side_size(frame, side))


def shorter_side_size(frame: np.ndarray, side: int) -> tuple[int, int]:
    """(height, width) where the shorter side becomes ``side`` and the longer one follows, rounded."""
    height, width = frame.shape[:2]
    scale = side / min(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


def three_crops(frames: Sequence[np.ndarray], spec: VideoSpec) -> list[Tensor]:
    """Squares from the start, the end and the middle of the longer side, each (T, 3, size, size). The shorter side is
    as long as they are, whatever the record says."""
    resized = [shorter_side(frame, spec.size, spec.resize) for frame in frames]
    return [
        to_tensor(np.stack([crop_along(frame, spec.size, place) for frame in resized]), spec) for place in (0, 2, 1)
    ]


def crop_along(frame: np.ndarray, size: int, place: int) -> np.ndarray:
    """A square from the start (0), the middle (1) or the end (2) of the longer side; the shorter one is ``size``."""
    height, width = frame.shape[:2]
    offset = place * ((max(height, width) - size) // 2)
    return frame[:, offset : offset + size] if width > height else frame[offset : offset + size]


def to_square(frame: np.ndarray, spec: VideoSpec) -> np.ndarray:
    resize, size = RESIZES[spec.resize], spec.size
    if spec.resize_shorter is None:
        return resize(frame, size, size)
    frame = shorter_side(frame, spec.resize_shorter, spec.resize)
    top, left = (frame.shape[0] - size) // 2, (frame.shape[1] - size) // 2
    return frame[top : top + size, left : left + size]
