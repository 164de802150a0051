"""Run the models of a `Recognizer` in batches across windows and files."""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DferZooError
from ..models.base import DferModel
from ..transforms import Transform, collate
from ..transforms.sampling import BLACK
from .prediction import Prediction, Window
from .samples import Closed, Opened, WindowSamples


@dataclass
class PendingPrediction:
    """A prediction in progress: one output row for every window, model and view."""

    opened: Opened
    models: Sequence[DferModel]
    closed: Closed | None = None  # None until the clip has ended
    rows: dict[tuple[int, int, int], list[float]] = field(default_factory=dict)
    expected: int = 0
    missing: dict[int, set[str]] = field(default_factory=dict)  # by the window's number

    @property
    def incomplete(self) -> bool:
        return self.closed is None or len(self.rows) < self.expected

    def array(self) -> tuple[np.ndarray, list[int]]:
        """Return outputs (windows, models, views, width), NaN for missing views, and the window numbers."""
        if not all(math.isfinite(value) for row in self.rows.values() for value in row):
            raise DferZooError(
                f"{self.opened.source}: the model's answer is not finite; its weights, or their precision, cannot be used."
            )
        shape = [1 + max(key[axis] for key in self.rows) for axis in range(3)]
        outputs = np.full((*shape, len(next(iter(self.rows.values())))), np.nan, np.float32)
        for key, row in self.rows.items():
            outputs[key] = row
        answered = sorted({window for window, _, _ in self.rows})
        return outputs[answered], answered

    def prediction(self) -> Prediction:
        """Return the prediction. All outputs must be present."""
        assert self.closed is not None
        logits, answered = self.array()
        probabilities = torch.from_numpy(logits).double().softmax(-1).numpy()
        per_window = _mean_of_views_and_models(probabilities)
        shift = self.closed.shift
        windows = [
            Window(*_later(self.opened.times[number], shift), tuple(row.tolist()), tuple(sorted(self.missing[number])))
            for number, row in zip(answered, per_window)
        ]
        return Prediction(
            source=self.opened.source,
            labels=self.models[0].labels,
            probabilities=tuple(per_window.mean(0).tolist()),
            windows=tuple(windows),
            models=tuple(model_identity(model) for model in self.models),
            missing=tuple(sorted(set().union(*self.missing.values()))),
            faces=self.closed.faces,
            track=self.closed.track,
            sample_rate=self.opened.sample_rate,
            seen=self.opened.seen,
            duration=self.opened.duration,
            logits=logits,
            thumbnails=self.closed.thumbnails,
        )

    def embedding(self) -> np.ndarray:
        """Return the mean embedding of all windows and views, (num_features,)."""
        outputs, _ = self.array()
        return _mean_of_views_and_models(outputs.astype(np.float64)).mean(0).astype(np.float32)


def _mean_of_views_and_models(values: np.ndarray) -> np.ndarray:
    """(windows, models, views, width) -> (windows, width); views first, as models may have different numbers of them."""
    return np.nanmean(np.nanmean(values, axis=2), axis=1)


def _later(span: tuple[float, float | None], seconds: float) -> tuple[float, float | None]:
    start, stop = span
    return start + seconds, None if stop is None else stop + seconds


def model_identity(model: DferModel) -> dict[str, Any]:
    """Return the name, hash and origin of the weights of a model."""
    if model.weights is None:
        return {"model": type(model).__name__, "weights": None}
    record = model.weights
    facts: dict[str, Any] = {
        "model": record.arch,
        "weights": record.tag,
        "sha256": record.sha256,
        "revision": record.revision,
    }
    facts.update(dataset=record.dataset, fold=record.fold, license=record.license, caution=record.caution)
    return facts


@dataclass
class Request:
    """One view of one window, ready for the model."""

    sample: dict[str, Tensor | None]  # by argument name
    pending: PendingPrediction
    place: tuple[int, int, int]


def shares_frames(model: DferModel, transform: Transform, embed: bool = False) -> bool:
    """Return whether frames that several windows share are encoded once."""
    if embed or not model.frame_independent or not {"video", "image"} & set(model.inputs):
        return False
    if transform.remembers:  # a stream has its own cache
        return False
    # if the first frame decides the size of all, frames cannot be encoded one by one
    return transform.video is not None and transform.video.frame_size == "own"


class ModelBatcher:
    """Runs one model in full batches across windows and files, and returns each output row to its prediction."""

    def __init__(self, model: DferModel, num_frames: int, batch_size: int, embed: bool = False) -> None:
        self.model, self.batch_size, self.embed = model, batch_size, embed
        self.queues: dict[tuple[str, ...], list[Request]] = {}  # by the inputs that are present
        reference = next(p for p in model.parameters() if p.is_floating_point())
        self.device, self.dtype = reference.device, reference.dtype
        self.encoder = FrameEncoder(self, num_frames)

    def add(self, part: WindowSamples, pending: PendingPrediction) -> None:
        """Queue a window."""
        pending.expected += len(part.views)
        pending.missing.setdefault(part.window, set()).update(part.missing)
        requests = [Request(dict(v), pending, (part.window, part.model, n)) for n, v in enumerate(part.views)]
        if part.numbers is not None:
            self.encoder.add(part, requests)
            return
        for request in requests:
            self.queue(request)

    def queue(self, request: Request) -> None:
        there = tuple(name for name, tensor in request.sample.items() if tensor is not None)
        queue = self.queues.setdefault(there, [])
        queue.append(request)
        if len(queue) >= self.batch_size:
            self._run_batch(self.queues.pop(there))

    def end_of_clip(self) -> None:
        self.encoder.finish()

    def drop_clip(self) -> None:
        """Drop the frames of a clip that failed."""
        self.encoder.start()

    def flush(self) -> None:
        while self.queues:
            self._run_batch(self.queues.popitem()[1])

    @torch.no_grad()
    def _run_batch(self, requests: Sequence[Request]) -> None:
        batch: dict[str, Any] = {
            name: self.place(tensor) for name, tensor in collate([request.sample for request in requests]).items()
        }
        frames = batch.pop("frames", None)
        if self.embed:
            outputs = self.model.forward_head(self.model.forward_features(**batch), pre_logits=True)
        else:
            outputs = self.model(**batch) if frames is None else self.model.forward_frames(frames, **batch)
        for request, row in zip(requests, outputs.float().cpu().tolist()):
            request.pending.rows[request.place] = row

    def place(self, tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(device=self.device, dtype=self.dtype)


class FrameEncoder:
    """Encode every frame of a clip once, even if several windows share it.

    For models that encode each frame on its own. Batches have the same shape as without sharing, so that results are
    bitwise equal.
    """

    def __init__(self, runner: ModelBatcher, num_frames: int) -> None:
        self.runner, self.num_frames = runner, num_frames
        self.start()

    def start(self) -> None:
        self.features: dict[int, Tensor] = {}  # by the frame's number in the clip
        self.collected: dict[int, Tensor] = {}
        self.waiting: collections.deque[tuple[list[Request], Sequence[Sequence[int]], int]] = collections.deque()

    def add(self, part: WindowSamples, requests: list[Request]) -> None:
        assert part.numbers is not None
        self.collected.update(part.frames)
        self.waiting.append((requests, part.numbers, part.needed_later))
        while len(self.collected) >= self.num_frames * self.runner.batch_size:
            self._encode(self.num_frames * self.runner.batch_size)
        self._release()

    def finish(self) -> None:
        """Encode the remaining frames of a clip, repeated to fill the batch."""
        while self.collected:
            self._encode(self.num_frames)
        self._release()
        self.start()

    @torch.no_grad()
    def _encode(self, count: int) -> None:
        numbers = list(self.collected)[:count]
        frames = [self.collected.pop(number) for number in numbers]
        frames += [frames[-1]] * (count - len(frames))
        video = torch.stack(frames).unflatten(0, (-1, self.num_frames))
        encoded = self.runner.model.encode_frames(self.runner.place(video)).flatten(0, 1)  # type: ignore[arg-type]
        self.features.update(zip(numbers, encoded))

    def _release(self) -> None:
        """Queue complete windows, and drop features that no later window needs."""
        while self.waiting:
            requests, numbers, needed_later = self.waiting[0]
            if any(number not in self.features for view in numbers for number in view):
                return
            self.waiting.popleft()
            for request, view in zip(requests, numbers):
                request.sample["frames"] = torch.stack([self.features[number] for number in view])
                self.runner.queue(request)
            for number in [n for n in self.features if BLACK < n < needed_later]:
                del self.features[number]
