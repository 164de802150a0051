"""Find faces and crop frames: detectors (`detect`), tracking (`track`), crop rules (`crops`), and `find`.

The systems were trained on face crops. The record of the weights names the published crop rule
(`VideoSpec.face_crop`):

- "aligned": for data sets that ship crops. Tracks one face through the clip and crops a smoothed square.
- "largest": each frame's largest box as detected (RAVDESS); a frame without a face uses the last box.
- "union_square": the square around all faces of a frame (MAFW for MMA-DFER).
- "detector_box": as "largest", with truncated corners and without the last row and column (EMO-AffectNet).
- "whole": frames as they are, for weights that were trained on them.
- "gray_square": each frame's largest box, made square, ten pixels larger on every side, in gray (mini-Xception).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import InputError
from ..clip import Clip, Frames
from .boxes import BoxFile, detector_and_file
from .cut import BOX_RULES, LOOK_BACK, GivenCrops, PerFrameCrops, StreamCrops, TrackedCrops, search_step
from .detect import BOXES, MTCNN, Cascade, YuNet, find_detector, known_detector, name_of
from .search import Search, can_search_near
from .track import follow, overlap, smooth_track

__all__ = [
    "MTCNN",
    "RULES",
    "SEARCHES",
    "BoxFile",
    "Cascade",
    "YuNet",
    "check_faces",
    "find",
    "find_detector",
    "find_in_stream",
    "follow",
    "keep_boxes",
    "known_detector",
    "overlap",
    "smooth_track",
]

RULES = (*BOX_RULES, "gray_square", "whole")


SEARCHES = ("full", "fast")
ANCHOR = 5  # searches of a tracked face between two anchors of a fast search: about a second


def find(
    clip: Clip, faces: Any = "auto", *, crop: str = "aligned", no_face: str = "error", search: str = "full"
) -> Clip:
    """Return the clip with its frames cropped to the face. Detection runs on access to the frames.

    ``clip.notes["faces"]`` contains the detector, the number of searched frames and the number of frames with a face.
    ``clip.notes["boxes"]`` contains the boxes of the face by frame number.

    Args:
        clip: A clip.
        faces: "auto" (MTCNN if facenet-pytorch is installed, else OpenCV's cascade), a detector's name ("mtcnn",
            "cascade", "yunet:FILE"), a function from a frame to boxes (left, top, right, bottom), boxes (one, or one
            per frame; used unchanged), or "none". A detector's name may end in "+boxes:FILE" to read known boxes from
            this file and append new ones.
        crop: The crop rule, one of `RULES`.
        no_face: "error", or "frame" to use whole frames if no face is found in the clip.
        search: "full": run the detector on full frames, as in the published pipelines. "fast": search coarse to fine,
            and only near the requested frames; boxes differ by a few pixels. Custom functions and the rule
            "union_square", which needs all faces, always use the full search.

    Returns:
        The cropped clip.

    Raises:
        InputError: An argument is wrong.

    >>> clip = Clip.from_arrays(np.zeros((20, 64, 64, 3), np.uint8), fps=25)
    >>> find(clip, (8, 8, 40, 48)).take([0])[0].shape
    (40, 32, 3)
    """
    if clip.frames is None or (isinstance(faces, str) and faces == "none"):
        return clip
    if crop not in RULES:
        raise InputError(f"No crop rule is called {crop!r}; expected {', '.join(RULES)}.")
    if search not in SEARCHES:
        raise InputError(f"search is {search!r}; expected {' or '.join(SEARCHES)}.")
    check_faces(faces, no_face)
    if crop == "whole":
        return clip
    boxes = _given_boxes(faces, len(clip.frames))
    report: dict[str, Any] = {"detector": "given boxes", "crop": "as given", "searched": 0, "found": 0}
    cut: Frames
    if boxes is not None:
        cut = GivenCrops(clip.frames, boxes)
        used = {number: tuple(box.tolist()) for number, box in enumerate(boxes)}
    else:
        searching = _search(clip, faces, crop, search, report)
        if crop == "aligned":
            cut = TrackedCrops(searching, no_face, clip.fps)
        else:
            cut = PerFrameCrops(searching, crop, no_face)
        used = searching.used
    return replace(clip, frames=cut, notes={**clip.notes, "faces": report, "boxes": used})


def find_in_stream(
    frames: Frames, length: int, fps: float, faces: Any = "auto", *, crop: str = "aligned", no_face: str = "error"
) -> tuple[Any, dict[str, Any], int]:
    """Crop a stream of frames, in windows of ``length`` frames.

    Boxes depend only on a frame and on earlier frames, and each frame is searched once.

    Args:
        frames: The frames, numbered from the start of the stream; only the last ones must be available.
        length: Frames in a window.
        fps: Frames per second.
        faces: As in `find`.
        crop: As in `find`.
        no_face: As in `find`.

    Returns:
        The cropped frames, or None for whole frames; the report, which is updated by later searches; and the number of
        frames to keep before a window.
    """
    check_faces(faces, no_face)
    report: dict[str, Any] = {"detector": "given boxes", "crop": "as given", "searched": 0, "found": 0}
    if crop == "whole" or (isinstance(faces, str) and faces == "none"):
        return None, report, 0
    box = _given_boxes(faces, 1)
    if box is not None:
        return GivenCrops(frames, np.broadcast_to(box, (sys.maxsize // 64, 4))), report, 0
    step = search_step(length, fps)
    searching = _search(Clip(frames, source="stream"), faces, crop, "fast", report, step)
    kept = searching.anchor_step or 0
    if crop == "aligned":
        return StreamCrops(searching, no_face, step), report, kept + (LOOK_BACK + 1) * step
    return PerFrameCrops(searching, crop, no_face), report, kept


def _search(
    clip: Clip, faces: Any, crop: str, search: str, report: dict[str, Any], between: int | None = None
) -> Search:
    """Create the search. ``between``: frames between two searches of a tracked face."""
    assert clip.frames is not None
    detector, file = detector_and_file(faces)
    step = None
    if search == "fast" and crop != "union_square" and can_search_near(detector):
        step = ANCHOR * (between or search_step(len(clip.frames), clip.fps))
    report.update(detector=name_of(detector), crop=crop, search="fast" if step else "full")
    if fallback := getattr(detector, "fallback", None):
        report["fallback"] = fallback
    return Search(clip.frames, detector, report, clip.source, step, file)


def keep_boxes(faces: Any, path: Any) -> Any:
    """Add a file for boxes to a detector's name. Other values, and names with a file, are returned unchanged.

    >>> keep_boxes("cascade", "boxes.jsonl"), keep_boxes("none", "boxes.jsonl")
    ('cascade+boxes:boxes.jsonl', 'none')
    """
    return f"{faces}{BOXES}{path}" if isinstance(faces, str) and faces != "none" and BOXES not in faces else faces


def check_faces(faces: Any, no_face: str) -> None:
    """Raise an error for invalid arguments of `find`."""
    if no_face not in ("error", "frame"):
        raise InputError(f"no_face is '{no_face}'; expected 'error' or 'frame'.")
    if isinstance(faces, str):
        if faces != "none":
            detector_and_file(faces)
    elif not callable(faces):
        _boxes(faces)


def _given_boxes(faces: Any, count: int) -> np.ndarray | None:
    if isinstance(faces, str) or callable(faces):
        return None
    boxes = _boxes(faces)
    if boxes.shape == (4,):
        boxes = np.broadcast_to(boxes, (count, 4))
    if boxes.shape != (count, 4):
        raise InputError(f"The face boxes are {boxes.shape}; expected (4,) or ({count}, 4): left, top, right, bottom.")
    return boxes


def _boxes(faces: Any) -> np.ndarray:
    try:
        boxes = np.asarray(faces, dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"faces is {type(faces).__name__}; expected a detector's name, a function or boxes."
        ) from error
    if boxes.ndim not in (1, 2) or boxes.shape[-1] != 4:
        raise InputError(f"The face boxes are {boxes.shape}; expected (4,) or one per frame: left, top, right, bottom.")
    if not np.isfinite(boxes).all():
        raise InputError(
            "The face boxes contain values that are not finite; expected left, top, right, bottom in pixels."
        )
    return boxes
