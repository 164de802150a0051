"""From a clip to the tensors that a model takes, as its weights' record says.

>>> transform = create_transform(model)                    # doctest: +SKIP
>>> logits = model(**transform.batch([clip]))              # doctest: +SKIP
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import registry
from ..errors import InputError, MediaError
from ..media.clip import Clip, Span
from ..weights.record import AudioSpec, VideoSpec, Weights, check_count
from . import audio as audio_front_ends
from . import images, sampling


@dataclass(frozen=True)
class Transform:
    """Clip -> {argument name of forward: tensor}. Deterministic: this is the evaluation path."""

    video: VideoSpec | None
    audio: AudioSpec | None
    inputs: tuple[str, ...]
    optional: tuple[str, ...] = ()

    def __call__(self, clip: Clip) -> dict[str, Tensor | None]:
        """One sample, without a batch axis. A modality that the clip lacks is None where the model allows it."""
        seen = self.video is not None and clip.num_frames
        view = sampling.indices(clip.num_frames, clip.fps, self.video) if seen and self.video else []
        return self._samples(clip, [view])[0]

    def views(self, clip: Clip) -> list[dict[str, Tensor | None]]:
        """The samples whose probabilities the published evaluation averages; one for most systems."""
        return self._samples(clip, self.frame_indices(clip))

    def batch(self, clips: Sequence[Clip]) -> dict[str, Tensor | None]:
        """Samples stacked along a new first axis."""
        return collate([self(clip) for clip in clips])

    @property
    def face_crop(self) -> str:
        """The crop rule of `faces.find` that belongs to the record."""
        return self.video.face_crop if self.video else "aligned"

    @property
    def frame_count(self) -> str:
        """The record's rule for the number of frames of a listed clip."""
        return self.video.frame_count if self.video else "list"

    def without(self, name: str) -> Transform:
        """The transform of the other inputs."""
        return dataclasses.replace(self, inputs=tuple(other for other in self.inputs if other != name))

    def refusal(self, clip: Clip) -> str | None:
        """Why the model has nothing to look at or to listen to in this clip, or None; nothing is decoded for it."""
        return self._refusal(clip, self._lacks(clip))

    def _refusal(self, clip: Clip, lacks: dict[str, str]) -> str | None:
        if len(lacks) == len(self.inputs) > 1:  # each may be missing, but not all of them
            return f"{clip.source}: the model needs {' or '.join(lacks)}, and {' and '.join(lacks.values())}."
        needed = [name for name in lacks if name not in self.optional]
        if not needed:
            return None
        others = registry.systems_without("audio") if needed == ["audio"] and len(self.inputs) > 1 else ()
        advice = f" Systems that take a clip without sound: {', '.join(others)}." if others else ""
        return f"{clip.source}: the model needs {needed[0]}, and {lacks[needed[0]]}.{advice}"

    def _lacks(self, clip: Clip) -> dict[str, str]:
        """The inputs that this clip cannot give, and why."""
        return {name: reason for name in self.inputs if (reason := self._lack(name, clip))}

    def _lack(self, name: str, clip: Clip) -> str | None:
        if name == "audio":
            return None if clip.waveform is not None else "this clip has no sound"
        if not clip.num_frames:
            return "this clip has no frames"
        if any(map(sampling.sees, self.frame_indices(clip))):
            return None
        assert self.video is not None
        needed = sampling.frames_needed(clip.fps, self.video)
        return f"its sampling rule takes none of so few frames ({clip.num_frames}; {needed} are enough)"

    def frame_indices(self, clip: Clip) -> list[list[int]]:
        """Which frames of the clip each of its `views` looks at; -1 is a black one."""
        if self.video is None or not clip.num_frames:
            return []
        first = clip.frames.start if isinstance(clip.frames, Span) else 0
        return sampling.views(clip.num_frames, clip.fps, self.video, first)

    def _samples(self, clip: Clip, views: Sequence[Sequence[int]]) -> list[dict[str, Tensor | None]]:
        lacks = self._lacks(clip)
        if reason := self._refusal(clip, lacks):
            raise MediaError(reason)
        return [
            {name: None if name in lacks else self._modality(name, clip, view) for name in self.inputs}
            for view in views or [()]  # sound alone has one view
        ]

    def _modality(self, name: str, clip: Clip, view: Sequence[int]) -> Tensor:
        if name == "audio":
            assert self.audio is not None
            return audio_front_ends.prepare(clip.waveform, clip.sample_rate, self.audio, self._span(clip, view))
        assert self.video is not None
        frames = images.prepare(sampling.take(clip, view), self.video)
        return frames[0] if name == "image" else frames

    def _span(self, clip: Clip, view: Sequence[int]) -> tuple[float, float]:
        """The part of the clip that a view covers: from its first frame to where the one after its last would be."""
        assert self.audio is not None
        hears_part = self.audio.front_end in audio_front_ends.WINDOW_FRONT_ENDS
        if not hears_part or self.video is None or not clip.num_frames:
            return audio_front_ends.WHOLE
        return sampling.span(view[0], view[-1] + self.video.rate, clip.num_frames)


def collate(samples: Sequence[dict[str, Tensor | None]]) -> dict[str, Tensor | None]:
    """Stack samples; a modality must be there in all of them or in none."""
    if not samples:
        raise InputError("There is no clip in this batch; it needs one or more.")
    batch: dict[str, Tensor | None] = {}
    for name in samples[0]:
        there = [tensor for tensor in (sample[name] for sample in samples) if tensor is not None]
        if there and len(there) < len(samples):
            raise InputError(
                f"{len(samples) - len(there)} of {len(samples)} clips lack {name}; batch them apart, or leave them out."
            )
        batch[name] = torch.stack(there) if there else None
    return batch


def create_transform(model: Any, **changes: Any) -> Transform:
    """The transform that a model's weights were evaluated with; keywords replace fields of its video record.

    >>> create_transform(model, sampling="strided", rate=4)  # doctest: +SKIP
    """
    if isinstance(model, Weights):
        kind = registry.model_class(model.arch)
        video, audio, inputs, optional = model.video, model.audio, kind.inputs, kind.optional_inputs
    else:
        video, audio, inputs, optional = model.video_spec, model.audio_spec, model.inputs, model.optional_inputs
    if changes:
        known = {f.name for f in dataclasses.fields(VideoSpec)}
        if video is None or changes.keys() - known:
            raise InputError(
                f"create_transform: {sorted(changes)} cannot be changed; the video record has {sorted(known)}."
            )
        for name in changes.keys() & {"num_frames", "img_size", "rate", "segments"}:
            check_count(f"create_transform: {name}", changes[name])
        video = dataclasses.replace(video, **changes)
    return Transform(video, audio, tuple(inputs), tuple(optional))
