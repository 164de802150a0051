"""Batches across windows and files: what a `Recognizer` runs its models with."""

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
from ..media.clip import Clip, Frames, in_order
from ..models.base import DferModel
from ..transforms import Plan, Transform, collate
from ..transforms.sampling import BLACK
from .prediction import Prediction, Window


class FrameBuffer:
    """The wanted frames of a clip, read in one pass and kept as long as a later window needs them."""

    def __init__(self, frames: Frames, wanted: Sequence[int]) -> None:
        self._count = len(frames)
        self._walk = zip(wanted, in_order(frames, wanted))
        self._kept: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self._count

    def take(self, indices: Sequence[int]) -> list[np.ndarray]:
        """The frames at these indices; they must be among the wanted ones and not released yet."""
        while any(index not in self._kept for index in indices):
            number, frame = next(self._walk)
            self._kept[number] = frame
        return [self._kept[index] for index in indices]

    def release(self, below: int) -> None:
        """Drop the frames before this one."""
        for number in [n for n in self._kept if n < below]:
            del self._kept[number]


@dataclass
class PendingPrediction:
    """A prediction in progress: one output row for every window, model and view."""

    clip: Clip
    times: list[tuple[float, float | None]]  # of all windows, in seconds
    models: Sequence[DferModel]
    transforms: Sequence[Transform]
    rows: dict[tuple[int, int, int], list[float]] = field(default_factory=dict)
    expected: int = 0
    seen: tuple[float, float] | None = None
    missing: dict[int, set[str]] = field(default_factory=dict)  # by the window's number
    thumbnails: list[tuple[float, np.ndarray]] = field(default_factory=list)

    @property
    def incomplete(self) -> bool:
        return len(self.rows) < self.expected

    def array(self) -> tuple[np.ndarray, list[int]]:
        """(outputs (windows, models, views, width) with NaN where a model has fewer views, numbers of the windows)"""
        if not all(math.isfinite(value) for row in self.rows.values() for value in row):
            raise DferZooError(
                f"{self.clip.source}: the model's answer is not finite; its weights, or their precision, cannot be used."
            )
        shape = [1 + max(key[axis] for key in self.rows) for axis in range(3)]
        outputs = np.full((*shape, len(next(iter(self.rows.values())))), np.nan, np.float32)
        for key, row in self.rows.items():
            outputs[key] = row
        answered = sorted({window for window, _, _ in self.rows})
        return outputs[answered], answered

    def prediction(self) -> Prediction:
        """The prediction, once it is complete."""
        logits, answered = self.array()
        probabilities = torch.from_numpy(logits).double().softmax(-1).numpy()
        per_window = _mean_of_views_and_models(probabilities)
        windows = [
            Window(*self.times[number], tuple(row.tolist()), tuple(sorted(self.missing[number])))
            for number, row in zip(answered, per_window)
        ]
        return Prediction(
            source=self.clip.source,
            labels=self.models[0].labels,
            probabilities=tuple(per_window.mean(0).tolist()),
            windows=tuple(windows),
            models=tuple(_identity(model) for model in self.models),
            missing=tuple(sorted(set().union(*self.missing.values()))),
            faces=dict(self.clip.notes["faces"]) if "faces" in self.clip.notes else None,
            sample_rate=_own_rate(self.clip, self.transforms),
            seen=self.seen,
            duration=self.clip.duration,
            logits=logits,
            thumbnails=tuple(self.thumbnails),
        )

    def embedding(self) -> np.ndarray:
        """The mean embedding of all windows and views, (num_features,)."""
        outputs, _ = self.array()
        return _mean_of_views_and_models(outputs.astype(np.float64)).mean(0).astype(np.float32)


def _mean_of_views_and_models(values: np.ndarray) -> np.ndarray:
    """(windows, models, views, width) -> (windows, width); views first, as models may have different numbers of them."""
    return np.nanmean(np.nanmean(values, axis=2), axis=1)


def _own_rate(clip: Clip, transforms: Sequence[Transform]) -> int | None:
    """The rate of the sound, if a record names none and the front end works at the file's own."""
    own = any(transform.audio is not None and transform.audio.sample_rate is None for transform in transforms)
    return int(clip.sample_rate) if own and clip.waveform is not None and clip.sample_rate else None


def _identity(model: DferModel) -> dict[str, Any]:
    """Which weights these are."""
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


class ModelBatcher:
    """Runs one model in full batches across windows and files, and returns each output row to its prediction."""

    def __init__(self, model: DferModel, transform: Transform, batch_size: int, embed: bool = False) -> None:
        self.model, self.transform, self.batch_size, self.embed = model, transform, batch_size, embed
        self.queues: dict[tuple[str, ...], list[Request]] = {}  # by the inputs that are present
        reference = next(p for p in model.parameters() if p.is_floating_point())
        self.device, self.dtype = reference.device, reference.dtype
        self.visual = next((name for name in ("video", "image") if name in model.inputs), None)
        shares = model.frame_independent and self.visual and not embed
        # a clip whose frames are all resized like its first one is not encoded frame by frame
        shares = shares and transform.video is not None and transform.video.frame_size == "own"
        self.encoder = FrameEncoder(self) if shares else None

    def add(
        self, clip: Clip, first: int, plan: Plan, pending: PendingPrediction, place: tuple[int, int], needed_later: int
    ) -> None:
        """Queue a window. ``first`` is the number of its first frame in the whole clip."""
        shared = len(pending.times) * len(plan.views) > 1 and self.visual not in plan.missing
        if self.encoder is not None and shared:
            assert self.visual is not None
            others = self.transform.without(self.visual).views(clip, plan)[0]
            self._note(pending, place[0], plan)
            self.encoder.add(clip, first, plan, others, pending, place, needed_later)
            return
        self._note(pending, place[0], plan)
        for number, sample in enumerate(self.transform.views(clip, plan)):
            self.queue(Request(sample, pending, (*place, number)))

    def _note(self, pending: PendingPrediction, window: int, plan: Plan) -> None:
        pending.expected += len(plan.views)
        pending.missing.setdefault(window, set()).update(plan.missing)

    def queue(self, request: Request) -> None:
        there = tuple(name for name, tensor in request.sample.items() if tensor is not None)
        queue = self.queues.setdefault(there, [])
        queue.append(request)
        if len(queue) >= self.batch_size:
            self._run_batch(self.queues.pop(there))

    def end_of_clip(self) -> None:
        if self.encoder is not None:
            self.encoder.finish()

    def drop_clip(self) -> None:
        """Drop the frames of a clip that cannot be used."""
        if self.encoder is not None:
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
    """Encodes every frame of a clip once, however many windows share it, for models that encode frames one by one.

    Frames are collected into batches of the same shape as without sharing, so that results are equal to the last bit."""

    def __init__(self, runner: ModelBatcher) -> None:
        self.runner = runner
        assert runner.transform.video is not None
        self.spec = runner.transform.video
        self.start()

    def start(self) -> None:
        self.features: dict[int, Tensor] = {}  # by the frame's number in the clip
        self.collected: dict[int, Tensor] = {}
        self.waiting: collections.deque[tuple[list[Request], list[list[int]], int]] = collections.deque()

    def add(
        self,
        clip: Clip,
        first: int,
        plan: Plan,
        others: dict[str, Tensor | None],
        pending: PendingPrediction,
        place: tuple[int, int],
        needed_later: int,
    ) -> None:
        requests = [Request(dict(others), pending, (*place, number)) for number in range(len(plan.views))]
        numbers = [[BLACK if index == BLACK else first + index for index in view] for view in plan.views]
        for number in sorted({n for view in numbers for n in view}):
            if number not in self.features and number not in self.collected:
                inside = BLACK if number == BLACK else number - first
                self.collected[number] = self.runner.transform.frames(clip, [inside])[0]
        self.waiting.append((requests, numbers, needed_later))
        while len(self.collected) >= self.spec.num_frames * self.runner.batch_size:
            self._encode(self.spec.num_frames * self.runner.batch_size)
        self._release()

    def finish(self) -> None:
        """End a clip: encode the remaining frames, padded to a full batch by repetition."""
        while self.collected:
            self._encode(self.spec.num_frames)
        self._release()
        self.start()

    @torch.no_grad()
    def _encode(self, count: int) -> None:
        numbers = list(self.collected)[:count]
        frames = [self.collected.pop(number) for number in numbers]
        frames += [frames[-1]] * (count - len(frames))
        video = torch.stack(frames).unflatten(0, (-1, self.spec.num_frames))
        encoded = self.runner.model.encode_frames(self.runner.place(video)).flatten(0, 1)  # type: ignore[arg-type]
        self.features.update(zip(numbers, encoded))

    def _release(self) -> None:
        """Queue the windows whose frames are all encoded, and drop features that no later window needs."""
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
