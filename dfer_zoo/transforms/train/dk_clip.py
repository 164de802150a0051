"""The training transform of DK-CLIP, and the twelve views of its final evaluation.

>>> transform = DKCLIPTrainTransform(model.video_spec)      # doctest: +SKIP
>>> video = transform(clip)["video"]                        # doctest: +SKIP
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.transforms import ColorJitter

from ...errors import MediaError
from ...media.clip import Clip
from ...media.faces.crops import Box
from ...media.resize import RESIZES, shorter_side_size
from ...weights.record import VideoSpec
from ..augment import FIVE_PLACES, Pictures, draw_fixed_box, flip
from ..images import three_crops, to_tensor
from ..sampling import segment_random


def train_indices(
    num_frames: int, frames: int, *, wrap: bool = True, rng: np.random.RandomState | None = None
) -> list[int]:
    """Draw one frame from each of ``frames`` equal segments; a clip with fewer frames is stretched.

    Args:
        num_frames: Frames of the clip.
        frames: Frames to draw.
        wrap: In a short clip the last places may round up to the clip's end. True: they become the first frame, as
            published. False: they become the last frame.
        rng: The generator; numpy's global one by default.

    >>> train_indices(5, 16)[-3:], train_indices(5, 16, wrap=False)[-3:]
    ([4, 4, 0], [4, 4, 4])
    """
    if num_frames < 1:
        raise MediaError("The clip has no frames to choose from.")
    if num_frames >= frames:
        return segment_random(num_frames, frames, rng=rng)
    places = np.rint(np.arange(frames) * (num_frames / frames)).astype(int)
    return [int(i) for i in (places % num_frames if wrap else places.clip(max=num_frames - 1))]


def crop_and_resize(frames: Pictures, box: Box, size: int, resize: str) -> list[np.ndarray]:
    """Crop frames and resize them to a square; the aspect ratio is not kept."""
    rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
    return [RESIZES[resize](frame[rows, columns], size, size) for frame in frames]


def jitter_colors(frames: Pictures, *, rng: Any = random, jitter: float = 0.8, gray: float = 0.2) -> list[np.ndarray]:
    """Apply color jitter and grayscale with these probabilities.

    Whether is drawn once per clip from ``rng``. The strength of the jitter is drawn from torch's generator anew for every
    frame, as published.
    """
    pictures = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    if rng.random() < jitter:
        change = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
        pictures = [change(picture) for picture in pictures]
    if rng.random() < gray:
        pictures = [picture.convert("L").convert("RGB") for picture in pictures]
    return [np.asarray(picture) for picture in pictures]


@dataclass(frozen=True)
class DKCLIPTrainTransform:
    """Turn a clip into {"video": (T, 3, size, size)}, drawn anew at each call. ``wrap`` as in `train_indices`."""

    video: VideoSpec
    wrap: bool = True

    def __call__(
        self, clip: Clip, *, rng: Any = random, sampling_rng: np.random.RandomState | None = None
    ) -> dict[str, Tensor]:
        spec = self.video
        frames = clip.take(train_indices(clip.num_frames, spec.num_frames, wrap=self.wrap, rng=sampling_rng))
        height, width = shorter_side_size(frames[0], spec.resize_shorter or spec.img_size)
        # all frames get the size of the first, so that one box fits them all
        frames = [RESIZES[spec.resize](frame, height, width) for frame in frames]
        box = draw_fixed_box(width, height, spec.img_size, FIVE_PLACES, rng=rng)
        frames = flip(crop_and_resize(frames, box, spec.img_size, spec.resize), rng=rng)
        return {"video": to_tensor(np.stack(jitter_colors(frames, rng=rng)), spec)}


def random_views(
    clip: Clip, spec: VideoSpec, clips: int = 4, *, rng: np.random.RandomState | None = None
) -> list[Tensor]:
    """Return the views of the published evaluation, (T, 3, size, size) each, whose probabilities are summed.

    The frames of ``clips`` clips are drawn one after the other by `train_indices`, with three crops each. Views are
    ordered by crop, then by clip.
    """
    chosen = [i for _ in range(clips) for i in train_indices(clip.num_frames, spec.num_frames, rng=rng)]
    return [view for crop in three_crops(clip.take(chosen), spec) for view in crop.split(spec.num_frames)]
