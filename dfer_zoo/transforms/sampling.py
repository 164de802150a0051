"""Frame sampling: which frames of a clip a model gets. The published rules, as arithmetic on frame counts.

The index -1 is a black frame.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from ..errors import InputError, MediaError
from ..media.clip import Clip
from ..weights.record import VideoSpec
from . import face_windows

BLACK = -1
Rule = Callable[[int, float | None, VideoSpec, int | None], list[int]]


def _check_has_frames(num_frames: int) -> None:
    if num_frames < 1:
        raise MediaError("The clip has no frames to choose from.")


def segment_centres(num_frames: int, frames: int, short_clip: str = "pad_last", duration: int = 1) -> list[int]:
    """Return the center of each of ``frames`` equal segments.

    Args:
        num_frames: Frames of the clip.
        frames: Frames to take.
        short_clip: What to do if the clip has at most ``frames`` frames: take all and repeat the last one ("pad_last"),
            take the first only ("repeat_first"), or repeat frames evenly ("stretch", which also changes longer clips).
        duration: Each index starts a run of this many frames.

    >>> segment_centres(32, 4)
    [4, 12, 20, 28]
    """
    _check_has_frames(num_frames)
    if short_clip == "stretch":
        part = num_frames / frames
        # keep this order of operations: (2 * i + 1) * part / 2 sometimes rounds to another frame
        return [int(i * part + part / 2) for i in range(frames)]
    starts = num_frames - duration + 1
    if starts > frames:
        part = starts / frames
        return [int(part / 2 + part * i) for i in range(frames)]
    if short_clip == "repeat_first":
        return [0] * frames
    if short_clip != "pad_last":
        raise InputError(f"short_clip is '{short_clip}'; expected 'pad_last', 'repeat_first' or 'stretch'.")
    return [min(i, num_frames - 1) for i in range(frames)]


def segment_random(
    num_frames: int,
    frames: int,
    short_clip: str = "pad_last",
    rng: np.random.RandomState | None = None,
    duration: int = 1,
) -> list[int]:
    """For training: draw one frame from each of ``frames`` equal segments, in one draw from numpy's generator.

    Segments have whole lengths, so the tail of a clip is never used. A clip with fewer frames than segments is sampled as
    in `segment_centres`. ``rng`` is numpy's global generator by default, as published.

    >>> segment_random(66, 4, rng=np.random.RandomState(0))
    [12, 31, 37, 48]
    """
    _check_has_frames(num_frames)
    draw = (np.random if rng is None else rng).randint
    starts = num_frames - duration + 1
    part = starts // frames
    if part < 1 and num_frames > frames:  # with a duration only
        return sorted(draw(starts, size=frames).tolist())
    if part < 1:
        return segment_centres(num_frames, frames, short_clip, duration)
    offsets = draw(part, size=frames)
    return [int(i * part + offset) for i, offset in enumerate(offsets)]


def window_centres(num_frames: int, frames: int, window: int, *, centred: bool = False, rate: float = 1.0) -> list[int]:
    """Return the center of each of ``frames`` equal segments of a window; black frames past the end of the clip.

    Args:
        num_frames: Frames of the clip.
        frames: Frames to take.
        window: Frames of the window.
        centred: Place the window in the middle of a long clip, as the sound is. By default it starts with the clip, as
            published.
        rate: Frames of the clip per frame of the window.

    >>> window_centres(100, 15, 108)
    [3, 10, 17, 24, 31, 39, 46, 53, 60, 67, 75, 82, 89, 96, -1]
    """
    _check_has_frames(num_frames)
    if num_frames == frames and abs(window * rate - num_frames) < 1e-6:
        # the window holds exactly these frames: rounding must not repeat or drop one
        return list(range(frames))
    surplus = num_frames - round(window * rate)
    start = surplus // 2 if centred and surplus > 0 else 0
    chosen = [start + round((i * window // frames + window // (2 * frames)) * rate) for i in range(frames)]
    return [index if index < num_frames else BLACK for index in chosen]


def _window_centres(centred: bool) -> Rule:
    def rule(num_frames: int, fps: float | None, spec: VideoSpec, segment: int | None) -> list[int]:
        if spec.window is None:
            raise InputError(f"The sampling rule '{spec.sampling}' needs a window in the video record.")
        rate = fps / spec.fps if fps and spec.fps else 1.0
        return window_centres(num_frames, spec.num_frames, spec.window, centred=centred, rate=rate)

    return rule


def view_start(length: int, window: int, view: int | None, views: int) -> int:
    """Return the start of one of ``views`` evenly spaced windows; the first is at the start, the last at the end.

    A single view, or None, is centered; the published code divides by zero there.

    >>> [view_start(100, 16, view, 3) for view in (0, 1, 2, None)]
    [0, 42, 84, 42]
    """
    room = max(length - window, 0)
    return int(room / 2) if view is None or views == 1 else int(view * (room / (views - 1)))


def strided(num_frames: int, frames: int, rate: int, segment: int | None = None, segments: int = 1) -> list[int]:
    """Take every ``rate``-th frame and repeat the last one if there are too few; return one segment of ``frames`` of them.

    >>> strided(100, 4, 8, segment=1, segments=2)
    [72, 80, 88, 96]
    """
    _check_has_frames(num_frames)
    sampled = list(range(0, num_frames, rate))
    sampled += [sampled[-1]] * (frames - len(sampled))
    start = view_start(len(sampled), frames, segment, segments)
    return sampled[start : start + frames]


def strided_random(num_frames: int, frames: int, rate: int, rng: np.random.RandomState | None = None) -> list[int]:
    """For training: ``frames`` frames of a random window of rate * frames frames.

    The last one is at the end of the window, so they are a little further apart than in `strided`. A shorter clip is
    used whole and its last frame is repeated.

    >>> strided_random(240, 4, 8, rng=np.random.RandomState(0))
    [172, 182, 193, 203]
    """
    _check_has_frames(num_frames)
    window = rate * frames
    if num_frames > window:
        end = int((np.random if rng is None else rng).randint(window, num_frames))
        start = end - window
        chosen = np.linspace(start, end, frames).clip(start, end - 1)
    else:
        whole = np.linspace(0, num_frames, num_frames // rate)
        chosen = np.concatenate([whole, np.full(frames - len(whole), num_frames)]).clip(0, num_frames - 1)
    return chosen.astype(np.int64).tolist()


def span(first: int, end: int, num_frames: int) -> tuple[float, float]:
    """Return the position of two frames as shares of the clip's length: the first frame is 0, the last is 1.

    >>> span(25, 200, 101)
    (0.25, 1.0)
    """
    if num_frames < 2:
        return 0.0, 0.0
    return first / (num_frames - 1), min(end, num_frames - 1) / (num_frames - 1)


def random_windows(
    num_frames: int, frames: int, rate: int, windows: int = 1, rng: np.random.RandomState | None = None
) -> tuple[list[int], list[int]]:
    """For pre-training: draw one window of ``frames`` frames from each of ``windows`` segments; return (indices, starts).

    Within a window the index advances by ``rate`` as long as the frame after the next step exists, then it repeats. The
    last frame of a clip is never reached, as published.
    """
    _check_has_frames(num_frames)
    draw = (np.random if rng is None else rng).randint
    starts_in_all = num_frames - frames * rate + 1
    part = starts_in_all // windows
    if part > 0:
        starts = np.arange(windows) * part + draw(part, size=windows)
    elif num_frames > max(windows, frames * rate):
        starts = np.sort(draw(starts_in_all, size=windows))
    else:
        starts = np.zeros(windows, dtype=np.int64)
    indices = []
    for index in starts.tolist():
        for _ in range(frames):
            indices.append(index)
            if index + 1 + rate < num_frames:
                index += rate
    return indices, starts.tolist()


def _strided(num_frames: int, fps: float | None, spec: VideoSpec, segment: int | None) -> list[int]:
    return strided(num_frames, spec.num_frames, spec.rate, segment, spec.segments)


def _segment_centres(num_frames: int, fps: float | None, spec: VideoSpec, segment: int | None) -> list[int]:
    return segment_centres(num_frames, spec.num_frames, spec.short_clip)


def _window_views(num_frames: int, fps: float | None, spec: VideoSpec, first: int = 0) -> list[list[int]]:
    """Sample about `spec.fps` frames per second (all if the rate is unknown) in windows of `spec.num_frames`, one starting
    every `spec.rate` sampled frames. The number of windows depends on the length of the clip.

    If the clip is a part of a video, starting at its frame ``first``, frames lie on one grid over the whole video, so that
    overlapping parts share frames.
    """
    _check_has_frames(num_frames)
    step = face_windows.grid_step(fps, spec.fps) if fps and spec.fps else 1
    sampled = range(-first % step, num_frames, step) or range(1)
    return [
        [sampled[place] for place in window]
        for window in face_windows.windows(len(sampled), spec.num_frames, spec.rate)
    ]


def _windows(num_frames: int, fps: float | None, spec: VideoSpec, segment: int | None) -> list[int]:
    views = _window_views(num_frames, fps, spec)
    return views[len(views) // 2 if segment is None else segment]


# name of the rule -> (number of frames, frames per second, record, segment) -> indices
SAMPLING_RULES: dict[str, Rule] = {
    "segment_centres": _segment_centres,
    "leading_window": _window_centres(centred=False),
    "strided": _strided,
    "centred_window": _window_centres(centred=True),
    "windows": _windows,
}


def indices(num_frames: int, fps: float | None, spec: VideoSpec, segment: int | None = None) -> list[int]:
    """Return the frames that the record's rule takes from a clip of ``num_frames`` frames."""
    if spec.sampling not in SAMPLING_RULES:
        raise InputError(f"There is no sampling rule '{spec.sampling}'; there are {sorted(SAMPLING_RULES)}.")
    return SAMPLING_RULES[spec.sampling](num_frames, fps, spec, segment)


def views(num_frames: int, fps: float | None, spec: VideoSpec, first: int = 0) -> list[list[int]]:
    """Return the frames of each view; the probabilities of the views are averaged.

    ``first`` is the index of the clip's first frame in the video that it was cut from.
    """
    if spec.sampling == "windows":
        return _window_views(num_frames, fps, spec, first)
    segments = [None] if spec.segments == 1 else [*range(spec.segments)]
    return [indices(num_frames, fps, spec, segment) for segment in segments]


def sees(chosen: Sequence[int]) -> bool:
    """Whether any of the chosen frames is not black."""
    return any(index != BLACK for index in chosen)


def frames_needed(fps: float | None, spec: VideoSpec) -> int:
    """Return the least number of frames with which the rule takes one that is not black."""
    return next(count for count in itertools.count(1) if sees(indices(count, fps, spec)))


def take(clip: Clip, chosen: Sequence[int]) -> list[np.ndarray]:
    """Return the chosen frames; black frames have the size of the first real one."""
    real = iter(clip.take([i for i in chosen if i != BLACK]))
    frames = [next(real) if i != BLACK else None for i in chosen]
    size = next((f.shape for f in frames if f is not None), (1, 1, 3))
    return [np.zeros(size, np.uint8) if f is None else f for f in frames]
