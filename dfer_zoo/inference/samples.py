"""Turn clips into the tensors of every window, in worker processes ahead of the model.

A `Sampler` yields the parts of one prediction: an `Opened`, then `WindowSamples`, and a `Closed`. With several people it
yields one such series per person. Memory does not grow with the length of the file.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import MediaError
from ..media.clip import Clip, Frames, in_order
from ..media.faces.people import find_people, second_of
from ..media.files import SoundCursor, SoundFile
from ..media.resize import pillow_bilinear
from ..transforms import Plan, Sample, Transform
from ..transforms.sampling import BLACK
from .sources import local
from .windows import auto_window, window_times

AUTO_FROM = 2.0  # a clip longer than this many windows is split into windows
MOST_WINDOWS = 100_000  # per file, in case of a wrong frame rate
THUMBNAIL = 96  # pixels


@dataclass(frozen=True)
class Opened:
    """Facts about a clip that are known before decoding.

    Attributes:
        source: The name of the clip.
        duration: Seconds.
        times: Start and end of every window, in seconds.
        seen: First and last second of the frames that the models take.
        sample_rate: Sample rate of the sound, if a front end uses the rate of the file.
    """

    source: str
    duration: float | None
    times: tuple[tuple[float, float | None], ...]
    seen: tuple[float, float] | None
    sample_rate: int | None


@dataclass(frozen=True)
class WindowSamples:
    """The inputs of one model for one window.

    Attributes:
        window: The number of the window.
        model: The number of the model.
        missing: Inputs that the clip lacks in this window.
        views: One sample for each view; without frames if windows share them.
        numbers: The frame numbers of each view if frames are shared, else None.
        frames: Shared frames that no earlier window used.
        needed_later: The lowest frame number that a later window uses.
    """

    window: int
    model: int
    missing: tuple[str, ...]
    views: tuple[Sample, ...]
    numbers: tuple[tuple[int, ...], ...] | None = None
    frames: Mapping[int, Tensor] = field(default_factory=dict)
    needed_later: int = 0


@dataclass(frozen=True)
class Closed:
    """Facts about a clip that are known at its end: face boxes and thumbnails."""

    faces: Mapping[str, Any] | None
    track: tuple[tuple[float, tuple[float, ...]], ...] = ()  # (second of the clip, box of the face)
    thumbnails: tuple[tuple[float, np.ndarray], ...] = ()
    shift: float = 0.0  # seconds from the start of the clip to the first frame of this person
    refusal: str | None = None  # why one of several people has no prediction


Part = Opened | WindowSamples | Closed


@dataclass(frozen=True)
class Sampler:
    """Turn a source into the parts of its prediction. It has no model, so it can be sent to worker processes.

    Args:
        transforms: One for each model.
        shares: For each model, whether to send a frame once if several windows share it.
        open: Turns a source into a clip. The sampler crops frames that are not cropped yet.
        window: As in `Recognizer`.
        stride: As in `Recognizer`.
        thumbnails: How many small face crops to keep.
        people: "largest", or "all": one series of parts for each appearance of a person.
        identity: For people="all": a function from a face crop to a vector, see `media.faces.people`.
    """

    transforms: Sequence[Transform]
    shares: Sequence[bool]
    open: Callable[[Any], Clip]
    window: float | str | None = "auto"
    stride: float | None = None
    thumbnails: int = 0
    people: str = "largest"
    identity: Any = None

    def __call__(self, source: Any) -> Iterator[Part]:
        """Yield the parts of one prediction. Raises a `DferZooError` if the clip cannot be used."""
        with local(source) as (here, name):
            clip = self.open(here)
            if name is not None:
                clip = dataclasses.replace(clip, source=name)
            if self.people == "all" and clip.frames is not None:
                yield from self._people_parts(clip)
            else:
                yield from self._clip_parts(clip)

    def _people_parts(self, clip: Clip) -> Iterator[Part]:
        """Yield the parts of all people. People who cannot be predicted are left out; if all are, an error is raised."""
        visual = visual_of(self.transforms)
        people = find_people(clip, visual.faces, crop=visual.face_crop, no_face=visual.no_face, identity=self.identity)
        refusals: list[MediaError] = []
        for one in people:
            try:
                yield from self._clip_parts(one.clip, one.start, one.track)
            except MediaError as error:
                refusals.append(error)
                yield Closed(None, refusal=str(error))
        if len(refusals) == len(people):
            raise refusals[0]

    def _clip_parts(self, clip: Clip, shift: float = 0.0, track: Any = None) -> Iterator[Part]:
        if isinstance(clip.waveform, SoundFile):
            clip = dataclasses.replace(clip, waveform=SoundCursor(clip.waveform))
        times = self._times(clip)
        planned = [
            _plans(clip, span, self.transforms) for span in times
        ]  # planned first, so that every frame is read once
        wanted = [{first + index for plan in plans for index in plan.frames} for plans, first in planned]
        in_all = sorted(set().union(*wanted))
        yield Opened(clip.source, clip.duration, tuple(times), _seconds(clip, in_all), _own_rate(clip, self.transforms))
        clip = visual_of(self.transforms).crop(clip)
        buffer = None if clip.frames is None else FrameBuffer(clip.frames, in_all)
        shown = set(self._shown(in_all))
        pictures: list[tuple[float, np.ndarray]] = []
        sent: list[set[int]] = [set() for _ in self.transforms]
        refusals: list[str] = []
        for number, (span, lowest) in enumerate(zip(times, _lowest_later(wanted))):
            part, first = part_of(dataclasses.replace(clip, frames=buffer), span)
            plans = [t.plan(part, plan.views) for t, plan in zip(self.transforms, planned[number][0])]
            if reasons := [plan.refusal for plan in plans if plan.refusal]:
                refusals.append(reasons[0])
                continue
            several = len(times) > 1
            for place, plan in enumerate(plans):
                yield self._samples(part, first, plan, (number, place), lowest, several, sent[place])
            if buffer is not None:
                pictures += [_thumbnail(clip, buffer, index) for index in sorted(shown & wanted[number])]
                shown -= wanted[number]
                buffer.release(lowest)
        if len(refusals) == len(times):
            raise MediaError(refusals[0])
        faces = clip.notes.get("faces")
        if track is None:
            track = tuple((second_of(clip, number), box) for number, box in sorted(clip.notes.get("boxes", {}).items()))
        yield Closed(None if faces is None else dict(faces), track, tuple(pictures), shift)

    def _samples(
        self, part: Clip, first: int, plan: Plan, place: tuple[int, int], lowest: int, several: bool, sent: set[int]
    ) -> WindowSamples:
        """Return the inputs of one model for a window; ``first`` is the number of its first frame in the clip."""
        number, model = place
        transform, missing = self.transforms[model], tuple(plan.missing)
        visual = next((name for name in ("video", "image") if name in transform.inputs), None)
        shared = self.shares[model] and (several or len(plan.views) > 1) and visual not in plan.missing
        if not shared or visual is None:
            return WindowSamples(number, model, missing, tuple(transform.views(part, plan)))
        others = transform.without(visual).views(part, plan)[0]
        numbers = tuple(tuple(BLACK if i == BLACK else first + i for i in view) for view in plan.views)
        frames = {}
        for index in sorted({index for view in numbers for index in view} - sent):
            inside = BLACK if index == BLACK else index - first
            frames[index] = transform.frames(part, [inside])[0]
        sent.update(frames)
        sent.difference_update([index for index in sent if BLACK < index < lowest])
        views = tuple(dict(others) for _ in plan.views)
        return WindowSamples(number, model, missing, views, numbers, frames, lowest)

    def _shown(self, frames: Sequence[int]) -> Sequence[int]:
        """Return the frames whose crops are kept as thumbnails."""
        if not self.thumbnails:
            return ()
        return frames[len(frames) // (2 * self.thumbnails) :: max(1, len(frames) // self.thumbnails)]

    def _times(self, clip: Clip) -> list[tuple[float, float | None]]:
        """Return start and end of all windows, in seconds."""
        window = self._window(clip)
        if window is None:
            return [(0.0, clip.duration)]
        if clip.duration is None:
            raise MediaError(f"{clip.source}: windows are in seconds, but the frame rate is unknown; give fps.")
        stride = window / 2 if self.stride is None else self.stride
        if (clip.duration - window) / stride > MOST_WINDOWS:
            raise MediaError(
                f"{clip.source}: there are more than {MOST_WINDOWS} windows of {window:g} s, one every {stride:g} s, "
                f"in {clip.duration:g} s; use a longer stride, or check the frame rate."
            )
        return list(window_times(clip.duration, window, stride))

    def _window(self, clip: Clip) -> float | None:
        """Return the length of a window in seconds, or None for the clip as a whole."""
        if not isinstance(self.window, str):
            return self.window
        window = auto_window(self.transforms, clip.fps)
        return window if clip.duration is not None and clip.duration > AUTO_FROM * window else None


def visual_of(transforms: Sequence[Transform]) -> Transform:
    """Return the transform that crops: the first one with frames, or the first one."""
    return next((t for t in transforms if t.video is not None), transforms[0])


class FrameBuffer:
    """Read the requested frames in one pass, and keep each until no later window needs it."""

    def __init__(self, frames: Frames, wanted: Sequence[int]) -> None:
        self._count = len(frames)
        self._walk = zip(wanted, in_order(frames, wanted))
        self._kept: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self._count

    def take(self, indices: Sequence[int]) -> list[np.ndarray]:
        """Return frames at indices. They must be among the requested ones and not yet released."""
        while any(index not in self._kept for index in indices):
            number, frame = next(self._walk)
            self._kept[number] = frame
        return [self._kept[index] for index in indices]

    def release(self, below: int) -> None:
        """Drop all frames before index ``below``."""
        for number in [n for n in self._kept if n < below]:
            del self._kept[number]


# -- windows of a clip -------------------------------------------------------------------------------------------------


def part_of(clip: Clip, span: tuple[float, float | None]) -> tuple[Clip, int]:
    """Return (the clip of a window, the number of its first frame)."""
    start, stop = span
    if stop is None or (start == 0.0 and stop == clip.duration):
        return clip, 0
    part = clip.cut(start, stop)
    return part, getattr(part.frames, "start", 0)


def _plans(clip: Clip, span: tuple[float, float | None], transforms: Sequence[Transform]) -> tuple[list[Plan], int]:
    """Return (each transform's plan for a window, the number of the window's first frame)."""
    part, first = part_of(dataclasses.replace(clip, waveform=None), span)
    return [transform.plan(part) for transform in transforms], first


def _thumbnail(clip: Clip, buffer: FrameBuffer, index: int) -> tuple[float, np.ndarray]:
    """Return (seconds, thumbnail) of a frame."""
    return second_of(clip, index), pillow_bilinear(buffer.take([index])[0], THUMBNAIL, THUMBNAIL)


def _seconds(clip: Clip, frames: Sequence[int]) -> tuple[float, float] | None:
    """Return the first and last second of ascending frames, if the clip has a frame rate."""
    if not frames or clip.duration is None or not (clip.fps or clip.times is not None):
        return None
    first, last = (second_of(clip, number) for number in (frames[0], frames[-1]))
    return first, min(last + (1 / clip.fps if clip.fps else 0.0), clip.duration)


def _own_rate(clip: Clip, transforms: Sequence[Transform]) -> int | None:
    """Return the sample rate of the sound, if a front end uses the rate of the file."""
    own = any(transform.audio is not None and transform.audio.sample_rate is None for transform in transforms)
    return int(clip.sample_rate) if own and clip.waveform is not None and clip.sample_rate else None


def _lowest_later(plan: Sequence[set[int]]) -> list[int]:
    """Return, for every window, the lowest frame that a later window needs."""
    lowest, result = sys.maxsize, []
    for wanted in reversed(plan):
        result.append(lowest)
        lowest = min([lowest, *wanted])
    return result[::-1]


# -- between processes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PackedSampler:
    """A `Sampler` for a worker process. It uses one thread, and sends arrays to save file descriptors."""

    sampler: Sampler

    def __call__(self, source: Any) -> Iterator[Part]:
        _one_thread()
        for part in self.sampler(source):
            yield _with(part, lambda tensor: tensor.numpy())


def unpacked(part: Part) -> Part:
    """Turn the arrays of a part from a worker process into tensors."""
    return _with(part, torch.from_numpy)


def _with(part: Part, change: Callable[[Any], Any]) -> Part:
    if not isinstance(part, WindowSamples):
        return part
    views = tuple({name: None if t is None else change(t) for name, t in view.items()} for view in part.views)
    return dataclasses.replace(part, views=views, frames={n: change(t) for n, t in part.frames.items()})


@functools.cache
def _one_thread() -> None:
    """Use one thread, since several workers run in parallel."""
    torch.set_num_threads(1)
    try:
        import cv2
    except ImportError:
        return
    cv2.setNumThreads(1)
