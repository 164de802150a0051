"""Clips: frames, sound and their rates. Create them with `read_clip` or `Clip.from_arrays`."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from ..errors import InputError, MediaError
from .limits import LIMITS, check_limit, limit

SHORTEST_SOUND = 0.05  # seconds; shorter remainders of a sound track are ignored
SMALLEST_SIDE = 8  # pixels; smaller frames cannot show a face
MOST_CHANNELS = LIMITS["channels"].default


class Frames(Protocol):
    """A source of RGB uint8 frames by index: an array, or a decoder that reads on demand."""

    def __len__(self) -> int: ...

    def take(self, indices: Sequence[int]) -> list[np.ndarray]: ...


class Sound(Protocol):
    """A waveform that is read on demand; `np.asarray` reads it completely, (channels, samples)."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray: ...

    def cut(self, start: int, stop: int) -> np.ndarray: ...


def in_order(frames: Frames, indices: Iterable[int]) -> Iterator[np.ndarray]:
    """Yield the frames at ascending indices one by one, so that memory does not grow with the file."""
    if hasattr(frames, "in_order"):
        yield from frames.in_order(indices)
    else:
        for index in indices:
            yield frames.take([index])[0]


@dataclass(frozen=True)
class Span:
    """A view of the frames from `start` to `stop`."""

    frames: Frames
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def take(self, indices: Sequence[int]) -> list[np.ndarray]:
        return self.frames.take([self.start + index for index in indices])

    def in_order(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        return in_order(self.frames, (self.start + index for index in indices))


@dataclass(frozen=True)
class ArrayFrames:
    """Frames in memory: (N, H, W, 3) uint8, or a list of (H, W, 3)."""

    frames: Sequence[np.ndarray] | np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    def take(self, indices: Sequence[int]) -> list[np.ndarray]:
        return [self.frames[index] for index in indices]


@dataclass(frozen=True, eq=False, repr=False)  # compared by identity, since frames may be files
class Clip:
    """Frames, sound and their rates: the input of a transform.

    Args:
        frames: RGB frames (H, W, 3) uint8 by index: an array, or a reader that decodes on demand.
        fps: Frames per second.
        waveform: (channels, samples) float32 in [-1, 1].
        sample_rate: Samples per second.
        source: The origin of the clip; used in messages.
        notes: How the clip was made: the detector, the boxes, ...
        times: Time of each frame in seconds, from 0. None: evenly spaced at `fps`.
        sound_start: Seconds from the first frame to the first sample.

    >>> Clip.from_arrays(np.zeros((20, 64, 64, 3), np.uint8), fps=25).duration
    0.8
    """

    frames: Frames | None
    fps: float | None = None
    waveform: np.ndarray | Sound | None = None
    sample_rate: int | None = None
    source: str = "arrays"
    notes: dict = field(default_factory=dict)
    times: np.ndarray | None = None
    sound_start: float = 0.0

    def __repr__(self) -> str:
        rate = "" if self.fps is None else f" at {self.fps:g} fps"
        sound = "no sound" if self.waveform is None else f"sound at {self.sample_rate} Hz"
        return f"Clip({self.source!r}: {self.num_frames} frames{rate}, {sound})"

    @property
    def num_frames(self) -> int:
        return 0 if self.frames is None else len(self.frames)

    def take(self, indices: Iterable[int]) -> list[np.ndarray]:
        """Return the frames at these indices, (H, W, 3) uint8 each."""
        if self.frames is None or not len(self.frames):
            raise MediaError(f"{self.source}: this clip has no frames, and the model needs frames.")
        return self.frames.take(list(indices))

    @property
    def duration(self) -> float | None:
        """Return the length in seconds: of the frames if there are any, else of the sound; None if unknown."""
        if self.num_frames and self.times is not None:
            step = 1 / self.fps if self.fps else 0.0
            return float(self.times[-1]) + step
        if self.num_frames:
            return self.num_frames / self.fps if self.fps else None
        if self.waveform is not None and self.sample_rate:
            return self.waveform.shape[-1] / self.sample_rate
        return None

    def frame_range(self, start: float, stop: float) -> tuple[int, int]:
        """Return (first, last + 1) of the frames between two times in seconds; `stop` is exclusive."""
        # a frame that starts up to a millisecond early, through rounding, still belongs to the window
        edges = np.array([start, stop]) - 1e-3
        if self.times is not None:
            first, last = np.searchsorted(self.times, edges)
        elif self.fps:
            first, last = np.ceil(edges * self.fps).clip(0, self.num_frames)
        else:
            raise MediaError(f"{self.source}: the frame rate is unknown, so times in seconds cannot be used; give fps.")
        return int(first), int(last)

    def cut(self, start: float, stop: float) -> Clip:
        """Return the part between two times in seconds, with its frames and its sound."""
        if not (math.isfinite(start) and math.isfinite(stop) and start <= stop):
            raise InputError(f"A clip cannot be cut from {start} to {stop}; expected seconds, start <= stop.")
        frames, times, waveform = self.frames, self.times, self.waveform
        if frames is not None and len(frames):
            first, last = self.frame_range(start, stop)
            if first == last and first > 0 and start < (self.duration or 0.0):
                first -= 1  # no frame starts in this span: the previous one is still shown
            frames = Span(frames, first, last)
            times = None if times is None else times[first:last] - (times[first] if last > first else 0.0)
        if waveform is not None and self.sample_rate:
            first, last = (max(0, round((second - self.sound_start) * self.sample_rate)) for second in (start, stop))
            part = waveform[:, first:last] if isinstance(waveform, np.ndarray) else waveform.cut(first, last)
            # the sound may end before the frames, and the remainder may be too short for a front end
            waveform = part if part.shape[1] >= SHORTEST_SOUND * self.sample_rate else None
        sound_start = max(0.0, self.sound_start - start)
        return replace(self, frames=frames, times=times, waveform=waveform, sound_start=sound_start)

    @classmethod
    def from_arrays(
        cls,
        frames: Sequence[np.ndarray] | np.ndarray | None = None,
        waveform: np.ndarray | None = None,
        *,
        fps: float | None = None,
        sample_rate: int | None = None,
        source: str = "arrays",
    ) -> Clip:
        """Make a clip from arrays.

        Args:
            frames: RGB uint8 frames (N, H, W, 3), or a list of (H, W, 3).
            waveform: Floating point samples in [-1, 1], (channels, samples) or (samples,).
            fps: Frames per second.
            sample_rate: Samples per second; required with a waveform.
            source: The name of the clip in messages.

        Returns:
            The clip.

        Raises:
            MediaError: The arrays are not frames or samples.

        >>> Clip.from_arrays(np.zeros((20, 64, 64, 3), np.uint8), fps=25).num_frames
        20
        """
        if frames is None and waveform is None:
            raise MediaError(f"{source}: neither frames nor a waveform were given.")
        check_fps(fps)
        if frames is not None:
            _check_frames(frames, source)
        if waveform is not None:
            waveform = _check_waveform(waveform, sample_rate, source)
        return cls(None if frames is None else ArrayFrames(frames), fps, waveform, sample_rate, source)


def check_fps(fps: float | None) -> None:
    if fps is not None and not (isinstance(fps, numbers.Real) and 0 < fps <= limit("fps")):
        raise InputError(f"fps is {fps}; expected frames per second, above 0 and up to {limit('fps')}.")


def check_size(width: int, height: int, source: str) -> None:
    if min(width, height) < SMALLEST_SIDE:
        raise MediaError(
            f"{source}: the frames are {width} x {height}; each side must be at least {SMALLEST_SIDE} pixels."
        )
    check_limit("frame_pixels", width * height, f"{source}: the frames are {width} x {height}; the number of pixels")


def _check_frames(frames: Sequence[np.ndarray] | np.ndarray, source: str) -> None:
    if len(frames) == 0:
        raise MediaError(f"{source}: no frames.")
    for number, frame in enumerate(frames):
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            found = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
            raise MediaError(f"{source}: frame {number} is {found}; expected uint8 (height, width, 3) in RGB order.")
        check_size(frame.shape[1], frame.shape[0], source)


def float_samples(waveform: np.ndarray, source: str) -> np.ndarray:
    """Convert samples to float32. Integers are refused, because their scale is unknown."""
    try:
        waveform = np.asarray(waveform)
    except ValueError as error:
        raise MediaError(f"{source}: the waveform's channels differ in length ({error}).") from error
    if not np.issubdtype(waveform.dtype, np.floating):
        raise MediaError(
            f"{source}: the waveform is {waveform.dtype}; expected floating point in [-1, 1]: divide int16 by 32768."
        )
    return waveform.astype(np.float32, copy=False)


def _check_waveform(waveform: np.ndarray, sample_rate: int | None, source: str) -> np.ndarray:
    waveform = float_samples(waveform, source)
    if waveform.ndim == 1:
        waveform = waveform[None]
    if waveform.ndim != 2 or not 1 <= waveform.shape[0] <= limit("channels") or waveform.shape[1] == 0:
        raise MediaError(
            f"{source}: the waveform is {waveform.shape}; expected (channels, samples), 1 to {limit('channels')} channels."
        )
    check_sample_rate(sample_rate, source)
    if not np.isfinite(waveform).all():
        raise MediaError(f"{source}: the waveform contains values that are not finite.")
    return waveform


def check_sample_rate(sample_rate: Any, source: str) -> None:
    if not (isinstance(sample_rate, numbers.Real) and 1 <= sample_rate <= limit("sample_rate")):
        raise MediaError(
            f"{source}: the sample rate is {sample_rate}; expected the rate of the recording, "
            f"1 to {limit('sample_rate')} samples per second."
        )
