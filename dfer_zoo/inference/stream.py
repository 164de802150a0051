"""Predict a stream of frames."""

from __future__ import annotations

import collections
import copy
import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..media.clip import MOST_CHANNELS, SHORTEST_SOUND, Clip, check_fps, check_sample_rate, float_samples
from ..media.faces import find_in_stream
from ..media.faces.cut import GivenCrops
from ..models.base import DferModel
from ..transforms import Plan, Sample, Transform
from ..transforms.sampling import BLACK
from .batcher import shares_frames
from .prediction import Prediction
from .samples import visual_of
from .windows import auto_window

if TYPE_CHECKING:
    from .recognizer import Recognizer

LATE = 0.5  # of a stride; a prediction that would start later than this is dropped


class Stream:
    """Predict a stream of frames, such as a camera: one prediction per stride, for the last window.

    Face boxes, transformed frames and, for models that encode frames one by one, their features are cached, so that
    no frame is searched or encoded twice. Create one with `Recognizer.stream`.

    Attributes:
        dropped: With ``live=True``, the number of predictions that were skipped because they would be late.

    >>> live = recognizer.stream(fps=30)                                                    # doctest: +SKIP
    >>> for frame in camera:                                                                # doctest: +SKIP
    ...     if prediction := live.push(frame):
    ...         print(prediction.label)
    """

    def __init__(
        self,
        recognizer: Recognizer,
        fps: float,
        sample_rate: int | None = None,
        *,
        live: bool = False,
        remember: bool = True,
    ) -> None:
        check_fps(fps)
        if sample_rate is not None:
            check_sample_rate(sample_rate, "stream")
        if recognizer.window is None:
            raise InputError("A stream has no end, so it needs windows: Recognizer(..., window=2.0).")
        self.fps, self.sample_rate, self.live = fps, sample_rate, live
        window = recognizer.window
        window = auto_window(recognizer.transforms, fps) if isinstance(window, str) else window
        self.length = max(1, round(window * fps))
        self.samples = round(self.length / fps * (sample_rate or 0))
        stride = window / 2 if recognizer.stride is None else recognizer.stride
        self.step = max(1, round(stride * fps))
        self.dropped = 0
        self._behind = 0.0  # seconds by which the predictions so far delay the next frame
        # (frame number, samples pushed with that frame)
        self._sound: collections.deque[tuple[int, np.ndarray]] = collections.deque()
        self._memory = _Memory(recognizer, self.length, fps, remember)
        self.recognizer = copy.copy(recognizer)
        self.recognizer.window = self.recognizer.stride = None  # a stream keeps only one window
        if recognizer.people != "all":
            self.recognizer.transforms = self._memory.transforms

    def push(self, frame: np.ndarray, sound: np.ndarray | None = None) -> Prediction | None:
        """Add the next frame.

        Args:
            frame: RGB, (H, W, 3) uint8.
            sound: The samples (channels, n) that belong to this frame.

        Returns:
            A prediction when a window is full and a stride has passed since the last one, else None.
        """
        begin = time.perf_counter()
        clip = Clip.from_arrays([frame], source="stream")  # checks the frame
        samples = None if sound is None else self._samples(sound)
        self._memory.ring.add(np.ascontiguousarray(clip.take([0])[0]))  # OpenCV refuses views with negative strides
        if samples is not None:
            self._sound.append((self.seen, samples))
        self._drop_old_sound()
        try:
            return self._answer() if self._is_due() else None
        finally:
            self._behind = max(0.0, self._behind + time.perf_counter() - begin - 1 / self.fps)

    @property
    def seen(self) -> int:
        """The number of frames so far."""
        return self._memory.ring.count

    def _is_due(self) -> bool:
        if self.seen < self.length or (self.seen - self.length) % self.step:
            return False
        late = self.live and self._behind > LATE * self.step / self.fps
        self.dropped += late
        return not late

    def _samples(self, sound: np.ndarray) -> np.ndarray:
        if self.sample_rate is None:
            raise InputError("Sound needs a sample rate: stream(fps, sample_rate=...).")
        samples = np.atleast_2d(float_samples(sound, "stream"))
        allowed = {self._sound[0][1].shape[0]} if self._sound else range(1, MOST_CHANNELS + 1)
        if samples.ndim != 2 or samples.shape[0] not in allowed:
            raise InputError(
                f"The sound has shape {samples.shape}; expected (channels, samples), with 1 to {MOST_CHANNELS} channels "
                "and always the same number."
            )
        return samples

    def _drop_old_sound(self) -> None:
        """Drop sound from before the window, and excess sound if it arrives faster than the frames."""
        while self._sound and self._sound[0][0] <= self.seen - self.length:
            self._sound.popleft()
        kept = sum(part.shape[1] for _, part in self._sound)
        while self._sound and kept - self._sound[0][1].shape[1] >= self.samples:
            kept -= self._sound.popleft()[1].shape[1]

    def _answer(self) -> Prediction:
        parts = [part for _, part in self._sound]
        waveform = np.concatenate(parts, axis=1)[:, -self.samples :] if parts else None
        if waveform is not None and waveform.shape[1] < SHORTEST_SOUND * (self.sample_rate or 1):
            waveform = None
        frames = self._memory.window(self.recognizer.people != "all")
        rates: dict[str, Any] = {"fps": self.fps, "sample_rate": self.sample_rate, "source": "stream"}
        clip = Clip.from_arrays(self._memory.ring.last(1), waveform, **rates)  # checks the samples
        notes = {} if frames.report is None else {"faces": frames.report}
        prediction = self.recognizer(dataclasses.replace(clip, frames=frames, notes=notes))
        start = (self.seen - self.length) / self.fps
        (window,) = prediction.windows
        moved = dataclasses.replace(window, start=start, stop=self.seen / self.fps)
        track = tuple((start + second, box) for second, box in prediction.track)
        if frames.report is not None:  # boxes are numbered from the start of the stream
            track = tuple((number / self.fps, box) for number, box in self._memory.boxes())
        return dataclasses.replace(prediction, windows=(moved,), track=track)


# -- state kept between predictions ------------------------------------------------------------------------------------


class Ring:
    """A ring buffer of the last frames, numbered from the start of the stream."""

    def __init__(self, kept: int) -> None:
        self.frames: collections.deque[np.ndarray] = collections.deque(maxlen=kept)
        self.count = 0

    def keep(self, count: int) -> None:
        """Set the number of frames to keep."""
        self.frames = collections.deque(self.frames, maxlen=count)

    def add(self, frame: np.ndarray) -> None:
        self.frames.append(frame)
        self.count += 1

    def last(self, count: int) -> list[np.ndarray]:
        return self.take(range(self.count - count, self.count))

    def __len__(self) -> int:
        return self.count

    def take(self, indices: Sequence[int]) -> list[np.ndarray]:
        first = self.count - len(self.frames)
        return [self.frames[index - first] for index in indices]


@dataclass(frozen=True)
class StreamWindow:
    """The frames of one window, cropped on access."""

    source: Any  # frames numbered from the start of the stream
    start: int
    length: int
    report: dict[str, Any] | None = None

    def __len__(self) -> int:
        return self.length

    def take(self, indices: Sequence[int]) -> list[np.ndarray]:
        return self.source.take([self.start + index for index in indices])

    def in_order(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        if self.report is None:  # whole frames: the indices may be a generator
            for index in indices:
                yield from self.source.take([self.start + index])
        else:
            yield from self.source.take([self.start + index for index in indices])


class _Memory:
    """The cache of a stream. Without ``remember`` it is cleared before every prediction."""

    def __init__(self, recognizer: Recognizer, length: int, fps: float, remember: bool) -> None:
        self.length, self.remember = length, remember
        self.ring = Ring(length)
        visual = visual_of(recognizer.transforms)
        self.cropped, self.report, before = None, None, 0
        if visual.video is not None and recognizer.people != "all":
            self.cropped, self.report, before = find_in_stream(
                self.ring, length, fps, visual.faces, crop=visual.face_crop, no_face=visual.no_face
            )
        self.search = getattr(self.cropped, "search", None)  # None for whole frames and given boxes
        self.ring.keep(length + before)
        self.start = 0
        self.transforms: list[Transform] = [
            RememberingTransform(
                **{f.name: getattr(transform, f.name) for f in dataclasses.fields(transform)},
                memory=self,
                model=model if shares_frames(model, transform) else None,
            )
            for model, transform in zip(recognizer.models, recognizer.transforms)
        ]

    def window(self, cropped: bool) -> StreamWindow:
        """Return the last window, and drop cached values of earlier frames."""
        self.start = self.ring.count - self.length
        first = self.ring.count - len(self.ring.frames)
        if self.search is not None:
            self.search.forget(first if self.remember else self.ring.count)
        for transform in self.transforms:
            transform.forget(self.start if self.remember else self.ring.count)  # type: ignore[attr-defined]
        if not cropped or self.cropped is None:
            return StreamWindow(self.ring, self.start, self.length)
        assert self.report is not None
        known = [] if self.search is None else self.search.found.values()
        self.report.update(searched=0, recalled=len(known), found=sum(map(bool, known)))
        return StreamWindow(self.cropped, self.start, self.length, self.report)

    def boxes(self) -> list[tuple[int, tuple[float, ...]]]:
        """Return the face boxes of the window with their frame numbers in the stream."""
        if isinstance(self.cropped, GivenCrops):
            return [
                (number, tuple(self.cropped.boxes[number].tolist())) for number in range(self.start, self.ring.count)
            ]
        used = {} if self.search is None else self.search.used
        return sorted((number, box) for number, box in used.items() if number >= self.start)

    def places(self, indices: Sequence[int]) -> list[tuple[int, Any]]:
        """Return the number in the stream and the crop of each frame of the window; indices are ascending."""
        numbers = [self.start + index for index in indices]
        cuts = [None] * len(numbers) if self.cropped is None else self.cropped.cuts_of(numbers, {})
        return list(zip(numbers, cuts))


@dataclass(frozen=True)
class RememberingTransform(Transform):
    """The transform of a stream. It caches frames by number and crop."""

    remembers: ClassVar[bool] = True
    memory: Any = field(default=None, compare=False)
    model: DferModel | None = field(default=None, compare=False)  # a model that encodes each frame on its own
    kept: dict[tuple[int, Any], Tensor] = field(default_factory=dict, compare=False)

    def forget(self, before: int) -> None:
        """Drop cached values of frames before this one."""
        for place in [place for place in self.kept if BLACK < place[0] < before]:
            del self.kept[place]

    def views(self, source: Any, plan: Plan | None = None) -> list[Sample]:
        """Return samples; they contain frame features if the model encodes each frame on its own."""
        plan = self.plan(source) if plan is None else plan
        visual = next((name for name in ("video", "image") if name in self.inputs), None)
        if self.model is None or visual is None or visual in plan.missing:
            return super().views(source, plan)
        samples = self.without(visual).views(source, plan)
        return [{**sample, "frames": self._kept(source, view)} for sample, view in zip(samples, plan.views)]

    def without(self, name: str) -> Transform:
        inputs = tuple(other for other in self.inputs if other != name)
        return Transform(self.video, self.audio, inputs, self.optional, self.faces, self.no_face, self.search)

    def frames(self, clip: Clip, numbers: Sequence[int]) -> Tensor:
        """Return these frames as model input, (T, C, size, size)."""
        together = self.video is None or self.video.frame_size != "own"  # the first frame decides how all are resized
        return super().frames(clip, numbers) if together else self._kept(clip, numbers)

    def _kept(self, clip: Clip, numbers: Sequence[int]) -> Tensor:
        real = sorted({number for number in numbers if number != BLACK})
        places: dict[int, tuple[int, Any]] = {BLACK: (BLACK, None)}
        places.update(zip(real, self.memory.places(real)))
        new = [number for number in sorted(set(numbers)) if places[number] not in self.kept]
        if new:
            made = torch.stack([Transform.frames(self, clip, [number])[0] for number in new])
            if self.model is not None:
                made = _encoded(self.model, made)
            self.kept.update((places[number], one) for number, one in zip(new, made))
        return torch.stack([self.kept[places[number]] for number in numbers])


@torch.no_grad()
def _encoded(model: DferModel, frames: Tensor) -> Tensor:
    """Encode frames: (T, C, H, W) -> (T, ...)."""
    reference = next(p for p in model.parameters() if p.is_floating_point())
    single = "image" in model.inputs  # such a model takes one frame per clip
    video = frames.to(reference)[:, None] if single else frames.to(reference)[None]
    return model.encode_frames(video).flatten(0, 1)
