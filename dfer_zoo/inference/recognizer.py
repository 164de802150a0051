"""Predict labels and probabilities for video files, with a timeline.

>>> recognizer = Recognizer("mma_dfer", "dfew_fold1")                   # doctest: +SKIP
>>> recognizer("interview.mp4").label                                   # doctest: +SKIP
'happiness'

The results equal those of `create_transform` and the model. `Recognizer` adds batches of files, windows and ensembles.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

import numpy as np
import torch

from ..errors import DferZooError, InputError, suggest
from ..factory import check_place, create_model
from ..media.clip import Clip
from ..media.files import read_clip
from ..media.workers import Workers, streams_ahead
from ..models.base import DferModel
from ..registry import list_pretrained
from ..transforms import create_transform
from .batcher import ModelBatcher, PendingPrediction, shares_frames
from .precision import advise, compiled
from .prediction import Prediction, together
from .samples import Opened, PackedSampler, Part, Sampler, WindowSamples, unpacked, visual_of
from .sources import sendable
from .stream import Stream
from .windows import check_window

BASELINE = "mini_xception.fer2013"  # bundled; the default model
BASELINE_NOTE = (
    f"frame-wise baseline, FER2013 ({BASELINE}); for clip-level systems name one: mma_dfer.dfew_fold1, "
    "mae_dfer.dfew_fold1, dfer_clip.dfew_fold1, emo_affectnet.aff_wild2, ... (dfer-zoo list)"
)
PEOPLE = ("largest", "all")
GPU_BATCH = 8  # default on a GPU; on a CPU larger batches are slower


class Recognizer:
    """Predict labels and probabilities for video files.

    The probabilities of several models, or of several weights such as the folds of one data set, are averaged. One
    recognizer may be used by several threads at once.

    Args:
        model: The name of a model, "arch.tag", a model instance, or a list of them. By default the bundled frame-wise
            baseline, with a note on stderr. An instance is set to eval mode and moved to the device.
        pretrained: The tag of the weights, or a list of tags.
        faces: How to find the face: "auto", "none" (the frames already are face crops), a detector's name, a function
            or boxes; see `media.faces.find`. The weights define the crop rule.
        no_face: "error", or "frame" to take whole frames of a clip without a face.
        window: Length of a window in seconds, for predictions over time. "auto": use windows if the clip is much
            longer than the input of the models or the clips of the data sets. None: one prediction for the clip, as in
            the published evaluations.
        stride: Seconds from one window to the next; half a window by default.
        batch_size: Windows in a forward pass; by default 1 on a CPU, where larger batches are slower, else 8.
        device: Device of the models.
        dtype: Precision of the model.
        thumbnails: How many small face crops each prediction keeps, for `Prediction.plot`.
        people: "largest": the most prominent face of a clip. "all": the prediction is that of the most prominent person,
            and its `people` has one prediction per person.
        identity: For people="all": a function from a face crop to a vector, to re-identify people.
        compile: Compile the models with `torch.compile`, once for batch size 1 and once for larger batches. Compiling
            takes a minute or more, so use it for many clips.
        **options: More options of `create_model`.

    Raises:
        InputError: An option is wrong, or the model has no weights, no classes or other labels than the first one.

    >>> from dfer_zoo.data.puppets import Puppet
    >>> recognizer = Recognizer("av_fusion", "puppets", faces="none")
    >>> recognizer(Puppet("happiness").clip()).label
    'happy'
    """

    def __init__(
        self,
        model: str | DferModel | Sequence[str | DferModel] | None = None,
        pretrained: str | Sequence[str] | None = None,
        *,
        faces: Any = "auto",
        no_face: str = "error",
        window: float | str | None = "auto",
        stride: float | None = None,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        thumbnails: int = 0,
        people: str = "largest",
        identity: Callable[[np.ndarray], Any] | None = None,
        compile: bool = False,
        **options: Any,
    ) -> None:
        check_window(window, stride)
        check_place(device, dtype)
        if device is not None and torch.device(device).type == "meta":
            raise InputError("device 'meta' cannot be used here (nothing is computed on it).")
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; expected 1 or more.")
        if people not in PEOPLE:
            raise InputError(f"people is {people!r}; expected {' or '.join(PEOPLE)}.")
        if model is None:
            if pretrained is not None:
                raise InputError(f"pretrained={pretrained!r} without a model needs a model; give its name too.")
            model = BASELINE
            print(f"dfer_zoo: {BASELINE_NOTE}", file=sys.stderr)
        self.models = _models(model, pretrained, {**options, "device": device, "dtype": dtype})
        for one in self.models:
            reference = next(one.parameters())
            advise(reference.device, reference.dtype)
        if compile:
            self.models = [compiled(one) for one in self.models]
        self.labels = self.models[0].labels
        self.window, self.stride, self.thumbnails = window, stride, thumbnails
        self.people, self.identity = people, identity
        self.batch_size = _default_batch(self.models[0]) if batch_size is None else batch_size
        # `evaluate` uses the full search, as the published pipelines do
        self.transforms = [
            dataclasses.replace(create_transform(model, faces=faces, no_face=no_face), search="fast")
            for model in self.models
        ]
        crops = {t.video.face_crop for t in self.transforms if t.video is not None}
        if len(crops) > 1:
            raise InputError(f"The models were trained on different face crops ({', '.join(sorted(crops))}).")

    def __repr__(self) -> str:
        names = [model.weights.name if model.weights else type(model).__name__ for model in self.models]
        return f"Recognizer({', '.join(names)}; {len(self.labels)} labels, window={self.window})"

    def __call__(self, source: Any, **reading: Any) -> Prediction:
        """Predict one clip.

        Args:
            source: A file, a folder of frames, an array, a `Clip`, the content of a file as bytes, or an open file.
            **reading: Options of `read_clip`: fps, audio, order, recover.

        Returns:
            The prediction.

        Raises:
            MediaError: The clip cannot be read, or lacks a required input.
        """
        (answer,) = self.many([source], progress=False, **reading)
        assert isinstance(answer, Prediction)
        return answer

    def many(
        self,
        sources: Iterable[Any],
        *,
        workers: int = 0,
        on_error: str = "raise",
        progress: bool | None = None,
        **reading: Any,
    ) -> Iterator[Prediction | DferZooError]:
        """Predict many clips, in order and in full batches.

        Args:
            sources: Files, folders of frames, arrays, clips, bytes or open files.
            workers: Processes that decode, find faces and make tensors ahead of the model. If a file crashes its
                worker, only that file gets an error. 0: do everything in this process.
            on_error: "raise", or "return" to yield the error of an unusable clip and continue.
            progress: Show a progress bar; by default on a terminal.
            **reading: Options of `read_clip`.

        Returns:
            An iterator over one prediction or error per source.
        """
        _check_sources("many", sources, on_error)
        return self.answers(sources, self._opener(reading), on_error, progress, workers)

    def embed(
        self, sources: Iterable[Any], *, workers: int = 0, progress: bool | None = None, **reading: Any
    ) -> np.ndarray:
        """Compute embeddings: the features before the classifier, averaged over the views and windows of a clip.

        Args:
            sources: Files, folders of frames, arrays or clips.
            workers: As in `many`.
            progress: Show a progress bar; by default on a terminal.
            **reading: Options of `read_clip`.

        Returns:
            An array (clips, num_features).

        Raises:
            InputError: The recognizer has several models, whose embeddings are not comparable.
        """
        found = list(self.embeddings(sources, workers=workers, progress=progress, **reading))
        return np.stack(found) if found else np.zeros((0, self.models[0].num_features), np.float32)  # type: ignore[arg-type]

    def embeddings(
        self,
        sources: Iterable[Any],
        *,
        workers: int = 0,
        on_error: str = "raise",
        progress: bool | None = None,
        **reading: Any,
    ) -> Iterator[np.ndarray | DferZooError]:
        """Yield embeddings one by one; ``on_error="return"`` yields the error of an unusable clip and continues."""
        _check_sources("embed", sources, on_error)
        if len(self.models) > 1:
            raise InputError(f"embed() takes one model, and this Recognizer has {len(self.models)}.")
        return self.answers(sources, self._opener(reading), on_error, progress, workers, embed=True)

    def stream(
        self, fps: float, *, sample_rate: int | None = None, live: bool = False, remember: bool = True
    ) -> Stream:
        """Predict a stream of frames, such as a camera.

        Args:
            fps: Frames per second.
            sample_rate: Sample rate of the sound, if any.
            live: Skip predictions that would be more than half a stride late, so that frames never queue up;
                ``Stream.dropped`` counts them.
            remember: Reuse face boxes and frame features between predictions. False recomputes them: the
                same results, but slower.

        Returns:
            A `Stream`: ``push(frame)`` returns a prediction after every stride.
        """
        return Stream(self, fps, sample_rate, live=live, remember=remember)

    def read(self, source: Any, **reading: Any) -> Clip:
        """Read a clip for the models. Frames are cropped to the face on access."""
        return visual_of(self.transforms).read(source, stream=self.window is not None, **reading)

    def answers(
        self,
        sources: Iterable[Any],
        read: Callable[[Any], Clip],
        on_error: str,
        progress: bool | None,
        workers: int = 0,
        embed: bool = False,
    ) -> Iterator[Any]:
        """Yield predictions or embeddings for sources of any kind; ``read`` turns a source into a clip.

        With workers, ``read`` must be picklable.
        """
        if embed and self.people == "all":
            raise InputError("embed() gives one vector per clip: Recognizer(..., people='largest').")
        return self._computed(sources, read, on_error, progress, workers, embed)

    def _opener(self, reading: Mapping[str, Any]) -> Callable[[Any], Clip]:
        known = inspect.signature(read_clip).parameters.keys() - {"source", "stream"}
        if unknown := sorted(reading.keys() - known):
            raise InputError(f"There is no option '{unknown[0]}' for reading a clip.{suggest(unknown[0], known)}")
        return functools.partial(read_clip, stream=self.window is not None, **reading)

    def _computed(
        self,
        sources: Iterable[Any],
        read: Callable[[Any], Clip],
        on_error: str,
        progress: bool | None,
        workers: int,
        embed: bool = False,
    ) -> Iterator[Any]:
        finish = functools.partial(_finish, on_error=on_error, embed=embed, several=self.people == "all")
        waiting: collections.deque[list[PendingPrediction] | DferZooError] = collections.deque()
        # created per call, so that threads do not share them
        batchers = [
            ModelBatcher(model, t.video.num_frames if t.video else 1, self.batch_size, embed)
            for model, t in zip(self.models, self.transforms)
        ]
        shares = [shares_frames(model, t, embed) for model, t in zip(self.models, self.transforms)]
        sampler = Sampler(
            self.transforms, shares, read, self.window, self.stride, self.thumbnails, self.people, self.identity
        )
        with _Progress(sources, progress) as bar, _sampled(sampler, sources, workers) as clips:
            for parts in clips:
                try:
                    waiting.append(self._submit(parts, batchers))
                except DferZooError as error:
                    if on_error == "raise":
                        raise
                    for batcher in batchers:
                        batcher.drop_clip()
                    waiting.append(error)
                while waiting and not (isinstance(waiting[0], list) and any(p.incomplete for p in waiting[0])):
                    yield bar.counted(finish(waiting.popleft()))
            for batcher in batchers:
                batcher.flush()
            for pending in waiting:
                yield bar.counted(finish(pending))

    def _submit(self, parts: Iterator[Part], batchers: Sequence[ModelBatcher]) -> list[PendingPrediction]:
        """Queue all windows of a clip, and return one pending prediction per appearance of a person."""
        people: list[PendingPrediction] = []
        for part in parts:
            if isinstance(part, Opened):
                people.append(PendingPrediction(part, self.models))
            elif isinstance(part, WindowSamples):
                batchers[part.model].add(part, people[-1])
            else:
                for batcher in batchers:
                    batcher.end_of_clip() if part.refusal is None else batcher.drop_clip()
                people[-1].closed = part
        return [pending for pending in people if pending.closed is not None and pending.closed.refusal is None]


@contextlib.contextmanager
def _sampled(sampler: Sampler, sources: Iterable[Any], workers: int) -> Iterator[Iterator[Iterator[Part]]]:
    """Yield the parts of every source's prediction, computed in this process or by workers."""
    if workers == 0:
        yield (sampler(source) for source in sources)
        return
    with Workers(PackedSampler(sampler), workers) as pool:
        streams = streams_ahead(pool, map(sendable, sources), max(8, 2 * workers))
        with contextlib.closing(streams):
            yield (map(unpacked, parts) for parts in streams)


def _check_sources(method: str, sources: Any, on_error: str) -> None:
    if on_error not in ("raise", "return"):
        raise InputError(f"on_error is '{on_error}'; expected 'raise' or 'return'.")
    if isinstance(sources, str | os.PathLike | Clip | bytes | bytearray | memoryview):
        raise InputError(f"{method}() takes a list of sources, not one {type(sources).__name__}: {method}([source]).")
    if not isinstance(sources, Iterable):
        raise InputError(f"{method}() takes a list of sources, not {type(sources).__name__}.")


def _models(
    model: str | DferModel | Sequence[str | DferModel], pretrained: str | Sequence[str] | None, options: dict[str, Any]
) -> list[DferModel]:
    given: list[Any] = list(model) if isinstance(model, list | tuple) else [model]
    tags: list[Any] = list(pretrained) if isinstance(pretrained, list | tuple) else [pretrained]
    for one in given:
        if not isinstance(one, str | DferModel):
            raise InputError(f"model is {one!r}; expected the name of a model, a model, or a list of them.")
    for tag in tags:
        if not isinstance(tag, str | None):
            raise InputError(f"pretrained is {tag!r}; expected the tag of weights, or a list of them.")
    if not given or not tags:
        raise InputError("The list of models, or of weights, is empty.")
    building = [*([] if pretrained is None else ["pretrained"]), *(options.keys() - {"device", "dtype"})]
    if building and any(isinstance(one, DferModel) for one in given):
        raise InputError(f"{', '.join(sorted(building))} cannot be given with a model instance.")
    models = []
    for one in given:
        for tag in tags:
            models.append(_ready(one, options) if isinstance(one, DferModel) else _created(one, tag, options))
    for other in models:
        if other.num_classes < 2:
            raise InputError(f"{type(other).__name__} has no classes; use one that was trained on labels.")
        if other.labels != models[0].labels:
            raise InputError(
                f"The labels differ, so probabilities cannot be averaged: {', '.join(models[0].labels)} and "
                f"{', '.join(other.labels)}."
            )
    return models


def _ready(model: DferModel, options: Mapping[str, Any]) -> DferModel:
    return model.to(device=options["device"], dtype=options["dtype"]).eval()


def _created(name: str, tag: str | None, options: dict[str, Any]) -> DferModel:
    model = create_model(name, tag, **options)
    record = model.weights
    if record is None:
        tags = ", ".join(t for _, t in list_pretrained(name)) or "none are listed"
        raise InputError(f"{name} without weights predicts at random; give pretrained=... ({tags}).")
    if record.distribution == "composed" or model.labels != record.labels:
        raise InputError(
            f"{record.name} has not learned the labels {', '.join(model.labels)}: its head is random. "
            "Train it first, and give the trained model."
        )
    return model


def _default_batch(model: DferModel) -> int:
    return 1 if next(model.parameters()).device.type == "cpu" else GPU_BATCH


class _Progress:
    """A progress bar with the rate, the time left and the number of errors."""

    def __init__(self, sources: Iterable[Any], progress: bool | None) -> None:
        shown = sys.stderr.isatty() if progress is None else progress
        total = len(sources) if isinstance(sources, Sized) else None
        self.errors, self.bar = 0, None
        if shown and (total is None or total > 1):
            with contextlib.suppress(ImportError):
                from tqdm import tqdm

                self.bar = tqdm(total=total, unit="clip", leave=False)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def counted(self, answer: Any) -> Any:
        """Count an answer and return it."""
        if self.bar is not None:
            if isinstance(answer, DferZooError):
                self.errors += 1
                self.bar.set_postfix(errors=self.errors, refresh=False)
            self.bar.update()
        return answer


def _finish(people: list[PendingPrediction] | DferZooError, on_error: str, embed: bool, several: bool) -> Any:
    if isinstance(people, DferZooError):
        return people
    try:
        if embed:
            return people[0].embedding()
        answers = [pending.prediction() for pending in people]
        return together(answers) if several else answers[0]
    except DferZooError as error:
        if on_error == "raise":
            raise
        return error
