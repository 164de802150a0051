"""A row: one labeled clip of a data set, and how its clip is read."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import tokenize
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..errors import InputError, MediaError, suggest
from ..media.clip import Clip, Frames
from ..media.container import open_file
from ..media.limits import check_limit

# Where the sound of a folder of frames is. {name} is the name of the folder, {number} the name without leading zeros,
# {parent} the path of its parent folder, {above} the path of the parent's parent.
AUDIO_RULES = {
    "dfew": "{above}/raw_wav/{number}.wav",
    "mafw": "{above}/clips_wav/{name}.wav",
}


@dataclass(frozen=True)
class Row:
    """One labeled clip of a data set."""

    path: str  # a video file, or a folder of frames
    label: int
    audio: str | None = None  # the sound file; None: the sound, if any, is in the video file
    num_frames: int | None = None  # according to the list; `VideoSpec.frame_count` says whether it counts
    subset: str | None = None  # "training", "validation", "testing"
    order: str = "numeric"  # how to sort the frames of a folder, as in `read_clip`
    upright: bool = True  # apply the EXIF orientation; the published programs do not


class Rows(list[Row]):
    """The rows of a data set. ``skipped`` has a sentence for each clip that was left out.

    Args:
        rows: The rows.
        skipped: The sentences.
    """

    def __init__(self, rows: Iterable[Row] = (), skipped: Iterable[str] = ()) -> None:
        super().__init__(rows)
        self.skipped = tuple(skipped)


@dataclass(frozen=True)
class ListedFrames:
    """The frames of a folder, counted by a list.

    The published programs sample by the count of the list. The folder may have more frames; if it has fewer, only a
    sampled frame that is missing is an error.
    """

    frames: Frames
    count: int
    source: str

    def __len__(self) -> int:
        return self.count

    def take(self, indices: Sequence[int]) -> list[np.ndarray]:
        if max(indices, default=0) >= len(self.frames):
            raise MediaError(
                f"{self.source}: the list says {self.count} frames, the folder has {len(self.frames)}, and frame "
                f"{max(indices)} (from 0) is needed."
            )
        return self.frames.take(indices)


def read_row(row: Row, *, frame_count: str = "list") -> Clip:
    """Read the clip of a row.

    Args:
        row: A row of `read_rows`.
        frame_count: Which number of frames counts if they differ: that of the "list", or of the "folder"
            (`VideoSpec.frame_count`).

    Returns:
        The clip. Puppets and prepared faces are marked as face crops, so that no transform searches them for faces.
        ``clip.notes["short"]`` is (frames in the list, frames in the folder) if the folder has fewer.

    Raises:
        MediaError: The files cannot be read.
    """
    if row.path.startswith("puppet:"):
        from .puppets import Puppet

        return _marked_as_crops(Puppet.parse(row.path).clip())
    from ..media.files import read_clip
    from ..media.images import ImageFiles

    _check_files(row)
    if row.path.endswith(".npy"):
        return _marked_as_crops(_prepared_clip(row))
    clip = read_clip(row.path, audio=row.audio, order=row.order)
    if not row.upright and isinstance(clip.frames, ImageFiles):
        clip = dataclasses.replace(clip, frames=dataclasses.replace(clip.frames, upright=False))
    if row.num_frames is not None and clip.frames is not None:
        found, notes = len(clip.frames), dict(clip.notes)
        if row.num_frames > found:
            notes["short"] = (row.num_frames, found)
        frames = clip.frames if frame_count == "folder" else ListedFrames(clip.frames, row.num_frames, row.path)
        clip = dataclasses.replace(clip, frames=frames, notes=notes)
    return clip


def _marked_as_crops(clip: Clip) -> Clip:
    report = {"detector": "given boxes", "crop": "as given", "searched": 0, "found": 0}
    return dataclasses.replace(clip, notes={**clip.notes, "faces": report})


def audio_path(folder: str, rule: str | Callable[[str], str | None] | None) -> str | None:
    """Return the sound file of a folder of frames.

    Args:
        folder: The folder.
        rule: A key of `AUDIO_RULES`, a template like its values, a function of the folder, or None for no sound.

    Raises:
        InputError: The rule is unknown or does not fit the folder.

    >>> audio_path("/data/dfew/clip_224x224/01234", "dfew")
    '/data/dfew/raw_wav/1234.wav'
    >>> audio_path("/data/mfaw/clips_faces/04321", "mafw")
    '/data/mfaw/clips_wav/04321.wav'
    """
    if rule is None:
        return None
    if callable(rule):
        return rule(folder)
    if "{" not in rule and rule not in AUDIO_RULES:
        raise InputError(f"There is no audio rule '{rule}', and it is not a template.{suggest(rule, AUDIO_RULES)}")
    template, place = AUDIO_RULES.get(rule, rule), PurePosixPath(folder.replace("\\", "/"))
    if "{number}" in template and not place.name.isdecimal():
        raise InputError(f"The audio rule '{template}' needs folders named by a number; this is {folder}.")
    number = int(place.name) if place.name.isdecimal() else None
    try:
        return template.format(name=place.name, number=number, parent=place.parent, above=place.parent.parent)
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(
            f"The audio rule '{template}' cannot be filled in ({error}); it may contain {{name}}, {{number}}, "
            "{parent} and {above}."
        ) from error


def _check_files(row: Row) -> None:
    if not Path(row.path).exists():
        raise MediaError(
            f"{row.path}: no such file or folder. If the list was made on another machine, give the folder of the data "
            "(--root DIR), or replace the start of the paths (--replace OLD=NEW)." + _root_that_finds(row.path)
        )
    if row.audio is not None and not Path(row.audio).exists():
        raise MediaError(
            f"{row.audio}: no such sound file, for the clip {row.path}. Use --audio to give another place, or "
            "--missing-audio none to read such clips without sound." + _audio_rule_that_finds(row.path)
        )


def _root_that_finds(path: str) -> str:
    """Return a hint if the end of the path, at least the clip and its folder, exists in the working folder."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    for start in range(1, len(parts) - 1):
        if Path(*parts[start:]).exists():
            return f" --root . finds {PurePosixPath(*parts[start:])} in the working folder."
    return ""


def _audio_rule_that_finds(folder: str) -> str:
    """Return a hint if one of the published rules finds a sound file."""
    for name in AUDIO_RULES:
        with contextlib.suppress(InputError):  # the rule does not fit the name of this folder
            if Path(sound := audio_path(folder, name) or "").is_file():
                return f" --audio {name} finds {sound}."
    return ""


def _prepared_clip(row: Row) -> Clip:
    """Read av_fusion's prepared faces: BGR, cropped and sampled already."""
    from ..media.files import read_clip

    faces = _prepared_faces(row.path)[..., ::-1]
    # with a duration of 3.6 s the record's sampling rule takes each frame once
    clip = Clip.from_arrays(faces, fps=len(faces) / 3.6, source=row.path)
    if row.audio is None:
        return clip
    sound = read_clip(row.audio)
    return dataclasses.replace(clip, waveform=sound.waveform, sample_rate=sound.sample_rate)


def _check_npy_header(stream: Any, path: str) -> None:
    """Raise an error if the header announces more data than the file contains, before memory is allocated."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(stream)
    size = math.prod(shape) * kind.itemsize
    check_limit("array_bytes", size, f"{path}: the size of the array")
    if min(shape, default=0) < 0 or size > os.fstat(stream.fileno()).st_size:
        raise MediaError(f"{path}: the header announces an array {shape} of {size} bytes, but the file is shorter.")
    stream.seek(0)


def _prepared_faces(path: str) -> np.ndarray:
    try:
        with open_file(path) as stream:
            _check_npy_header(stream, path)
            faces = np.load(stream, allow_pickle=False)
    except MediaError as error:
        raise MediaError(f"the prepared faces cannot be read: {error}") from error
    except (
        OSError,
        ValueError,
        EOFError,
        SyntaxError,
        TypeError,
        MemoryError,
        RecursionError,
        tokenize.TokenError,
    ) as error:
        raise MediaError(f"{path}: the prepared faces cannot be read ({error}).") from error
    if not isinstance(faces, np.ndarray) or faces.ndim != 4:
        found = getattr(faces, "shape", "several arrays")
        raise MediaError(f"{path}: expected prepared faces, (frames, height, width, 3), found {found}.")
    return faces
