"""Frames -> the tensor (T, 3, H, W) that a record asks for. Resizing is to the byte what the weights were trained with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import InputError
from ..weights import VideoSpec


def pillow_bilinear(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pillow's bilinear: antialiased when it shrinks. torch's own antialiased resize is a grey level off at times."""
    if frame.shape[:2] == (height, width):
        return frame
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))


# name -> (uint8 frame (H, W, 3), height, width) -> uint8 frame
RESIZES: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "pillow_bilinear": pillow_bilinear,
}


def prepare(frames: Sequence[np.ndarray], spec: VideoSpec) -> Tensor:
    """uint8 frames of any sizes -> float (T, 3, size, size), as the record says."""
    if spec.resize not in RESIZES:
        raise InputError(f"There is no resize '{spec.resize}'; there are {sorted(RESIZES)}.")
    resized = np.stack([_to_square(frame, spec) for frame in frames])
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


def _to_square(frame: np.ndarray, spec: VideoSpec) -> np.ndarray:
    resize, size = RESIZES[spec.resize], spec.size
    if spec.resize_shorter is None:
        return resize(frame, size, size)
    height, width = frame.shape[:2]
    scale = spec.resize_shorter / min(height, width)
    frame = resize(frame, int(height * scale + 0.5), int(width * scale + 0.5))
    top, left = (frame.shape[0] - size) // 2, (frame.shape[1] - size) // 2
    return frame[top : top + size, left : left + size]
