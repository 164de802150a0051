"""Parts of the published code that only the parity checks need: losses, learning rates, crops, protocols."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from dfer_zoo.errors import InputError, MediaError
from dfer_zoo.media.faces.crops import Box, Corners, detector_box, largest_box
from dfer_zoo.media.resize import RESIZES
from dfer_zoo.models.dk_clip import DKCLIP
from dfer_zoo.training.optim import cosine, parameter_groups
from dfer_zoo.transforms.face_windows import FACES_PER_SECOND, grid_step
from dfer_zoo.transforms.sampling import view_start


def soft_target_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the clips of the cross entropy with soft labels (B, K), as the authors write it out."""
    return -(targets * F.log_softmax(logits, dim=-1)).sum(-1).mean()


def dk_clip_groups(
    model: DKCLIP, *, lr: float = 2e-6, weight_decay: float = 1e-4, published_freeze: bool = False
) -> list[dict]:
    """Freeze the text tower of a DK-CLIP and group the rest, with ten times the rate for layers that CLIP lacks.

    ``published_freeze`` freezes like the released training, whose filter of names also includes the semantic tower and
    the snippet interaction, which keep their random values.
    """
    model.freeze(*(model.frozen_parameters if published_freeze else model.texts_and_scale))
    rates = {"*.message*": 10 * lr, "local_tower.*": lr}
    return parameter_groups(model, lr=10 * lr, weight_decay=weight_decay, rates=rates)


def step_decay(epoch: int, *, lr: float, milestones: Sequence[int], factor: float = 0.1) -> float:
    """The learning rate of an epoch: multiplied by ``factor`` from every milestone on.

    >>> [step_decay(epoch, lr=0.04, milestones=(40, 55)) for epoch in (39, 40)]
    [0.04, 0.004]
    """
    return lr * factor ** sum(epoch >= milestone for milestone in milestones)


def cosine_with_restarts(
    step: int,
    *,
    lr: float,
    floor: float,
    cycle: int,
    warmup: int = 0,
    stretch: float = 1.0,
    decay: float = 1.0,
) -> float:
    """Linear warm-up over `warmup` steps, half a cosine down to `floor` at the end of the cycle, then restart.

    After each cycle its length without the rise is multiplied by `stretch`, and the peak by `decay`. Step 0 is at the
    floor even without a rise; later cycles without one start at the peak.
    """
    if step == 0:
        return floor
    within, number = step, 0
    while within >= cycle:
        within -= cycle
        cycle = int((cycle - warmup) * stretch) + warmup
        number += 1
    peak = lr * decay**number
    if within < warmup:
        return floor + (peak - floor) * within / warmup
    return cosine(within - warmup, lr=peak, epochs=cycle - warmup, floor=floor)


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


def landmark_box(landmarks: Sequence[Sequence[float]], width: int, height: int) -> Box:
    """The box around a face's landmarks, given in fractions of the frame, cut like `detector_box`."""
    columns = [min(math.floor(x * width), width - 1) for x, _ in landmarks]
    rows = [min(math.floor(y * height), height - 1) for _, y in landmarks]
    return detector_box((min(columns), min(rows), max(columns), max(rows)), width, height)


def grid_frames(num_frames: int, fps: float, per_second: float = FACES_PER_SECOND) -> list[int]:
    """Return the sampled frames of a clip.

    >>> grid_frames(20, 25)
    [0, 5, 10, 15]
    """
    return [*range(0, num_frames, grid_step(fps, per_second))]


def evaluation_frames(num_faces: int, fps: float) -> list[int]:
    """Return which of a clip's frames with a face the published evaluation keeps; none if fewer than half of one.

    >>> evaluation_frames(11, 30)
    [0, 6]
    """
    wanted = round(num_faces / (FACES_PER_SECOND * fps / 25))
    if wanted >= num_faces:
        return [*range(num_faces)]
    if wanted == 0:
        return []
    part, place, kept = num_faces / wanted, 1.0, []
    for count in range(1, num_faces + 1):
        if place >= num_faces:
            break
        if count == int(place + 0.5):
            kept.append(count - 1)
            place += part
    return kept


def spatial_views(video: Tensor, size: int, views: int) -> list[Tensor]:
    """Cut (T, 3, H, W) into ``views`` windows of length ``size`` along the longer side.

    The published test uses two. Its frames are resized to squares first, so the two are equal, and one is enough.
    """
    height, width = video.shape[-2:]
    starts = [view_start(max(height, width), size, view, views) for view in range(views)]
    if height >= width:
        return [video[..., start : start + size, :] for start in starts]
    return [video[..., start : start + size] for start in starts]
