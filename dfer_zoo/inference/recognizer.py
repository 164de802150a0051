"""From a video file to a labelled answer, with a timeline.

>>> recognizer = Recognizer("mma_dfer", "dfew_fold1")                   # doctest: +SKIP
>>> recognizer("interview.mp4").label                                   # doctest: +SKIP
'happiness'

It does what `read_clip`, `create_transform` and the model do one after the other, for many files, many windows of a
file, and several folds; nothing is computed differently.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import math
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DferZooError, InputError, MediaError
from ..factory import check_place, create_model
from ..media.clip import (
    MOST_CHANNELS,
    SHORTEST_SOUND,
    Clip,
    Frames,
    check_fps,
    check_sample_rate,
    float_samples,
    in_order,
)
from ..media.faces import check_faces
from ..media.files import SoundCursor, SoundFile, read_clip
from ..models.base import DferModel
from ..registry import list_pretrained
from ..transforms import Transform, collate, create_transform, images
from ..transforms.face_windows import majority
from ..transforms.sampling import BLACK, sees

BASELINE = "mini_xception.fer2013"  # inside the package, for whoever names no model
BASELINE_NOTE = (
    f"frame-wise baseline, FER2013 ({BASELINE}); for clip-level systems name one: mma_dfer.dfew_fold1, "
    "mae_dfer.dfew_fold1, dfer_clip.dfew_fold1, emo_affectnet.aff_wild2, ... (dfer-zoo list)"
)
AUTO_WINDOW = 4.0  # seconds; clips of the data sets last 2 to 5
LOOKED_AT = 0.75  # of a clip; less is said
SHORTEST_AUTO_WINDOW = 3.0
AUTO_FROM = 2.0  # a clip that is longer than so many windows is answered in windows
SHORTEST_STRIDE = 0.01  # seconds
MOST_WINDOWS = 100_000  # of a file; a wrong frame rate makes days of a minute


# -- answers -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """What the models say about a part of a clip."""

    start: float  # seconds
    stop: float | None  # None where no rate is known
    probabilities: tuple[float, ...]
    missing: tuple[str, ...] = ()  # modalities that the models did without


@dataclass(frozen=True)
class Prediction:
    """The answer for one clip. Probabilities are means: over views, folds and windows."""

    source: str
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    windows: tuple[Window, ...]  # those without anything that the models need are left out
    models: tuple[dict[str, Any], ...]  # the identity of the weights; more than one is averaged
    missing: tuple[str, ...] = ()  # modalities that some window lacked
    faces: Mapping[str, Any] | None = None  # the detector, the crop rule, in how many frames a face was found
    sample_rate: int | None = None  # of the sound, where it is heard at its own rate and that is a part of the input
    seen: tuple[float, float] | None = None  # first and last second of the frames that were looked at
    duration: float | None = None  # seconds of the clip
    logits: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False)  # (windows, models, views, classes)

    @property
    def label(self) -> str:
        return self.labels[int(np.argmax(self.probabilities))]

    @property
    def majority(self) -> str:
        """The label that is most often the best one of a window, the first one among equals: EMO-AffectNet's rule for a
        clip. `label` is the best one of the mean."""
        return self.labels[majority([window.probabilities for window in self.windows])]

    @property
    def cautions(self) -> tuple[str, ...]:
        """What the weights are not for."""
        return tuple(dict.fromkeys(model["caution"] for model in self.models if model.get("caution")))

    @property
    def overlooked(self) -> str | None:
        """A sentence where much of the clip was not looked at."""
        if self.seen is None or self.duration is None or self.seen[1] - self.seen[0] > LOOKED_AT * self.duration:
            return None
        return f"frames from {self.seen[0]:.1f} s to {self.seen[1]:.1f} s of {self.duration:.1f} s were looked at"

    def top(self, count: int = 3) -> list[tuple[str, float]]:
        """The most probable labels, the best first."""
        return sorted(zip(self.labels, self.probabilities), key=lambda pair: -pair[1])[:count]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""

        def named(probabilities: Sequence[float]) -> dict[str, float]:
            return dict(zip(self.labels, probabilities))

        return {
            "source": self.source,
            "label": self.label,
            "probabilities": named(self.probabilities),
            "windows": [
                {"start": w.start, "stop": w.stop, "probabilities": named(w.probabilities), "missing": list(w.missing)}
                for w in self.windows
            ],
            "models": [dict(model) for model in self.models],
            "missing": list(self.missing),
            "faces": None if self.faces is None else dict(self.faces),
            "sample_rate": self.sample_rate,
            "seen": None if self.seen is None else list(self.seen),
            "duration": self.duration,
        }

    def plot(self, path: str | Path | None = None) -> Any:
        """The probabilities over time, or bars where there is one window. Returns the figure, and writes it to a path."""
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise InputError('Plots need matplotlib: pip install "dfer-zoo[plot]".') from error
        figure = Figure(figsize=(9, 4), layout="constrained")
        axes = figure.add_subplot(ylim=(0, 1))
        axes.set_title(f"{Path(self.source).name}: {self.label}", parse_math=False)  # a $ in a name is a $
        if remarks := [*self.cautions, *([self.overlooked] if self.overlooked else [])]:
            wrapped = "\n".join(line for remark in remarks for line in textwrap.wrap(remark, 120))
            figure.supxlabel(wrapped, fontsize="small", color="dimgray", parse_math=False)
        if len(self.windows) > 1:
            times = [w.start if w.stop is None else (w.start + w.stop) / 2 for w in self.windows]
            for label, line in zip(self.labels, np.array([w.probabilities for w in self.windows]).T):
                axes.plot(times, line, label=label, marker=".")
            axes.set(xlabel="seconds", ylabel="probability")
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        else:
            axes.bar(self.labels, self.probabilities)
            axes.set(ylabel="probability")
            axes.tick_params(axis="x", rotation=45)
        if path is not None:
            try:
                figure.savefig(path)
            except (OSError, ValueError) as error:
                raise InputError(f"The plot cannot be written to {path} ({error}).") from error
        return figure


# -- the recognizer ----------------------------------------------------------------------------------------------------


class Recognizer:
    """Files in, labelled probabilities out.

    ``model`` and ``pretrained`` are those of `create_model`, or a model that is there already, which is put into eval
    mode and on the device. Without a model it is the frame-wise baseline inside the package, and says so on stderr.
    Several tags, such as the folds of one data set, or several models, are averaged in their probabilities. ``faces`` and
    ``no_face`` are those of `faces.find`; the crop rule is the weights' own. ``window`` and ``stride`` in seconds give an
    answer over time. With "auto" clips that are much longer than what the models see, or than the clips of the data sets,
    are answered in windows; with None the clip is seen as a whole, as in the published evaluations. Other options go to
    `create_model`.
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
        **options: Any,
    ) -> None:
        check_window(window, stride)
        check_place(device, dtype)
        if device is not None and torch.device(device).type == "meta":
            raise InputError("device 'meta' cannot be used here (nothing is computed on it).")
        check_faces(faces, no_face)  # an error now, and not once for every file
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; expected 1 or more.")
        if model is None:
            if pretrained is not None:
                raise InputError(f"pretrained={pretrained!r} without a model means nothing; name the model too.")
            model = BASELINE
            print(f"dfer_zoo: {BASELINE_NOTE}", file=sys.stderr)
        self.models = _models(model, pretrained, {**options, "device": device, "dtype": dtype})
        self.labels = self.models[0].labels
        self.faces, self.no_face, self.window, self.stride = faces, no_face, window, stride
        self.batch_size = batch_size
        self.transforms = [create_transform(model) for model in self.models]
        crops = {t.video.face_crop for t in self.transforms if t.video is not None}
        if len(crops) > 1:
            raise InputError(f"The models were trained on different face crops ({', '.join(sorted(crops))}).")
        self.crop = crops.pop() if crops else "aligned"

    def __call__(self, source: Any, **reading: Any) -> Prediction:
        """The answer for one file, folder, array or `Clip`; keywords (fps, audio, order, recover) go to `read_clip`."""
        (answer,) = self.many([source], progress=False, **reading)
        assert isinstance(answer, Prediction)
        return answer

    def many(
        self, sources: Iterable[Any], *, on_error: str = "raise", progress: bool | None = None, **reading: Any
    ) -> Iterator[Prediction | DferZooError]:
        """Answers for many sources, in their order, in full batches. With ``on_error="return"`` a source that cannot be
        used gives its error in place of an answer. A progress bar is shown on a terminal."""
        if on_error not in ("raise", "return"):
            raise InputError(f"on_error is '{on_error}'; expected 'raise' or 'return'.")
        if isinstance(sources, str | os.PathLike | Clip):
            raise InputError(
                f"many() takes a list of sources and was given one ({type(sources).__name__}); call the recognizer itself."
            )
        waiting: collections.deque[_Answer | DferZooError] = collections.deque()
        runners = self._runners()
        for source in _with_progress(sources, progress):
            try:
                waiting.append(self._submit(source, runners, reading))
            except DferZooError as error:
                if on_error == "raise":
                    raise
                for runner in runners:
                    runner.drop_clip()
                waiting.append(error)
            while waiting and not (isinstance(waiting[0], _Answer) and waiting[0].open):
                yield _finish(waiting.popleft(), on_error)
        for runner in runners:
            runner.flush()
        for answer in waiting:
            yield _finish(answer, on_error)

    def stream(self, fps: float, *, sample_rate: int | None = None) -> Stream:
        """For frames that come one by one, as from a camera: see `Stream`."""
        return Stream(self, fps, sample_rate)

    def _runners(self) -> list[_Runner]:
        return [_Runner(model, t, self.batch_size) for model, t in zip(self.models, self.transforms)]

    def _submit(self, source: Any, runners: list[_Runner], reading: Mapping[str, Any]) -> _Answer:
        """Read a source and give all of its windows to the runners; some of them may be computed later."""
        looks = any(t.video is not None for t in self.transforms)
        faces = self.faces if looks and not (isinstance(source, Clip) and "faces" in source.notes) else "none"
        windowed = self.window is not None
        clip = read_clip(source, faces=faces, crop=self.crop, no_face=self.no_face, stream=windowed, **reading)
        if isinstance(clip.waveform, SoundFile):
            clip = dataclasses.replace(clip, waveform=SoundCursor(clip.waveform))
        times = self._times(clip)
        answer = _Answer(clip, times, self)
        plan = [_frames_wanted(clip, span, self.transforms) for span in times]
        answer.seen = _seconds(clip, set().union(*plan))
        shelf = None if clip.frames is None else Shelf(clip.frames, sorted(set().union(*plan)))
        needed_later = _lowest_to_come(plan)
        refusals: list[str] = []
        for number, (span, lowest) in enumerate(zip(times, needed_later)):
            part, first = _part(dataclasses.replace(clip, frames=shelf), span)
            if reasons := [reason for t in self.transforms if (reason := t.refusal(part))]:
                refusals.append(reasons[0])
                continue
            for place, runner in enumerate(runners):
                runner.add(part, first, answer, (number, place), lowest)
            if shelf is not None:
                shelf.forget(lowest)
        if len(refusals) == len(times):
            raise MediaError(refusals[0])
        for runner in runners:
            runner.end_of_clip()
        return answer

    def _times(self, clip: Clip) -> list[tuple[float, float | None]]:
        window = self._window(clip)
        if window is None:
            return [(0.0, clip.duration)]
        if clip.duration is None:
            raise MediaError(f"{clip.source}: windows are in seconds and the frame rate is not known; give fps.")
        stride = window / 2 if self.stride is None else self.stride
        if (clip.duration - window) / stride > MOST_WINDOWS:
            raise MediaError(
                f"{clip.source}: there are more than {MOST_WINDOWS} windows of {window:g} s, one every {stride:g} s, "
                f"in {clip.duration:g} s; take a longer stride, or look whether the frame rate is right."
            )
        return list(window_times(clip.duration, window, stride))

    def _window(self, clip: Clip) -> float | None:
        """Seconds of a window, or None for the clip as a whole."""
        if not isinstance(self.window, str):
            return self.window
        window = auto_window(self.transforms, clip.fps)
        return window if clip.duration is not None and clip.duration > AUTO_FROM * window else None


def _models(
    model: str | DferModel | Sequence[str | DferModel], pretrained: str | Sequence[str] | None, options: dict[str, Any]
) -> list[DferModel]:
    given = [model] if isinstance(model, str | DferModel) else list(model)
    tags: list[str | None] = [pretrained] if pretrained is None or isinstance(pretrained, str) else list(pretrained)
    if not given or not tags:
        raise InputError("There is no model to ask: the list of models, or of weights, is empty.")
    building = [*([] if pretrained is None else ["pretrained"]), *(options.keys() - {"device", "dtype"})]
    if building and any(isinstance(one, DferModel) for one in given):
        raise InputError(f"{', '.join(sorted(building))} cannot be given with a model that is there already.")
    models = []
    for one in given:
        for tag in tags:
            models.append(_ready(one, options) if isinstance(one, DferModel) else _created(one, tag, options))
    for other in models:
        if other.num_classes < 2:
            raise InputError(
                f"{type(other).__name__} has no classes to tell apart; give one that was trained on labels."
            )
        if other.labels != models[0].labels:
            raise InputError(
                f"The labels differ, so answers cannot be averaged: {', '.join(models[0].labels)} and "
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


def auto_window(transforms: Sequence[Transform], fps: float | None) -> float:
    """Seconds of a window where none is given: what the models see at once, or as long as a clip of the data sets."""
    spans = [span for transform in transforms if (span := span_seen(transform, fps)) is not None]
    longest = max(spans, default=AUTO_WINDOW)
    return longest if longest >= SHORTEST_AUTO_WINDOW else AUTO_WINDOW


def span_seen(transform: Transform, fps: float | None) -> float | None:
    """Seconds that the views look at together; None where that is the whole clip."""
    video, audio = transform.video, transform.audio
    if video is None:
        return audio.seconds if audio else None
    if video.sampling in ("leading_window", "centred_window") and video.window and (video.fps or fps):
        return video.window / (video.fps or fps or 1.0)
    if video.sampling == "strided" and fps:
        return video.segments * video.num_frames * video.rate / fps
    return None


def check_window(window: float | str | None, stride: float | None) -> None:
    if isinstance(window, str) and window != "auto":
        raise InputError(f"window is {window!r}; expected seconds, 'auto', or None for the clip as a whole.")
    for name, value in (("window", None if window == "auto" else window), ("stride", stride)):
        if value is not None and not (math.isfinite(value) and value >= SHORTEST_STRIDE):  # type: ignore[arg-type]
            raise InputError(f"{name} is {value}; expected seconds, {SHORTEST_STRIDE} or more.")
    if stride is not None and window is None:
        raise InputError("A stride without a window means nothing; give window=, in seconds.")


def window_times(duration: float, window: float, stride: float | None = None) -> Iterator[tuple[float, float]]:
    """Windows over so many seconds, (start, stop); the stride is half a window unless it is given. The last window ends
    with the clip, and a clip that is shorter than a window is one.

    >>> list(window_times(5.0, 2.0, 2.0))
    [(0.0, 2.0), (2.0, 4.0), (3.0, 5.0)]
    """
    stride = window / 2 if stride is None else stride
    if duration <= window + 1e-6:
        yield 0.0, duration
        return
    count = math.floor((duration - window) / stride + 1e-6) + 1
    for number in range(count):
        yield number * stride, number * stride + window
    if (count - 1) * stride + window < duration - 1e-3 and (count - 1) * stride < duration - window:
        yield duration - window, duration


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


def _frames_wanted(clip: Clip, span: tuple[float, float | None], transforms: Sequence[Transform]) -> set[int]:
    part, first = _part(dataclasses.replace(clip, waveform=None), span)
    views = [view for transform in transforms for view in transform.frame_indices(part)]
    # a view of black frames only still looks at the first one, for its size
    return {first + index for view in views for index in ([i for i in view if i != BLACK] or [0])}


def _seconds(clip: Clip, frames: set[int]) -> tuple[float, float] | None:
    """First and last second of these frames, where the clip has times."""
    if not frames or clip.duration is None or not (clip.fps or clip.times is not None):
        return None
    first, last = (
        float(clip.times[number]) if clip.times is not None else number / (clip.fps or 1.0)
        for number in (min(frames), max(frames))
    )
    return first, min(last + (1 / clip.fps if clip.fps else 0.0), clip.duration)


def _lowest_to_come(plan: Sequence[set[int]]) -> list[int]:
    """For every window, the lowest frame that any later window looks at."""
    lowest, result = sys.maxsize, []
    for wanted in reversed(plan):
        result.append(lowest)
        lowest = min([lowest, *wanted])
    return result[::-1]


class Shelf:
    """The wanted frames of a clip, read in one pass and kept for as long as a window to come looks at them."""

    def __init__(self, frames: Frames, wanted: Sequence[int]) -> None:
        self._count = len(frames)
        self._walk = zip(wanted, in_order(frames, wanted))
        self._kept: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self._count

    def take(self, indices: Sequence[int]) -> list[np.ndarray]:
        while any(index not in self._kept for index in indices):
            number, frame = next(self._walk)
            self._kept[number] = frame
        return [self._kept[index] for index in indices]

    def forget(self, below: int) -> None:
        for number in [n for n in self._kept if n < below]:
            del self._kept[number]


class _Answer:
    """A prediction that is being put together: one row of logits for every window, model and view."""

    def __init__(self, clip: Clip, times: list[tuple[float, float | None]], recognizer: Recognizer) -> None:
        self.clip, self.times, self.recognizer = clip, times, recognizer
        self.rows: dict[tuple[int, int, int], list[float]] = {}
        self.expected = 0
        self.seen: tuple[float, float] | None = None
        self.missing: dict[int, set[str]] = {}  # by the window's number

    @property
    def open(self) -> bool:
        return len(self.rows) < self.expected

    def prediction(self) -> Prediction:
        if not all(math.isfinite(value) for row in self.rows.values() for value in row):
            raise DferZooError(
                f"{self.clip.source}: the model's answer is not finite; its weights, or their precision, cannot be used."
            )
        shape = [1 + max(key[axis] for key in self.rows) for axis in range(3)]
        logits = np.full((*shape, len(self.recognizer.labels)), np.nan, np.float32)
        for key, row in self.rows.items():
            logits[key] = row
        answered = sorted({window for window, _, _ in self.rows})
        logits = logits[answered]
        chances = torch.from_numpy(logits).double().softmax(-1).numpy()
        per_window = np.nanmean(
            np.nanmean(chances, axis=2), axis=1
        )  # views first: models may have more or less of them
        windows = [
            Window(*self.times[number], tuple(row.tolist()), tuple(sorted(self.missing[number])))
            for number, row in zip(answered, per_window)
        ]
        return Prediction(
            source=self.clip.source,
            labels=self.recognizer.labels,
            probabilities=tuple(per_window.mean(0).tolist()),
            windows=tuple(windows),
            models=tuple(_identity(model) for model in self.recognizer.models),
            missing=tuple(sorted(set().union(*self.missing.values()))),
            faces=dict(self.clip.notes["faces"]) if "faces" in self.clip.notes else None,
            sample_rate=_own_rate(self.clip, self.recognizer.transforms),
            seen=self.seen,
            duration=self.clip.duration,
            logits=logits,
        )


def _finish(answer: _Answer | DferZooError, on_error: str) -> Prediction | DferZooError:
    if isinstance(answer, DferZooError):
        return answer
    try:
        return answer.prediction()
    except DferZooError as error:
        if on_error == "raise":
            raise
        return error


def _own_rate(clip: Clip, transforms: Sequence[Transform]) -> int | None:
    """The rate of the sound, if a record names none and the front end works at the file's own."""
    own = any(transform.audio is not None and transform.audio.sample_rate is None for transform in transforms)
    return int(clip.sample_rate) if own and clip.waveform is not None and clip.sample_rate else None


def _identity(model: DferModel) -> dict[str, Any]:
    """Which weights these are, as far as anybody knows."""
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
class _Job:
    """One view of one window, ready for the model."""

    sample: dict[str, Tensor | None]  # by argument name
    answer: _Answer
    place: tuple[int, int, int]


class _Runner:
    """One model at work: fills batches, across windows and files, and files the rows where they belong."""

    def __init__(self, model: DferModel, transform: Transform, batch_size: int) -> None:
        self.model, self.transform, self.batch_size = model, transform, batch_size
        self.queues: dict[tuple[str, ...], list[_Job]] = {}  # by the modalities that are there
        reference = next(p for p in model.parameters() if p.is_floating_point())
        self.device, self.dtype = reference.device, reference.dtype
        self.visual = next((name for name in ("video", "image") if name in model.inputs), None)
        self.encoder = _FrameEncoder(self) if model.frame_independent and self.visual else None

    def add(self, clip: Clip, first: int, answer: _Answer, place: tuple[int, int], needed_later: int) -> None:
        """A window, whose first frame is frame `first` of its clip."""
        views = self.transform.frame_indices(clip)
        if self.encoder is not None and len(answer.times) * len(views) > 1 and any(map(sees, views)):
            assert self.visual is not None
            others = self.transform.without(self.visual)(clip)
            self._note(answer, place[0], others, len(views))
            self.encoder.add(clip, first, views, others, answer, place, needed_later)
            return
        samples = self.transform.views(clip)
        self._note(answer, place[0], samples[0], len(samples))
        for number, sample in enumerate(samples):
            self.queue(_Job(sample, answer, (*place, number)))

    def _note(self, answer: _Answer, window: int, sample: Mapping[str, Tensor | None], views: int) -> None:
        answer.expected += views
        answer.missing.setdefault(window, set()).update(name for name, tensor in sample.items() if tensor is None)

    def queue(self, job: _Job) -> None:
        there = tuple(name for name, tensor in job.sample.items() if tensor is not None)
        queue = self.queues.setdefault(there, [])
        queue.append(job)
        if len(queue) >= self.batch_size:
            self._run(self.queues.pop(there))

    def end_of_clip(self) -> None:
        if self.encoder is not None:
            self.encoder.finish()

    def drop_clip(self) -> None:
        """Forget the frames of a clip that turned out to be unusable; its rows are computed for nobody."""
        if self.encoder is not None:
            self.encoder.start()

    def flush(self) -> None:
        while self.queues:
            self._run(self.queues.popitem()[1])

    @torch.no_grad()
    def _run(self, jobs: Sequence[_Job]) -> None:
        batch = {name: self.place(tensor) for name, tensor in collate([job.sample for job in jobs]).items()}
        frames = batch.pop("frames", None)
        logits = self.model(**batch) if frames is None else self.model.forward_frames(frames, **batch)
        for job, row in zip(jobs, logits.float().cpu().tolist()):
            job.answer.rows[job.place] = row

    def place(self, tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(device=self.device, dtype=self.dtype)


class _FrameEncoder:
    """Encodes every frame of a clip once, however many windows look at it, for models that see frames one by one.

    Frames are collected until they fill a batch of the very shape that the plain path has, so that the numbers are the
    same ones to the last bit."""

    def __init__(self, runner: _Runner) -> None:
        self.runner = runner
        assert runner.transform.video is not None
        self.spec = runner.transform.video
        self.start()

    def start(self) -> None:
        self.features: dict[int, Tensor] = {}  # by the frame's number in the clip
        self.collected: dict[int, Tensor] = {}
        self.waiting: collections.deque[tuple[list[_Job], list[list[int]], int]] = collections.deque()

    def add(
        self,
        clip: Clip,
        first: int,
        views: list[list[int]],
        others: dict[str, Tensor | None],
        answer: _Answer,
        place: tuple[int, int],
        needed_later: int,
    ) -> None:
        jobs = [_Job(dict(others), answer, (*place, number)) for number in range(len(views))]
        numbers = [[BLACK if index == BLACK else first + index for index in view] for view in views]
        for number in sorted({n for view in numbers for n in view}):
            if number not in self.features and number not in self.collected:
                size = (self.spec.img_size, self.spec.img_size, 3)
                frame = np.zeros(size, np.uint8) if number == BLACK else clip.take([number - first])[0]
                self.collected[number] = images.prepare([frame], self.spec)[0]
        self.waiting.append((jobs, numbers, needed_later))
        while len(self.collected) >= self.spec.num_frames * self.runner.batch_size:
            self._encode(self.spec.num_frames * self.runner.batch_size)
        self._release()

    def finish(self) -> None:
        """The end of a clip: what is left, filled up with repetitions to whole clips."""
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
        """Windows whose frames are all encoded go to the model; features that nobody asks for any more are dropped."""
        while self.waiting:
            jobs, numbers, needed_later = self.waiting[0]
            if any(number not in self.features for view in numbers for number in view):
                return
            self.waiting.popleft()
            for job, view in zip(jobs, numbers):
                job.sample["frames"] = torch.stack([self.features[number] for number in view])
                self.runner.queue(job)
            for number in [n for n in self.features if BLACK < n < needed_later]:
                del self.features[number]


# -- frames as they come -----------------------------------------------------------------------------------------------


class Stream:
    """Answers while frames come in: one for every stride, about the last window.

    >>> live = recognizer.stream(fps=30)                                                    # doctest: +SKIP
    >>> for frame in camera:                                                                # doctest: +SKIP
    ...     if prediction := live.push(frame):
    ...         print(prediction.label)
    """

    def __init__(self, recognizer: Recognizer, fps: float, sample_rate: int | None = None) -> None:
        check_fps(fps)
        if sample_rate is not None:
            check_sample_rate(sample_rate, "stream")
        if recognizer.window is None:
            raise InputError("A stream has no end, so it needs windows: Recognizer(..., window=2.0).")
        self.fps, self.sample_rate = fps, sample_rate
        self.recognizer = copy.copy(recognizer)
        self.recognizer.window = self.recognizer.stride = None  # what is kept here is one window
        window = recognizer.window
        window = auto_window(recognizer.transforms, fps) if isinstance(window, str) else window
        self.length = max(1, round(window * fps))
        self.samples = round(self.length / fps * (sample_rate or 0))
        stride = window / 2 if recognizer.stride is None else recognizer.stride
        self.step = max(1, round(stride * fps))
        self.seen = 0
        self._frames: collections.deque[np.ndarray] = collections.deque(maxlen=self.length)
        # (number of the frame that they came with, samples)
        self._sound: collections.deque[tuple[int, np.ndarray]] = collections.deque()

    def push(self, frame: np.ndarray, sound: np.ndarray | None = None) -> Prediction | None:
        """The next RGB frame (H, W, 3) uint8, and the samples (channels, n) that were heard with it. An answer when a
        window is full and a stride has passed since the last answer, else None."""
        clip = Clip.from_arrays([frame], source="stream")  # checks the frame
        samples = None if sound is None else self._samples(sound)
        self._frames.append(np.ascontiguousarray(clip.take([0])[0]))  # BGR turned round is a view that OpenCV refuses
        self.seen += 1
        if samples is not None:
            self._sound.append((self.seen, samples))
        self._drop_old_sound()
        if self.seen < self.length or (self.seen - self.length) % self.step:
            return None
        return self._answer()

    def _samples(self, sound: np.ndarray) -> np.ndarray:
        if self.sample_rate is None:
            raise InputError("Sound came in and its rate is not known: stream(fps, sample_rate=...).")
        samples = np.atleast_2d(float_samples(sound, "stream"))
        allowed = {self._sound[0][1].shape[0]} if self._sound else range(1, MOST_CHANNELS + 1)
        if samples.ndim != 2 or samples.shape[0] not in allowed:
            raise InputError(
                f"The sound that came in is {samples.shape}; expected (channels, samples), 1 to {MOST_CHANNELS} channels "
                "and always as many."
            )
        return samples

    def _drop_old_sound(self) -> None:
        """What came before the window, by the frames; and what is more than a window, where it came faster than they."""
        while self._sound and self._sound[0][0] <= self.seen - self.length:
            self._sound.popleft()
        kept = sum(part.shape[1] for _, part in self._sound)
        while self._sound and kept - self._sound[0][1].shape[1] >= self.samples:
            kept -= self._sound.popleft()[1].shape[1]

    def _answer(self) -> Prediction:
        parts = [part for _, part in self._sound]
        waveform = np.concatenate(parts, axis=1)[:, -self.samples :] if parts else None
        if waveform is not None and waveform.shape[1] < SHORTEST_SOUND * (self.sample_rate or 1):
            waveform = None
        clip = Clip.from_arrays(
            list(self._frames), waveform, fps=self.fps, sample_rate=self.sample_rate, source="stream"
        )
        prediction = self.recognizer(clip)
        start = (self.seen - self.length) / self.fps
        (window,) = prediction.windows
        moved = dataclasses.replace(window, start=start, stop=self.seen / self.fps)
        return dataclasses.replace(prediction, windows=(moved,))
