"""From frames to face crops: detectors, the track of one face through a clip, and the crop rules of the records.

The systems were trained on face crops, so a crop is part of a model's input. How the published crops were made is
named by the record (`VideoSpec.face_crop`):

- "aligned": the data set ships crops. One face is followed through the clip, and a smooth square goes with it.
- "largest": each frame's largest box as the detector gives it (RAVDESS); a frame without a face uses the last box.
- "union_square": the square around all faces of a frame (MAFW for MMA-DFER).
- "detector_box": as "largest", with whole corners and without the last row and column (EMO-AffectNet).
- "whole": frames as they are, for weights that were trained on them.
- "gray_square": each frame's largest box, made square, ten pixels larger on every side, in gray (mini-Xception).
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, MediaError
from ..clip import Clip, Frames, in_order
from .crops import Box, aligned_square, crop, detector_box, gray_square, largest_box, union_square

RULES = ("aligned", "largest", "union_square", "detector_box", "gray_square", "whole")
SEARCHES_PER_SECOND = 5.0  # of a tracked face; in between its box is interpolated
SEARCHES_PER_CLIP = 16  # at least, where there are so many frames
NO_FACES = np.zeros((0, 4))
# without --no-deps an old torch would come along; what it imports itself is named
INSTALL_MTCNN = "pip install --no-deps facenet-pytorch requests urllib3 charset-normalizer idna certifi"


def find(clip: Clip, faces: Any = "auto", *, crop: str = "aligned", no_face: str = "error") -> Clip:
    """The clip with its frames cut to the face. Nothing is searched before frames are taken.

    ``faces`` is "auto" (MTCNN where facenet-pytorch is installed, else OpenCV's cascade), a detector's name ("mtcnn",
    "cascade", "yunet:FILE"), a function from a frame to boxes (left, top, right, bottom), the boxes themselves (one, or
    one per frame; cut out as they are), or "none". ``no_face="frame"`` takes whole frames where a clip has no face.

    ``clip.notes["faces"]`` says what was searched with what, and how often it was found.
    """
    if clip.frames is None or (isinstance(faces, str) and faces == "none"):
        return clip
    if crop not in RULES:
        raise InputError(f"There is no crop rule '{crop}'; there are {', '.join(RULES)}.")
    check_faces(faces, no_face)
    if crop == "whole":
        return clip
    boxes = _given_boxes(faces, len(clip.frames))
    report: dict[str, Any] = {"detector": "given boxes", "crop": "as given", "searched": 0, "found": 0}
    cut: Frames
    if boxes is not None:
        cut = GivenCrops(clip.frames, boxes)
    else:
        detector = find_detector(faces)
        report.update(detector=name_of(detector), crop=crop)
        if fallback := getattr(detector, "fallback", None):
            report["fallback"] = fallback
        search = Search(clip.frames, detector, report, clip.source)
        if crop == "aligned":
            cut = TrackedCrops(search, no_face, clip.fps)
        else:
            cut = PerFrameCrops(search, crop, no_face)
    return replace(clip, frames=cut, notes={**clip.notes, "faces": report})


def check_faces(faces: Any, no_face: str) -> None:
    """What is wrong with these whatever the clip."""
    if no_face not in ("error", "frame"):
        raise InputError(f"no_face is '{no_face}'; expected 'error' or 'frame'.")
    if isinstance(faces, str):
        if faces != "none":
            find_detector(faces)
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
        raise InputError("The face boxes hold values that are not finite; expected left, top, right, bottom in pixels.")
    return boxes


# -- detectors ---------------------------------------------------------------------------------------------------------

# RGB frame -> boxes (N, 4): left, top, right, bottom in pixels, the largest first
Detector = Callable[[np.ndarray], np.ndarray]


def find_detector(faces: Any) -> Detector:
    if callable(faces):
        return OwnDetector(faces)
    if faces == "auto":
        return _auto()
    if faces == "mtcnn":
        return MTCNN()
    if faces == "cascade":
        return Cascade()
    if isinstance(faces, str) and faces.startswith("yunet:"):
        return YuNet(faces.removeprefix("yunet:"))
    raise InputError(f"There is no face detector '{faces}'; there are auto, none, cascade, mtcnn and yunet:FILE.")


def _auto() -> Detector:
    """MTCNN where it can be used, else the cascade, which then says why."""
    if importlib.util.find_spec("facenet_pytorch") is None:
        return Cascade()
    try:
        _mtcnn()
    except MediaError as error:
        return Cascade(fallback=f"MTCNN cannot be used, so the cascade searched instead: {error}")
    return MTCNN()


def name_of(detector: Detector) -> str:
    return str(getattr(detector, "name", None) or getattr(detector, "__name__", type(detector).__name__))


@dataclass(frozen=True)
class OwnDetector:
    """A user's function, checked."""

    function: Callable[[np.ndarray], Any]

    @property
    def name(self) -> str:
        return name_of(self.function)

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        found = self.function(frame)
        try:
            boxes = NO_FACES if found is None or not len(found) else np.asarray(found, dtype=float)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"The face detector {self.name} returned {type(found).__name__}; expected boxes (N, 4)."
            ) from error
        if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
            raise InputError(f"The face detector {self.name} returned {boxes.shape}; expected boxes (N, 4).")
        return largest_first(boxes)


@dataclass(frozen=True)
class Cascade:
    """The Haar cascade that comes with OpenCV: small, offline, frontal faces only."""

    name = "opencv cascade"
    longest_side: int = 640
    fallback: str | None = None  # why it is used where another detector was preferred

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        cv2 = _opencv()
        scale = min(1.0, self.longest_side / max(frame.shape[:2]))
        grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
        if scale < 1:
            grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        smallest = max(24, min(grey.shape) // 10)
        found = _cascade().detectMultiScale(cv2.equalizeHist(grey), 1.1, 6, minSize=(smallest, smallest))
        if not len(found):
            return NO_FACES
        left, top, width, height = np.asarray(found, dtype=float).T / scale
        return largest_first(np.stack([left, top, left + width, top + height], axis=1))


@functools.cache
def _cascade() -> Any:
    cv2 = _opencv()
    if not hasattr(cv2, "CascadeClassifier"):
        raise MediaError(f"OpenCV {cv2.__version__} has no cascade: pip install 'opencv-python-headless>=4.10,<5'.")
    return cv2.CascadeClassifier(os.path.join(cv2.data.haarcascades, "haarcascade_frontalface_alt2.xml"))


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise MediaError('Finding faces needs OpenCV: pip install "dfer-zoo[video]".') from error
    return cv2


@dataclass(frozen=True)
class MTCNN:
    """The detector of the published pipelines, with facenet-pytorch's settings and weights."""

    name = "mtcnn"
    smallest_face = 20  # pixels

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        import torch

        if min(frame.shape[:2]) < self.smallest_face:  # facenet-pytorch fails on frames without a single window
            return NO_FACES
        with torch.inference_mode():
            boxes, _ = _mtcnn().detect(np.ascontiguousarray(frame))
        return NO_FACES if boxes is None else largest_first(np.asarray(boxes, dtype=float))


@functools.cache
def _mtcnn() -> Any:
    try:
        from facenet_pytorch import MTCNN as Network

        return Network(device="cpu")
    except Exception as error:  # its own dependencies are out of date: whatever they come up with
        reason = "" if importlib.util.find_spec("facenet_pytorch") is None else f" ({error})"
        raise MediaError(f"MTCNN needs facenet-pytorch: {INSTALL_MTCNN}{reason}.") from error


@dataclass(frozen=True)
class YuNet:
    """OpenCV's small neural detector. Its model is a file of the user's, or one on the Hub: hf-hub:owner/repo@revision/file."""

    model: str
    name = "yunet"
    confidence: float = 0.7

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        network = _yunet(self.model, self.confidence)
        network.setInputSize((width, height))
        _, found = network.detect(np.ascontiguousarray(frame[..., ::-1]))  # it takes BGR
        if found is None:
            return NO_FACES
        left, top, columns, rows = np.asarray(found, dtype=float)[:, :4].T
        return largest_first(np.stack([left, top, left + columns, top + rows], axis=1))


@functools.cache
def _yunet(model: str, confidence: float) -> Any:
    cv2 = _opencv()
    path = _from_hub(model.removeprefix("hf-hub:")) if model.startswith("hf-hub:") else Path(model)
    if not path.is_file():
        raise MediaError(f"There is no YuNet model {path}; write yunet:FILE with OpenCV's face_detection_yunet file.")
    try:
        return cv2.FaceDetectorYN.create(str(path), "", (320, 320), confidence)
    except cv2.error as error:
        raise MediaError(f"{path} is not a YuNet model that OpenCV {cv2.__version__} can read.") from error


def _from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download

    owner, _, rest = name.partition("/")
    repository, _, filename = rest.partition("/")
    repository, _, revision = repository.partition("@")
    if not (owner and repository and filename):
        raise InputError(f"'hf-hub:{name}' names no file; write hf-hub:owner/repo@revision/file.")
    try:
        return Path(hf_hub_download(f"{owner}/{repository}", filename, revision=revision or None))
    except Exception as error:  # whatever the network and the client come up with
        raise MediaError(f"hf-hub:{name} cannot be fetched ({error}).") from error


def areas(boxes: np.ndarray) -> np.ndarray:
    return np.clip(boxes[:, 2] - boxes[:, 0], 0, None) * np.clip(boxes[:, 3] - boxes[:, 1], 0, None)


def largest_first(boxes: np.ndarray) -> np.ndarray:
    return boxes[np.argsort(-areas(boxes), kind="stable")]


# -- one face through a clip -------------------------------------------------------------------------------------------

JUMP = 0.1  # boxes that overlap less than this are not the same face a moment later
REACH = 5  # so many searches may miss the face in between


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of all pairs: (N, 4), (M, 4) -> (N, M)."""
    corners = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(corners[1] - corners[0], 0, None).prod(-1)
    return shared / np.maximum(areas(a)[:, None] + areas(b)[None] - shared, 1e-9)


def follow(found: Sequence[np.ndarray]) -> list[tuple[int, np.ndarray]]:
    """The path of one face through the boxes of successive searches: [(number of the search, its box)].

    Large boxes count, staying on the same face counts more, a jump to another one costs: so a single wrong box is left
    out, a passer-by is not followed, and a cut to another shot is. The best path is found exactly.
    """
    seen = [(number, boxes) for number, boxes in enumerate(found) if len(boxes)]
    if not seen:
        return []
    largest = max(areas(boxes).max() for _, boxes in seen)
    totals: list[np.ndarray] = []
    origins: list[np.ndarray] = []  # (search, box) that the best path to a box comes from; -1: it starts here
    for place, (_, boxes) in enumerate(seen):
        size = np.sqrt(areas(boxes) / max(largest, 1e-9))
        best, origin = size.copy(), np.full((len(boxes), 2), -1)
        for before in range(max(0, place - REACH), place):
            shared = overlap(seen[before][1], boxes)
            step = totals[before][:, None] + np.where(shared < JUMP, -1.0, 2 * shared)
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


def smooth_track(path: Sequence[tuple[int, np.ndarray]], wanted: Sequence[int]) -> np.ndarray:
    """Boxes of the wanted frames from those of the searched ones: averaged over neighbours, interpolated, held at the
    ends, and never mixed across a jump. (frame number, box) pairs -> (len(wanted), 4)."""
    numbers = np.array([number for number, _ in path])
    boxes = np.stack([box for _, box in path])
    same = [overlap(a[None], b[None])[0, 0] >= JUMP for a, b in itertools.pairwise(boxes)]
    starts = [0, *(i + 1 for i, joined in enumerate(same) if not joined), len(path)]
    shots = [(numbers[a:b], _average(boxes[a:b])) for a, b in itertools.pairwise(starts)]
    asked = np.asarray(wanted)
    # a shot reaches half of the way to its neighbours
    borders = [(left[0][-1] + right[0][0]) / 2 for left, right in itertools.pairwise(shots)]
    chosen = np.searchsorted(borders, asked, side="right")
    track = np.empty((len(asked), 4))
    for shot, (places, smoothed) in enumerate(shots):
        here = chosen == shot
        for side in range(4):
            track[here, side] = np.interp(asked[here], places, smoothed[:, side])
    return track


def _average(boxes: np.ndarray) -> np.ndarray:
    """Each box with its two neighbours on either side, the nearer ones counting more."""
    weights = np.array([1.0, 2.0, 3.0, 2.0, 1.0])
    padded = np.pad(boxes, ((2, 2), (0, 0)))
    there = np.pad(np.ones(len(boxes)), 2)
    total = sum(w * padded[i : i + len(boxes)] for i, w in enumerate(weights))
    return total / sum(w * there[i : i + len(boxes)] for i, w in enumerate(weights))[:, None]


# -- frames that are cut when they are taken ---------------------------------------------------------------------------


@dataclass
class Search:
    """A detector at work on a clip: every frame is searched once, and counted."""

    frames: Frames
    detector: Detector
    report: dict[str, Any]
    source: str
    # kept as tuples: small arrays that live between those of large frames keep the memory of a long file apart
    found: dict[int, tuple[tuple[float, ...], ...]] = field(default_factory=dict)

    def look(self, index: int, frame: np.ndarray) -> None:
        boxes = self.detector(frame)
        self.found[index] = tuple(map(tuple, boxes.tolist()))
        self.report["searched"] += 1
        self.report["found"] += bool(len(boxes))

    def look_at(self, indices: Sequence[int]) -> list[np.ndarray]:
        """Boxes of the frames at rising indices, in one pass over those that are new."""
        new = [index for index in indices if index not in self.found]
        for index, frame in zip(new, in_order(self.frames, new)):
            self.look(index, frame)
        return [np.array(self.found[index]).reshape(-1, 4) for index in indices]

    def no_face(self) -> MediaError:
        return MediaError(
            f"{self.source}: no face was found in {self.report['searched']} frames (detector: "
            f"{self.report['detector']}). no_face='frame' takes whole frames, faces='none' does not search."
        )

    def note(self, boxes: Sequence[np.ndarray]) -> None:
        """Which face it was: the middle of all boxes that were used."""
        self.report["median_box"] = [round(float(v), 1) for v in np.median(np.stack(boxes), axis=0)]


Cut = Callable[[np.ndarray], np.ndarray]  # frame -> crop


def cut_to(rule: Callable[[Any, int, int], Box], boxes: Any) -> Cut:
    """A rule from boxes, width and height to a box, as a cut of frames."""
    return lambda frame: crop(frame, rule(boxes, frame.shape[1], frame.shape[0]))


def _cut_to_largest(rule: str, box: np.ndarray) -> Cut:
    if rule == "gray_square":
        return lambda frame: gray_square(frame, box)  # type: ignore[arg-type]
    return cut_to(detector_box if rule == "detector_box" else largest_box, box)


class _Crops:
    """Frames of a clip, each cut as `cuts_of` says."""

    frames: Frames

    def cuts_of(self, indices: Sequence[int]) -> list[Cut | None]:
        """For frames at rising indices; None for the whole frame."""
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
    """The user's boxes, cut out as they are."""

    frames: Frames
    boxes: np.ndarray

    def cuts_of(self, indices: Sequence[int]) -> list[Cut | None]:
        return [cut_to(largest_box, self.boxes[index]) for index in indices]


@dataclass
class PerFrameCrops(_Crops):
    """The published rules that look at every frame alone."""

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
        last = largest[0]  # for frames before the first face; the published script had no answer to them
        cuts: list[Cut | None] = []
        for boxes in found:
            last = boxes[0] if len(boxes) else last
            cuts.append(_cut_to_largest(self.rule, last))
        return cuts


@dataclass
class TrackedCrops(_Crops):
    """A smooth square around one face that is followed through the whole clip."""

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
