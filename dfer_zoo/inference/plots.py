"""Plots of predictions and of confusion tables, with matplotlib (the extra "plot")."""

from __future__ import annotations

import io
import itertools
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..atomic import write_atomically
from ..errors import InputError

if TYPE_CHECKING:
    from .prediction import Prediction

# Okabe and Ito's color-blind safe colors, with darker ones of Paul Tol's. An emotion has the same color in every plot,
# whatever its index.
BY_LABEL = {
    "happiness": "#E69F00", "sadness": "#0072B2", "neutral": "#8A8A8A", "anger": "#D55E00", "surprise": "#56B4E9",
    "disgust": "#009E73", "fear": "#CC79A7", "contempt": "#882255", "anxiety": "#AA4499", "helplessness": "#44AA99",
    "disappointment": "#999933",
}  # fmt: skip
SAME = {"happy": "happiness", "sad": "sadness", "calm": "helplessness", "angry": "anger", "surprised": "surprise",
        "disgusted": "disgust", "fearful": "fear", "contemptuous": "contempt"}  # fmt: skip
COLORS = tuple(BY_LABEL.values())
NARROW_FACES = 6
FAINT = 0.12  # a label that never reaches this probability is drawn thin
THEMES = {  # background, text, grid
    "light": ("#FFFFFF", "#24292F", "#D8DEE4"),
    "dark": ("#161B22", "#E6EDF3", "#30363D"),
}


def label_colors(labels: Sequence[str]) -> dict[str, str]:
    """Return a color for each label.

    Args:
        labels: The labels of a model.

    Returns:
        Colors by label; labels that are no known emotion get the remaining colors in order.

    >>> label_colors(["sad", "happiness"])
    {'sad': '#0072B2', 'happiness': '#E69F00'}
    """
    known = {label: BY_LABEL.get(SAME.get(label.lower(), label.lower())) for label in labels}
    free = [color for color in COLORS if color not in known.values()] or list(COLORS)
    others = [label for label, color in known.items() if color is None]
    return {label: color or free[others.index(label) % len(free)] for label, color in known.items()}


def timeline_figure(
    prediction: Prediction, title: str | None = None, *, theme: str = "light", narrow: bool = False
) -> Any:
    """Plot probabilities over time below a strip of face crops, or bars if there is one window.

    Args:
        prediction: The prediction; the faces are its thumbnails.
        title: The title; by default the file name and the label.
        theme: "light" or "dark".
        narrow: For a phone: fewer faces, and the legend below.

    Returns:
        A matplotlib figure.
    """
    if theme not in THEMES:
        raise InputError(f"theme is {theme!r}; expected {' or '.join(THEMES)}.")
    background, text, _ = THEMES[theme]
    strip = bool(prediction.thumbnails)
    figure = _figure((4.4, 4.8 + 0.9 * strip) if narrow else (10, 4.2 + 1.3 * strip))
    figure.set_facecolor(background)
    if strip:
        faces, axes = figure.subplots(2, 1, height_ratios=(0.9, 4.8) if narrow else (1.3, 4))
        _draw_faces(faces, prediction, theme, NARROW_FACES if narrow else None)
    else:
        axes = figure.add_subplot()
    style_axes(axes, theme)
    title = f"{Path(prediction.source).name}: {prediction.label}" if title is None else title
    wrapped = "\n".join(textwrap.wrap(title, 36 if narrow else 84, max_lines=2, placeholder=" ..."))
    figure.suptitle(wrapped, x=0.01, ha="left", color=text, weight="bold", parse_math=False)  # names may contain a $
    if remarks := [*prediction.cautions, *([prediction.overlooked] if prediction.overlooked else [])]:
        lines = "\n".join(line for remark in remarks for line in textwrap.wrap(remark, 54 if narrow else 120))
        figure.supxlabel(lines, x=0.01, ha="left", fontsize="small", color=text, alpha=0.75, parse_math=False)
    if len(prediction.windows) > 1:
        _draw_lines(axes, prediction, theme, narrow)
    else:
        _draw_bars(axes, prediction, theme)
    return figure


def style_axes(axes: Any, theme: str) -> None:
    """Set the colors and the grid of a theme, without a frame."""
    background, text, grid = THEMES[theme]
    axes.set_facecolor(background)
    axes.tick_params(colors=text, length=0)
    axes.spines[:].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(color=grid, linewidth=0.8)
    axes.xaxis.label.set_color(text)
    axes.yaxis.label.set_color(text)


def _draw_bars(axes: Any, prediction: Prediction, theme: str) -> None:
    """Horizontal bars, the most probable label on top."""
    ranked = prediction.top(len(prediction.labels))[::-1]
    colors = label_colors(prediction.labels)
    bars = axes.barh([label for label, _ in ranked], [chance for _, chance in ranked], height=0.7)
    for bar, (label, chance) in zip(bars, ranked):
        bar.set_color(colors[label])
        axes.text(chance + 0.01, bar.get_y() + 0.35, f"{chance:.0%}", va="center", color=THEMES[theme][1])
    axes.grid(visible=False, axis="y")
    axes.set(xlim=(0, 1.08), xlabel="probability", xticks=[0, 0.25, 0.5, 0.75, 1])


def _draw_lines(axes: Any, prediction: Prediction, theme: str, narrow: bool) -> None:
    values = np.array([window.probabilities for window in prediction.windows])
    # plotted at the middle of each window
    times = [w.start if w.stop is None else (w.start + w.stop) / 2 for w in prediction.windows]
    colors = label_colors(prediction.labels)
    for k in np.argsort(-values.mean(0), kind="stable"):
        label, faint = prediction.labels[k], values[:, k].max() < FAINT
        shape: dict[str, Any] = {"linewidth": 1, "alpha": 0.6} if faint else {"linewidth": 2.4, "marker": "o"}
        axes.plot(times, values[:, k], label=label, color=colors[label], markersize=4, clip_on=False, **shape)
    axes.set(xlabel="seconds", xlim=(0, prediction.windows[-1].stop), ylim=(0, 1), ylabel="probability")
    below = {
        "loc": "upper center",
        "bbox_to_anchor": (0.5, -0.16),
        "ncols": 3,
        "columnspacing": 1.0,
        "handlelength": 1.2,
    }
    beside = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)}
    legend = axes.legend(frameon=False, **(below if narrow else beside))
    for entry in legend.get_texts():
        entry.set_color(THEMES[theme][1])
    _draw_winners(axes, times, values, prediction, colors)


def _draw_winners(axes: Any, times: Sequence[float], values: np.ndarray, prediction: Prediction, colors: Any) -> None:
    """Draw a band above the lines with the most probable label over time."""
    from matplotlib.patches import Rectangle

    best = values.argmax(1)
    borders = [0.0, *((a + b) / 2 for a, b in itertools.pairwise(times)), prediction.windows[-1].stop or times[-1]]
    start = 0
    for number in range(1, len(best) + 1):
        if number < len(best) and best[number] == best[start]:
            continue
        left, right = borders[start], borders[number]
        label = prediction.labels[best[start]]
        place: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "clip_on": False}
        axes.add_patch(Rectangle((left, 1.03), right - left, 0.085, facecolor=colors[label], **place))
        width = 0.011 * 10 / axes.figure.get_figwidth()  # of a letter
        if (right - left) / borders[-1] > width * len(label):  # otherwise it does not fit
            axes.text((left + right) / 2, 1.072, label, ha="center", va="center", fontsize="small", weight="bold",
                      color=readable_on(colors[label]), parse_math=False, **place)  # fmt: skip
        start = number


def readable_on(color: str) -> str:
    red, green, blue = (int(color[place : place + 2], 16) for place in (1, 3, 5))
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 125 else "#FFFFFF"


def _draw_faces(axes: Any, prediction: Prediction, theme: str, most: int | None = None) -> None:
    """Draw `most` faces, evenly spread, side by side, with the time of each below."""
    pictures = prediction.thumbnails
    if most is not None and len(pictures) > most:
        pictures = tuple(pictures[round(n * (len(pictures) - 1) / (most - 1))] for n in range(most))
    background, text, _ = THEMES[theme]
    gap = np.full((pictures[0][1].shape[0], 6, 3), [int(background[i : i + 2], 16) for i in (1, 3, 5)])
    parts = [part for _, face in pictures for part in (face, gap)][:-1]
    axes.imshow(np.concatenate(parts, axis=1).astype(np.uint8), interpolation="lanczos")
    axes.set_yticks([])
    side = pictures[0][1].shape[1]
    places = [side / 2 + (side + 6) * number for number in range(len(pictures))]
    axes.set_xticks(places, [f"{second:.1f} s" for second, _ in pictures], fontsize="small")
    axes.tick_params(colors=text, length=0)
    axes.spines[:].set_visible(False)


def confusion_figure(table: np.ndarray, labels: Sequence[str], title: str = "") -> Any:
    """Plot a confusion table: rows are true classes, colors the share of the row, numbers the counts."""
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
    """Write a figure atomically. The suffix sets the format, .png without one."""
    path, content = Path(path), io.BytesIO()
    try:
        figure.savefig(content, format=path.suffix.removeprefix(".") or "png", dpi=130)
        write_atomically(path, content.getvalue())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"The plot cannot be written to {path} ({reason}).") from error
    return path


def _figure(size: tuple[float, float]) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError('Plots need matplotlib: pip install "dfer-zoo[plot]".') from error
    return Figure(figsize=size, layout="constrained")
