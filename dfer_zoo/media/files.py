"""Read a clip from a file, a folder of frames, or arrays. Frames and sound are decoded on demand."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, MediaError
from .clip import Clip, check_fps
from .container import existing
from .images import IMAGE_SUFFIXES, ImageFiles
from .limits import limit
from .sound import SoundCursor as SoundCursor
from .sound import SoundFile
from .video import VideoFile

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".flv", ".wmv", ".3gp", ".ts", ".mts", ".ogv")
)
SOUND_SUFFIXES = frozenset((".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus"))


def read_clip(
    source: Any,
    *,
    audio: Any = None,
    sample_rate: int | None = None,
    fps: float | None = None,
    order: str = "numeric",
    recover: bool = False,
    stream: bool = False,
) -> Clip:
    """Read a clip from a video or audio file, a folder of frames, a list of image files, an array, or a `Clip`.

    The frames are whole: `create_transform` crops them to the face as the weights need it.

    Args:
        source: A file, a folder of frames, a list of image files, an array of frames (N, H, W, 3), or a `Clip`.
        audio: A file with the sound, or False to ignore the sound.
        sample_rate: Resample the sound to this rate. By default it keeps its own rate.
        fps: The frame rate of frames without time stamps, such as those of a folder.
        order: How to sort a folder: "numeric" compares the numbers in the names by value; "string" puts 10 before 2,
            as some published lists do.
        recover: Read what can be decoded of a damaged file, instead of raising an error.
        stream: Read the waveform on demand too, for long files.

    Returns:
        The clip.

    Raises:
        MediaError: The source cannot be read.
        InputError: An argument is wrong.

    >>> read_clip(np.zeros((20, 64, 64, 3), np.uint8), fps=25).num_frames
    20
    """
    clip = _open(source, fps=fps, order=order, recover=recover)
    if audio is False:
        clip = replace(clip, waveform=None, sample_rate=None, sound_start=0.0)
    elif audio is not None:
        if not isinstance(audio, str | os.PathLike):
            raise InputError(f"audio is of type {type(audio).__name__}; expected a file, or False to ignore the sound.")
        sound = SoundFile.of(existing(audio), recover)
        if sound is None:
            raise MediaError(f"{audio}: no sound in this file.")
        clip = replace(clip, waveform=sound, sample_rate=sound.sample_rate, sound_start=0.0)
    if clip.frames is None and clip.waveform is None:
        raise MediaError(f"{clip.source}: neither frames nor sound in this file.")
    if sample_rate is not None:
        clip = _resampled(clip, sample_rate)
    if isinstance(clip.waveform, SoundFile) and not stream:
        clip = replace(clip, waveform=np.asarray(clip.waveform))
    return clip


def _open(source: Any, *, fps: float | None, order: str, recover: bool) -> Clip:
    check_fps(fps)
    if isinstance(source, Clip):
        return source if fps is None else replace(source, fps=fps, times=None)
    if isinstance(source, np.ndarray) or (isinstance(source, list | tuple) and _holds(source, np.ndarray)):
        return Clip.from_arrays(source, fps=fps)
    if isinstance(source, list | tuple) and _holds(source, (str, os.PathLike)):
        return Clip(ImageFiles(tuple(existing(path) for path in source)), fps=fps, source=f"{len(source)} images")
    if not isinstance(source, str | os.PathLike):
        raise InputError(
            f"Cannot read a clip from {type(source).__name__}; expected a file, a folder of frames, "
            "an array (N, H, W, 3), or a Clip."
        )
    path = existing(source)
    if path.is_dir():
        return Clip(ImageFiles.of_folder(path, order), fps=fps, source=str(path))
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return Clip(ImageFiles((path,)), fps=fps, source=str(path))
    return _open_file(path, fps, recover)


def _open_file(path: Path, fps: float | None, recover: bool) -> Clip:
    video, sound = VideoFile.of(path, recover), SoundFile.of(path, recover)
    sample_rate = None if sound is None else sound.sample_rate
    if video is None:
        return Clip(None, None, sound, sample_rate, str(path))
    times, rate = (video.times, video.fps) if fps is None else (None, fps)
    # both count from the same zero, but either may begin later
    known = sound is not None and sound.start is not None and video.start is not None
    sound_start = sound.start - video.start if known else 0.0
    return Clip(video, rate, sound, sample_rate, str(path), times=times, sound_start=sound_start)


def _resampled(clip: Clip, sample_rate: int) -> Clip:
    if not 1 <= sample_rate <= limit("sample_rate"):
        raise InputError(f"sample_rate is {sample_rate}; expected 1 to {limit('sample_rate')} samples per second.")
    if clip.waveform is None or clip.sample_rate == sample_rate:
        return clip
    if not isinstance(clip.waveform, SoundFile):
        raise InputError(f"{clip.source}: only sound from a file can be resampled, and this waveform is an array.")
    return replace(clip, waveform=replace(clip.waveform, sample_rate=sample_rate), sample_rate=sample_rate)


def _holds(items: Sequence[Any], kind: Any) -> bool:
    return len(items) > 0 and all(isinstance(item, kind) for item in items)
