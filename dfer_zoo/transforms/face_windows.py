"""EMO-AffectNet's windows: about five faces per second, ten faces in a window, a window every five faces.

Two protocols are published: "inference" is the script for new videos, "evaluation" is the notebook behind the published
numbers, which counts frames with a face only. All indices are from 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError

FACES_PER_SECOND = 5
FACES = 10  # in a window
STRIDE = 5  # faces from one window to the next


def grid_step(fps: float, per_second: float = FACES_PER_SECOND) -> int:
    """Return the step between sampled frames; ``fps`` is rounded first, as published.

    >>> [grid_step(fps) for fps in (25, 29.97, 24, 12, 2)]
    [5, 6, 5, 2, 1]
    """
    return max(1, round(round(fps) / per_second))


def windows(num_faces: int, faces: int = FACES, stride: int = STRIDE, rule: str = "full") -> list[list[int]]:
    """Return the faces of each window; a short window repeats its last face.

    Args:
        num_faces: Number of faces in the clip.
        faces: Faces in a window.
        stride: Faces from the start of one window to the next.
        rule: "inference": windows start every ``stride`` faces, and the last ones are short. "evaluation": likewise, but
            faces that fit into one window make a single window. "full" (the zoo's own): full windows only, or one short
            window if the clip has too few faces.

    >>> windows(12, faces=4, stride=4)
    [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    """
    if rule not in ("full", "inference", "evaluation"):
        raise InputError(f"There is no window rule '{rule}'; there are 'full', 'inference' and 'evaluation'.")
    starts = range(0, num_faces, stride)
    if rule == "evaluation" and num_faces <= faces:
        starts = range(0, min(1, num_faces))
    if rule == "full":
        starts = range(0, max(num_faces - faces, 0) + 1, stride) if num_faces else range(0)
    last = num_faces - 1
    return [[min(start + place, last) for place in range(faces)] for start in starts]


def majority(probabilities: Sequence[Sequence[float]] | np.ndarray) -> int:
    """Return the most frequent prediction over windows, the first class on ties: the published answer for a clip.

    >>> majority([[0.6, 0.4], [0.1, 0.9], [0.3, 0.7]])
    1
    """
    chances = np.asarray(probabilities)
    return int(np.bincount(chances.argmax(1), minlength=chances.shape[1]).argmax())
