"""The training transform of MMA-DFER: one frame per segment, brightness, a crop and a flip; the sound unchanged."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ...media.clip import Clip
from ...weights.record import AudioSpec, VideoSpec
from .. import audio, augment, images, sampling


def augmented(frames: augment.Pictures, size: int, *, rng: Any = random) -> list[np.ndarray]:
    """Augment uint8 frames of any size to size x size. Crops cover as little as 8 % of the frame, as published."""
    brighter = augment.brightness(frames, rng=rng)
    cropped = augment.random_resized_crop(brighter, size, rng=rng, fallback="per_frame")
    return augment.flip(cropped, rng=rng)


@dataclass(frozen=True)
class MMADFERTrainTransform:
    """Turn a clip into {"video": (T, 3, size, size), "audio": ...}, drawn anew at each call.

    A clip without sound gets the published constant, so that it can share a batch with others.

    Args:
        video: The video record.
        audio: The audio record.
        rng: Draws brightness, crops and flips; Python's global generator by default, as published.
        frame_rng: Draws the frames; numpy's global generator by default, as published.
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
            else audio.prepare_audio(clip.waveform, clip.sample_rate, self.audio)
        )
        return {"video": images.to_tensor(np.stack(frames), spec), "audio": sound}
