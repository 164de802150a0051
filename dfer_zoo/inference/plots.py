"""Plots of predictions and of confusion tables, with matplotlib (the extra "plot")."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..atomic import write_atomically
from ..errors import InputError

if TYPE_CHECKING:
    from .prediction import Prediction

COLORS = (
    "#787880", "#40a096", "#eca61c", "#3a6ebe", "#cd3c32", "#8252aa", "#5f8c28", "#e26caa", "#8c643c", "#1ea0d2", "#5a5ac8",
)  # fmt: skip


def timeline_figure(prediction: Prediction, title: str | None = None) -> Any:
    """Probabilities over time under a strip of the faces that the models saw; bars if there is one window.

    Args:
        prediction: The prediction; the faces are its thumbnails.
        title: In place of the file's name and the label.
    """
    strip = bool(prediction.thumbnails)
    figure = _figure((9, 4 + 1.2 * strip))
    if strip:
        faces, axes = figure.subplots(2, 1, height_ratios=(1, 4))
        _draw_faces(faces, prediction)
    else:
        axes = figure.add_subplot()
    title = f"{Path(prediction.source).name}: {prediction.label}" if title is None else title
    figure.suptitle(title, parse_math=False)  # a $ in a file name is a $
    if remarks := [*prediction.cautions, *([prediction.overlooked] if prediction.overlooked else [])]:
        wrapped = "\n".join(line for remark in remarks for line in textwrap.wrap(remark, 120))
        figure.supxlabel(wrapped, fontsize="small", color="dimgray", parse_math=False)
    axes.set(ylim=(0, 1), ylabel="probability")
    if len(prediction.windows) > 1:
        _draw_lines(axes, prediction)
    else:
        axes.bar(
            prediction.labels,
            prediction.probabilities,
            color=[COLORS[k % len(COLORS)] for k in range(len(prediction.labels))],
        )
        axes.tick_params(axis="x", rotation=45)
    return figure


def _draw_lines(axes: Any, prediction: Prediction) -> None:
    values = np.array([window.probabilities for window in prediction.windows])
    # a window's answer is drawn at its middle
    times = [w.start if w.stop is None else (w.start + w.stop) / 2 for w in prediction.windows]
    for k in np.argsort(-values.max(0), kind="stable"):
        axes.plot(times, values[:, k], label=prediction.labels[k], color=COLORS[k % len(COLORS)], marker=".")
    axes.set(xlabel="seconds", xlim=(0, prediction.windows[-1].stop))
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def _draw_faces(axes: Any, prediction: Prediction) -> None:
    axes.imshow(np.concatenate([face for _, face in prediction.thumbnails], axis=1))
    axes.set_yticks([])
    side = prediction.thumbnails[0][1].shape[1]
    places = [side * (number + 0.5) for number in range(len(prediction.thumbnails))]
    axes.set_xticks(places, [f"{second:.1f} s" for second, _ in prediction.thumbnails], fontsize="small")
    axes.spines[:].set_visible(False)


def confusion_figure(table: np.ndarray, labels: Sequence[str], title: str = "") -> Any:
    """A confusion table: rows are the true classes; the color is the share of the row, the number the count."""
    side = max(4.5, 2.5 + 0.6 * len(labels))
    figure = _figure((side, side))
    figure.suptitle(textwrap.fill(title, int(9 * side)), fontsize="medium", parse_math=False)
    axes = figure.add_subplot()
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        color = "white" if share > 0.5 else "black"
        axes.text(column, row, str(int(table[row, column])), ha="center", va="center", color=color)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="predicted", ylabel="true")
    return figure


def write_figure(path: str | Path, figure: Any) -> Path:
    """Write a figure at once or not at all; the suffix decides the format, .png without one."""
    path, content = Path(path), io.BytesIO()
    try:
        figure.savefig(content, format=path.suffix.removeprefix(".") or "png")
        write_atomically(path, content.getvalue())
    except (OSError, ValueError) as error:
        raise InputError(f"The plot cannot be written to {path} ({error}).") from error
    return path


def _figure(size: tuple[float, float]) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError('Plots need matplotlib: pip install "dfer-zoo[plot]".') from error
    return Figure(figsize=size, layout="constrained")
