"""MAE-DFER's training inputs: for fine-tuning RandAugment, a crop, a flip and an erased box, the same for all frames of a
clip; for pre-training crops of a few fixed sizes and places.

Draws come from the generators that the published code uses: numpy's for the frames, the choice of operations and the
flip, Python's for all else; the noise in an erased box from torch's.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ...media.clip import Clip
from ...media.faces.crops import Box, crop
from ...media.resize import pillow_bilinear
from ...models.layers import RandAugment, RandomErasing, rand_augment_transform
from ...weights.record import VideoSpec
from .. import images, sampling
from .dk_clip import crop_sizes, snap

POLICY = "rand-m7-n4-mstd0.5-inc1"
GREY = (128, 128, 128)

# -- fine-tuning -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainTransform:
    """Clip -> {"video": (T, 3, size, size)}, drawn anew at each call."""

    video: VideoSpec
    frame_rng: np.random.RandomState | None = None

    def __call__(self, clip: Clip) -> dict[str, Tensor]:
        spec = self.video
        chosen = sampling.strided_random(clip.num_frames, spec.num_frames, spec.rate, self.frame_rng)
        return {"video": augmented(clip.take(chosen), spec)}


def augmented(frames: Sequence[np.ndarray], spec: VideoSpec) -> Tensor:
    """The chosen frames -> (T, 3, size, size): operations, a crop, a flip and an erased box, the same for all of them."""
    resized = [images.RESIZES[spec.resize](frame, spec.img_size, spec.img_size) for frame in frames]
    video = images.to_tensor(np.stack(rand_augment(resized)), spec)
    video = resize_crop(video, draw_crop(spec.img_size, spec.img_size), spec.img_size)
    if np.random.uniform() < 0.5:
        video = video.flip(-1)
    return erase(video)


@functools.cache
def policy(name: str = POLICY) -> RandAugment:
    """timm's RandAugment has the published operations, levels and order of draws; its interpolation must be named, or
    it is drawn too."""
    return rand_augment_transform(name, {"img_mean": GREY, "interpolation": Image.Resampling.BICUBIC})


def rand_augment(frames: Sequence[np.ndarray], name: str = POLICY) -> list[np.ndarray]:
    """The same operations with the same arguments on all frames: every frame starts from the same random states."""
    python, numpy = random.getstate(), np.random.get_state()
    augmented = []
    for frame in frames:
        random.setstate(python)
        np.random.set_state(numpy)
        augmented.append(np.asarray(policy(name)(Image.fromarray(frame))))
    return augmented


def draw_crop(
    height: int,
    width: int,
    *,
    rng: Any = random,
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (0.75, 1.3333),
) -> Box:
    """A part of the picture; its aspect is drawn on a logarithmic scale. Where ten tries do not fit: the largest middle."""
    for _ in range(10):
        pixels = rng.uniform(*area) * height * width
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = rng.randint(0, height - h)
            return Box(rng.randint(0, width - w), top, w, h)
    w = min(width, round(height * aspect[1]))
    h = min(height, round(width / aspect[0]))
    return Box((width - w) // 2, (height - h) // 2, w, h)


def resize_crop(video: Tensor, box: Box, size: int) -> Tensor:
    """(T, 3, H, W) -> (T, 3, size, size), bilinear and not antialiased, unlike the frames' own resize."""
    part = video[..., box.top : box.top + box.height, box.left : box.left + box.width]
    return F.interpolate(part, size=(size, size), mode="bilinear", align_corners=False)


def erase(video: Tensor, probability: float = 0.25) -> Tensor:
    """One box in all frames, each filled with a noise of its own: timm erases a single picture of 3 T channels."""
    folded = video.flatten(0, 1).clone()
    return RandomErasing(probability, mode="pixel", device="cpu")(folded).view_as(video)


# -- pre-training ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PretrainTransform:
    """Clip -> {"video": (T, 3, size, size)}, drawn anew at each call. ``voxceleb2``: the face is cut out of that data
    set's 224 x 224 frames first."""

    video: VideoSpec
    voxceleb2: bool = False
    rng: Any = random
    frame_rng: np.random.RandomState | None = None

    def __call__(self, clip: Clip) -> dict[str, Tensor]:
        video, _ = pretraining_frames(clip, self.video, self.voxceleb2, self.rng, self.frame_rng)
        return {"video": video}


def pretraining_frames(
    clip: Clip, spec: VideoSpec, voxceleb2: bool, rng: Any = random, frame_rng: np.random.RandomState | None = None
) -> tuple[Tensor, list[int]]:
    """(T, 3, size, size) of a random window, and which frames of the clip they are."""
    chosen, _ = sampling.random_windows(clip.num_frames, spec.num_frames, spec.rate, rng=frame_rng)
    frames = clip.take(chosen)
    if voxceleb2:
        frames = voxceleb2_face(frames, spec.img_size)
    return images.to_tensor(np.stack(multi_scale_crop(frames, spec.img_size, rng=rng)), spec), chosen


def voxceleb2_face(frames: Sequence[np.ndarray], size: int) -> list[np.ndarray]:
    """The upper middle of VoxCeleb2's 224 x 224 frames, where the face is: 160 or 192 pixels, as they are."""
    side = 160 if size <= 160 else 192
    left = (224 - side) // 2
    return [frame[:side, left : left + side] for frame in frames]


def multi_scale_crop(frames: Sequence[np.ndarray], size: int, *, rng: Any = random) -> list[np.ndarray]:
    """One of a few fixed boxes, the same in all frames, resized by Pillow."""
    height, width = frames[0].shape[:2]
    box = draw_fixed_box(width, height, size, rng=rng)
    return [pillow_bilinear(crop(frame, box), size, size) for frame in frames]


def draw_fixed_box(width: int, height: int, size: int, *, rng: Any = random) -> Box:
    """First the size, one of neighbouring scales of the shorter side; then the place."""
    w, h = (snap(side, size) for side in rng.choice(crop_sizes(width, height)))
    left, top = rng.choice(box_places(width, height, w, h))
    return Box(left, top, w, h)


def box_places(width: int, height: int, w: int, h: int) -> list[tuple[int, int]]:
    """(left, top): corners, centre, middles of the sides, and halfway between centre and corners."""
    x, y = (width - w) // 4, (height - h) // 4
    quarters = [(0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3)]
    return [(i * x, j * y) for i, j in quarters]


def spatial_views(video: Tensor, size: int, views: int) -> list[Tensor]:
    """(T, 3, H, W) -> so many windows along the longer side, `size` long: the published test looks at two. Its frames are
    resized to squares before, so that the two are the same, and one gives the same answer for half the work."""
    height, width = video.shape[-2:]
    starts = [sampling.view_start(max(height, width), size, view, views) for view in range(views)]
    if height >= width:
        return [video[..., start : start + size, :] for start in starts]
    return [video[..., start : start + size] for start in starts]
