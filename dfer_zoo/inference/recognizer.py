"""From video files to labelled predictions, with a timeline.

>>> recognizer = Recognizer("mma_dfer", "dfew_fold1")                   # doctest: +SKIP
>>> recognizer("interview.mp4").label                                   # doctest: +SKIP
'happiness'

It computes what `create_transform` and the model compute, for many files, many windows of a file, and several folds.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

import numpy as np
import torch

from ..errors import DferZooError, InputError, MediaError
from ..factory import check_place, create_model
from ..media.clip import Clip
from ..media.files import SoundCursor, SoundFile
from ..media.resize import pillow_bilinear
from ..models.base import DferModel
from ..registry import list_pretrained
from ..transforms import Plan, Transform, create_transform
from .batcher import FrameBuffer, ModelBatcher, PendingPrediction
from .prediction import Prediction
from .stream import Stream
from .windows import auto_window, check_window, window_times

BASELINE = "mini_xception.fer2013"  # inside the package, used where no model is named
BASELINE_NOTE = (
    f"frame-wise baseline, FER2013 ({BASELINE}); for clip-level systems name one: mma_dfer.dfew_fold1, "
    "mae_dfer.dfew_fold1, dfer_clip.dfew_fold1, emo_affectnet.aff_wild2, ... (dfer-zoo list)"
)
AUTO_FROM = 2.0  # a clip longer than this many windows is answered in windows
MOST_WINDOWS = 100_000  # of a file; a wrong frame rate makes days of a minute
THUMBNAIL = 96  # pixels


class Recognizer:
    """Files in, labelled probabilities out.

    Several models, or several weights such as the folds of one data set, are averaged in their probabilities. One
    recognizer may be used by several threads at once.

    Args:
        model: The name of a model, "arch.tag", a model, or a list of them. Without one it is the frame-wise baseline
            inside the package, which is noted on stderr. A given model is put into eval mode and on the device.
        pretrained: The tag of the weights, or a list of tags.
        faces: How to find the face: "auto", "none" (the frames are face crops already), a detector's name, a function
            or boxes; see `media.faces.find`. The crop rule is that of the weights.
        no_face: "error", or "frame" to take whole frames of a clip without a face.
        window: Seconds of a window, for an answer over time. "auto": windows for clips much longer than what the models
            see at once or than the clips of the data sets. None: the clip as a whole, as in the published evaluations.
        stride: Seconds from one window to the next; half a window by default.
        batch_size: Windows in a forward pass.
        device: Where to compute.
        dtype: Precision of the model.
        thumbnails: How many small face crops each prediction keeps, for `Prediction.plot`.
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
        batch_size: int = 8,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        thumbnails: int = 0,
        **options: Any,
    ) -> None:
        check_window(window, stride)
        check_place(device, dtype)
        if device is not None and torch.device(device).type == "meta":
            raise InputError("device 'meta' cannot be used here (nothing is computed on it).")
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; expected 1 or more.")
        if model is None:
            if pretrained is not None:
                raise InputError(f"pretrained={pretrained!r} without a model means nothing; name the model too.")
            model = BASELINE
            print(f"dfer_zoo: {BASELINE_NOTE}", file=sys.stderr)
        self.models = _models(model, pretrained, {**options, "device": device, "dtype": dtype})
        self.labels = self.models[0].labels
        self.window, self.stride, self.batch_size, self.thumbnails = window, stride, batch_size, thumbnails
        # `evaluate` searches in full, as the published pipelines do
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
        """The prediction for one clip.

        Args:
            source: A file, a folder of frames, an array or a `Clip`.
            **reading: Options of `read_clip`: fps, audio, order, recover.

        Returns:
            The prediction.

        Raises:
            MediaError: The clip cannot be read, or lacks what the models need.
        """
        (answer,) = self.many([source], progress=False, **reading)
        assert isinstance(answer, Prediction)
        return answer

    def many(
        self, sources: Iterable[Any], *, on_error: str = "raise", progress: bool | None = None, **reading: Any
    ) -> Iterator[Prediction | DferZooError]:
        """Predictions for many clips, in order, computed in full batches.

        Args:
            sources: Files, folders of frames, arrays or clips.
            on_error: "raise", or "return" to yield the error of an unusable clip and go on.
            progress: Show a progress bar; by default on a terminal.
            **reading: Options of `read_clip`.

        Returns:
            An iterator with one item for each source.
        """
        _check_sources("many", sources, on_error)
        read = functools.partial(self.read, **reading)
        return self.answers(sources, read, on_error, progress)

    def embed(self, sources: Iterable[Any], *, progress: bool | None = None, **reading: Any) -> np.ndarray:
        """Embeddings of clips: the features before the classifier, averaged over the views and windows of a clip.

        Args:
            sources: Files, folders of frames, arrays or clips.
            progress: Show a progress bar; by default on a terminal.
            **reading: Options of `read_clip`.

        Returns:
            An array (clips, num_features).

        Raises:
            InputError: The recognizer has several models, whose embeddings are not comparable.
        """
        found = list(self.embeddings(sources, progress=progress, **reading))
        return np.stack(found) if found else np.zeros((0, self.models[0].num_features), np.float32)  # type: ignore[arg-type]

    def embeddings(
        self, sources: Iterable[Any], *, on_error: str = "raise", progress: bool | None = None, **reading: Any
    ) -> Iterator[np.ndarray | DferZooError]:
        """`embed` one by one; ``on_error="return"`` yields the error of an unusable clip and goes on."""
        _check_sources("embed", sources, on_error)
        if len(self.models) > 1:
            raise InputError(f"embed() takes one model, and this Recognizer has {len(self.models)}.")
        read = functools.partial(self.read, **reading)
        return self._computed(sources, read, on_error, progress, embed=True)

    def stream(self, fps: float, *, sample_rate: int | None = None) -> Stream:
        """Predictions for frames that arrive one by one, as from a camera.

        Args:
            fps: Frames per second.
            sample_rate: Of the sound, if there is any.

        Returns:
            A `Stream`: ``push(frame)`` returns a prediction after every stride.
        """
        return Stream(self, fps, sample_rate)

    def read(self, source: Any, **reading: Any) -> Clip:
        """The clip as the models take it: opened, and cropped to the face when frames are taken."""
        visual = next((t for t in self.transforms if t.video is not None), self.transforms[0])
        return visual.read(source, stream=self.window is not None, **reading)

    def answers(
        self,
        sources: Iterable[Any],
        read: Callable[[Any], Clip],
        on_error: str,
        progress: bool | None,
        embed: bool = False,
    ) -> Iterator[Any]:
        """`many`, or `embeddings`, for sources of any kind that ``read`` turns into clips."""
        return self._computed(sources, read, on_error, progress, embed)

    def _computed(
        self,
        sources: Iterable[Any],
        read: Callable[[Any], Clip],
        on_error: str,
        progress: bool | None,
        embed: bool = False,
    ) -> Iterator[Any]:
        finish = functools.partial(_finish, on_error=on_error, embed=embed)
        waiting: collections.deque[PendingPrediction | DferZooError] = collections.deque()
        # new ones for every call, so that threads do not share them
        batchers = [ModelBatcher(model, t, self.batch_size, embed) for model, t in zip(self.models, self.transforms)]
        for source in _with_progress(sources, progress):
            try:
                waiting.append(self._submit(read(source), batchers))
            except DferZooError as error:
                if on_error == "raise":
                    raise
                for batcher in batchers:
                    batcher.drop_clip()
                waiting.append(error)
            while waiting and not (isinstance(waiting[0], PendingPrediction) and waiting[0].incomplete):
                yield finish(waiting.popleft())
        for batcher in batchers:
            batcher.flush()
        for pending in waiting:
            yield finish(pending)

    def _submit(self, clip: Clip, batchers: list[ModelBatcher]) -> PendingPrediction:
        """Queue all windows of a clip; some of them may be computed later."""
        if isinstance(clip.waveform, SoundFile):
            clip = dataclasses.replace(clip, waveform=SoundCursor(clip.waveform))
        times = self._times(clip)
        pending = PendingPrediction(clip, times, self.models, self.transforms)
        planned = [_plans(clip, span, self.transforms) for span in times]  # first of all, so that frames are read once
        wanted = [{first + index for plan in plans for index in plan.frames} for plans, first in planned]
        in_all = sorted(set().union(*wanted))
        pending.seen = _seconds(clip, in_all)
        shown = set(
            in_all[len(in_all) // (2 * self.thumbnails) :: max(1, len(in_all) // self.thumbnails)]
            if self.thumbnails
            else ()
        )
        buffer = None if clip.frames is None else FrameBuffer(clip.frames, in_all)
        refusals: list[str] = []
        for number, (span, lowest) in enumerate(zip(times, _lowest_later(wanted))):
            part, first = _part(dataclasses.replace(clip, frames=buffer), span)
            plans = [t.plan(part, plan.views) for t, plan in zip(self.transforms, planned[number][0])]
            if reasons := [plan.refusal for plan in plans if plan.refusal]:
                refusals.append(reasons[0])
                continue
            for place, (batcher, plan) in enumerate(zip(batchers, plans)):
                batcher.add(part, first, plan, pending, (number, place), lowest)
            if buffer is not None:
                for index in sorted(shown & wanted[number]):
                    pending.thumbnails.append(_thumbnail(clip, buffer, index))
                shown -= wanted[number]
                buffer.release(lowest)
        if len(refusals) == len(times):
            raise MediaError(refusals[0])
        for batcher in batchers:
            batcher.end_of_clip()
        return pending

    def _times(self, clip: Clip) -> list[tuple[float, float | None]]:
        """Start and end of all windows, in seconds."""
        window = self._window(clip)
        if window is None:
            return [(0.0, clip.duration)]
        if clip.duration is None:
            raise MediaError(f"{clip.source}: windows are in seconds and the frame rate is not known; give fps.")
        stride = window / 2 if self.stride is None else self.stride
        if (clip.duration - window) / stride > MOST_WINDOWS:
            raise MediaError(
                f"{clip.source}: there are more than {MOST_WINDOWS} windows of {window:g} s, one every {stride:g} s, "
                f"in {clip.duration:g} s; use a longer stride, or check the frame rate."
            )
        return list(window_times(clip.duration, window, stride))

    def _window(self, clip: Clip) -> float | None:
        """Seconds of a window, or None for the clip as a whole."""
        if not isinstance(self.window, str):
            return self.window
        window = auto_window(self.transforms, clip.fps)
        return window if clip.duration is not None and clip.duration > AUTO_FROM * window else None


def _check_sources(method: str, sources: Any, on_error: str) -> None:
    if on_error not in ("raise", "return"):
        raise InputError(f"on_error is '{on_error}'; expected 'raise' or 'return'.")
    if isinstance(sources, str | os.PathLike | Clip):
        raise InputError(
            f"{method}() takes a list of sources and was given one ({type(sources).__name__}): {method}([source])."
        )


def _models(
    model: str | DferModel | Sequence[str | DferModel], pretrained: str | Sequence[str] | None, options: dict[str, Any]
) -> list[DferModel]:
    given = [model] if isinstance(model, str | DferModel) else list(model)
    tags: list[str | None] = [pretrained] if pretrained is None or isinstance(pretrained, str) else list(pretrained)
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
        raise InputError(f"{name} without weights answers at random; name some: pretrained=... ({tags}).")
    if record.distribution == "composed" or model.labels != record.labels:
        raise InputError(
            f"{record.name} has not learned the labels {', '.join(model.labels)}: its head is new and answers at random. "
            "Train it first, and give the trained model."
        )
    return model


def _with_progress(sources: Iterable[Any], progress: bool | None) -> Iterable[Any]:
    shown = sys.stderr.isatty() if progress is None else progress
    if not shown or (isinstance(sources, Sized) and len(sources) < 2):
        return sources
    try:
        from tqdm import tqdm
    except ImportError:
        return sources
    return tqdm(sources, unit="clip", leave=False)


# -- one pass over a clip ----------------------------------------------------------------------------------------------


def _part(clip: Clip, span: tuple[float, float | None]) -> tuple[Clip, int]:
    """(the clip of a window, the number of its first frame)"""
    start, stop = span
    if stop is None or (start == 0.0 and stop == clip.duration):
        return clip, 0
    part = clip.cut(start, stop)
    return part, getattr(part.frames, "start", 0)


def _plans(clip: Clip, span: tuple[float, float | None], transforms: Sequence[Transform]) -> tuple[list[Plan], int]:
    """(the frames that each transform takes from a window, the number of the window's first frame)"""
    part, first = _part(dataclasses.replace(clip, waveform=None), span)
    return [transform.plan(part) for transform in transforms], first


def _thumbnail(clip: Clip, buffer: FrameBuffer, index: int) -> tuple[float, np.ndarray]:
    """(seconds, a small picture) of a frame."""
    second = float(clip.times[index]) if clip.times is not None else index / (clip.fps or 1.0)
    return second, pillow_bilinear(buffer.take([index])[0], THUMBNAIL, THUMBNAIL)


def _seconds(clip: Clip, frames: Sequence[int]) -> tuple[float, float] | None:
    """First and last second of these frames, in order, if the clip has a frame rate."""
    if not frames or clip.duration is None or not (clip.fps or clip.times is not None):
        return None
    first, last = (
        float(clip.times[number]) if clip.times is not None else number / (clip.fps or 1.0)
        for number in (frames[0], frames[-1])
    )
    return first, min(last + (1 / clip.fps if clip.fps else 0.0), clip.duration)


def _lowest_later(plan: Sequence[set[int]]) -> list[int]:
    """For every window, the lowest frame that a later window needs."""
    lowest, result = sys.maxsize, []
    for wanted in reversed(plan):
        result.append(lowest)
        lowest = min([lowest, *wanted])
    return result[::-1]


def _finish(pending: PendingPrediction | DferZooError, on_error: str, embed: bool) -> Any:
    if isinstance(pending, DferZooError):
        return pending
    try:
        return pending.embedding() if embed else pending.prediction()
    except DferZooError as error:
        if on_error == "raise":
            raise
        return error
