"""A model's answers for a list of labelled clips, and what they amount to."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.annotations import Row, read_row
from ..errors import InputError
from ..media.clip import Clip
from ..transforms import Transform, collate, create_transform
from . import metrics


@torch.inference_mode()
def probabilities(
    model: Any,
    rows: Sequence[Row],
    *,
    transform: Transform | None = None,
    batch_size: int = 8,
    without: Sequence[str] = (),
    faces: Any = "none",
    no_face: str = "error",
    progress: bool = False,
) -> np.ndarray:
    """(clips, classes). Views along time are averaged as published. ``without=("audio",)`` withholds a modality.
    ``faces`` and ``no_face``, as `read_clip` takes them, are for data that are no face crops yet; the crop rule is the
    weights' own."""
    for name in without:
        if name not in model.optional_inputs:
            able = ", ".join(model.optional_inputs) or "none"
            raise InputError(f"{type(model).__name__} cannot do without {name}; inputs that may be missing: {able}.")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; expected 1 or more.")
    if not rows:
        raise InputError("There is no clip to evaluate.")
    transform = transform or create_transform(model)
    read = functools.partial(read_row, faces=faces, crop=transform.face_crop, no_face=no_face)
    views = _samples(map(read, _shown(rows, progress)), transform, without)
    reference = next(model.parameters())
    training, sums, counts = model.training, np.zeros((len(rows), model.num_classes)), np.zeros((len(rows), 1))
    model.eval()
    try:
        for numbers, samples in _batches(views, batch_size):
            inputs = {k: None if v is None else v.to(reference) for k, v in collate(samples).items()}
            answers = model(**inputs).float().softmax(-1).cpu().numpy()
            np.add.at(sums, numbers, answers)
            np.add.at(counts, numbers, 1)
    finally:
        model.train(training)
    return sums / counts


def _samples(
    clips: Iterable[Clip], transform: Transform, without: Sequence[str]
) -> Iterator[tuple[int, dict[str, Tensor | None]]]:
    for number, clip in enumerate(clips):
        for sample in transform.views(clip):
            yield number, {name: None if name in without else tensor for name, tensor in sample.items()}


def _shown(rows: Sequence[Row], progress: bool) -> Iterable[Row]:
    if not progress:
        return rows
    try:
        from tqdm import tqdm
    except ImportError:  # the extra "train"
        return rows
    return tqdm(rows, desc="clips", leave=False)


def _batches(
    samples: Iterator[tuple[int, dict[str, Tensor | None]]], batch_size: int
) -> Iterator[tuple[list[int], list[dict[str, Tensor | None]]]]:
    """Up to so many samples that have the same modalities."""
    numbers: list[int] = []
    batch: list[dict[str, Tensor | None]] = []
    for number, sample in samples:
        other = batch and [v is None for v in sample.values()] != [v is None for v in batch[0].values()]
        if len(batch) == batch_size or other:
            yield numbers, batch
            numbers, batch = [], []
        numbers.append(number)
        batch.append(sample)
    if batch:
        yield numbers, batch


def report(rows: Sequence[Row], answers: np.ndarray, labels: Sequence[str]) -> str:
    """Rates, and the clips and the recall of every class, as a table in plain text."""
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
    return metrics.confusion([row.label for row in rows], answers.argmax(1).tolist(), answers.shape[1])
