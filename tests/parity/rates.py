"""Measures of the authors' evaluation programs that the zoo itself does not report. Rates are in per cent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np


def top_k(logits: np.ndarray, targets: Sequence[int], k: int) -> float:
    """Share of clips whose class is among the k highest logits; k is cut to the number of classes."""
    logits = np.asarray(logits)
    best = np.argsort(-logits, axis=1, kind="stable")[:, : min(k, logits.shape[1])]
    return float(100.0 * (best == np.asarray(targets)[:, None]).any(1).mean())


def f1(table: np.ndarray) -> dict[str, float]:
    """F1 over the classes that occur as true or predicted ones: weighted by clips, from pooled counts, plain mean."""
    right, clips, guessed = np.diag(table).astype(float), table.sum(1), table.sum(0)
    occurs = clips + guessed > 0
    each = 2 * right[occurs] / (clips + guessed)[occurs]
    return {
        "weighted_f1": float(100.0 * (each * clips[occurs]).sum() / table.sum()),
        "micro_f1": float(100.0 * right.sum() / table.sum()),
        "macro_f1": float(100.0 * each.mean()),
    }


class View(NamedTuple):
    """The output of a model for one view of a clip."""

    clip: str
    logits: Sequence[float]
    label: Any
    segment: int = 0
    crop: int = 0


def merge_views(
    views: Iterable[View], group: Callable[[str], str] = str, answer: Callable[[np.ndarray], np.ndarray] | None = None
) -> tuple[list[str], np.ndarray, list[Any]]:
    """(clips, mean probabilities (clips, K), labels), in the order in which the clips first appear.

    Probabilities are averaged, not logits. Processes that pad their last batch repeat views; the first one counts.

    Args:
        views: The views of all processes, one process after the other.
        group: Name under which a clip's views are merged.
        answer: Used instead of the softmax.
    """
    seen: set[tuple[str, int, int]] = set()
    answers: dict[str, list[np.ndarray]] = {}
    labels: dict[str, Any] = {}
    for view in views:
        if (key := (view.clip, view.segment, view.crop)) in seen:
            continue
        seen.add(key)
        name = group(view.clip)
        answers.setdefault(name, []).append((answer or _softmax)(np.asarray(view.logits, dtype=np.float64)))
        labels.setdefault(name, view.label)
    return list(answers), np.stack([np.mean(each, axis=0) for each in answers.values()]), list(labels.values())


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


class RunningMean:
    """A mean over clips from the means over batches of any size."""

    def __init__(self) -> None:
        self.total, self.clips = 0.0, 0

    def add(self, mean: float, clips: int) -> None:
        self.total, self.clips = self.total + mean * clips, self.clips + clips

    @property
    def value(self) -> float:
        return self.total / self.clips
