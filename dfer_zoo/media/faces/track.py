"""Track one face through the detected boxes of a clip."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

JUMP = 0.1  # boxes of successive searches that overlap less are different faces
REACH = 5  # the face may be missed in up to this many searches in a row


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute the intersection over union of all pairs: (N, 4), (M, 4) -> (N, M)."""
    corners = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(corners[1] - corners[0], 0, None).prod(-1)
    return shared / np.maximum(areas(a)[:, None] + areas(b)[None] - shared, 1e-9)


def follow(found: Sequence[np.ndarray], jump_cost: float = 1.0) -> list[tuple[int, np.ndarray]]:
    """Return the path of one face through the boxes of successive searches: [(number of the search, its box)].

    The score of a path grows with the size of its boxes and their overlap, and each jump to another face has a cost. So
    a single false detection is skipped, a person who passes by is ignored, and a cut to another shot is followed.
    Dynamic programming finds the path with the highest score.
    """
    seen = [(number, boxes) for number, boxes in enumerate(found) if len(boxes)]
    if not seen:
        return []
    largest = max(areas(boxes).max() for _, boxes in seen)
    totals: list[np.ndarray] = []
    origins: list[np.ndarray] = []  # the previous (search, box) of the best path to a box; -1: the path starts here
    for place, (_, boxes) in enumerate(seen):
        size = np.sqrt(areas(boxes) / max(largest, 1e-9))
        best, origin = size.copy(), np.full((len(boxes), 2), -1)
        for before in range(max(0, place - REACH), place):
            shared = overlap(seen[before][1], boxes)
            step = totals[before][:, None] + np.where(shared < JUMP, -jump_cost, 2 * shared)
            winner = step.argmax(0)
            total = size + step[winner, np.arange(len(boxes))]
            better = total > best
            best = np.where(better, total, best)
            origin[better] = np.stack([np.full(len(boxes), before), winner], 1)[better]
        totals.append(best)
        origins.append(origin)
    place = max(range(len(seen)), key=lambda number: totals[number].max())
    box = int(totals[place].argmax())
    path = []
    while place >= 0:
        path.append((seen[place][0], seen[place][1][box]))
        place, box = (int(value) for value in origins[place][box])
    return path[::-1]


def smooth_track(
    path: Sequence[tuple[float, np.ndarray]], wanted: Sequence[float] | np.ndarray, longest_gap: float | None = None
) -> np.ndarray:
    """Interpolate the boxes of the wanted frames from searched frames: (frame number, box) pairs -> (len(wanted), 4).

    Boxes are averaged over neighbors, interpolated, and constant beyond the ends, but never across a jump or a gap of
    more than ``longest_gap`` frames. Seconds may be used instead of frame numbers.
    """
    numbers = np.array([number for number, _ in path])
    boxes = np.stack([box for _, box in path])
    same = [overlap(a[None], b[None])[0, 0] >= JUMP for a, b in itertools.pairwise(boxes)]
    if longest_gap is not None:
        same = [joined and b - a <= longest_gap for joined, (a, b) in zip(same, itertools.pairwise(numbers))]
    starts = [0, *(i + 1 for i, joined in enumerate(same) if not joined), len(path)]
    shots = [(numbers[a:b], _average(boxes[a:b])) for a, b in itertools.pairwise(starts)]
    asked = np.asarray(wanted)
    # the border between two shots is halfway between their searches
    borders = [(left[0][-1] + right[0][0]) / 2 for left, right in itertools.pairwise(shots)]
    chosen = np.searchsorted(borders, asked, side="right")
    track = np.empty((len(asked), 4))
    for shot, (places, smoothed) in enumerate(shots):
        here = chosen == shot
        for side in range(4):
            track[here, side] = np.interp(asked[here], places, smoothed[:, side])
    return track


def _average(boxes: np.ndarray) -> np.ndarray:
    """Average each box with its two neighbors on either side, with larger weights for nearer ones."""
    weights = np.array([1.0, 2.0, 3.0, 2.0, 1.0])
    padded = np.pad(boxes, ((2, 2), (0, 0)))
    there = np.pad(np.ones(len(boxes)), 2)
    total = sum(w * padded[i : i + len(boxes)] for i, w in enumerate(weights))
    return total / sum(w * there[i : i + len(boxes)] for i, w in enumerate(weights))[:, None]


def areas(boxes: np.ndarray) -> np.ndarray:
    return np.clip(boxes[:, 2] - boxes[:, 0], 0, None) * np.clip(boxes[:, 3] - boxes[:, 1], 0, None)


def largest_first(boxes: np.ndarray) -> np.ndarray:
    return boxes[np.argsort(-areas(boxes), kind="stable")]
