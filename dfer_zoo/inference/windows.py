"""Compute the length and the times of windows over a clip."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ..errors import InputError
from ..transforms import Transform

AUTO_WINDOW = 4.0  # seconds; clips of the data sets last 2 to 5
SHORTEST_AUTO_WINDOW = 3.0
SHORTEST_STRIDE = 0.01  # seconds


def auto_window(transforms: Sequence[Transform], fps: float | None) -> float:
    """Return the default window in seconds: the input span of the models, or the length of a typical data set clip."""
    spans = [span for transform in transforms if (span := span_seen(transform, fps)) is not None]
    longest = max(spans, default=AUTO_WINDOW)
    return longest if longest >= SHORTEST_AUTO_WINDOW else AUTO_WINDOW


def span_seen(transform: Transform, fps: float | None) -> float | None:
    """Return the seconds that all views cover together; None for the whole clip."""
    video, audio = transform.video, transform.audio
    if video is None:
        return audio.seconds if audio else None
    if video.sampling in ("leading_window", "centred_window") and video.window and (video.fps or fps):
        return video.window / (video.fps or fps or 1.0)
    if video.sampling == "strided" and fps:
        return video.segments * video.num_frames * video.rate / fps
    return None


def check_window(window: float | str | None, stride: float | None) -> None:
    if isinstance(window, str) and window != "auto":
        raise InputError(f"window is {window!r}; expected seconds, 'auto', or None for the clip as a whole.")
    for name, value in (("window", None if window == "auto" else window), ("stride", stride)):
        if value is not None and not (math.isfinite(value) and value >= SHORTEST_STRIDE):  # type: ignore[arg-type]
            raise InputError(f"{name} is {value}; expected seconds, {SHORTEST_STRIDE} or more.")
    if stride is not None and window is None:
        raise InputError("A stride needs a window; give window=, in seconds.")


def window_times(duration: float, window: float, stride: float | None = None) -> Iterator[tuple[float, float]]:
    """Yield (start, stop) of windows over a clip, in seconds. The stride is half a window by default.

    The last window ends with the clip. A clip shorter than a window is one window.

    >>> list(window_times(5.0, 2.0, 2.0))
    [(0.0, 2.0), (2.0, 4.0), (3.0, 5.0)]
    """
    stride = window / 2 if stride is None else stride
    if duration <= window + 1e-6:
        yield 0.0, duration
        return
    count = math.floor((duration - window) / stride + 1e-6) + 1
    for number in range(count):
        yield number * stride, number * stride + window
    if (count - 1) * stride + window < duration - 1e-3 and (count - 1) * stride < duration - window:
        yield duration - window, duration
