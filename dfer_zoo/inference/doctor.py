"""Check clips and lists: whether frames are face crops, whether there is sound, whether lists match the folders."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.annotations import Row, read_row
from ..errors import DferZooError
from ..media.clip import Clip
from ..media.faces import find_detector, name_of
from ..media.faces.track import areas
from ..media.files import read_clip
from ..media.images import ImageFiles

LOOKS = 16  # searched frames per clip
MARGIN = 0.5  # around a frame, relative to its shorter side, so that a detector finds faces that fill the frame
WHOLE_BELOW, TIGHT_ABOVE = 0.3, 1.0  # ratio of the areas of face box and frame
MOST_CLIPS = 8  # clips of a data set that are checked


@dataclass(frozen=True)
class Checkup:
    """The result for one clip."""

    source: str
    frames: int
    fps: float | None
    duration: float | None
    size: tuple[int, int]  # width, height
    detector: str
    searched: int
    with_face: int
    most_faces: int
    face: tuple[int, int] | None  # median width and height of the largest face, in pixels
    cover: float | None  # median ratio of its area to that of the frame
    sample_rate: int | None  # None: no sound

    @property
    def verdict(self) -> str:
        """ "whole": frames of a scene; "cropped": face crops; "too tight": crops that cut into the face, such as crops of
        crops; "no face": none was found."""
        if self.cover is None:
            return "no face"
        if self.cover > TIGHT_ABOVE:
            return "too tight"
        return "whole" if self.cover < WHOLE_BELOW else "cropped"

    def report(self) -> str:
        """A few lines of text."""
        seconds = "" if self.duration is None else f", {self.duration:.1f} s"
        rate = "no frame rate" if self.fps is None else f"{self.fps:g} frames a second"
        lines = [f"{self.source}: {self.frames} frames of {self.size[0]} x {self.size[1]}, {rate}{seconds}"]
        lines.append(f"  face: in {self.with_face} of {self.searched} frames that were searched ({self.detector})")
        if self.face is not None and self.cover is not None:
            several = f", up to {self.most_faces} faces in a frame" if self.most_faces > 1 else ""
            lines.append(f"  size: {self.face[0]} x {self.face[1]}, {100 * self.cover:.0f} % of the frame{several}")
        lines.append(f"  frames: {ADVICE[self.verdict]}")
        lines.append("  sound: none" if self.sample_rate is None else f"  sound: {self.sample_rate} Hz")
        return "\n".join(lines)


ADVICE = {
    "whole": "they look uncropped; use a face detector (--faces auto), and do not train on them uncropped",
    "cropped": "they look like face crops; use them as they are (--faces none)",
    "too tight": "the face is larger than the frame: they may be cropped twice",
    "no face": "no face was found, so it is unknown whether they are crops; look at some of them",
}


def examine(source: Any, *, faces: Any = "auto", **reading: Any) -> Checkup:
    """Check one clip.

    Args:
        source: What `read_clip` takes.
        faces: A detector, as for `read_clip`.
        **reading: Other options of `read_clip`, such as fps.

    Returns:
        The result.
    """
    clip = source if isinstance(source, Clip) else read_clip(source, stream=True, **reading)
    detector = find_detector(faces)
    count = clip.num_frames
    chosen = sorted({round(place) for place in np.linspace(0, max(0, count - 1), min(LOOKS, count))})
    found, sizes = [], [(0, 0)]
    for index in chosen:
        frame = clip.take([index])[0]
        sizes.append((frame.shape[1], frame.shape[0]))
        found.append(_largest_first(detector, frame))
    largest = np.array([boxes[0] for boxes in found if len(boxes)]).reshape(-1, 4)
    width, height = sizes[-1]
    sides = np.median(largest[:, 2:] - largest[:, :2], axis=0) if len(largest) else None
    rate = clip.sample_rate if clip.waveform is not None else None
    return Checkup(
        source=clip.source,
        frames=count,
        fps=clip.fps,
        duration=clip.duration,
        size=(width, height),
        detector=name_of(detector),
        searched=len(chosen),
        with_face=len(largest),
        most_faces=max((len(boxes) for boxes in found), default=0),
        face=None if sides is None else (round(float(sides[0])), round(float(sides[1]))),
        cover=float(np.median(areas(largest))) / (width * height) if len(largest) else None,
        sample_rate=None if rate is None else int(rate),
    )


def _largest_first(detector: Any, frame: np.ndarray) -> np.ndarray:
    """Find boxes in a frame; if there are none, search again with a margin, since a face may fill a crop."""
    boxes = detector(frame)
    if len(boxes):
        return boxes
    margin = round(MARGIN * min(frame.shape[:2]))
    wider = np.pad(frame, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    return detector(wider)


def examine_rows(rows: Sequence[Row], labels: Sequence[str]) -> list[str]:
    """Compare an annotation file with the files on the disk; returns lines of text."""
    lines = []
    counts = collections.Counter(row.label for row in rows)
    named = ", ".join(f"{number} {name}: {counts[number]}" for number, name in enumerate(labels))
    lines.append(f"{len(rows)} clips; by the order of the weights' labels: {named}")
    if unknown := sorted(label for label in counts if label >= len(labels)):
        lines.append(f"labels beyond the weights' {len(labels)}: {', '.join(map(str, unknown))}")
    if absent := [name for number, name in enumerate(labels) if not counts[number]]:
        lines.append(f"no clip of {', '.join(absent)}: is the order of the labels that of the weights?")
    missing = [row.path for row in rows if "://" not in row.path and not _is_there(row)]
    lines.append(_listed("clips are not on the disk", missing, len(rows)))
    silent = [row.audio for row in rows if row.audio and not Path(row.audio).is_file()]
    if any(row.audio for row in rows):
        lines.append(_listed("sound files are not on the disk", silent, len(rows)))
    wrong = []
    for row in rows:
        if row.num_frames is not None and Path(row.path).is_dir():
            there = _frames_in(Path(row.path))
            if there != row.num_frames:
                wrong.append(f"{row.path} ({there} in the folder, {row.num_frames} in the list)")
    if any(row.num_frames is not None for row in rows):
        lines.append(_listed("folders have another number of frames than the list says", wrong, len(rows)))
    return lines


def _frames_in(folder: Path) -> int:
    try:
        return len(ImageFiles.of_folder(folder).paths)
    except DferZooError:  # no image is in it
        return 0


def _is_there(row: Row) -> bool:
    return not isinstance(row.path, str) or Path(row.path).exists() or row.path.startswith("puppets")


def _listed(what: str, names: Sequence[str | None], total: int) -> str:
    some = f": {', '.join(str(name) for name in names[:3])}{', ...' if len(names) > 3 else ''}" if names else ""
    return f"{len(names)} of {total} {what}{some}"


def uncropped(rows: Sequence[Row], faces: Any = "cascade") -> list[Checkup]:
    """Return the checked clips of a data set that look uncropped, or an empty list if they are fewer than half.

    Clips that cannot be read are skipped, and all clips if there is no detector.
    """
    step = max(1, len(rows) // MOST_CLIPS)
    found = []
    for row in rows[::step][:MOST_CLIPS]:
        try:
            found.append(examine(read_row(row), faces=faces))
        except DferZooError:
            continue
    whole = [checkup for checkup in found if checkup.verdict == "whole"]
    return whole if 2 * len(whole) > len(found) else []
