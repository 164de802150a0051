"""Find several people in one clip: link face boxes into one track per person."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...errors import InputError, MediaError
from ..clip import Clip, Frames, in_order
from .boxes import detector_and_file
from .crops import aligned_square, crop
from .cut import BOX_RULES, Crops, Cut, search_step
from .detect import name_of
from .search import Search
from .track import REACH, follow, overlap, smooth_track

SHORTEST = 3  # minimum number of searches with a face; shorter tracks are treated as false detections
MOST_TRACKS = 200  # of a clip
SAME_BOX = 0.5  # boxes of one frame with a larger overlap are duplicates
SAME_PERSON = 0.6  # cosine of the embeddings of two tracks
FACES_OF_TRACK = 3  # number of faces to embed

Track = list[tuple[int, np.ndarray]]  # (frame number, box), ascending
Embedder = Callable[[np.ndarray], Any]  # a face crop (H, W, 3) uint8 -> a vector


@dataclass(frozen=True)
class Appearance:
    """A part of a clip that shows one person.

    Attributes:
        person: The number of the person, from 1; the most prominent first. One person may appear several times.
        clip: The part of the clip, with its frames cropped to this person.
        start: Seconds from the start of the whole clip.
        track: The boxes of the person: (second of the whole clip, box).
    """

    person: int
    clip: Clip
    start: float
    track: tuple[tuple[float, tuple[float, ...]], ...] = ()


def find_people(
    clip: Clip,
    faces: Any = "auto",
    *,
    crop: str = "aligned",
    no_face: str = "error",
    identity: Embedder | None = None,
) -> list[Appearance]:
    """Find all people in a clip.

    Overlapping boxes of successive searches form a track, with the same tracker as for a single face. A person who
    returns later or after a cut gets a new track; ``identity`` joins the tracks of a person.

    Args:
        clip: A clip of whole frames.
        faces: A detector, as in `find`.
        crop: The crop rule, as in `find`. It is applied to the smoothed box of the person.
        no_face: What to do with a clip without a face: "error", or "frame" for whole frames as one person.
        identity: A function from a face crop to a vector. Tracks that do not overlap in time and whose vectors have
            a cosine similarity of 0.6 or more are one person.

    Returns:
        The appearances of all people, sorted by person and time.

    Raises:
        InputError: The crop rule or ``faces`` does not select single faces.
        MediaError: No face was found.

    >>> clip = Clip.from_arrays(np.zeros((20, 64, 64, 3), np.uint8), fps=25)
    >>> two = find_people(clip, lambda frame: [(2, 2, 30, 30), (34, 2, 62, 30)])
    >>> [(one.person, one.clip.take([0])[0].shape) for one in two]
    [(1, (34, 34, 3)), (2, (34, 34, 3))]
    """
    if crop not in (*BOX_RULES, "gray_square"):
        raise InputError(f"people='all' needs weights that were trained on face crops; these were trained on '{crop}'.")
    if not (callable(faces) or (isinstance(faces, str) and faces != "none")):
        raise InputError("people='all' searches faces; give faces='auto' or a detector, not boxes and not 'none'.")
    detector, file = detector_and_file(faces)
    assert clip.frames is not None
    count = len(clip.frames)
    step = search_step(count, clip.fps)
    searched = range(0, count, step)
    report: dict[str, Any] = {"detector": name_of(detector), "crop": crop, "searched": 0, "found": 0}
    found = Search(clip.frames, detector, report, clip.source, None, file).look_at(searched)
    report.update(searched=len(searched), found=0)
    tracks = [[(searched[n], box) for n, box in track] for track in link(found)]
    if not tracks:
        if no_face == "error":
            raise MediaError(
                f"{clip.source}: no face was found in {len(searched)} frames (detector: {report['detector']}). "
                "no_face='frame' uses whole frames."
            )
        return [Appearance(1, replace(clip, notes={**clip.notes, "faces": {**report, "whole_frame": True}}), 0.0)]
    people = _joined(tracks, clip.frames, identity) if identity else [[track] for track in tracks]
    appearances = []
    for person, own in enumerate(people, start=1):
        for track in own:
            appearances.append(_appearance(clip, track, person, step, crop, report))
    return appearances


def link(found: Sequence[np.ndarray]) -> list[Track]:
    """Link the boxes of successive searches into tracks without jumps, the most prominent first.

    >>> left, right = np.array([0.0, 0, 9, 9]), np.array([20.0, 0, 25, 5])
    >>> [len(track) for track in link([np.stack([left, right])] * 4 + [np.stack([left])])]
    [5, 4]
    """
    left = [np.asarray(boxes, float).reshape(-1, 4) for boxes in found]
    shortest = min(SHORTEST, len(left))
    tracks: list[Track] = []
    for _ in range(MOST_TRACKS):
        track = follow(left, jump_cost=np.inf)
        if not track:
            break
        for number, box in track:  # the box itself and duplicates of it
            left[number] = left[number][overlap(box[None], left[number])[0] < SAME_BOX]
        tracks += [part for part in _without_gaps(track) if len(part) >= shortest]
    return tracks


def _without_gaps(track: Track) -> Iterator[Track]:
    """Split a track at gaps."""
    start = 0
    for place in range(1, len(track) + 1):
        if place == len(track) or track[place][0] - track[place - 1][0] > REACH:
            yield track[start:place]
            start = place


def _joined(tracks: Sequence[Track], frames: Frames, identity: Embedder) -> list[list[Track]]:
    """Group tracks by person: similar embeddings, and no overlap in time."""
    people: list[list[Track]] = []
    vectors: list[np.ndarray] = []
    for track in tracks:
        vector = _vector(track, frames, identity)
        alike = [float(vector @ other) for other in vectors]
        for person in sorted(range(len(people)), key=lambda number: -alike[number]):
            if alike[person] >= SAME_PERSON and not any(_meet(track, other) for other in people[person]):
                people[person].append(track)
                break
        else:
            people.append([track])
            vectors.append(vector)
    return [sorted(own, key=lambda track: track[0][0]) for own in people]


def _vector(track: Track, frames: Frames, identity: Embedder) -> np.ndarray:
    """Return the normalized mean embedding of a few faces of a track."""
    places = sorted({round(p) for p in np.linspace(0, len(track) - 1, FACES_OF_TRACK)})
    pictures = in_order(frames, [track[place][0] for place in places])
    total: np.ndarray | None = None
    for place, frame in zip(places, pictures):
        box = aligned_square(track[place][1].tolist(), frame.shape[1], frame.shape[0])
        vector = np.asarray(identity(crop(frame, box)), float).reshape(-1)
        vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
        total = vector if total is None else total + vector
    assert total is not None
    return total / max(float(np.linalg.norm(total)), 1e-12)


def _meet(a: Track, b: Track) -> bool:
    return a[0][0] <= b[-1][0] and b[0][0] <= a[-1][0]


def _appearance(clip: Clip, track: Track, person: int, step: int, rule: str, report: dict[str, Any]) -> Appearance:
    box = np.median(np.stack([box for _, box in track]), axis=0)
    facts = {**report, "found": len(track), "person": person, "median_box": [round(float(v), 1) for v in box]}
    assert clip.frames is not None
    seconds = tuple((second_of(clip, number), tuple(box.tolist())) for number, box in track)
    cropped = replace(clip, frames=PersonCrops(clip.frames, track, rule), notes={**clip.notes, "faces": facts})
    first, last = track[0][0] - step // 2, track[-1][0] + step - step // 2
    if track[-1][0] + step >= len(clip.frames):  # seen in the last search
        last = len(clip.frames)
    if clip.duration is None or (first <= 0 and last >= len(clip.frames)):
        return Appearance(person, cropped, 0.0, seconds)
    facts["searched"] = len(range(track[0][0], track[-1][0] + 1, step))
    start, stop = (second_of(clip, frame) for frame in (max(0, first), last))
    return Appearance(person, cropped.cut(start, min(stop, clip.duration)), start, seconds)


def second_of(clip: Clip, frame: int) -> float:
    """Return the time of a frame in seconds."""
    if clip.times is not None:
        return float(clip.times[frame]) if frame < len(clip.times) else (clip.duration or 0.0)
    return frame / (clip.fps or 1.0)


@dataclass
class PersonCrops(Crops):
    """Crop frames to the smoothed box of one track."""

    frames: Frames
    track: Track
    rule: str

    def cuts_of(self, indices: Sequence[int], kept: dict[int, np.ndarray]) -> list[Cut | None]:
        boxes = map(tuple, smooth_track(self.track, indices).tolist())
        return [Cut(self.rule, (box,) if self.rule == "union_square" else box) for box in boxes]
