"""Write video files from a clip, or from frames and a sound track."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import atomic_path
from ..errors import MediaError
from .clip import Clip
from .container import open_container
from .sound import SoundFile, sound_stream

DEFAULT_FPS = 25.0  # for clips without a frame rate
DEFAULT_SAMPLE_RATE = 16000
TICKS = 90_000  # per second, the resolution of frame times
COPIED = ("aac", "mp3", "mp3float")  # audio codecs that every MP4 player supports
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)


def write_mp4(clip: Clip, path: str | Path) -> Path:
    """Write a clip as H.264 and AAC. Odd widths and heights lose one pixel, because H.264 needs even ones.

    Args:
        clip: The clip.
        path: The file, NAME.mp4. Missing folders are created.

    Returns:
        The path.

    Raises:
        MediaError: PyAV is missing, the suffix is not ``.mp4``, or the file cannot be written.
    """
    if Path(path).suffix.lower() != ".mp4":
        raise MediaError(f"{path} cannot be written: expected a file name that ends with .mp4.")
    with _temporary(Path(path)) as temporary:
        _encode(clip, temporary)
    return Path(path)


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Yield a path to write with PyAV, and move the file to ``path``. Every failure is a `MediaError`."""
    try:
        import av
    except ImportError as error:
        raise MediaError("Writing a video file needs PyAV: pip install 'dfer-zoo[video]'.") from error
    try:
        with atomic_path(path) as temporary:
            yield temporary
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(f"{path}: this video cannot be written ({reason}).") from error


def _encode(clip: Clip, path: Path) -> None:
    import av

    frames = clip.take(range(clip.num_frames))
    rate = clip.sample_rate or DEFAULT_SAMPLE_RATE
    height, width = _even(frames[0].shape)
    with av.open(str(path), "w", format="mp4") as container:
        picture = container.add_stream(
            "libx264", rate=round(clip.fps or DEFAULT_FPS), options={"crf": "16", "threads": "1"}
        )
        picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
        if clip.waveform is not None:
            voice = container.add_stream("aac", rate=rate, layout="mono")
        for frame in frames:
            container.mux(picture.encode(_picture(frame)))
        container.mux(picture.encode())
        if clip.waveform is not None:
            sound = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(np.asarray(clip.waveform)[:1]), format="fltp", layout="mono"
            )
            sound.sample_rate = rate
            sound.pts = 0  # gives the codec's priming samples negative times, so that players skip them
            container.mux(voice.encode(sound))
            container.mux(voice.encode())


# -- frames with the sound of a file -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Soundtrack:
    """The sound track of a video to write.

    Attributes:
        waveform: (channels, samples) float32, or the sound of a file.
        sample_rate: Samples per second.
        start: Seconds from the first frame to the first sample.
        zero: For the sound of a file: the time stamp of the first frame. None: packets cannot be copied, and the sound
            is encoded again.
    """

    waveform: np.ndarray | SoundFile
    sample_rate: int
    start: float = 0.0
    zero: float | None = None

    @property
    def can_be_copied(self) -> bool:
        return isinstance(self.waveform, SoundFile) and self.zero is not None and self.waveform.codec in COPIED


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    times: Sequence[float],
    *,
    fps: float,
    sound: Soundtrack | None = None,
    pixel_aspect: Fraction | None = None,
) -> Path:
    """Write frames with time stamps and a sound track as an MP4 file. The file is written atomically.

    AAC and MP3 sound is copied; other sound is encoded as AAC with at most two channels.

    Args:
        path: The output file; an existing file is replaced.
        frames: RGB frames (H, W, 3) uint8 of equal size; odd sides lose one pixel.
        times: Seconds at which each frame is shown, from 0.
        fps: Frames per second, for the header.
        sound: The sound.
        pixel_aspect: Pixel width divided by pixel height.

    Returns:
        The path.

    Raises:
        MediaError: PyAV or its encoder is missing, or the file cannot be written.
    """
    with _temporary(path) as temporary:
        _write(temporary, frames, times, fps, sound, pixel_aspect)
    return path


def _write(
    path: Path,
    frames: Iterable[np.ndarray],
    times: Sequence[float],
    fps: float,
    sound: Soundtrack | None,
    pixel_aspect: Fraction | None,
) -> None:
    import av

    walk = iter(frames)
    first = next(walk)
    with av.open(str(path), "w", format="mp4", container_options={"movflags": "+faststart"}) as output:
        picture = _picture_stream(output, first.shape, fps, pixel_aspect)
        packets = iter(()) if sound is None else _sound_packets(output, sound)
        waiting = next(packets, None)
        duration = 0
        for number, frame in enumerate(_chained(first, walk)):
            now = round(times[number] * TICKS)
            if number + 1 < len(times):
                duration = round(times[number + 1] * TICKS) - now
            output.mux(picture.encode(_timed(frame, now, duration or round(TICKS / fps))))
            while waiting is not None and waiting[0] <= times[number]:  # interleaved, so that neither is buffered
                output.mux(waiting[1])
                waiting = next(packets, None)
        output.mux(picture.encode())
        while waiting is not None:
            output.mux(waiting[1])
            waiting = next(packets, None)


def _chained(first: np.ndarray, others: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from others


def _even(shape: Sequence[int]) -> tuple[int, int]:
    """Return (height, width), each rounded down to an even number."""
    return shape[0] // 2 * 2, shape[1] // 2 * 2


def _picture(frame: np.ndarray) -> Any:
    import av

    height, width = _even(frame.shape)
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]))


def _timed(frame: np.ndarray, now: int, duration: int) -> Any:
    picture = _picture(frame)
    picture.pts, picture.time_base = now, Fraction(1, TICKS)
    if hasattr(picture, "duration"):  # missing in old PyAV, where the muxer derives it from the times
        picture.duration = duration
    return picture


def _picture_stream(output: Any, shape: Sequence[int], fps: float, pixel_aspect: Fraction | None) -> Any:
    import av

    try:
        stream = _add_stream(output, "libx264", Fraction(fps).limit_denominator(1001))
    except av.codec.codec.UnknownCodecError as error:
        raise MediaError(
            "This PyAV has no H.264 encoder (libx264), so no video can be written; pip install --force-reinstall av."
        ) from error
    stream.height, stream.width = _even(shape)
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = Fraction(1, TICKS)
    if pixel_aspect is not None:
        stream.codec_context.sample_aspect_ratio = pixel_aspect
    return stream


def _add_stream(output: Any, codec: str, rate: Fraction) -> Any:
    return output.add_stream(codec, rate=rate, options={"crf": "20", "preset": "veryfast"})


Packets = Iterator[tuple[float, Any]]  # (second, packet)


def _sound_packets(output: Any, sound: Soundtrack) -> Packets:
    return _copied(output, sound) if sound.can_be_copied else _encoded(output, sound)


def _copied(output: Any, sound: Soundtrack) -> Packets:
    """Add a stream, and return the packets of the file, shifted so that the first frame is at 0."""
    assert isinstance(sound.waveform, SoundFile) and sound.zero is not None
    path, zero = sound.waveform.path, sound.zero
    with open_container(path) as source:
        stream = output.add_stream_from_template(sound_stream(source))

    def packets() -> Packets:
        with open_container(path) as source:
            for packet in source.demux(sound_stream(source)):
                if packet.pts is None or packet.dts is None:
                    continue
                moved = round(zero / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - moved, packet.dts - moved, stream
                yield float(packet.pts * packet.time_base), packet

    return packets()


def _encoded(output: Any, sound: Soundtrack) -> Packets:
    """Add a stream, and return the sound as AAC packets."""
    import av

    rate = sound.sample_rate if sound.sample_rate in AAC_RATES else 48_000
    layout = "stereo" if sound.waveform.shape[0] == 2 else "mono"
    stream = output.add_stream("aac", rate=rate, layout=layout)
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
    first = round(sound.start * rate)

    def frames() -> Iterator[Any]:
        pieces = sound.waveform.pieces() if isinstance(sound.waveform, SoundFile) else _pieces(sound.waveform)
        for piece in pieces:
            mixed = piece if layout == "stereo" else piece.mean(0, keepdims=True)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(mixed, np.float32), format="fltp", layout=layout)
            frame.sample_rate = sound.sample_rate
            yield from resampler.resample(frame)
        yield from resampler.resample(None)

    def packets() -> Packets:
        at = first
        for frame in frames():
            frame.pts, frame.time_base = at, Fraction(1, rate)
            at += frame.samples
            for packet in stream.encode(frame):
                yield at / rate, packet
        for packet in stream.encode():
            yield at / rate, packet

    return packets()


def _pieces(waveform: np.ndarray, size: int = 1 << 16) -> Iterator[np.ndarray]:
    for start in range(0, waveform.shape[1], size):
        yield waveform[:, start : start + size]
