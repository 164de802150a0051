"""MMA-DFER's training input: a frame from each part of the clip, brightness, a crop and a flip; the sound as it is."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ...media.clip import Clip
from ...weights.record import AudioSpec, VideoSpec
from .. import audio, augment, images, sampling


def augmented(frames: Sequence[np.ndarray], size: int, *, rng: Any = random) -> list[np.ndarray]:
    """uint8 frames of any size -> size x size; crops go down to 8 % of the face's area, as published."""
    brighter = augment.brightness(frames, rng=rng)
    cropped = augment.random_resized_crop(brighter, size, rng=rng, fallback="per_frame")
    return augment.flip(cropped, rng=rng)


@dataclass(frozen=True)
class TrainTransform:
    """Clip -> {argument name of forward: tensor}, drawn anew at each call.

    ``rng`` (places, crops, flips) and ``frame_rng`` (frames) are Python's and numpy's global generators unless given,
    as in the published code. A clip without sound gets the published constant, so that it can share a batch.
    """

    video: VideoSpec
    audio: AudioSpec
    rng: Any = random
    frame_rng: np.random.RandomState | None = None

    def __call__(self, clip: Clip) -> dict[str, Tensor]:
        spec = self.video
        chosen = sampling.segment_random(clip.num_frames, spec.num_frames, spec.short_clip, self.frame_rng)
        frames = augmented(clip.take(chosen), spec.img_size, rng=self.rng)
        sound = (
            audio.silence(self.audio)
            if clip.waveform is None
            else audio.prepare(clip.waveform, clip.sample_rate, self.audio)
        )
        return {"video": images.to_tensor(np.stack(frames), spec), "audio": sound}
