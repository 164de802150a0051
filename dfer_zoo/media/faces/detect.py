"""Face detectors, which map a frame to boxes. All detectors are thread-safe."""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, MediaError
from .track import JUMP, largest_first, overlap

NO_FACES = np.zeros((0, 4))
BOXES = "+boxes:"  # separates a detector's name from the file for its boxes
# --no-deps, because facenet-pytorch asks for an old torch; its other dependencies are named
INSTALL_MTCNN = "pip install --no-deps facenet-pytorch requests urllib3 charset-normalizer idna certifi"
# RGB frame -> boxes (N, 4): left, top, right, bottom in pixels, the largest first
Detector = Callable[[np.ndarray], np.ndarray]


def find_detector(faces: Any) -> Detector:
    """Return the detector of this name, or wrap a user's function.

    "auto" is MTCNN if it works, else the cascade. "auto:NAME" is the detector of that name if it works, else "auto".
    """
    if callable(faces):
        return OwnDetector(faces)
    if faces == "auto":
        return _auto()
    if isinstance(faces, str) and faces.startswith("auto:"):
        return _preferred(faces.removeprefix("auto:"))
    if faces == "mtcnn":
        return MTCNN()
    if faces == "cascade":
        return Cascade()
    if isinstance(faces, str) and faces.startswith("yunet:"):
        return YuNet(faces.removeprefix("yunet:"))
    raise InputError(f"No face detector is called {faces!r}; expected auto, none, cascade, mtcnn or yunet:FILE.")


def _auto() -> MTCNN | Cascade:
    """Return MTCNN if it works, else the cascade with the reason."""
    if importlib.util.find_spec("facenet_pytorch") is None:
        return Cascade()
    try:
        _mtcnn()
    except MediaError as error:
        return Cascade(fallback=f"MTCNN cannot be used, so the cascade searched instead: {error}")
    return MTCNN()


def _preferred(name: str) -> Detector:
    """Return the detector that was used in training if it works, else "auto" with the reason."""
    if name == "cascade":
        return Cascade()
    if name == "mtcnn":
        found = _auto()
        if isinstance(found, MTCNN) or found.fallback:
            return found
        reason = f"MTCNN needs facenet-pytorch: {INSTALL_MTCNN}"
    else:
        reason = f"its model is a file: choose it by faces='{name}:FILE'"
    found = _auto()
    instead = f"The faces of the training were found by {name}, and {name_of(found)} searched instead; {reason}."
    return replace(found, fallback=instead)


def known_detector(faces: Any) -> str | None:
    """Return the detector name to store in a record; None for face crops, given boxes and custom functions.

    >>> known_detector("yunet:face_detection_yunet.onnx"), known_detector("none")
    ('yunet', None)
    """
    if not isinstance(faces, str) or faces == "none":
        return None
    detector = find_detector(faces.partition(BOXES)[0])
    return {Cascade: "cascade", MTCNN: "mtcnn", YuNet: "yunet"}.get(type(detector))


REACH = 0.5  # maximum distance from a box to a face near it, relative to the size of the box
SIZES = 1.4  # maximum ratio of their sizes


def region(box: np.ndarray, width: int, height: int) -> tuple[int, int, int, int] | None:
    """Return the neighborhood of a box inside a frame; None if it is outside.

    >>> region(np.array([10.0, 10, 30, 30]), 100, 35)
    (0, 0, 40, 35)
    """
    margin = REACH * max(box[2] - box[0], box[3] - box[1])
    left, top = (max(0, math.floor(edge - margin)) for edge in box[:2])
    right, bottom = (min(limit, math.ceil(edge + margin)) for edge, limit in zip(box[2:], (width, height)))
    return (left, top, right, bottom) if right > left and bottom > top else None


def nearest(found: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return the found box with the largest overlap, (1, 4); (0, 4) if none overlaps."""
    if not len(found):
        return NO_FACES
    shared = overlap(box[None], found)[0]
    best = int(shared.argmax())
    return found[best : best + 1] if shared[best] >= JUMP else NO_FACES


def name_of(detector: Detector) -> str:
    return str(getattr(detector, "name", None) or getattr(detector, "__name__", type(detector).__name__))


@dataclass(frozen=True)
class OwnDetector:
    """A custom detector function; its results are validated."""

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
    """The Haar cascade that ships with OpenCV: small, offline, frontal faces only."""

    name = "opencv cascade"
    longest_side: int = 640
    fallback: str | None = None  # why it is used where another detector was preferred

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        return self._everywhere(frame, step=1.1, evidence=6)

    def coarse(self, frame: np.ndarray) -> np.ndarray:
        """Return boxes of possible faces, in larger steps of size and with less evidence; `near` confirms them."""
        return self._everywhere(frame, step=1.3, evidence=2)

    def _everywhere(self, frame: np.ndarray, step: float, evidence: int) -> np.ndarray:
        grey, scale = self._prepare(frame)
        smallest = max(24, min(grey.shape) // 10)
        found = _cascade().detectMultiScale(grey, step, evidence, minSize=(smallest, smallest))
        return largest_first(_corners(found) / scale)

    def near(self, frame: np.ndarray, box: np.ndarray) -> np.ndarray:
        """Return the face nearest to a box, (N, 4). Searches only windows of similar position and size."""
        grey, scale = self._prepare(frame)
        place = region(box * scale, grey.shape[1], grey.shape[0])
        if place is None:
            return NO_FACES
        left, top, right, bottom = place
        size = max(box[2] - box[0], box[3] - box[1]) * scale
        least, most = max(24, int(size / SIZES)), int(size * SIZES) + 1
        part = np.ascontiguousarray(grey[top:bottom, left:right])
        found = _cascade().detectMultiScale(part, 1.1, 6, minSize=(least, least), maxSize=(most, most))
        return nearest((_corners(found) + np.array([left, top, left, top])) / scale, box)

    def _prepare(self, frame: np.ndarray) -> tuple[np.ndarray, float]:
        """Return (input of the cascade, its scale)."""
        cv2 = opencv()
        scale = min(1.0, self.longest_side / max(frame.shape[:2]))
        grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
        if scale < 1:
            grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return cv2.equalizeHist(grey), scale


def _corners(found: Any) -> np.ndarray:
    """Convert OpenCV's (left, top, width, height) to (left, top, right, bottom)."""
    if not len(found):
        return NO_FACES
    boxes = np.asarray(found, dtype=float)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


# OpenCV's detectors store the current frame, so threads that share a detector get wrong boxes
_here = threading.local()


def _per_thread(make: Callable[..., Any]) -> Callable[..., Any]:
    """Cache what `make` returns, once for every thread."""

    @functools.wraps(make)
    def cached(*key: Any) -> Any:
        made = _here.__dict__.setdefault(make.__name__, {})
        if key not in made:
            made[key] = make(*key)
        return made[key]

    return cached


@_per_thread
def _cascade() -> Any:
    cv2 = opencv()
    if not hasattr(cv2, "CascadeClassifier"):
        raise MediaError(f"OpenCV {cv2.__version__} has no cascade: pip install 'opencv-python-headless>=4.10,<5'.")
    cascade = cv2.CascadeClassifier(os.path.join(cv2.data.haarcascades, "haarcascade_frontalface_alt2.xml"))
    if cascade.empty():
        raise MediaError(
            f"OpenCV {cv2.__version__} comes without its cascade files; install opencv-python-headless again."
        )
    return cascade


def opencv() -> Any:
    """Import cv2, or raise a `MediaError` with install instructions."""
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
    fallback: str | None = None  # why it is used where another detector was preferred

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        return self._detect(frame, self.smallest_face)

    def coarse(self, frame: np.ndarray) -> np.ndarray:
        """Return boxes of possible faces, without the most expensive level of the pyramid; `near` confirms them."""
        return self._detect(frame, self.smallest_face / PYRAMID)

    def near(self, frame: np.ndarray, box: np.ndarray) -> np.ndarray:
        """Return the face nearest to a box, (N, 4). Searches its neighborhood on the matching pyramid levels."""
        place = region(box, frame.shape[1], frame.shape[0])
        if place is None:
            return NO_FACES
        left, top, right, bottom = place
        size = max(box[2] - box[0], box[3] - box[1])
        levels = max(0, math.floor(math.log(size / self.smallest_face / LEVELS_BELOW, 1 / PYRAMID)))
        found = self._detect(frame[top:bottom, left:right], self.smallest_face / PYRAMID**levels)
        return nearest(found + np.array([left, top, left, top]), box)

    def _detect(self, frame: np.ndarray, smallest: float) -> np.ndarray:
        import torch

        if min(frame.shape[:2]) < smallest:  # facenet-pytorch fails on frames smaller than its smallest window
            return NO_FACES
        with _MTCNN_LOCK, torch.inference_mode():  # all threads share one network, which uses several threads itself
            network = _mtcnn()
            usual, network.min_face_size = network.min_face_size, smallest
            try:
                boxes, _ = network.detect(np.ascontiguousarray(frame))
            finally:
                network.min_face_size = usual
        return NO_FACES if boxes is None else largest_first(np.asarray(boxes, dtype=float))


_MTCNN_LOCK = threading.Lock()
PYRAMID = 0.709  # facenet-pytorch's factor from one level of the image pyramid to the next
LEVELS_BELOW = 2.0  # near a box, the search includes faces down to half its size


@functools.cache
def _mtcnn() -> Any:
    try:
        from facenet_pytorch import MTCNN as Network

        return Network(device="cpu")
    except Exception as error:  # its outdated dependencies may raise anything
        reason = "" if importlib.util.find_spec("facenet_pytorch") is None else f" ({error})"
        raise MediaError(f"MTCNN needs facenet-pytorch: {INSTALL_MTCNN}{reason}.") from error


@dataclass(frozen=True)
class YuNet:
    """OpenCV's small neural detector. The model is a local file or hf-hub:owner/repo@revision/file."""

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


@_per_thread
def _yunet(model: str, confidence: float) -> Any:
    cv2 = opencv()
    path = _from_hub(model.removeprefix("hf-hub:")) if model.startswith("hf-hub:") else Path(model)
    if not path.is_file():
        raise MediaError(
            f"No YuNet model {path}; write yunet:FILE with the path of OpenCV's face_detection_yunet file."
        )
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
        raise InputError(f"'hf-hub:{name}' does not name a file; write hf-hub:owner/repo@revision/file.")
    try:
        return Path(hf_hub_download(f"{owner}/{repository}", filename, revision=revision or None))
    except Exception as error:  # the network and the client raise errors of many types
        raise MediaError(f"hf-hub:{name} cannot be fetched ({error}).") from error
