"""The training transform of DFER-CLIP: a random frame per segment, and one random view for the whole clip.

>>> transform = DFERCLIPTrainTransform(model.video_spec, "dfew")      # doctest: +SKIP
>>> model(**collate([transform(clip)]))                               # doctest: +SKIP
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ...errors import InputError, suggest
from ...media.clip import Clip
from ...weights.record import VideoSpec
from ..augment import Pictures, brightness, flip, random_resized_crop, tilt
from ..images import to_tensor
from ..sampling import segment_random, take

# data set -> what is applied to the whole frames, before the crop
FIRST_STEPS: dict[str, tuple[Callable[..., list[np.ndarray]], ...]] = {
    "dfew": (brightness,),
    "ferv39k": (tilt,),
    "mafw": (),
}


def random_view(frames: Pictures, size: int, dataset: str, *, rng: Any = random) -> list[np.ndarray]:
    """Augment the uint8 frames of a clip to (size, size, 3), drawing from ``rng`` in the published order."""
    if dataset not in FIRST_STEPS:
        raise InputError(f"There is no training transform for '{dataset}'.{suggest(dataset, FIRST_STEPS)}")
    for step in FIRST_STEPS[dataset]:
        frames = step(frames, rng=rng)
    return flip(random_resized_crop(frames, size, rng=rng, fallback="per_clip"), rng=rng)


@dataclass(frozen=True)
class DFERCLIPTrainTransform:
    """Turn a clip into {"video": (T, 3, H, W)}, drawn anew at each call.

    Args:
        video: The video record.
        dataset: A key of `FIRST_STEPS`.
        rng: Draws the view.
        frame_rng: Draws the frames; numpy's global generator by default.
    """

    video: VideoSpec
    dataset: str
    rng: Any = random
    frame_rng: np.random.RandomState | None = None

    def __call__(self, clip: Clip) -> dict[str, Tensor]:
        indices = segment_random(clip.num_frames, self.video.num_frames, self.video.short_clip, self.frame_rng)
        frames = random_view(take(clip, indices), self.video.img_size, self.dataset, rng=self.rng)
        return {"video": to_tensor(np.stack(frames), self.video)}
