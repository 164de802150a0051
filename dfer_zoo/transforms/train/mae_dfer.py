"""The training transforms of MAE-DFER.

Fine-tuning: RandAugment, a crop, a flip and random erasing, the same for all frames of a clip. Pre-training: a crop of
a fixed size and place.

Draws come from the generators of the published code: numpy's for the frames, the RandAugment operations and the flip,
torch's for the noise of random erasing, Python's for everything else.
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
from ..augment import THIRTEEN_PLACES, draw_fixed_box

POLICY = "rand-m7-n4-mstd0.5-inc1"
GRAY = (128, 128, 128)

# -- fine-tuning -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MAEDFERTrainTransform:
    """Turn a clip into {"video": (T, 3, size, size)}, drawn anew at each call."""

    video: VideoSpec
    frame_rng: np.random.RandomState | None = None

    def __call__(self, clip: Clip) -> dict[str, Tensor]:
        spec = self.video
        chosen = sampling.strided_random(clip.num_frames, spec.num_frames, spec.rate, self.frame_rng)
        return {"video": augmented(clip.take(chosen), spec)}


def augmented(frames: Sequence[np.ndarray], spec: VideoSpec) -> Tensor:
    """Augment the chosen frames to (T, 3, size, size); every draw applies to all of them."""
    resized = [images.RESIZES[spec.resize](frame, spec.img_size, spec.img_size) for frame in frames]
    video = images.to_tensor(np.stack(rand_augment(resized)), spec)
    video = resize_crop(video, draw_crop(spec.img_size, spec.img_size), spec.img_size)
    if np.random.uniform() < 0.5:
        video = video.flip(-1)
    return erase(video)


@functools.cache
def policy(name: str = POLICY) -> RandAugment:
    """Return timm's RandAugment: it has the published operations, levels and order of draws.

    The interpolation is named because timm draws it otherwise.
    """
    return rand_augment_transform(name, {"img_mean": GRAY, "interpolation": Image.Resampling.BICUBIC})


def rand_augment(frames: Sequence[np.ndarray], name: str = POLICY) -> list[np.ndarray]:
    """Apply the same operations to all frames: every frame starts from the same random states."""
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
    """Draw a box; its aspect is log-uniform. If no box fits in ten tries, return the largest centered one."""
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
    """Crop and resize (T, 3, H, W) to (T, 3, size, size): bilinear without antialiasing, unlike the first resize."""
    part = video[..., box.top : box.top + box.height, box.left : box.left + box.width]
    return F.interpolate(part, size=(size, size), mode="bilinear", align_corners=False)


def erase(video: Tensor, probability: float = 0.25) -> Tensor:
    """Erase one box in all frames with different noise: timm gets one image of 3 T channels."""
    folded = video.flatten(0, 1).clone()
    return RandomErasing(probability, mode="pixel", device="cpu")(folded).view_as(video)


# -- pre-training ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MAEDFERPretrainTransform:
    """Turn a clip into {"video": (T, 3, size, size)}, drawn anew at each call.

    ``voxceleb2``: crop that data set's 224 x 224 frames to the face first.
    """

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
    """Return (T, 3, size, size) of a random window, and the indices of its frames."""
    chosen, _ = sampling.random_windows(clip.num_frames, spec.num_frames, spec.rate, rng=frame_rng)
    frames = clip.take(chosen)
    if voxceleb2:
        frames = voxceleb2_face(frames, spec.img_size)
    return images.to_tensor(np.stack(multi_scale_crop(frames, spec.img_size, rng=rng)), spec), chosen


def voxceleb2_face(frames: Sequence[np.ndarray], size: int) -> list[np.ndarray]:
    """Crop VoxCeleb2's 224 x 224 frames to the upper center, where the face is: 160 or 192 pixels, not resized."""
    side = 160 if size <= 160 else 192
    left = (224 - side) // 2
    return [frame[:side, left : left + side] for frame in frames]


def multi_scale_crop(frames: Sequence[np.ndarray], size: int, *, rng: Any = random) -> list[np.ndarray]:
    """Crop all frames to one box of `draw_fixed_box`, resized with Pillow."""
    height, width = frames[0].shape[:2]
    box = draw_fixed_box(width, height, size, THIRTEEN_PLACES, rng=rng)
    return [pillow_bilinear(crop(frame, box), size, size) for frame in frames]
