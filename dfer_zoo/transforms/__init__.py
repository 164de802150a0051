"""Preprocessing: from a video file to the tensors of a model, as the record of its weights says.

>>> transform = create_transform(model)                          # doctest: +SKIP
>>> logits = model(**transform.batch(["interview.mp4"]))         # doctest: +SKIP
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .. import registry
from ..errors import InputError, MediaError
from ..media import faces as face_crops
from ..media.clip import Clip, Span
from ..media.files import read_clip
from ..weights.record import AudioSpec, VideoSpec, Weights, check_count
from . import audio as audio_front_ends
from . import images, sampling

Sample = dict[str, Tensor | None]  # keyed by the arguments of forward; no batch axis


@dataclass(frozen=True)
class Plan:
    """What a transform takes from a clip. It depends on lengths and rates only; nothing is decoded.

    Attributes:
        views: Frame indices of every view, -1 for a black frame. One empty view if there are no frames.
        missing: The inputs that the clip lacks, with the reason.
        refusal: Why the model cannot process this clip, or None.
    """

    views: tuple[tuple[int, ...], ...]
    missing: Mapping[str, str]
    refusal: str | None = None

    @property
    def frames(self) -> set[int]:
        """Indices of the frames to read."""
        if self.missing.keys() & {"video", "image"}:
            return set()
        return {index for view in self.views for index in view if index != sampling.BLACK}


@dataclass(frozen=True)
class Transform:
    """From files to the arguments of a model: read, find the face, crop, sample, resize, normalize.

    This is the transform of the published evaluation: deterministic. Create it with `create_transform`.

    Attributes:
        video: How frames become the input.
        audio: How sound becomes the input.
        inputs: Names of forward's arguments.
        optional: Inputs that may be None.
        faces: How faces are found, see `media.faces.find`.
        no_face: "error", or "frame" to use whole frames of a clip without a face.
        search: "full" or "fast", see `media.faces.find`.
    """

    video: VideoSpec | None
    audio: AudioSpec | None
    inputs: tuple[str, ...]
    optional: tuple[str, ...] = ()
    faces: Any = field(default="auto", compare=False)
    no_face: str = "error"
    search: str = "full"
    remembers: ClassVar[bool] = False  # whether frames are kept from one call to the next

    def __call__(self, source: Any) -> Sample:
        """Return one sample: the only view, or the middle one."""
        clip = self.read(source)
        seen = self.video is not None and clip.num_frames
        middle = [sampling.indices(clip.num_frames, clip.fps, self.video)] if seen and self.video else None
        return self.views(clip, self.plan(clip, middle))[0]

    def batch(self, sources: Iterable[Any]) -> dict[str, Tensor | None]:
        """Return the arguments of a model for several clips.

        If the published evaluation averages several views of a clip, they are consecutive along the first axis, and
        ``"views"`` holds the number of views of every clip: the model averages their probabilities.

        Args:
            sources: What `read_clip` takes: files, folders, arrays, clips.
        """
        if isinstance(sources, str | os.PathLike | Clip) or (isinstance(sources, np.ndarray) and sources.ndim < 5):
            raise InputError(f"batch() takes a list of clips; got one ({type(sources).__name__}): write batch([clip]).")
        clips = [self.views(source) for source in sources]
        batch = collate([sample for views in clips for sample in views])
        if any(len(views) > 1 for views in clips):
            batch["views"] = torch.tensor([len(views) for views in clips])
        return batch

    def views(self, source: Any, plan: Plan | None = None) -> list[Sample]:
        """Return the samples whose probabilities the published evaluation averages; one for most systems."""
        clip = self.read(source)
        plan = self.plan(clip) if plan is None else plan
        if plan.refusal:
            raise MediaError(plan.refusal)
        return [
            {name: None if name in plan.missing else self._input(name, clip, view) for name in self.inputs}
            for view in plan.views
        ]

    def read(self, source: Any, **reading: Any) -> Clip:
        """Read a clip and crop it to the face; keywords go to `read_clip`."""
        return self.crop(read_clip(source, **reading))

    def crop(self, clip: Clip) -> Clip:
        """Crop a clip to the face. Faces are searched when frames are taken; a cropped clip is not searched again."""
        if self.video is None or clip.frames is None:
            return clip
        done = clip.notes.get("faces")
        if done is None:
            return face_crops.find(clip, self.faces, crop=self.face_crop, no_face=self.no_face, search=self.search)
        if done["crop"] not in ("as given", self.face_crop):
            raise InputError(
                f"{clip.source}: the faces are cropped by the rule '{done['crop']}', and the weights were trained on "
                f"'{self.face_crop}'. Pass the file itself: the transform crops."
            )
        return clip

    @property
    def face_crop(self) -> str:
        """The crop rule of the weights, one of `media.faces`."""
        return self.video.face_crop if self.video else "aligned"

    def plan(self, clip: Clip, views: Sequence[Sequence[int]] | None = None) -> Plan:
        """Return which frames each view takes, and what the clip lacks.

        Args:
            clip: The clip; nothing of it is decoded.
            views: Frame indices, if known from another plan for the same frames.
        """
        if views is None:
            views = self._view_frames(clip)
        missing = {name: reason for name in self.inputs if (reason := self._lack(name, clip, views))}
        return Plan(tuple(map(tuple, views)), missing, self._refusal(clip, missing))

    def frames(self, clip: Clip, numbers: Sequence[int]) -> Tensor:
        """Return these frames of a cropped clip as model input, (T, C, size, size)."""
        assert self.video is not None
        return images.prepare_video(sampling.take(clip, numbers), self.video)

    @property
    def frame_count(self) -> str:
        """Whether the "list" or the "folder" says how many frames a listed clip has."""
        return self.video.frame_count if self.video else "list"

    def without(self, name: str) -> Transform:
        """Return the transform of the other inputs."""
        return dataclasses.replace(self, inputs=tuple(other for other in self.inputs if other != name))

    def _view_frames(self, clip: Clip) -> list[list[int]]:
        if self.video is None or not clip.num_frames:
            return [[]]
        first = clip.frames.start if isinstance(clip.frames, Span) else 0
        return sampling.views(clip.num_frames, clip.fps, self.video, first)

    def _lack(self, name: str, clip: Clip, views: Sequence[Sequence[int]]) -> str | None:
        if name == "audio":
            return None if clip.waveform is not None else "this clip has no sound"
        if not clip.num_frames:
            return "this clip has no frames"
        if any(map(sampling.sees, views)):
            return None
        assert self.video is not None
        needed = sampling.frames_needed(clip.fps, self.video)
        return f"its sampling rule takes no frame of a clip of {clip.num_frames} frames; it needs {needed}"

    def _refusal(self, clip: Clip, missing: Mapping[str, str]) -> str | None:
        if len(missing) == len(self.inputs) > 1:  # each may be missing, but not all at once
            return f"{clip.source}: the model needs {' or '.join(missing)}, and {' and '.join(missing.values())}."
        needed = [name for name in missing if name not in self.optional]
        if not needed:
            return None
        others = registry.systems_without("audio") if needed == ["audio"] and len(self.inputs) > 1 else ()
        advice = f" Systems that take a clip without sound: {', '.join(others)}." if others else ""
        return f"{clip.source}: the model needs {needed[0]}, and {missing[needed[0]]}.{advice}"

    def _input(self, name: str, clip: Clip, view: Sequence[int]) -> Tensor:
        if name == "audio":
            assert self.audio is not None
            return audio_front_ends.prepare_audio(clip.waveform, clip.sample_rate, self.audio, self._span(clip, view))
        frames = self.frames(clip, view)
        return frames[0] if name == "image" else frames

    def _span(self, clip: Clip, view: Sequence[int]) -> tuple[float, float]:
        """Return the part of the clip that a view covers: from its first frame to where its next frame would be."""
        assert self.audio is not None
        partial = self.audio.front_end in audio_front_ends.WINDOW_FRONT_ENDS
        if not partial or self.video is None or not view:
            return audio_front_ends.WHOLE
        return sampling.span(view[0], view[-1] + self.video.rate, clip.num_frames)


@dataclass(frozen=True)
class TrainingTransform(Transform):
    """The transform of the published training: the same face crop, then random frames and augmentation.

    Every call draws from the global generators of random, numpy and torch, as the published code does.
    """

    augment: Callable[[Clip], Sample] | None = field(default=None, compare=False)

    def __call__(self, source: Any) -> Sample:
        """Return one random sample."""
        assert self.augment is not None
        return self.augment(self.read(source))

    def views(self, source: Any, plan: Plan | None = None) -> list[Sample]:
        """Return one random sample."""
        return [self(source)]


def collate(samples: Sequence[Mapping[str, Tensor | None]]) -> dict[str, Tensor | None]:
    """Stack samples along a new first axis. An input must be present in all samples or in none.

    Raises:
        InputError: There is no sample, or an input is missing in some of them.
    """
    if not samples:
        raise InputError("This batch has no clips; it needs at least one.")
    batch: dict[str, Tensor | None] = {}
    for name in samples[0]:
        there = [tensor for tensor in (sample[name] for sample in samples) if tensor is not None]
        if there and len(there) < len(samples):
            raise InputError(
                f"{len(samples) - len(there)} of {len(samples)} clips lack {name}; batch them separately, or leave them out."
            )
        batch[name] = torch.stack(there) if there else None
    return batch


def create_transform(
    model: Any, *, faces: Any = "auto", no_face: str = "error", is_training: bool = False, **changes: Any
) -> Transform:
    """Create the transform that belongs to the weights of a model.

    Args:
        model: A model, a weights record, or the name of weights: "mma_dfer.dfew_fold1".
        faces: How to find the face: "auto", "none" (the frames are face crops already), the name of a detector, a function
            or boxes; see `media.faces.find`. The record defines the crop rule. "auto" uses the detector of the training
            if the record names one.
        no_face: "error", or "frame" to use whole frames of a clip without a face.
        is_training: Return the transform of the published training instead of that of the evaluation.
        **changes: Fields of the `VideoSpec` to replace.

    Returns:
        A `Transform`. Call it with a file for one sample; ``transform.batch([...])`` gives the arguments of a model.

    Raises:
        InputError: A change is not a field of the `VideoSpec`, or the system has no published training transform.

    >>> transform = create_transform("mma_dfer.mafw_fold1", num_frames=8)
    >>> transform.video.num_frames, transform.video.face_crop
    (8, 'union_square')
    """
    face_crops.check_faces(faces, no_face)
    subject = registry.get_weights(model) if isinstance(model, str) else model
    if isinstance(subject, Weights):
        kind = registry.model_class(subject.arch)
        video, audio, inputs, optional = subject.video, subject.audio, kind.inputs, kind.optional_inputs
    else:
        if not hasattr(subject, "video_spec"):
            raise InputError(
                f"A transform belongs to a model: a name such as 'mma_dfer.dfew_fold1', a record, or a model of "
                f"dfer_zoo; found {type(subject).__name__}."
            )
        video, audio = subject.video_spec, subject.audio_spec
        inputs, optional = subject.inputs, subject.optional_inputs
    if changes:
        video = _changed(video, changes)
    if isinstance(faces, str) and faces.partition("+")[0] == "auto":  # "auto+boxes:FILE" too
        faces = faces_of_training(video, "auto") + faces.removeprefix("auto")
    transform = Transform(video, audio, tuple(inputs), tuple(optional), faces, no_face)
    if not is_training:
        return transform
    from .train import augmentation, published_augmentation

    fields = {f.name: getattr(transform, f.name) for f in dataclasses.fields(transform)}
    return TrainingTransform(**fields, augment=augmentation(published_augmentation(subject), transform))


def faces_of_training(video: VideoSpec | None, default: str) -> str:
    """Return the value of ``faces`` that follows the training of the weights, or the default if the record names none."""
    return f"auto:{video.detector}" if video is not None and video.detector else default


def _changed(video: VideoSpec | None, changes: Mapping[str, Any]) -> VideoSpec:
    known = {f.name for f in dataclasses.fields(VideoSpec)}
    if video is None or changes.keys() - known:
        raise InputError(
            f"create_transform: {sorted(changes)} cannot be changed; the video record has {sorted(known)}."
        )
    for name in changes.keys() & {"num_frames", "img_size", "rate", "segments"}:
        check_count(f"create_transform: {name}", changes[name])
    return dataclasses.replace(video, **changes)
