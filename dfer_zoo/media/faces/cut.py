"""Frames that are searched and cut to the face when they are taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import MediaError
from ..clip import Frames, in_order
from .crops import Box, aligned_square, crop, detector_box, gray_square, largest_box, union_square
from .detect import Detector
from .track import follow, smooth_track

SEARCHES_PER_SECOND = 5.0  # of a tracked face; in between its box is interpolated
SEARCHES_PER_CLIP = 16  # at least, if the clip has that many frames


@dataclass
class Search:
    """Searches the frames of a clip, each at most once, and counts searches and faces."""

    frames: Frames
    detector: Detector
    report: dict[str, Any]
    source: str
    # tuples, since small arrays allocated between large frames would fragment the memory of a long file
    found: dict[int, tuple[tuple[float, ...], ...]] = field(default_factory=dict)

    def look(self, index: int, frame: np.ndarray) -> None:
        boxes = self.detector(frame)
        self.found[index] = tuple(map(tuple, boxes.tolist()))
        self.report["searched"] += 1
        self.report["found"] += bool(len(boxes))

    def look_at(self, indices: Sequence[int]) -> list[np.ndarray]:
        """Return the boxes of the frames at ascending indices, in one pass over those that are new."""
        new = [index for index in indices if index not in self.found]
        for index, frame in zip(new, in_order(self.frames, new)):
            self.look(index, frame)
        return [np.array(self.found[index]).reshape(-1, 4) for index in indices]

    def no_face(self) -> MediaError:
        return MediaError(
            f"{self.source}: no face was found in {self.report['searched']} frames (detector: "
            f"{self.report['detector']}). no_face='frame' uses whole frames; faces='none' skips the search."
        )

    def note(self, boxes: Sequence[np.ndarray]) -> None:
        """Report which face was used: the median of its boxes."""
        self.report["median_box"] = [round(float(v), 1) for v in np.median(np.stack(boxes), axis=0)]


Cut = Callable[[np.ndarray], np.ndarray]  # frame -> crop


def cut_to(rule: Callable[[Any, int, int], Box], boxes: Any) -> Cut:
    """Turn a rule, from boxes, width and height to a box, into a function that crops frames."""
    return lambda frame: crop(frame, rule(boxes, frame.shape[1], frame.shape[0]))


def _cut_to_largest(rule: str, box: np.ndarray) -> Cut:
    if rule == "gray_square":
        return lambda frame: gray_square(frame, box)  # type: ignore[arg-type]
    return cut_to(detector_box if rule == "detector_box" else largest_box, box)


class _Crops:
    """Frames of a clip, each cropped by a function from `cuts_of`."""

    frames: Frames

    def cuts_of(self, indices: Sequence[int]) -> list[Cut | None]:
        """Return a function for each of the frames at ascending indices; None for the whole frame."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.frames)

    def take(self, indices: Sequence[int]) -> list[np.ndarray]:
        distinct = sorted(set(indices))
        found = dict(zip(distinct, self.in_order(distinct)))
        return [found[index] for index in indices]

    def in_order(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        indices = list(indices)
        cuts = self.cuts_of(indices)
        for frame, cut in zip(in_order(self.frames, indices), cuts):
            yield frame if cut is None else cut(frame)


@dataclass
class GivenCrops(_Crops):
    """Crops to boxes from the user, unchanged."""

    frames: Frames
    boxes: np.ndarray

    def cuts_of(self, indices: Sequence[int]) -> list[Cut | None]:
        return [cut_to(largest_box, self.boxes[index]) for index in indices]


@dataclass
class PerFrameCrops(_Crops):
    """Published rules that crop every frame by its own boxes."""

    search: Search
    rule: str
    no_face: str

    @property
    def frames(self) -> Frames:  # type: ignore[override]
        return self.search.frames

    def cuts_of(self, indices: Sequence[int]) -> list[Cut | None]:
        found = self.search.look_at(indices)
        largest = [boxes[0] for boxes in found if len(boxes)]
        if not largest and indices:
            if self.no_face == "error":
                raise self.search.no_face()
            self.search.report["whole_frame"] = self.rule != "union_square"
        if largest:
            self.search.note(largest)
        if self.rule == "union_square":
            return [cut_to(union_square, boxes.tolist()) for boxes in found]
        if not largest:
            return [None] * len(indices)
        last = largest[0]  # for frames before the first face; the published script fails on them
        cuts: list[Cut | None] = []
        for boxes in found:
            last = boxes[0] if len(boxes) else last
            cuts.append(_cut_to_largest(self.rule, last))
        return cuts


@dataclass
class TrackedCrops(_Crops):
    """A smooth square around one face that is tracked through the whole clip."""

    search: Search
    no_face: str
    fps: float | None
    _path: list[tuple[int, np.ndarray]] | None = None

    @property
    def frames(self) -> Frames:  # type: ignore[override]
        return self.search.frames

    def path(self) -> list[tuple[int, np.ndarray]]:
        if self._path is None:
            count = len(self.frames)
            step = round((self.fps or 25.0) / SEARCHES_PER_SECOND)
            searched = range(0, count, max(1, min(step, count // SEARCHES_PER_CLIP)))
            self._path = [(searched[n], box) for n, box in follow(self.search.look_at(searched))]
        return self._path

    def cuts_of(self, indices: Sequence[int]) -> list[Cut | None]:
        path = self.path()
        if path:
            self.search.note([box for _, box in path])
            return [cut_to(aligned_square, box) for box in smooth_track(path, indices)]
        if self.no_face == "error":
            raise self.search.no_face()
        self.search.report["whole_frame"] = True
        return [None] * len(indices)
