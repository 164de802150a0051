"""Frames that are searched and cropped to the face on access."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..clip import Frames, in_order
from .crops import Box, aligned_square, crop, detector_box, gray_square, largest_box, union_square
from .search import Search
from .track import follow, smooth_track

SEARCHES_PER_SECOND = 5.0  # of a tracked face; in between its box is interpolated
SEARCHES_PER_CLIP = 16  # at least, if the clip has that many frames
NEIGHBOURS = 2  # searches on either side for smoothing; a fast search runs only those around requested frames
LOOK_BACK = 3  # earlier searches that smooth the box of a stream frame

BOX_RULES: dict[str, Callable[[Any, int, int], Box]] = {
    "aligned": aligned_square,
    "largest": largest_box,
    "union_square": union_square,
    "detector_box": detector_box,
}


@dataclass(frozen=True)
class Cut:
    """The crop of one frame. Equal cuts of equal frames give equal crops.

    Attributes:
        rule: One of `BOX_RULES`, or "gray_square".
        box: The corners of the face; of all faces for "union_square".
    """

    rule: str
    box: tuple[Any, ...]

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        if self.rule == "gray_square":
            return gray_square(frame, self.box)
        return crop(frame, BOX_RULES[self.rule](self.box, frame.shape[1], frame.shape[0]))


class Crops:
    """Frames of a clip, each cropped as `cuts_of` says."""

    frames: Frames

    def cuts_of(self, indices: Sequence[int], kept: dict[int, np.ndarray]) -> list[Cut | None]:
        """Return how to crop each of the frames at ascending indices; None for the whole frame.

        Frames at these indices that the search reads may be stored in ``kept``.
        """
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.frames)

    def take(self, indices: Sequence[int]) -> list[np.ndarray]:
        distinct = sorted(set(indices))
        found = dict(zip(distinct, self.in_order(distinct)))
        return [found[index] for index in indices]

    def in_order(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        indices = list(indices)
        kept: dict[int, np.ndarray] = {}
        cuts = self.cuts_of(indices, kept)
        others = in_order(self.frames, [index for index in indices if index not in kept])
        for index, cut in zip(indices, cuts):
            frame = kept[index] if index in kept else next(others)
            yield frame if cut is None else cut(frame)


@dataclass
class GivenCrops(Crops):
    """Crop to boxes from the user, unchanged."""

    frames: Frames
    boxes: np.ndarray

    def cuts_of(self, indices: Sequence[int], kept: dict[int, np.ndarray]) -> list[Cut | None]:
        return [Cut("largest", tuple(self.boxes[index].tolist())) for index in indices]


@dataclass
class PerFrameCrops(Crops):
    """Crop every frame by its own boxes, as in some published rules."""

    search: Search
    rule: str
    no_face: str

    @property
    def frames(self) -> Frames:  # type: ignore[override]
        return self.search.frames

    def cuts_of(self, indices: Sequence[int], kept: dict[int, np.ndarray]) -> list[Cut | None]:
        found = self.search.look_at(indices, indices, kept)
        path = [(index, boxes[0]) for index, boxes in zip(indices, found) if len(boxes)]
        if not path and indices:
            if self.no_face == "error":
                raise self.search.no_face()
            self.search.report["whole_frame"] = self.rule != "union_square"
        if path:
            self.search.note(path)
        if self.rule == "union_square":
            return [Cut(self.rule, tuple(map(tuple, boxes.tolist()))) for boxes in found]
        if not path:
            return [None] * len(indices)
        last = path[0][1]  # for frames before the first face; the published script fails on them
        cuts: list[Cut | None] = []
        for boxes in found:
            last = boxes[0] if len(boxes) else last
            cuts.append(Cut(self.rule, tuple(last.tolist())))
        return cuts


@dataclass
class TrackedCrops(Crops):
    """Crop a smoothed square around one face that is tracked through the clip."""

    search: Search
    no_face: str
    fps: float | None

    @property
    def frames(self) -> Frames:  # type: ignore[override]
        return self.search.frames

    def cuts_of(self, indices: Sequence[int], kept: dict[int, np.ndarray]) -> list[Cut | None]:
        path, step = self._path(indices, kept)
        if path:
            self.search.note(path)
            # a fast search skips parts of the clip, and boxes are not averaged across these gaps
            gap = 2 * NEIGHBOURS * step if self.search.anchor_step else None
            return [Cut("aligned", tuple(box)) for box in smooth_track(path, indices, longest_gap=gap).tolist()]
        if self.no_face == "error":
            raise self.search.no_face()
        self.search.report["whole_frame"] = True
        return [None] * len(indices)

    def _path(self, indices: Sequence[int], kept: dict[int, np.ndarray]) -> tuple[list[tuple[int, np.ndarray]], int]:
        """Return ([(frame number, box of the face)], frames between two searches)."""
        step = search_step(len(self.frames), self.fps)
        grid: Sequence[int] = range(0, len(self.frames), step)
        if self.search.anchor_step:
            around = range(-NEIGHBOURS, NEIGHBOURS + 2)
            new = {index // step + other for index in indices for other in around}
            new |= {place for place, number in enumerate(grid) if number in self.search.found}
            grid = [grid[place] for place in sorted(new) if 0 <= place < len(grid)]
        found = self.search.look_at(grid, indices, kept)
        return [(grid[place], box) for place, box in follow(found)], step


@dataclass
class StreamCrops(Crops):
    """`TrackedCrops` for a stream of frames.

    The box of a frame depends only on that frame and on earlier ones, so later frames do not change it.
    """

    search: Search
    no_face: str
    step: int  # frames from one search to the next

    @property
    def frames(self) -> Frames:  # type: ignore[override]
        return self.search.frames

    def cuts_of(self, indices: Sequence[int], kept: dict[int, np.ndarray]) -> list[Cut | None]:
        boxes = self.boxes_of(indices)
        return [None if box is None else Cut("aligned", tuple(box.tolist())) for box in boxes]

    def boxes_of(self, indices: Sequence[int]) -> list[np.ndarray | None]:
        """Return the smoothed box of every frame; all are None if there is no face and whole frames are allowed."""
        searched = {index: self._searched(index) for index in indices}
        grid = sorted(set().union(*searched.values())) if searched else []
        found = dict(zip(grid, self.search.look_at(grid)))
        boxes = []
        for index in indices:
            path = [(searched[index][place], box) for place, box in follow([found[n] for n in searched[index]])]
            boxes.append(smooth_track(path, [index])[0] if path else None)
        known = [box for box in boxes if box is not None]
        if not known and indices:
            if self.no_face == "error":
                raise self.search.no_face()
            self.search.report["whole_frame"] = True
        if not known:
            return boxes
        self.search.note([(index, box) for index, box in zip(indices, boxes) if box is not None])
        last = known[0]
        for place, box in enumerate(boxes):  # a frame without a face uses the box before it
            last = boxes[place] = last if box is None else box
        return boxes

    def _searched(self, index: int) -> list[int]:
        """Return the frames whose boxes are averaged for a frame."""
        last = index - index % self.step
        return [number for back in range(LOOK_BACK, -1, -1) if (number := last - back * self.step) >= 0]


def search_step(count: int, fps: float | None) -> int:
    """Return the number of frames between two searches of a tracked face."""
    return max(1, min(round((fps or 25.0) / SEARCHES_PER_SECOND), count // SEARCHES_PER_CLIP))
