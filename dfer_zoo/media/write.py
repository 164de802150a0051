"""Write a clip as a video file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..atomic import atomic_path
from ..errors import MediaError
from .clip import Clip

DEFAULT_FPS = 25.0  # for clips without a frame rate
DEFAULT_SAMPLE_RATE = 16000


def write_mp4(clip: Clip, path: str | Path) -> Path:
    """Write a clip as H.264 and AAC. Odd widths and heights lose one pixel, because H.264 needs even ones.

    Args:
        clip: The clip.
        path: The file.

    Returns:
        The path.

    Raises:
        MediaError: PyAV is missing, or the file cannot be written.
    """
    try:
        import av
    except ImportError as error:
        raise MediaError("Writing a video file needs PyAV: pip install 'dfer-zoo[video]'.") from error
    try:
        with atomic_path(Path(path)) as temporary:
            _encode(clip, temporary)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}.") from error
    return Path(path)


def _encode(clip: Clip, path: Path) -> None:
    import av

    frames = clip.take(range(clip.num_frames))
    rate = clip.sample_rate or DEFAULT_SAMPLE_RATE
    height, width = (side // 2 * 2 for side in frames[0].shape[:2])
    with av.open(str(path), "w", format="mp4") as container:
        picture = container.add_stream(
            "libx264", rate=round(clip.fps or DEFAULT_FPS), options={"crf": "16", "threads": "1"}
        )
        picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
        if clip.waveform is not None:
            voice = container.add_stream("aac", rate=rate, layout="mono")
        for frame in frames:
            container.mux(picture.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]))))
        container.mux(picture.encode())
        if clip.waveform is not None:
            sound = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(np.asarray(clip.waveform)[:1]), format="fltp", layout="mono"
            )
            sound.sample_rate = rate
            sound.pts = 0  # so that the codec's priming samples get negative times, and no reader plays them
            container.mux(voice.encode(sound))
            container.mux(voice.encode())
