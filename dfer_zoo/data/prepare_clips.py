"""Write one prepared clip: face crops, a sound file, or frames. `data.prepare` calls these functions for many clips."""

from __future__ import annotations

import dataclasses
import io
import wave
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..atomic import atomic_folder, atomic_path, write_atomically
from ..errors import InputError, MediaError
from ..media.clip import Clip, in_order
from ..media.container import existing
from ..media.faces import find
from ..media.resize import RESIZES
from ..media.sound import SoundFile
from ..transforms import sampling
from ..weights.record import VideoSpec
from .rows import Row, read_row

SUFFIXES = {"jpg": "", "png": "", "npy": "_facecroppad.npy"}  # of the output of a clip; "" means a folder
PREVIEW_FPS = 5  # of the .avi preview of prepared faces
RAVDESS_RATE, RAVDESS_SECONDS = 22050, 3.6


@dataclasses.dataclass(frozen=True)
class Source:
    """One clip to prepare.

    Attributes:
        row: The paths of its files.
        output: The path to write, relative to the output folder.
        label: The class in the new list; None for clips without labels.
    """

    row: Row
    output: str
    label: str | None = None

    @property
    def name(self) -> str:
        """Return the name of the clip for error messages."""
        return self.row.path


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of one clip.

    Attributes:
        clip: The path of the source.
        output: The path that was written, relative to the output folder.
        status: "written", "no face" (nothing, or whole frames, were written) or "failed".
        frames: Number of written frames or audio samples.
        searched: Number of searched frames.
        found: Number of searched frames with a face.
        reason: The reason if the clip failed.
    """

    clip: str
    output: str
    status: str
    frames: int = 0
    searched: int = 0
    found: int = 0
    reason: str = ""


# -- faces -------------------------------------------------------------------------------------------------------------


def prepare_faces(
    source: Source,
    *,
    out: Path,
    crop: str,
    faces: Any = "auto",
    no_face: str = "error",
    kind: str = "jpg",
    names: str = "padded",
    video: VideoSpec | None = None,
    preview: bool = False,
) -> Result:
    """Crop the frames of a clip to the face and write them.

    Args:
        source: The clip.
        out: The output folder.
        crop: The crop rule, as in `media.faces.find`; so are ``faces`` and ``no_face``.
        faces: How faces are found.
        no_face: What to do with a clip without a face.
        kind: "jpg" or "png" for a folder of frames, "npy" for the array of av_fusion.
        names: "padded" (00000.jpg) or "plain" (0.jpg).
        video: The frame sampling and size; required for "npy", ignored otherwise.
        preview: Also write an .avi next to an .npy file.

    Returns:
        The numbers of frames and faces.

    Raises:
        MediaError: The clip cannot be read.
    """
    place, done = out / source.output, Result(source.row.path, source.output, "written")
    clip = read_row(source.row, frame_count="folder")
    if "faces" not in clip.notes:  # puppets and prepared arrays are face crops
        clip = find(clip, faces, crop=crop, no_face=no_face)
    if clip.frames is None:
        raise MediaError(f"{source.row.path}: this file has no frames.")
    try:
        if kind == "npy":
            assert video is not None
            count = _write_array(clip, video, place, preview)
        else:
            count = _write_frames(in_order(clip.frames, range(len(clip.frames))), place, kind, names)
    except MediaError as error:
        if not _without_face(clip):
            raise
        return dataclasses.replace(done, status="no face", reason=str(error), **_searches(clip))
    status = "no face" if _without_face(clip) else "written"
    return dataclasses.replace(done, status=status, frames=count, **_searches(clip))


def _searches(clip: Clip) -> dict[str, Any]:
    report = clip.notes.get("faces", {})
    return {"searched": report.get("searched", 0), "found": report.get("found", 0)}


def _without_face(clip: Clip) -> bool:
    searches = _searches(clip)
    return searches["searched"] > 0 and searches["found"] == 0


def _write_array(clip: Clip, video: VideoSpec, place: Path, preview: bool) -> int:
    """Write av_fusion's array: the sampled faces at the input size, uint8 in BGR order, black after the end of the clip."""
    chosen = sampling.indices(clip.num_frames, clip.fps, video)
    size = video.img_size
    faces = np.stack([RESIZES[video.resize](frame, size, size) for frame in sampling.take(clip, chosen)])
    content = io.BytesIO()
    np.save(content, np.ascontiguousarray(faces[..., ::-1]))
    write_atomically(place, content.getvalue())
    if preview:
        _write_avi(faces, place.with_suffix(".avi"))
    return len(faces)


def _write_avi(frames: np.ndarray, path: Path) -> None:
    import av

    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="avi") as container:
        stream = container.add_stream("mjpeg", rate=PREVIEW_FPS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuvj420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame))))
        container.mux(stream.encode())


# -- frames ------------------------------------------------------------------------------------------------------------


def prepare_frames(source: Source, *, out: Path, fps: float | None = None, kind: str = "jpg") -> Result:
    """Write the frames of a video as a folder of images.

    Args:
        source: The clip.
        out: The output folder.
        fps: Frames per second to write; None writes every frame.
        kind: "jpg" or "png".

    Returns:
        The number of frames.

    Raises:
        MediaError: The clip cannot be read, or its frame rate is needed and unknown.
    """
    clip = read_row(source.row, frame_count="folder")
    if clip.frames is None:
        raise MediaError(f"{source.row.path}: this file has no frames.")
    wanted = range(len(clip.frames)) if fps is None else frames_at(clip, fps)
    distinct = in_order(clip.frames, sorted(set(wanted)))
    count = _write_frames(_repeated(distinct, wanted), out / source.output, kind, "padded")
    return Result(source.row.path, source.output, "written", count)


def frames_at(clip: Clip, fps: float) -> list[int]:
    """Return the frames that are shown at 0, 1 / fps, 2 / fps, ... seconds.

    Args:
        clip: A clip with a known frame rate.
        fps: Frames per second.

    Returns:
        Frame numbers. A rate above that of the clip repeats frames.

    Raises:
        InputError: ``fps`` is not positive.
        MediaError: The frame rate of the clip is unknown.

    >>> frames_at(Clip.from_arrays(np.zeros((10, 8, 8, 3), np.uint8), fps=25), 5)
    [0, 5]
    """
    if not 0 < fps <= 1000:
        raise InputError(f"fps is {fps}; expected more than 0 and at most 1000 frames per second.")
    if clip.duration is None or not clip.num_frames:
        raise MediaError(f"{clip.source}: the frame rate is unknown, so frames at {fps:g} per second cannot be chosen.")
    times = np.arange(clip.num_frames) / (clip.fps or 1.0) if clip.times is None else clip.times
    shown = np.arange(max(1, int(np.floor(clip.duration * fps + 1e-6)))) / fps
    return np.clip(np.searchsorted(times, shown + 1e-6, side="right") - 1, 0, clip.num_frames - 1).tolist()


def _repeated(frames: Iterator[np.ndarray], numbers: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield frames by ascending numbers, which may repeat; ``frames`` contains each frame once."""
    last, frame = None, None
    for number in numbers:
        if number != last:
            last, frame = number, next(frames)
        assert frame is not None
        yield frame


def _write_frames(frames: Iterable[np.ndarray], place: Path, kind: str, names: str) -> int:
    """Write a folder of images atomically."""
    options: dict[str, Any] = {"format": "PNG"}
    if kind == "jpg":  # OpenCV's default
        options = {"format": "JPEG", "quality": 95, "subsampling": "4:2:0"}
    digits = 5 if names == "padded" else 1
    count = 0
    with atomic_folder(place) as folder:
        for frame in frames:
            Image.fromarray(frame).save(folder / f"{count:0{digits}d}.{kind}", **options)
            count += 1
    return count


# -- sound -------------------------------------------------------------------------------------------------------------


def prepare_audio(source: Source, *, out: Path, rule: str = "file") -> Result:
    """Write the sound of a clip as a 16-bit WAV file.

    Args:
        source: The clip; its sound is in ``row.audio``, or in the file itself.
        out: The output folder.
        rule: "file" keeps the rate and the channels of the file, as in MMA-DFER. "ravdess" is av_fusion's:
            mono at 22,050 Hz, the middle 3.6 seconds, zeros after a shorter sound.

    Returns:
        The number of samples.

    Raises:
        MediaError: There is no sound in the file, or it cannot be read.
    """
    path = existing(source.row.audio or source.row.path)
    sound = None if path.is_dir() else SoundFile.of(path)
    if sound is None:
        raise MediaError(f"{path}: no sound in this file.")
    samples, rate = np.asarray(sound), sound.sample_rate
    if rule == "ravdess":
        numbers, rate = _ravdess_sound(samples, rate), RAVDESS_RATE
    else:
        numbers = np.rint(samples * 32768.0).clip(-32768, 32767)
    write_atomically(out / source.output, _wav(numbers.astype("<i2"), rate))
    return Result(source.row.path, source.output, "written", numbers.shape[1])


def _ravdess_sound(samples: np.ndarray, rate: int) -> np.ndarray:
    import torch

    from ..transforms.audio import centre_crop_or_pad, kaiser_resample, sixteen_bits

    signal = kaiser_resample(torch.from_numpy(samples).mean(0), rate, RAVDESS_RATE)
    signal = centre_crop_or_pad(signal, round(RAVDESS_SECONDS * RAVDESS_RATE))
    return sixteen_bits(signal).mul(32768).numpy()[None]


def _wav(samples: np.ndarray, rate: int) -> bytes:
    """Encode (channels, samples) int16 as a WAV file."""
    content = io.BytesIO()
    with wave.open(content, "wb") as stream:
        stream.setnchannels(samples.shape[0])
        stream.setsampwidth(2)
        stream.setframerate(rate)
        stream.writeframes(np.ascontiguousarray(samples.T).tobytes())
    return content.getvalue()
