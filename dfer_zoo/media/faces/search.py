"""Search the frames of a clip for faces: in full, or coarse to fine near the last faces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import MediaError
from ..clip import Frames, in_order
from ..resize import pillow_bilinear
from .boxes import BoxFile
from .detect import NO_FACES, Detector
from .track import largest_first, overlap

COARSE = 320  # pixels of a frame's longest side in a coarse search
SAME_FACE = 0.5  # boxes of one frame with a larger overlap are duplicates
KEPT = 128 * 2**20  # bytes of frames to keep between search and crop; others are read again

Found = tuple[tuple[float, ...], ...]


@dataclass
class Search:
    """Search the frames of a clip, each at most once, and count searches and faces.

    With an `anchor_step` the search is fast. Every frame whose number is a multiple of it is an anchor: it is searched
    at a low resolution, and each face is refined in its neighborhood. Other frames are searched near the faces of the
    preceding anchor. The boxes of a frame depend only on that frame and its anchor, so the order of access does not
    matter.
    """

    frames: Frames
    detector: Detector
    report: dict[str, Any]
    source: str
    anchor_step: int | None = None
    file: BoxFile | None = None
    # tuples, since small arrays allocated between large frames would fragment the memory of a long file
    found: dict[int, Found] = field(default_factory=dict)
    used: dict[int, tuple[float, ...]] = field(default_factory=dict)  # the box of the cropped face, by frame

    def look_at(
        self, indices: Sequence[int], wanted: Sequence[int] = (), kept: dict[int, np.ndarray] | None = None
    ) -> list[np.ndarray]:
        """Search the frames at ascending indices, in one pass over new frames.

        Args:
            indices: The frames to search.
            wanted: The frames to crop next.
            kept: Filled with the wanted frames, unless they need more memory than `KEPT`.

        Returns:
            The boxes of every frame at ``indices``, (N, 4).
        """
        self._recall(indices)
        new = {index for index in indices if index not in self.found}
        if self.anchor_step:
            new |= {self._anchor(index) for index in new} - self.found.keys()
        searched = {}
        for index, frame in self._pass(new, wanted, kept):
            searched[index] = self.found[index] = tuple(map(tuple, self._look(index, frame).tolist()))
            self.report["searched"] += 1
            self.report["found"] += bool(searched[index])
        if searched and self.file is not None:
            self.file.add(self._place(), searched)
        return [np.array(self.found[index]).reshape(-1, 4) for index in indices]

    def _pass(
        self, new: set[int], wanted: Sequence[int], kept: dict[int, np.ndarray] | None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the new frames in order, and store wanted frames in ``kept``."""
        if not new:
            return
        keep = set(() if kept is None else wanted)
        numbers = sorted(new | keep)
        for number, frame in zip(numbers, in_order(self.frames, numbers)):
            if len(keep) * frame.nbytes > KEPT:
                keep.clear()
            if kept is not None and number in keep:
                kept[number] = frame
            if number in new:
                yield number, frame

    def _anchor(self, index: int) -> int:
        return index - index % (self.anchor_step or 1)

    def _look(self, index: int, frame: np.ndarray) -> np.ndarray:
        if self.anchor_step is None:
            return self.detector(frame)
        anchor = self._anchor(index)
        if index == anchor:
            found = coarse_to_fine(self.detector, frame)
            return found if len(found) else self.detector(frame)
        faces = np.array(self.found[anchor]).reshape(-1, 4)
        if len(faces):
            again = near(self.detector, frame, faces)
            if again is not None:
                return again
        return coarse_to_fine(self.detector, frame)

    def forget(self, before: int) -> None:
        """Drop the boxes of frames before this one (for streams)."""
        for boxes in (self.found, self.used):
            for index in [index for index in boxes if index < before]:
                del boxes[index]  # type: ignore[attr-defined]

    # -- boxes of earlier runs -----------------------------------------------------------------------------------------

    def _place(self) -> tuple[Any, ...]:
        how = f"fast {self.anchor_step}" if self.anchor_step else "full"
        return self.source, len(self.frames), self.report["detector"], how

    def _recall(self, indices: Sequence[int]) -> None:
        """Read known boxes from the file."""
        if self.file is None:
            return
        known = self.file.boxes(self._place())
        for index in indices:
            if index not in self.found and index in known:
                self.found[index] = known[index]
                self.report["recalled"] = self.report.get("recalled", 0) + 1
                self.report["found"] += bool(known[index])

    def no_face(self) -> MediaError:
        looked_at = self.report["searched"] + self.report.get("recalled", 0)
        return MediaError(
            f"{self.source}: no face was found in {looked_at} frames (detector: "
            f"{self.report['detector']}). no_face='frame' uses whole frames; faces='none' skips the search."
        )

    def note(self, path: Sequence[tuple[int, np.ndarray]]) -> None:
        """Add the boxes of the cropped face and their median to the report."""
        self.used.update((number, tuple(box.tolist())) for number, box in path)
        self.report["median_box"] = [round(float(v), 1) for v in np.median(np.stack([box for _, box in path]), axis=0)]


def can_search_near(detector: Detector) -> bool:
    """Return whether a detector supports the fast search near a box."""
    return hasattr(detector, "near")


def coarse_to_fine(detector: Any, frame: np.ndarray) -> np.ndarray:
    """Search a frame at a low resolution, and confirm and refine each face in its neighborhood."""
    height, width = frame.shape[:2]
    scale = COARSE / max(height, width)
    if scale >= 1:
        return detector(frame)
    small = pillow_bilinear(frame, max(1, round(height * scale)), max(1, round(width * scale)))
    fine = [detector.near(frame, box) for box in detector.coarse(small) / scale]
    return _distinct([refined[0] for refined in fine if len(refined)])


def near(detector: Any, frame: np.ndarray, faces: np.ndarray) -> np.ndarray | None:
    """Search a frame near the faces of another one, the largest first; None if the largest is not found again."""
    found = [detector.near(frame, box) for box in faces]
    return _distinct([boxes[0] for boxes in found if len(boxes)]) if len(found[0]) else None


def _distinct(boxes: Sequence[np.ndarray]) -> np.ndarray:
    """Remove duplicate boxes of a face; return the largest first."""
    kept: list[np.ndarray] = []
    for box in largest_first(np.stack(boxes)) if len(boxes) else ():
        if not kept or overlap(box[None], np.stack(kept)).max() < SAME_FACE:
            kept.append(box)
    return np.stack(kept) if kept else NO_FACES
