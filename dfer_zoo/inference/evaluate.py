"""Predict a list of labelled clips, and compute recognition rates."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.annotations import Row, read_row
from ..errors import DferZooError, InputError, MediaError
from ..media.clip import Clip
from ..transforms import Transform, create_transform, faces_of_training
from . import metrics, processes
from .prediction import Prediction
from .recognizer import Recognizer

SHOWN = 10  # unreadable clips that a report names; more are counted


@dataclass(frozen=True)
class Evaluation:
    """The predictions for the clips of a list.

    Args:
        rows: The clips that were predicted.
        answers: Their probabilities, (clips, classes).
        failed: The clips that cannot be read, each with the reason.
        missing: How many of the predicted clips lack a modality.
        short: How many of the predicted clips have fewer frames than their list says.
        skipped: One sentence per line of the list that was left out.
    """

    rows: tuple[Row, ...]
    answers: np.ndarray
    failed: tuple[tuple[Row, str], ...] = ()
    missing: Mapping[str, int] = field(default_factory=dict)
    short: int = 0
    skipped: tuple[str, ...] = ()

    @property
    def confusion(self) -> np.ndarray:
        """Counts of clips by true class (rows) and most probable class (columns)."""
        predicted = self.answers.argmax(1).tolist()
        return metrics.confusion([row.label for row in self.rows], predicted, self.answers.shape[1])

    def remarks(self) -> list[str]:
        """Sentences about the clips that were incomplete, failed or left out."""
        clips, lines = len(self.rows), []
        lines += [f"{count} of {clips} clips were evaluated without {name}." for name, count in self.missing.items()]
        if self.short:
            lines.append(f"{self.short} of {clips} clips have fewer frames than the list says.")
        for what, reasons in (
            ("cannot be read and {} not counted", [reason for _, reason in self.failed]),
            ("{} left out", list(self.skipped)),
        ):
            if reasons:
                verb = "is" if len(reasons) == 1 else "are"
                lines.append(f"{len(reasons)} clip{'s' * (len(reasons) > 1)} {what.format(verb)}:")
                lines += [f"  {reason}" for reason in reasons[:SHOWN]]
                lines += [f"  and {len(reasons) - SHOWN} more"] * (len(reasons) > SHOWN)
        return lines


def check_sound(model: Any, rows: Sequence[Row], without: Sequence[str]) -> None:
    """Raise an error if a model takes audio and no clip has sound, unless audio is withheld on purpose.

    Raises:
        InputError: No clip of the list has sound.
    """
    if "audio" not in model.inputs or "audio" in without:
        return
    if not any(row.audio is not None or _may_hold_sound(row.path) for row in rows):
        raise InputError(
            f"{type(model).__name__} takes video and audio, and none of the {len(rows)} clips has sound. Give the place "
            "of the sound files (--audio dfew, mafw, or a template), or ask for an evaluation without (--without audio)."
        )


def _may_hold_sound(path: str) -> bool:
    """Whether this is a video file or a puppet, and not a folder of frames, prepared faces or a missing file."""
    return path.startswith("puppet:") or (not path.endswith(".npy") and Path(path).is_file())


def evaluate(
    model: Any,
    rows: Sequence[Row],
    *,
    transform: Transform | None = None,
    batch_size: int = 8,
    without: Sequence[str] = (),
    strict: bool = False,
    progress: bool = False,
    shared: bool = False,
) -> Evaluation:
    """Predict labelled clips, each as a whole, as in the published evaluations.

    Args:
        model: A model with labels.
        rows: Clips from `data.annotations.read_rows`.
        transform: From `create_transform`, which also says how to find faces. By default the model's own, with the
            face detector of its training if the record names one; else frames are used as face crops.
        batch_size: Views per forward pass.
        without: Modalities to withhold, such as ``("audio",)``.
        strict: Raise the error of the first clip that cannot be read. By default such clips are counted in ``failed``.
        progress: Show a progress bar.
        shared: Share the clips between the processes of `torchrun` or `accelerate launch`. Every process returns the
            predictions for all clips.

    Returns:
        The predictions.

    Raises:
        InputError: An argument is wrong, or there are no clips.
        MediaError: A clip cannot be read and ``strict`` is set, or no clip can be read.
    """
    _check_arguments(model, rows, without)
    found = _answers(model, rows, transform, batch_size, without, strict, progress, shared)
    return _evaluation(rows, found)


def embeddings(
    model: Any,
    rows: Sequence[Row],
    *,
    transform: Transform | None = None,
    batch_size: int = 8,
    strict: bool = False,
    progress: bool = False,
) -> Evaluation:
    """Compute embeddings of labelled clips: `evaluate` with the features before the classifier in ``answers``.

    Args:
        model: Any model.
        rows: Clips from `data.annotations.read_rows`.
        transform: From `create_transform`. By default the frames are face crops.
        batch_size: Views per forward pass.
        strict: Raise the error of the first clip that cannot be read.
        progress: Show a progress bar.

    Returns:
        An evaluation with ``answers`` (clips, features).

    Raises:
        InputError: There are no clips.
        MediaError: A clip cannot be read and ``strict`` is set, or no clip can be read.
    """
    _check_arguments(model, rows, ())
    return _evaluation(rows, _answers(model, rows, transform, batch_size, (), strict, progress, False, embed=True))


@dataclass(frozen=True)
class _Answer:
    """The result for one clip, or the reason why there is none."""

    number: int  # of the row
    values: np.ndarray | None  # probabilities, or an embedding
    reason: str = ""
    missing: tuple[str, ...] = ()
    short: bool = False


def _answers(
    model: Any,
    rows: Sequence[Row],
    transform: Transform | None,
    batch_size: int,
    without: Sequence[str],
    strict: bool,
    progress: bool,
    shared: bool,
    embed: bool = False,
) -> list[_Answer]:
    """Return one result per row, in order."""
    if transform is None:
        transform = create_transform(model, faces=faces_of_training(model.video_spec, "none"))
    short: set[int] = set()

    def read(place: tuple[int, Row]) -> Clip:
        number, row = place
        clip = transform.crop(read_row(row, frame_count=transform.frame_count))
        if "short" in clip.notes:
            short.add(number)
        if "audio" in without:
            clip = dataclasses.replace(clip, waveform=None)
        return dataclasses.replace(clip, frames=None) if "video" in without else clip

    places = list(enumerate(rows))
    if shared:
        places = processes.share(places)
    training = model.training
    recognizer = Recognizer(model, faces="none", window=None, batch_size=batch_size)
    recognizer.transforms = [transform]
    try:
        computed = recognizer.answers(places, read, "raise" if strict else "return", progress, embed=embed)
        found = [_answer(number, answer, short) for (number, _), answer in zip(places, computed)]
    finally:
        model.train(training)
    return sorted(processes.gather(found), key=lambda answer: answer.number) if shared else found


def _answer(number: int, answer: Prediction | np.ndarray | DferZooError, short: set[int]) -> _Answer:
    if isinstance(answer, DferZooError):
        return _Answer(number, None, str(answer))
    if isinstance(answer, Prediction):
        return _Answer(number, np.array(answer.probabilities), missing=tuple(answer.missing), short=number in short)
    return _Answer(number, np.asarray(answer), short=number in short)


def _evaluation(rows: Sequence[Row], found: Sequence[_Answer]) -> Evaluation:
    failed = [(rows[answer.number], answer.reason) for answer in found if answer.values is None]
    if len(failed) == len(rows):
        raise MediaError(f"None of the {len(rows)} clips can be read; the first: {failed[0][1]}")
    answered = [answer for answer in found if answer.values is not None]
    return Evaluation(
        tuple(rows[answer.number] for answer in answered),
        np.array([answer.values for answer in answered]),
        tuple(failed),
        dict(collections.Counter(name for answer in answered for name in answer.missing)),
        sum(answer.short for answer in answered),
        getattr(rows, "skipped", ()),
    )


def _check_arguments(model: Any, rows: Sequence[Row], without: Sequence[str]) -> None:
    for name in without:
        if name not in model.optional_inputs:
            able = ", ".join(model.optional_inputs) or "none"
            raise InputError(f"{type(model).__name__} needs {name}; inputs that may be missing: {able}.")
    if not rows:
        raise InputError("There are no clips to evaluate.")


def report(evaluation: Evaluation, labels: Sequence[str]) -> str:
    """Format the rates, the clips and recall of every class, and remarks on the clips, as plain text."""
    table = evaluation.confusion
    recalls = metrics.recalls(table)
    width = max(map(len, labels))
    lines = [f"UAR {metrics.uar(table):.2f}   WAR {metrics.war(table):.2f}   {int(table.sum())} clips", ""]
    lines.append(f"{'':{width}}  clips  recall")
    for name, clips, recall in zip(labels, table.sum(1), recalls):
        lines.append(f"{name:{width}}  {int(clips):5d}  {'-' if np.isnan(recall) else f'{recall:6.2f}':>6}")
    if absent := [name for name, clips in zip(labels, table.sum(1)) if not clips]:
        present = metrics.uar_of_present(table)
        lines += ["", f"There is no clip of {', '.join(absent)}; the mean recall of the others is {present:.2f}."]
    if remarks := evaluation.remarks():
        lines += ["", *remarks]
    return "\n".join(lines)
