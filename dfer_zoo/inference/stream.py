"""Predict frames that arrive one by one."""

from __future__ import annotations

import collections
import copy
import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..media.clip import MOST_CHANNELS, SHORTEST_SOUND, Clip, check_fps, check_sample_rate, float_samples
from .prediction import Prediction
from .windows import auto_window

if TYPE_CHECKING:
    from .recognizer import Recognizer


class Stream:
    """Predictions for frames that arrive one by one, as from a camera: one per stride, for the last window.

    `Recognizer.stream` makes it.

    >>> live = recognizer.stream(fps=30)                                                    # doctest: +SKIP
    >>> for frame in camera:                                                                # doctest: +SKIP
    ...     if prediction := live.push(frame):
    ...         print(prediction.label)
    """

    def __init__(self, recognizer: Recognizer, fps: float, sample_rate: int | None = None) -> None:
        check_fps(fps)
        if sample_rate is not None:
            check_sample_rate(sample_rate, "stream")
        if recognizer.window is None:
            raise InputError("A stream has no end, so it needs windows: Recognizer(..., window=2.0).")
        self.fps, self.sample_rate = fps, sample_rate
        self.recognizer = copy.copy(recognizer)
        self.recognizer.window = self.recognizer.stride = None  # a stream keeps one window only
        window = recognizer.window
        window = auto_window(recognizer.transforms, fps) if isinstance(window, str) else window
        self.length = max(1, round(window * fps))
        self.samples = round(self.length / fps * (sample_rate or 0))
        stride = window / 2 if recognizer.stride is None else recognizer.stride
        self.step = max(1, round(stride * fps))
        self.seen = 0
        self._frames: collections.deque[np.ndarray] = collections.deque(maxlen=self.length)
        # (number of the frame that the samples arrived with, samples)
        self._sound: collections.deque[tuple[int, np.ndarray]] = collections.deque()

    def push(self, frame: np.ndarray, sound: np.ndarray | None = None) -> Prediction | None:
        """Add the next frame.

        Args:
            frame: RGB, (H, W, 3) uint8.
            sound: The samples (channels, n) that belong to this frame.

        Returns:
            A prediction when a window is full and a stride has passed since the last one, else None.
        """
        clip = Clip.from_arrays([frame], source="stream")  # checks the frame
        samples = None if sound is None else self._samples(sound)
        self._frames.append(np.ascontiguousarray(clip.take([0])[0]))  # OpenCV refuses views with negative strides
        self.seen += 1
        if samples is not None:
            self._sound.append((self.seen, samples))
        self._drop_old_sound()
        if self.seen < self.length or (self.seen - self.length) % self.step:
            return None
        return self._answer()

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
        """Drop sound from before the window, and sound beyond a window's length where it arrives faster than the frames."""
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
        clip = Clip.from_arrays(
            list(self._frames), waveform, fps=self.fps, sample_rate=self.sample_rate, source="stream"
        )
        prediction = self.recognizer(clip)
        start = (self.seen - self.length) / self.fps
        (window,) = prediction.windows
        moved = dataclasses.replace(window, start=start, stop=self.seen / self.fps)
        return dataclasses.replace(prediction, windows=(moved,))
