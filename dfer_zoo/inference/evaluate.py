"""Predictions for a list of labelled clips, and the rates that follow from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..data.annotations import Row, read_row
from ..errors import DferZooError, InputError
from ..media.clip import Clip
from ..transforms import Transform, create_transform
from . import metrics
from .prediction import Prediction
from .recognizer import Recognizer


def predictions(
    model: Any,
    rows: Sequence[Row],
    *,
    transform: Transform | None = None,
    batch_size: int = 8,
    without: Sequence[str] = (),
    faces: Any = "none",
    no_face: str = "error",
    on_error: str = "raise",
    progress: bool = False,
) -> Iterator[Prediction | DferZooError]:
    """Yield the prediction for each row, in order, each clip as a whole as in the published evaluations.

    Args:
        model: The model; it is put into eval mode meanwhile.
        rows: The labelled clips.
        transform: In place of the transform of the model's weights.
        batch_size: Clips in a batch.
        without: Inputs to withhold, such as ``("audio",)``; the model must be able to do without them.
        faces: How faces are found where the data are not face crops yet, see `create_transform`.
        no_face: "error", or "frame" to take whole frames of a clip without a face.
        on_error: "raise", or "return" to yield the error of an unusable clip and go on.
        progress: Show a progress bar.
    """
    for name in without:
        if name not in model.optional_inputs:
            able = ", ".join(model.optional_inputs) or "none"
            raise InputError(f"{type(model).__name__} cannot do without {name}; inputs that may be missing: {able}.")
    if not rows:
        raise InputError("There are no clips to evaluate.")
    training = model.training
    recognizer = Recognizer(model, faces="none", window=None, batch_size=batch_size)  # `read_row` crops
    crop = (transform or create_transform(model)).face_crop
    if transform is not None:
        recognizer.transforms = [dataclasses.replace(transform, faces="none")]

    def read(row: Row) -> Clip:
        clip = read_row(row, faces=faces, crop=crop, no_face=no_face)
        withheld = {"audio": {"waveform": None}, "video": {"frames": None}}
        return dataclasses.replace(clip, **{k: v for name in without for k, v in withheld[name].items()})

    try:
        yield from recognizer.answers(rows, read, on_error, progress)
    finally:
        model.train(training)


def probabilities(model: Any, rows: Sequence[Row], **options: Any) -> np.ndarray:
    """The probabilities of all rows, (clips, classes); options are those of `predictions`."""
    answers = predictions(model, rows, **options)
    return np.array([answer.probabilities for answer in answers if isinstance(answer, Prediction)])


def report(rows: Sequence[Row], answers: np.ndarray, labels: Sequence[str]) -> str:
    """The rates, and the clips and recall of every class, as a plain-text table."""
    table = confusion(rows, answers)
    recalls = metrics.recalls(table)
    width = max(map(len, labels))
    lines = [f"UAR {metrics.uar(table):.2f}   WAR {metrics.war(table):.2f}   {int(table.sum())} clips", ""]
    lines.append(f"{'':{width}}  clips  recall")
    for name, clips, recall in zip(labels, table.sum(1), recalls):
        lines.append(f"{name:{width}}  {int(clips):5d}  {'-' if np.isnan(recall) else f'{recall:6.2f}':>6}")
    if absent := [name for name, clips in zip(labels, table.sum(1)) if not clips]:
        present = metrics.uar_of_present(table)
        lines += ["", f"There is no clip of {', '.join(absent)}; the mean recall of the others is {present:.2f}."]
    return "\n".join(lines)


def confusion(rows: Sequence[Row], answers: np.ndarray) -> np.ndarray:
    """The confusion table of the most probable classes: rows are the true classes."""
    return metrics.confusion([row.label for row in rows], answers.argmax(1).tolist(), answers.shape[1])
