"""The training transforms of HiCMAE: MAE-DFER's frames, and the part of the sound that belongs to them, with a random gain.

The gain is drawn from numpy's generator, as published. The published evaluation draws one too; here it is 1.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ...errors import MediaError
from ...media.clip import Clip
from ...weights.record import AudioSpec, VideoSpec
from .. import audio, sampling
from .mae_dfer import augmented, pretraining_frames


@dataclass(frozen=True)
class HiCMAETrainTransform:
    """Turn a clip into {"video": (T, 3, size, size), "audio": (1, time, mel)}, drawn anew at each call."""

    video: VideoSpec
    audio: AudioSpec
    draw_gain: bool = True
    frame_rng: np.random.RandomState | None = None

    def __call__(self, clip: Clip) -> dict[str, Tensor]:
        spec = self.video
        chosen = sampling.strided_random(clip.num_frames, spec.num_frames, spec.rate, self.frame_rng)
        span = train_span(chosen, clip.num_frames, spec)
        return {
            "video": augmented(clip.take(chosen), spec),
            "audio": sound_input(clip, self.audio, span, self.draw_gain),
        }


def train_span(chosen: Sequence[int], num_frames: int, spec: VideoSpec) -> tuple[float, float]:
    """Return the part of the clip from the first chosen frame to the end of the window, as shares of its length.

    >>> train_span([25, 27, 29, 31], 101, VideoSpec(num_frames=4, img_size=160, sampling="strided", rate=2))
    (0.25, 0.33)
    """
    return sampling.span(chosen[0], chosen[0] + spec.num_frames * spec.rate, num_frames)


@dataclass(frozen=True)
class HiCMAEPretrainTransform:
    """Turn a clip into {"video": (T, 3, size, size), "audio": (1, time, mel)}, drawn anew at each call.

    ``voxceleb2``: crop that data set's 224 x 224 frames to the face first.
    """

    video: VideoSpec
    audio: AudioSpec
    voxceleb2: bool = False
    draw_gain: bool = True
    rng: Any = random
    frame_rng: np.random.RandomState | None = None

    def __call__(self, clip: Clip) -> dict[str, Tensor]:
        video, chosen = pretraining_frames(clip, self.video, self.voxceleb2, self.rng, self.frame_rng)
        span = pretraining_span(clip, chosen, self.video)
        return {"video": video, "audio": sound_input(clip, self.audio, span, self.draw_gain)}


def pretraining_span(clip: Clip, chosen: Sequence[int], spec: VideoSpec) -> tuple[float, float]:
    """Return the part from the start of the first chosen frame to the end of the frame after the last, in real time.

    Fine-tuning instead maps the whole sound to the whole clip, even if their lengths differ.
    """
    last = min(chosen[-1] + spec.rate, clip.num_frames - 1)
    duration = clip.duration or 0.0
    if clip.waveform is not None and clip.sample_rate:
        duration = clip.waveform.shape[-1] / clip.sample_rate
    frames = duration * clip.fps if clip.fps else clip.num_frames  # that the sound lasts
    return min(chosen[0] / frames, 1.0), min((last + 1) / frames, 1.0)


def sound_input(clip: Clip, spec: AudioSpec, span: tuple[float, float], draw_gain: bool) -> Tensor:
    """Compute the model's input from the part of the clip's sound in the span."""
    if clip.waveform is None:
        raise MediaError(
            f"{clip.source}: HiCMAE trains on clips with sound, and this clip has none. Remove it from the list."
        )
    gain = audio.draw_gain() if draw_gain else 1.0
    return audio.prepare_audio(clip.waveform, clip.sample_rate, spec, span, gain=gain)
