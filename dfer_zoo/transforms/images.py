"""Turn frames into the tensor (T, 3, H, W) that a record describes. Resizing is byte-exact to the training of the weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..media.resize import RESIZES, opencv_gray, shorter_side_size
from ..weights.record import VideoSpec

CHANNEL_ORDERS = ("rgb", "bgr", "gray")


def prepare_video(frames: Sequence[np.ndarray], spec: VideoSpec) -> Tensor:
    """Resize, scale and normalize uint8 frames of any sizes to (T, 3, size, size)."""
    if spec.resize not in RESIZES:
        raise InputError(f"There is no resize '{spec.resize}'; there are {sorted(RESIZES)}.")
    if spec.channel_order == "gray":  # before the resize, as published: the rounding between the two changes the result
        frames = [opencv_gray(frame)[..., None].repeat(3, axis=2) for frame in frames]
    resized = np.stack([to_square(frame, spec, _model_frame(frames, spec)) for frame in frames])
    return to_tensor(resized, spec)


def _model_frame(frames: Sequence[np.ndarray], spec: VideoSpec) -> np.ndarray | None:
    """Return the frame whose size decides how all frames are resized; None: each decides for itself."""
    if spec.frame_size not in ("own", "first"):
        raise InputError(f"There is no frame size '{spec.frame_size}'; there are 'own' and 'first'.")
    return frames[0] if spec.frame_size == "first" else None


def to_tensor(frames: np.ndarray, spec: VideoSpec) -> Tensor:
    """Scale and normalize (T, H, W, 3) uint8 to (T, 3, H, W) float; (T, 1, H, W) if the record is gray."""
    if spec.channel_order not in CHANNEL_ORDERS:
        raise InputError(f"There is no channel order '{spec.channel_order}'; there are {', '.join(CHANNEL_ORDERS)}.")
    if spec.channel_order == "gray":
        frames = np.stack([opencv_gray(frame)[..., None] for frame in frames])
    video = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float().div(255)
    if spec.channel_order == "bgr":
        video = video.flip(1)
    if spec.mean == (0.0, 0.0, 0.0) and spec.std == (1.0, 1.0, 1.0):
        return video.contiguous()
    channels = video.shape[1]
    mean, std = (torch.tensor(v[:channels]).view(channels, 1, 1) for v in (spec.mean, spec.std))
    return (video - mean) / std


def three_crops(frames: Sequence[np.ndarray], spec: VideoSpec) -> list[Tensor]:
    """Return squares from the start, the end and the middle of the longer side, (T, 3, size, size) each.

    The shorter side is resized to ``img_size``, regardless of ``resize_shorter``.
    """
    like = _model_frame(frames, spec)
    sizes = [shorter_side_size(frame if like is None else like, spec.img_size) for frame in frames]
    resized = [RESIZES[spec.resize](frame, *size) for frame, size in zip(frames, sizes)]
    return [
        to_tensor(np.stack([crop_along(frame, spec.img_size, place) for frame in resized]), spec) for place in (0, 2, 1)
    ]


def crop_along(frame: np.ndarray, size: int, place: int) -> np.ndarray:
    """Crop a square at the start (0), the middle (1) or the end (2) of the longer side; the shorter side is ``size``."""
    height, width = frame.shape[:2]
    offset = place * ((max(height, width) - size) // 2)
    return frame[:, offset : offset + size] if width > height else frame[offset : offset + size]


def to_square(frame: np.ndarray, spec: VideoSpec, like: np.ndarray | None = None) -> np.ndarray:
    """Resize one frame to a square as the record says; ``like`` is the frame whose size decides, if not this one."""
    resize, size = RESIZES[spec.resize], spec.img_size
    if spec.resize_shorter is None:
        return resize(frame, size, size)
    frame = resize(frame, *shorter_side_size(frame if like is None else like, spec.resize_shorter))
    top, left = (frame.shape[0] - size) // 2, (frame.shape[1] - size) // 2
    return frame[top : top + size, left : left + size]
