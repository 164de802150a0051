"""A clip in memory: frames, sound, rates. `media.read_clip` makes them from files, this makes them from arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from .errors import MediaError


class Frames(Protocol):
    """Anything that hands out RGB uint8 frames by index; an array does, and so does a decoder that reads on demand."""

    def __len__(self) -> int: ...

    def take(self, indices: Sequence[int]) -> list[np.ndarray]: ...


@dataclass(frozen=True)
class ArrayFrames:
    """Frames that are already there: (N, H, W, 3) uint8, or a list of (H, W, 3)."""

    frames: Sequence[np.ndarray] | np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    def take(self, indices: Sequence[int]) -> list[np.ndarray]:
        return [self.frames[index] for index in indices]


@dataclass(frozen=True)
class Clip:
    """What a transform takes. ``waveform`` is (channels, samples) float32 in [-1, 1] at ``sample_rate``."""

    frames: Frames | None
    fps: float | None = None
    waveform: np.ndarray | None = None
    sample_rate: int | None = None
    source: str = "arrays"
    notes: dict = field(default_factory=dict)  # what was done to get here: the detector, the boxes, ...

    @property
    def num_frames(self) -> int:
        return 0 if self.frames is None else len(self.frames)

    def take(self, indices: Iterable[int]) -> list[np.ndarray]:
        """The frames at these indices, (H, W, 3) uint8 each."""
        if self.frames is None or not len(self.frames):
            raise MediaError(f"{self.source}: this clip has no frames, and the model looks at frames.")
        return self.frames.take(list(indices))

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
        """
        >>> Clip.from_arrays(np.zeros((20, 64, 64, 3), np.uint8), fps=25).num_frames
        20
        """
        if frames is None and waveform is None:
            raise MediaError(f"{source}: neither frames nor a waveform was given.")
        if frames is not None:
            _check_frames(frames, source)
        if waveform is not None:
            waveform = _check_waveform(waveform, sample_rate, source)
        return cls(None if frames is None else ArrayFrames(frames), fps, waveform, sample_rate, source)


def _check_frames(frames: Sequence[np.ndarray] | np.ndarray, source: str) -> None:
    if len(frames) == 0:
        raise MediaError(f"{source}: there are no frames.")
    for number, frame in enumerate(frames):
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            found = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
            raise MediaError(f"{source}: frame {number} is {found}; expected uint8 (height, width, 3) in RGB order.")


def _check_waveform(waveform: np.ndarray, sample_rate: int | None, source: str) -> np.ndarray:
    waveform = np.asarray(waveform, dtype=np.float32)
    if waveform.ndim == 1:
        waveform = waveform[None]
    if waveform.ndim != 2 or waveform.shape[0] > 64 or waveform.shape[1] == 0:
        raise MediaError(f"{source}: the waveform is {waveform.shape}; expected (channels, samples), 1 to 64 channels.")
    if sample_rate is None or sample_rate <= 0:
        raise MediaError(f"{source}: the sample rate is {sample_rate}; a waveform needs the rate it was recorded at.")
    if not np.isfinite(waveform).all():
        raise MediaError(f"{source}: the waveform holds values that are not finite.")
    return waveform
