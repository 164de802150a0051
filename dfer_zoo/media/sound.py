"""Waveforms from media files, through PyAV."""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MediaError
from .container import open_container
from .limits import check_limit


def sound_stream(container: Any) -> Any:
    """The first audio stream with a known codec."""
    return next((stream for stream in container.streams.audio if stream.codec_context), None)


@dataclass(frozen=True)
class SoundFile:
    """The sound of a file, at its own rate and with its own channels; `np.asarray` reads all of it."""

    path: Path
    sample_rate: int
    channels: int
    recover: bool = False
    start: float | None = None  # the time stamp of the first sample, in seconds
    codec: str = ""

    @classmethod
    def of(cls, path: Path, recover: bool = False) -> SoundFile | None:
        """Open the sound of a file; None if it has no sound."""
        with open_container(path) as container:
            stream = sound_stream(container)
            if stream is None:
                return None
            rate, channels = stream.codec_context.sample_rate, stream.codec_context.channels
            codec = stream.codec_context.name
            start = None if stream.start_time is None else float(stream.start_time * stream.time_base)
        if rate <= 0 or channels <= 0:
            raise MediaError(f"{path}: the sound has {channels} channels at {rate} samples per second.")
        check_limit("sample_rate", rate, f"{path}: the sample rate")
        check_limit("channels", channels, f"{path}: the number of channels")
        return cls(path, rate, channels, recover, start, codec)

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield the waveform piece by piece, (channels, samples) float32 in [-1, 1]."""
        import av

        with open_container(self.path) as container:
            stream = sound_stream(container)
            if stream is None:
                raise MediaError(f"{self.path}: the sound is gone; the file was changed while it was read.")
            # packed samples: PyAV reads beyond the end of its table of planes where there are 8 channels or more
            as_floats = av.AudioResampler(format="flt", layout=stream.layout, rate=self.sample_rate)
            for packet in container.demux(stream):
                try:
                    for frame in packet.decode():
                        self._check_layout(frame)
                        yield from map(self._samples, as_floats.resample(frame))
                except av.error.FFmpegError:
                    if not self.recover:
                        raise
            yield from map(self._samples, as_floats.resample(None))

    def _check_layout(self, frame: Any) -> None:
        """Raise an error if the number of channels changes in the middle, which the resampler does not notice."""
        if frame.layout.nb_channels != self.channels:
            raise MediaError(
                f"{self.path}: the sound changes from {self.channels} to {frame.layout.nb_channels} channels. "
                "The file is damaged, or joined from several; convert it to one layout first."
            )

    def _samples(self, frame: Any) -> np.ndarray:
        """(channels, samples) of a frame of packed floats."""
        packed = frame.to_ndarray() if frame.format.name == "flt" else np.zeros(0)
        if packed.size != frame.samples * self.channels:
            raise MediaError(f"{self.path}: the sample format of the sound changes in the middle; the file is damaged.")
        if not np.isfinite(packed).all():
            raise MediaError(f"{self.path}: the sound contains values that are not finite.")
        return np.ascontiguousarray(packed.reshape(-1, self.channels).T)

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        return self.channels, sum(piece.shape[1] for piece in self.pieces())

    def cut(self, start: int, stop: int) -> np.ndarray:
        return SoundCursor(self).cut(start, stop)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        pieces, size = [], 0
        for piece in self.pieces():
            pieces.append(piece)
            size += piece.nbytes
            check_limit("sound_bytes", size, f"{self.path}: the size of the decoded sound (window= needs less memory)")
        if not size:
            raise MediaError(f"{self.path}: the sound track is empty.")
        waveform = np.concatenate(pieces, axis=1)
        return waveform if dtype is None else waveform.astype(dtype)


class SoundCursor:
    """Reads parts of a sound in ascending order. The file is decoded once; only the current part is in memory."""

    def __init__(self, sound: SoundFile) -> None:
        self.sound = sound
        self._rewind()

    def _rewind(self) -> None:
        self._pieces = self.sound.pieces()
        self._kept: collections.deque[np.ndarray] = collections.deque()
        self._start = self._stop = 0  # the samples that are kept

    @property
    def shape(self) -> tuple[int, ...]:
        return self.sound.shape

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.sound.__array__(dtype, copy)

    def cut(self, start: int, stop: int) -> np.ndarray:
        """Return the samples from `start` to `stop`; fewer if the sound ends earlier."""
        if start < self._start:
            self._rewind()
        self._forget(start)
        while self._stop < stop:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._kept.append(piece)
            self._stop += piece.shape[1]
            self._forget(start)
            size = 4 * self.sound.channels * (self._stop - self._start)
            check_limit("sound_bytes", size, f"{self.sound.path}: the size of the decoded sound of one window")
        if not self._kept:
            return np.zeros((self.sound.channels, 0), np.float32)
        first, last = start - self._start, stop - self._start
        return np.concatenate(self._kept, axis=1)[:, max(0, first) : max(0, last)].copy()

    def _forget(self, start: int) -> None:
        """Drop the pieces that end before `start`."""
        while self._kept and self._start + self._kept[0].shape[1] <= start:
            self._start += self._kept.popleft().shape[1]
