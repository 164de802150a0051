"""From files to clips: videos and sound through PyAV, folders of frames through Pillow, arrays as they are.

Nothing is decoded before it is asked for. Frames are decoded in order from the start and only the wanted ones are
converted, which is faster than seeking for a clip of a few seconds and gives exact indices for every file.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, MediaError
from .clip import HIGHEST_SAMPLE_RATE, MOST_CHANNELS, Clip, check_fps, check_size

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})
# these "formats" are lists of other files and addresses, or text that is drawn: a video file is none of them
NOT_MEDIA = frozenset({"hls", "concat", "dash", "tty", "bin", "xbin", "adf", "idf", "sdp", "rtsp", "ffmetadata"})


def read_clip(
    source: Any,
    *,
    faces: Any = "none",
    crop: str = "aligned",
    no_face: str = "error",
    audio: Any = None,
    sample_rate: int | None = None,
    fps: float | None = None,
    order: str = "numeric",
    recover: bool = False,
    stream: bool = False,
) -> Clip:
    """A clip from a video or sound file, a folder of frames, a list of image files, an array of frames, or a `Clip`.

    ``faces`` and ``crop`` are those of `faces.find`. ``audio`` is a file with the sound, or False to leave it out;
    ``sample_rate`` has ffmpeg resample it, which nothing does unasked. ``fps`` is the frame rate of frames that do not carry one. ``order`` sorts a folder by the "numeric" value in the
    names, or as a "string" (10 before 2), as some published lists are. ``recover`` takes from a damaged file what can
    be decoded. With ``stream`` the waveform too is read on demand, for long files.

    >>> clip = read_clip("interview.mp4", faces="auto")  # doctest: +SKIP
    """
    clip = _open(source, fps=fps, order=order, recover=recover)
    if audio is False:
        clip = replace(clip, waveform=None, sample_rate=None, sound_start=0.0)
    elif audio is not None:
        if not isinstance(audio, str | os.PathLike):
            raise InputError(
                f"audio is of type {type(audio).__name__}; expected a file, or False to leave the sound out."
            )
        sound = SoundFile.of(_existing(audio), recover)
        if sound is None:
            raise MediaError(f"{audio}: there is no sound in this file.")
        clip = replace(clip, waveform=sound, sample_rate=sound.sample_rate, sound_start=0.0)
    if clip.frames is None and clip.waveform is None:
        raise MediaError(f"{clip.source}: there are neither frames nor sound in this file.")
    if sample_rate is not None:
        clip = _resampled(clip, sample_rate)
    if isinstance(clip.waveform, SoundFile) and not stream:
        clip = replace(clip, waveform=np.asarray(clip.waveform))
    if clip.frames is not None and not (isinstance(faces, str) and faces == "none"):
        from .faces import find

        clip = find(clip, faces, crop=crop, no_face=no_face)
    return clip


def _open(source: Any, *, fps: float | None, order: str, recover: bool) -> Clip:
    check_fps(fps)
    if isinstance(source, Clip):
        return source if fps is None else replace(source, fps=fps, times=None)
    if isinstance(source, np.ndarray) or (isinstance(source, list | tuple) and _holds(source, np.ndarray)):
        return Clip.from_arrays(source, fps=fps)
    if isinstance(source, list | tuple) and _holds(source, (str, os.PathLike)):
        return Clip(ImageFiles(tuple(_existing(path) for path in source)), fps=fps, source=f"{len(source)} images")
    if not isinstance(source, str | os.PathLike):
        raise InputError(
            f"A clip cannot be read from {type(source).__name__}; expected a file, a folder of frames, "
            "an array (N, H, W, 3), or a Clip."
        )
    path = _existing(source)
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
    # both count from the same zero, which need not be where either begins
    known = sound is not None and sound.start is not None and video.start is not None
    sound_start = sound.start - video.start if known else 0.0
    return Clip(video, rate, sound, sample_rate, str(path), times=times, sound_start=sound_start)


def _resampled(clip: Clip, sample_rate: int) -> Clip:
    if not 1 <= sample_rate <= HIGHEST_SAMPLE_RATE:
        raise InputError(f"sample_rate is {sample_rate}; expected samples per second.")
    if clip.waveform is None or clip.sample_rate == sample_rate:
        return clip
    if not isinstance(clip.waveform, SoundFile):
        raise InputError(f"{clip.source}: only the sound of files is resampled, and this one is an array.")
    return replace(clip, waveform=replace(clip.waveform, sample_rate=sample_rate), sample_rate=sample_rate)


def _existing(path: str | os.PathLike) -> Path:
    found = Path(path)
    try:
        if not found.exists():
            raise MediaError(f"{found}: there is no such file or folder.")
        if found.is_file() and found.stat().st_size == 0:
            raise MediaError(f"{found}: the file is empty.")
    except (OSError, ValueError) as error:  # no permission to look, a name that cannot be one
        raise MediaError(f"{found}: this cannot be looked at ({getattr(error, 'strerror', None) or error}).") from error
    if not found.is_file() and not found.is_dir():
        raise MediaError(f"{found}: this is neither a file nor a folder.")
    return found


def _holds(items: Sequence[Any], kind: Any) -> bool:
    return len(items) > 0 and all(isinstance(item, kind) for item in items)


# -- images ------------------------------------------------------------------------------------------------------------


def numeric_order(name: str) -> tuple:
    """Sorting key: numbers in a name by their value, the rest as text.

    >>> sorted(["10.jpg", "2.jpg", "1.jpg"], key=numeric_order)
    ['1.jpg', '2.jpg', '10.jpg']
    """
    parts = re.split(r"([0-9]+)", name)
    return tuple((-1, part) if number % 2 == 0 else (int(part), part) for number, part in enumerate(parts))


ORDERS: dict[str, Callable[[str], Any]] = {"numeric": numeric_order, "string": str}


@dataclass(frozen=True)
class ImageFiles:
    """One image file per frame."""

    paths: tuple[Path, ...]
    upright: bool = True  # turn the pixels as the EXIF orientation says; False: take them as they are stored

    @classmethod
    def of_folder(cls, folder: Path, order: str = "numeric") -> ImageFiles:
        if order not in ORDERS:
            raise InputError(f"There is no order '{order}'; there are {sorted(ORDERS)}.")
        try:
            names = [
                name
                for name in os.listdir(folder)
                if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")  # ._1.jpg, as macOS writes
            ]
        except OSError as error:
            raise MediaError(f"{folder}: this folder cannot be read ({error.strerror}).") from error
        if not names:
            raise MediaError(f"{folder}: there are no images in this folder ({', '.join(sorted(IMAGE_SUFFIXES))}).")
        return cls(tuple(folder / name for name in sorted(names, key=ORDERS[order])))

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: Sequence[int]) -> list[np.ndarray]:
        return [_read_image(self.paths[index], self.upright) for index in indices]


def _read_image(path: Path, upright: bool = True) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            check_size(image.width, image.height, str(path))
            if image.mode[0] in "IF":
                raise MediaError(f"{path}: the image has more than 8 bits of grey; convert it to 8 bits, as they mean.")
            return np.asarray((ImageOps.exif_transpose(image) if upright else image).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise MediaError(f"{path}: the image cannot be read ({error}).") from error


# -- video files -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VideoFile:
    """The frames of a video file. It holds no open file, so it can be copied to other processes."""

    path: Path
    count: int
    times: np.ndarray | None  # seconds of every frame, from 0; None where the file has no time stamps
    recover: bool = False
    start: float | None = None  # the time stamp of the first frame, in seconds

    @classmethod
    def of(cls, path: Path, recover: bool = False) -> VideoFile | None:
        """None where the file has no video."""
        with _container(path) as container:
            stream = _video_stream(container)
            if stream is None:
                return None
            check_size(stream.width, stream.height, str(path))
            stamps, exact, end = _count(container, stream)
            announced = (container.duration or 0) / 1e6
        if not recover and announced - end > 0.1 * announced + 0.5:
            raise MediaError(
                f"{path}: the file announces {announced:.1f} s and ends after {end:.1f} s. "
                "It is damaged or cut off; recover=True uses what is there."
            )
        if recover or not exact:
            stamps = list(_decodable(path))
        if not stamps:
            raise MediaError(f"{path}: there are no frames in this file; it may be cut off or damaged.")
        return cls(path, len(stamps), _seconds(stamps), recover, stamps[0])

    @property
    def fps(self) -> float | None:
        """Frames per second, from the time stamps alone; the mean where the rate varies."""
        if self.times is None or self.count < 2 or self.times[-1] <= 0:
            return None
        return _rate(self.count, float(self.times[-1]))

    def __len__(self) -> int:
        return self.count

    def take(self, indices: Sequence[int]) -> list[np.ndarray]:
        wanted = sorted(set(indices))
        found = dict(zip(wanted, self.in_order(wanted)))
        return [found[index] for index in indices]

    def in_order(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """Frames at rising indices. The file is decoded up to the last of them, in one pass."""
        wanted = iter(indices)
        target = next(wanted, None)
        if target is None:
            return
        from av.video.reformatter import VideoReformatter

        to_rgb = VideoReformatter()  # one for all frames: each would set up a converter of its own
        number = -1
        for number, frame in enumerate(_decoded(self.path, self.recover)):
            while target == number:
                yield _picture(frame, to_rgb, self.path, None if self.recover else number)
                target = next(wanted, None)
                if target is None:
                    return
                if target < number:
                    raise InputError(f"Frame {target} was asked for after frame {number}.")
        if not 0 <= target < self.count:
            raise MediaError(f"{self.path}: there is no frame {target}; the file has {self.count} frames.")
        raise MediaError(
            f"{self.path}: the file announces {self.count} frames and only {number + 1} can be decoded. "
            "It is damaged or cut off; recover=True uses what is there."
        )


def _rate(count: int, last: float) -> float:
    """The mean rate of so many frames whose last one comes at `last` seconds.

    Many files count time in milliseconds, which makes 30.003 of 30: a usual rate within that uncertainty is meant.

    >>> _rate(120, 3.967), _rate(31, 1.001), _rate(66, 3.9)
    (30.0, 29.97002997002997, 16.666666666666668)
    """
    rate = (count - 1) / last
    usual = min((round(rate), round(rate) * 1000 / 1001), key=lambda other: abs(other - rate))
    return float(usual) if usual and abs(usual - rate) <= 1e-3 / last * rate else rate


@contextlib.contextmanager
def _container(path: Path) -> Iterator[Any]:
    """An open file, with every complaint of the decoder turned into a `MediaError`."""
    try:
        import av
    except ImportError as error:
        raise MediaError('Reading media files needs PyAV: pip install "dfer-zoo[video]".') from error
    if av.logging.get_level() == av.logging.ERROR:
        # Nobody's choice: older versions of torchvision set it when they are imported. Before PyAV 18 a decoding thread
        # then waits for the interpreter's lock to log, and whoever lets go of the file holds it and waits for the thread.
        av.logging.set_level(None)
    try:
        # a prefix and a single protocol: no name is taken for an address, and no file can lead to another one. Said to
        # the container alone: PyAV before 18 crashes if options for streams meet a stream that shows up late
        only_files = {"protocol_whitelist": "file"}
        with av.open(f"file:{path}", container_options=only_files, metadata_errors="replace") as container:
            kind = container.format.name
            if kind in NOT_MEDIA or kind.endswith("_pipe"):
                raise MediaError(f"{path}: this is not a video or sound file (it looks like '{kind}').")
            yield container
    except (av.error.FFmpegError, ValueError, OverflowError, IndexError) as error:  # the latter from PyAV's tables
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(f"{path}: this file cannot be decoded ({reason}).") from error


def _video_stream(container: Any) -> Any:
    """The first real video stream; the cover picture of a song is none."""
    import av

    pictures = av.stream.Disposition.attached_pic
    return next((s for s in container.streams.video if not s.disposition & pictures and s.codec_context), None)


def _count(container: Any, stream: Any) -> tuple[list[float | None], bool, float]:
    """(time stamp of every frame, whether that count can be trusted, seconds of all streams), decoding nothing.

    The number in the header is what the file had before it was cut, or 0. Packets that a cut file keeps only for
    decoding are marked to be discarded.
    """
    stamps: list[float | None] = []
    exact = None
    begin = (container.start_time or 0) / 1e6
    end = 0.0
    for packet in container.demux():
        if not packet.size:
            continue
        # AVI numbers its frames in decoding order, and what is made up from that is wrong at the ends
        stamp = packet.dts if container.format.name == "avi" else packet.pts
        time = None if stamp is None else float(stamp * packet.time_base)
        if time is not None:
            end = max(end, time + float((packet.duration or 0) * packet.time_base) - begin)
        if packet.stream_index != stream.index:
            continue
        if exact is None:
            exact = bool(packet.is_keyframe)  # a file that starts in the middle loses frames until it catches on
        if not packet.is_discard and not _is_hidden(packet, stream):
            stamps.append(time)
    if None not in stamps:
        stamps.sort()  # packets come in decoding order
    return stamps, bool(exact), end


def _is_hidden(packet: Any, stream: Any) -> bool:
    """VP8 stores pictures that are only looked at by others in packets of their own."""
    return stream.codec_context.name == "vp8" and not memoryview(packet)[0] >> 4 & 1


def _decoded(path: Path, recover: bool) -> Iterator[Any]:
    """Decoded frames in the order in which they are shown."""
    import av

    with _container(path) as container:
        stream = _video_stream(container)
        stream.thread_type = "AUTO"
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except av.error.FFmpegError:
                if not recover:
                    raise


def _decodable(path: Path) -> Iterator[float | None]:
    """Time stamps of the frames that can be decoded, up to where the file breaks off."""
    with contextlib.suppress(MediaError):
        for frame in _decoded(path, recover=True):
            yield frame.time


def _seconds(stamps: Sequence[float | None]) -> np.ndarray | None:
    known = [stamp for stamp in stamps if stamp is not None]
    if len(known) < len(stamps):
        return None
    times = np.array(known) - known[0]
    return times if bool(np.all(np.diff(times) > 0)) else None


def _picture(frame: Any, to_rgb: Any, path: Path, number: int | None) -> np.ndarray:
    """RGB, upright. Phones film sideways and say so in the file; decoders leave it at that."""
    check_size(frame.width, frame.height, str(path))
    if number is not None and frame.is_corrupt:
        raise MediaError(f"{path}: frame {number} is damaged; recover=True uses what is there.")
    # the interpolation is ffmpeg's own, and matters where chroma is stretched over an odd width or height
    picture = to_rgb.reformat(frame, format="rgb24", interpolation="BICUBIC").to_ndarray()
    turns = round(frame.rotation / 90) % 4
    if _is_mirrored(frame):
        picture = picture[::-1]
    return np.ascontiguousarray(np.rot90(picture, turns))


def _is_mirrored(frame: Any) -> bool:
    """Whether the file has its frames turned over, beside being turned."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].astype(float)
    return a * d < b * c


# -- sound files -------------------------------------------------------------------------------------------------------


def _sound_stream(container: Any) -> Any:
    """The first sound whose codec is known."""
    return next((stream for stream in container.streams.audio if stream.codec_context), None)


@dataclass(frozen=True)
class SoundFile:
    """The sound of a file, at its own rate and with its own channels; `np.asarray` of it is all of it."""

    path: Path
    sample_rate: int
    channels: int
    recover: bool = False
    start: float | None = None  # the time stamp of the first sample, in seconds

    @classmethod
    def of(cls, path: Path, recover: bool = False) -> SoundFile | None:
        """None where the file has no sound."""
        with _container(path) as container:
            stream = _sound_stream(container)
            if stream is None:
                return None
            rate, channels = stream.codec_context.sample_rate, stream.codec_context.channels
            start = None if stream.start_time is None else float(stream.start_time * stream.time_base)
        if rate <= 0:
            raise MediaError(f"{path}: the sample rate of the sound is {rate}.")
        if not 1 <= channels <= MOST_CHANNELS:
            raise MediaError(f"{path}: the sound has {channels} channels; expected 1 to {MOST_CHANNELS}.")
        return cls(path, rate, channels, recover, start)

    def pieces(self) -> Iterator[np.ndarray]:
        """The waveform piece by piece, (channels, samples) float32 in [-1, 1]."""
        import av

        with _container(self.path) as container:
            stream = _sound_stream(container)
            as_floats = av.AudioResampler(format="fltp", layout=stream.layout, rate=self.sample_rate)
            for packet in container.demux(stream):
                try:
                    for frame in packet.decode():
                        for part in as_floats.resample(frame):
                            yield self._checked(part.to_ndarray())
                except av.error.FFmpegError:
                    if not self.recover:
                        raise
            for part in as_floats.resample(None):
                yield self._checked(part.to_ndarray())

    def _checked(self, piece: np.ndarray) -> np.ndarray:
        if not np.isfinite(piece).all():
            raise MediaError(f"{self.path}: the sound holds values that are not finite.")
        return piece

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        return self.channels, sum(piece.shape[1] for piece in self.pieces())

    def cut(self, start: int, stop: int) -> np.ndarray:
        return SoundCursor(self).cut(start, stop)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        pieces = list(self.pieces())
        if not pieces:
            raise MediaError(f"{self.path}: the sound track is empty.")
        waveform = np.concatenate(pieces, axis=1)
        return waveform if dtype is None else waveform.astype(dtype)


class SoundCursor:
    """The same, for reading parts in rising order: a file is decoded once, and only the current part is in memory."""

    def __init__(self, sound: SoundFile) -> None:
        self.sound = sound
        self._rewind()

    def _rewind(self) -> None:
        self._pieces = self.sound.pieces()
        self._kept = np.zeros((self.sound.channels, 0), np.float32)
        self._position = 0  # of the first kept sample

    @property
    def shape(self) -> tuple[int, ...]:
        return self.sound.shape

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.sound.__array__(dtype, copy)

    def cut(self, start: int, stop: int) -> np.ndarray:
        """Samples `start` to `stop`; fewer where the sound ends before."""
        if start < self._position:
            self._rewind()
        while self._position + self._kept.shape[1] < stop:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._drop(start)
            self._kept = np.concatenate([self._kept, piece], axis=1)
        self._drop(start)
        return self._kept[:, : max(0, stop - self._position)].copy()

    def _drop(self, start: int) -> None:
        """Forget what lies before `start`."""
        gone = min(max(0, start - self._position), self._kept.shape[1])
        self._kept, self._position = self._kept[:, gone:], self._position + gone
