"""The training transform of DK-CLIP, and the twelve views of its last evaluation.

>>> transform = TrainTransform(model.video_spec)            # doctest: +SKIP
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
from ..augment import Frames, flip
from ..images import three_crops, to_tensor
from ..sampling import segment_random

CROP_SCALES = (1, 0.875, 0.75, 0.66)


def train_indices(
    num_frames: int, frames: int, *, wrap: bool = True, rng: np.random.RandomState | None = None
) -> list[int]:
    """One frame at random of each of `frames` equal parts; a clip with fewer frames than that is stretched.

    ``wrap``: where the last places of a short clip are rounded up to its end they are its first frame, as published;
    else its last.

    >>> train_indices(5, 16)[-3:], train_indices(5, 16, wrap=False)[-3:]
    ([4, 4, 0], [4, 4, 4])
    """
    if num_frames < 1:
        raise MediaError("The clip has no frames to choose from.")
    if num_frames >= frames:
        return segment_random(num_frames, frames, rng=rng)
    places = np.rint(np.arange(frames) * (num_frames / frames)).astype(int)
    return [int(i) for i in (places % num_frames if wrap else places.clip(max=num_frames - 1))]


def crop_sizes(width: int, height: int) -> list[tuple[int, int]]:
    """Widths and heights to choose from: parts of the shorter side whose scales are neighbours."""
    sides = [int(min(width, height) * scale) for scale in CROP_SCALES]
    return [(w, h) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1]


def snap(side: int, size: int) -> int:
    """A side that is nearly what the network takes becomes exactly that."""
    return size if abs(side - size) <= 2 else side


def crop_places(width: int, height: int, crop_width: int, crop_height: int) -> list[tuple[int, int]]:
    """Left and top of a crop in the four corners and the centre, on a grid of quarters."""
    right, bottom = (width - crop_width) // 4, (height - crop_height) // 4
    return [(right * x, bottom * y) for x, y in ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2))]


def draw_crop(width: int, height: int, size: int, *, rng: Any = random) -> Box:
    w, h = rng.choice(crop_sizes(width, height))
    w, h = snap(w, size), snap(h, size)
    left, top = rng.choice(crop_places(width, height, w, h))
    return Box(left, top, w, h)


def crop_and_resize(frames: Frames, box: Box, size: int, resize: str) -> list[np.ndarray]:
    """The part, pressed into a square whatever its aspect."""
    rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
    return [RESIZES[resize](frame[rows, columns], size, size) for frame in frames]


def change_colours(frames: Frames, *, rng: Any = random, jitter: float = 0.8, grey: float = 0.2) -> list[np.ndarray]:
    """Whether is drawn once for the clip; how much, from torch's generator, anew for every frame, as published."""
    pictures = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    if rng.random() < jitter:
        change = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
        pictures = [change(picture) for picture in pictures]
    if rng.random() < grey:
        pictures = [picture.convert("L").convert("RGB") for picture in pictures]
    return [np.asarray(picture) for picture in pictures]


@dataclass(frozen=True)
class TrainTransform:
    """Clip -> {"video": (T, 3, size, size)}, another at every call."""

    video: VideoSpec
    wrap: bool = True

    def __call__(
        self, clip: Clip, *, rng: Any = random, sampling_rng: np.random.RandomState | None = None
    ) -> dict[str, Tensor]:
        spec = self.video
        frames = clip.take(train_indices(clip.num_frames, spec.num_frames, wrap=self.wrap, rng=sampling_rng))
        height, width = shorter_side_size(frames[0], spec.resize_shorter or spec.img_size)
        # one of another shape is pressed into this one, so that the place is in all of them
        frames = [RESIZES[spec.resize](frame, height, width) for frame in frames]
        box = draw_crop(width, height, spec.img_size, rng=rng)
        frames = flip(crop_and_resize(frames, box, spec.img_size, spec.resize), rng=rng)
        return {"video": to_tensor(np.stack(change_colours(frames, rng=rng)), spec)}


def random_views(
    clip: Clip, spec: VideoSpec, clips: int = 4, *, rng: np.random.RandomState | None = None
) -> list[Tensor]:
    """Clips drawn by the training rule, one after the other, three crops each: crop by crop, within it clip by clip.
    The published evaluation adds up the probabilities of all (T, 3, size, size)."""
    chosen = [i for _ in range(clips) for i in train_indices(clip.num_frames, spec.num_frames, rng=rng)]
    return [view for crop in three_crops(clip.take(chosen), spec) for view in crop.split(spec.num_frames)]
