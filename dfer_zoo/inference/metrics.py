"""Recognition rates from predicted and true classes. All rates are in percent."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InputError


def confusion(targets: Sequence[int], predictions: Sequence[int], num_classes: int) -> np.ndarray:
    """Count clips by true class (rows) and predicted class (columns).

    Args:
        targets: True class indices.
        predictions: Predicted class indices.
        num_classes: Number of classes.

    Returns:
        Counts (num_classes, num_classes).

    >>> confusion([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    true, guess = np.asarray(targets, dtype=np.int64), np.asarray(predictions, dtype=np.int64)
    if true.shape != guess.shape or true.ndim != 1:
        raise InputError(
            f"The targets have shape {true.shape} and the predictions {guess.shape}; expected two lists of the same length."
        )
    if true.size and (min(true.min(), guess.min()) < 0 or max(true.max(), guess.max()) >= num_classes):
        raise InputError(f"Class numbers must be in 0..{num_classes - 1}, found {np.union1d(true, guess).tolist()}.")
    return np.bincount(true * num_classes + guess, minlength=num_classes**2).reshape(num_classes, num_classes)


def recalls(table: np.ndarray) -> np.ndarray:
    """Return the recall of every class; NaN for classes without clips."""
    clips = table.sum(1)
    return np.divide(100.0 * np.diag(table), clips, out=np.full(len(table), np.nan), where=clips > 0)


def war(table: np.ndarray) -> float:
    """Return the weighted average recall: the share of correct clips."""
    return float(100.0 * np.trace(table) / table.sum()) if table.sum() else float("nan")


def uar(table: np.ndarray) -> float:
    """Return the unweighted average recall: the mean recall of the classes.

    Classes without clips that are never predicted are ignored. If a class without clips is predicted, its recall and
    the mean are undefined (NaN).
    """
    occurs = (table.sum(0) + table.sum(1)) > 0
    return float(recalls(table)[occurs].mean()) if occurs.any() else float("nan")


def uar_of_present(table: np.ndarray) -> float:
    """Return the mean recall of the classes that have clips, for lists that lack a class.

    >>> uar(np.array([[3, 1], [0, 0]])), uar_of_present(np.array([[3, 1], [0, 0]]))
    (nan, 75.0)
    """
    each = recalls(table)
    return float(np.nanmean(each)) if table.sum() else float("nan")


def over_folds(tables: Sequence[np.ndarray]) -> dict[str, float]:
    """Return the mean rates of the folds (the published protocol), and the rates of the pooled clips."""
    pooled = np.sum(tables, axis=0)
    return {
        "uar": float(np.mean([uar(t) for t in tables])),
        "war": float(np.mean([war(t) for t in tables])),
        "pooled_uar": uar(pooled),
        "pooled_war": war(pooled),
    }


def folds_table(
    folds: Sequence[int],
    tables: Sequence[np.ndarray],
    published: Mapping[str, float] | None = None,
    each: Sequence[Mapping[str, float]] = (),
) -> str:
    """Format UAR and WAR per fold, their mean, and those of the pooled clips, as plain text.

    Args:
        folds: The numbers of the folds.
        tables: Their confusion tables.
        published: Published means, by the names "uar" and "war".
        each: Published rates of each fold, by the same names.

    Returns:
        A table, and one line per published mean.

    >>> print(folds_table([1, 2], [np.array([[1, 1], [0, 2]]), np.array([[2, 0], [0, 2]])], {"uar": 87.0}))
    fold       UAR     WAR   clips
    1        75.00   75.00       4
    2       100.00  100.00       4
    mean     87.50   87.50
    pooled   87.50   87.50       8
    UAR: published 87.00, here 87.50
    """
    rates = over_folds(tables)
    lines = [f"{'fold':<6}  {'UAR':>6}  {'WAR':>6}  {'clips':>6}"]
    lines += [f"{k:<6}  {uar(t):6.2f}  {war(t):6.2f}  {int(t.sum()):6d}" for k, t in zip(folds, tables)]
    if any(each):
        lines[0] += f"  {'published UAR':>13}  {'WAR':>6}"
        for number, theirs in enumerate(each, start=1):
            cells = [f"{theirs[name]:.2f}" if name in theirs else "-" for name in ("uar", "war")]
            lines[number] += f"  {cells[0]:>13}  {cells[1]:>6}"
    lines.append(f"{'mean':<6}  {rates['uar']:6.2f}  {rates['war']:6.2f}")
    clips = int(np.sum(tables))
    lines.append(f"{'pooled':<6}  {rates['pooled_uar']:6.2f}  {rates['pooled_war']:6.2f}  {clips:6d}")
    for name, value in (published or {}).items():
        if name in rates:
            lines.append(f"{name.upper()}: published {value:.2f}, here {rates[name]:.2f}")
    return "\n".join(lines)


def recall_table(
    tables: Sequence[np.ndarray], labels: Sequence[str], published: Mapping[str, float] | None = None
) -> str:
    """Format the recall of every class, as the mean over the folds and of the pooled clips, as plain text.

    Args:
        tables: One confusion table per fold.
        labels: The names of the classes.
        published: Published recalls by class name.

    Returns:
        A table with a line per class; "-" for classes without clips.

    >>> print(recall_table([np.array([[1, 1], [0, 2]])], ["happy", "sad"], {"happy": 51.5}))
    recall    mean  pooled  published
    happy    50.00   50.00      51.50
    sad     100.00  100.00          -
    """
    mean = _mean_recalls(tables)
    pooled = recalls(np.sum(tables, axis=0))
    width = max(len("recall"), *map(len, labels))
    lines = [f"{'recall':{width}}  {'mean':>6}  {'pooled':>6}" + f"  {'published':>9}" * bool(published)]
    for label, *rates in zip(labels, mean, pooled):
        cells = ["-" if np.isnan(rate) else f"{rate:.2f}" for rate in rates]
        line = f"{label:{width}}  {cells[0]:>6}  {cells[1]:>6}"
        if published:
            line += f"  {f'{published[label]:.2f}' if label in published else '-':>9}"
        lines.append(line)
    return "\n".join(lines)


def _mean_recalls(tables: Sequence[np.ndarray]) -> np.ndarray:
    """Return mean recalls; folds without clips of a class are ignored."""
    each = np.stack([recalls(table) for table in tables])
    counts = (~np.isnan(each)).sum(0)
    return np.divide(np.nansum(each, axis=0), counts, out=np.full(each.shape[1], np.nan), where=counts > 0)


def rates_csv(tables: Sequence[np.ndarray], labels: Sequence[str], folds: Sequence[int] | None = None) -> str:
    """Format UAR, WAR, clips and the recall of every class as CSV, for each fold, their mean, and the pooled clips.

    Args:
        tables: One confusion table per fold.
        labels: The names of the classes.
        folds: The numbers of the folds; None for a single list, which has one line.

    Returns:
        CSV text. An undefined rate is empty.

    >>> print(rates_csv([np.array([[1, 1], [0, 2]])], ["happy", "sad"]), end="")
    fold,uar,war,clips,recall happy,recall sad
    all,75.0,75.0,4,50.0,100.0
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["fold", "uar", "war", "clips", *(f"recall {label}" for label in labels)])
    pooled = np.sum(tables, axis=0)
    lines: list[tuple[Any, float, float, Any, np.ndarray]] = []
    if folds is None:
        lines.append(("all", uar(pooled), war(pooled), int(pooled.sum()), recalls(pooled)))
    else:
        rates = over_folds(tables)
        lines += [(k, uar(t), war(t), int(t.sum()), recalls(t)) for k, t in zip(folds, tables)]
        lines.append(("mean", rates["uar"], rates["war"], "", _mean_recalls(tables)))
        lines.append(("pooled", rates["pooled_uar"], rates["pooled_war"], int(pooled.sum()), recalls(pooled)))
    for name, mean, weighted, clips, each in lines:
        values = ["" if np.isnan(value) else round(float(value), 4) for value in (mean, weighted, *each)]
        writer.writerow([name, values[0], values[1], clips, *values[2:]])
    return text.getvalue()
