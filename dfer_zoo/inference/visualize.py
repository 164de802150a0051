"""Visualize models: occlusion maps, reconstructions, snippets, t-SNE.

The functions return matplotlib figures; `plots.write_figure` writes them. They show what a model used in a clip, not how
people feel.

>>> figure = occlusion_figure(occlusion(model, inputs))      # doctest: +SKIP
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .plots import _figure

Inputs = Mapping[str, Tensor | None]

# Paul Tol's muted, color-blind safe colors; the markers repeat the information
COLORS = (
    "#332288", "#CC6677", "#117733", "#88CCEE", "#AA4499", "#DDCC77", "#882255", "#44AA99", "#999933", "#555555", "#000000",
)  # fmt: skip
MARKERS = "os^DvPX*<>p"
SHOWN = 8  # frames of a clip in a picture
AMPLIFIED = 4  # frame differences are faint
INK, FAINT = "#28282e", "#6b6b73"
FOR, AGAINST = "#b2182b", "#2166ac"  # the ends of the color map RdBu


# -- occlusion ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Occlusion:
    """How the log odds of a label change when a part of the clip is covered.

    Attributes:
        label: The explained label.
        probability: Its probability for the whole clip.
        places: (cells, cells), the decrease when a cell is covered in all frames.
        moments: (T,), the decrease when a frame is covered.
        without: The probability without each optional input.
        frames: The input frames, (T, H, W, 3) uint8.
    """

    label: str
    probability: float
    places: np.ndarray
    moments: np.ndarray
    without: Mapping[str, float]
    frames: np.ndarray


def occlusion(model: Any, inputs: Inputs, *, label: str | None = None, cells: int = 7) -> Occlusion:
    """Cover places, frames and inputs one by one, and compare the log odds of a label with those of the whole clip.

    Log odds are used since probabilities near 1 hardly change. A covered part gets the mean color of the clip.

    Args:
        model: A model with labels.
        inputs: One clip from `Transform.batch`.
        label: The label to explain; by default the predicted one.
        cells: Places along a side.

    Returns:
        The decreases of the log odds. Positive values support the label.

    Raises:
        InputError: There are no frames, or an argument is wrong.
    """
    name = next((name for name in ("video", "image") if inputs.get(name) is not None), None)
    if name is None:
        raise InputError(f"{type(model).__name__} has no frames of this clip, so nothing can be covered.")
    if not 1 <= cells <= model.video_spec.img_size:
        raise InputError(f"cells is {cells}; expected 1 to {model.video_spec.img_size}.")
    if label is not None and label not in model.labels:
        raise InputError(f"There is no label '{label}'; the labels are {', '.join(model.labels)}.")
    answer = odds(model, inputs)
    k = model.labels.index(label) if label else int(answer.argmax())
    video = inputs[name]
    assert video is not None
    places = [answer[k] - covered(model, inputs, name, box)[k] for box in boxes(video, cells)]
    moments = [answer[k] - covered(model, inputs, name, (t,))[k] for t in range(len(frames_of(video)))]
    return Occlusion(
        model.labels[k],
        float(answer[k].sigmoid()),
        torch.stack(places).view(cells, cells).numpy(),
        torch.stack(moments).numpy(),
        {other: float(odds(model, {**inputs, other: None})[k].sigmoid()) for other in _removable(model, inputs)},
        colors(model, video),
    )


def _removable(model: Any, inputs: Inputs) -> list[str]:
    """Return the inputs that may be withheld, if another one remains."""
    there = [name for name in model.inputs if inputs.get(name) is not None]
    return [name for name in there if name in model.optional_inputs and len(there) > 1]


@torch.inference_mode()
def odds(model: Any, inputs: Inputs) -> Tensor:
    """Return the log odds log(p / (1 - p)) of each label; the model averages the views of a clip."""
    return model(**inputs)[0].double().softmax(-1).logit(eps=1e-12)


def covered(model: Any, inputs: Inputs, name: str, where: tuple) -> Tensor:
    """Return `odds` with a part of all frames, or one frame, covered by the mean color of the clip."""
    video = inputs[name]
    assert video is not None
    frames = frames_of(video).clone()
    frames[where] = frames.mean((0, 2, 3), keepdim=True)[0]
    return odds(model, {**inputs, name: frames.view_as(video)})


def frames_of(tensor: Tensor) -> Tensor:
    """(1, T, 3, H, W), or one image (1, 3, H, W) -> (T, 3, H, W)"""
    return tensor.flatten(0, -4)


def boxes(tensor: Tensor, cells: int) -> list[tuple]:
    """Return the cells of a grid, row by row, as indices into (T, 3, H, W)."""
    rows, columns = (np.linspace(0, side, cells + 1).round().astype(int) for side in tensor.shape[-2:])
    return [(..., slice(a, b), slice(c, d)) for a, b in pairwise(rows) for c, d in pairwise(columns)]


def colors(model: Any, tensor: Tensor) -> np.ndarray:
    """Convert inputs of a model back to RGB, (T, H, W, 3) uint8."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.video_spec.mean, model.video_spec.std))
    frames = frames_of(tensor) * std + mean
    return _bytes(frames.flip(1) if model.video_spec.channel_order == "bgr" else frames)


def _bytes(frames: Tensor) -> np.ndarray:
    """(T, 3, H, W) in [0, 1] -> (T, H, W, 3) uint8"""
    return (frames.permute(0, 2, 3, 1) * 255).round().clamp(0, 255).byte().numpy()


def occlusion_figure(found: Occlusion, title: str = "") -> Any:
    """Plot the frames, the map of places on them, and a bar per frame. Map and bars have separate scales.

    Args:
        found: From `occlusion`.
        title: A line above the label and its probability.

    Returns:
        A matplotlib figure.
    """
    chosen = _spread(len(found.frames))
    figure = _figure((max(6.5, 1.25 * len(chosen) + 1.2), 5.2))
    grid = figure.add_gridspec(3, len(chosen), height_ratios=(1, 1, 1.1))
    limit = max(float(np.abs(found.places).max()), 1e-9)
    image = None
    maps = []
    for column, t in enumerate(chosen):
        frame = found.frames[t]
        _show(figure.add_subplot(grid[0, column]), frame, f"frame {t + 1}")
        axes = figure.add_subplot(grid[1, column])
        _show(axes, np.asarray(frame.mean(-1), np.uint8), cmap="gray")
        extent = (-0.5, frame.shape[1] - 0.5, frame.shape[0] - 0.5, -0.5)
        image = axes.imshow(
            found.places, cmap="RdBu_r", vmin=-limit, vmax=limit, alpha=0.6, extent=extent, interpolation="bicubic"
        )
        maps.append(axes)
    bar = figure.colorbar(image, ax=maps, shrink=0.9, aspect=12)
    bar.set_label("change of\nlog odds", fontsize=8, color=FAINT)
    bar.ax.tick_params(labelsize=7, colors=FAINT)
    _draw_moments(figure.add_subplot(grid[2, :]), found)
    parts = [f"{found.label}: {found.probability:.1%}"]
    parts += [f"without {name}: {value:.1%}" for name, value in found.without.items()]
    _title(figure, title, ", ".join(parts))
    return figure


def _draw_moments(axes: Any, found: Occlusion) -> None:
    numbers = np.arange(1, len(found.moments) + 1)
    axes.bar(numbers, found.moments, color=np.where(found.moments > 0, FOR, AGAINST), width=0.8)
    axes.axhline(0, color=INK, linewidth=0.8)
    _plain(axes)
    axes.set_xlim(0.4, len(numbers) + 0.6)
    axes.set_xticks(numbers if len(numbers) <= 20 else numbers[:: len(numbers) // 10])
    axes.set_xlabel(f"covered frame (red supports {found.label}, blue opposes it)", fontsize=9, color=FAINT)
    axes.set_ylabel("change of log odds", fontsize=9, color=FAINT)


# -- reconstruction ----------------------------------------------------------------------------------------------------


def reconstruction_figure(
    model: Any, video: Tensor, *, mask: Tensor | None = None, difference: bool | None = None, title: str = ""
) -> Any:
    """Plot the input and the reconstruction of a masked autoencoder.

    Args:
        model: A pre-training model: ``mae_dfer_pretrain``.
        video: One clip from its transform, (1, T, 3, H, W).
        mask: (1, N), True where masked; by default the model's own for evaluation.
        difference: Also show each frame minus the first of its group, of the clip and of the reconstruction. None shows
            them if the model was trained on them.
        title: The title.

    Returns:
        A matplotlib figure.

    Raises:
        InputError: The model is not an autoencoder.
    """
    if not hasattr(model, "reconstruct") or not hasattr(model, "pixels"):
        raise InputError(
            f"{type(model).__name__} cannot reconstruct clips; use a pre-training model: mae_dfer_pretrain."
        )
    with torch.inference_mode():
        made, clip = model.reconstruct(video[:1], mask), model.pixels(video[:1].float())
    group = model.difference_group or model.cut["p0"]
    first = torch.arange(clip.shape[1]) // group * group
    rows = [("clip", clip[0]), ("visible", made.masked[0]), ("reconstruction", made.frames[0])]
    if bool(model.difference_group) if difference is None else difference:
        rows += [(f"difference\nx {AMPLIFIED}, clip", (clip - clip[:, first])[0] / 2 * AMPLIFIED + 0.5)]
        rows += [(f"difference x {AMPLIFIED},\nreconstruction", made.differences[0] / 2 * AMPLIFIED + 0.5)]
    chosen = _moving(clip.shape[1], group)
    figure = _figure((1.15 * len(chosen) + 1.3, 1.2 * len(rows) + 0.7))
    axes = figure.subplots(len(rows), len(chosen), squeeze=False)
    for row, (name, frames) in enumerate(rows):
        for column, frame in enumerate(_bytes(frames[chosen].cpu())):
            _show(axes[row, column], frame, f"frame {chosen[column] + 1}" if row == 0 else "")
        axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9, color=INK, labelpad=6)
    masked = float(made.mask.float().mean())
    _title(figure, title, f"{masked:.0%} of the clip is masked")
    return figure


def _moving(count: int, group: int) -> list[int]:
    """Choose up to eight frames, not only the first of each group, whose difference is zero."""
    if count <= SHOWN:
        return [*range(count)]
    return [min(number // 2 * (count * 2 // SHOWN) + (number % 2) * (group - 1), count - 1) for number in range(SHOWN)]


# -- snippets ----------------------------------------------------------------------------------------------------------


def snippets_figure(model: Any, video: Tensor, *, title: str = "") -> Any:
    """Plot DK-CLIP's snippets: frames, weights, erasure, and the prediction of each.

    Args:
        model: A ``dk_clip``.
        video: One clip from its transform, (1, T, 3, H, W).
        title: The title.

    Returns:
        A matplotlib figure.

    Raises:
        InputError: The model has no snippets.
    """
    if not hasattr(model, "explain"):
        raise InputError(f"{type(model).__name__} has no snippets; use dk_clip.")
    with torch.inference_mode():
        details = model.explain(video[:1])
    weights, erased = details.snippet_weights[0].tolist(), details.erased[0].tolist()
    frames = colors(model, video[:1].cpu())
    per_snippet = len(frames) // len(weights)
    said = details.local_logits[0].double().softmax(-1).numpy()
    figure = _figure((max(7.0, 2.1 * len(weights) + 1.8), 5.6))
    grid = figure.add_gridspec(3, len(weights), height_ratios=(1, 0.9, 2))
    for number, gone in enumerate(erased):
        part = frames[number * per_snippet : (number + 1) * per_snippet]
        axes = figure.add_subplot(grid[0, number])
        _show(axes, _tiled(part), f"snippet {number + 1}{' (erased)' if gone else ''}")
    _draw_weights(figure.add_subplot(grid[1, :]), weights, erased)
    _draw_said(figure, figure.add_subplot(grid[2, :]), said, erased, model.labels)
    answer = details.logits[0].double().softmax(-1)
    k = int(answer.argmax())
    _title(figure, title, f"{model.labels[k]}: {float(answer[k]):.1%}")
    return figure


def _tiled(frames: np.ndarray) -> np.ndarray:
    """Tile the frames of a snippet in rows of two."""
    columns = 2 if len(frames) > 1 else 1
    rows = [np.concatenate(frames[i : i + columns], axis=1) for i in range(0, len(frames) - columns + 1, columns)]
    return np.concatenate(rows)


def _draw_weights(axes: Any, weights: Sequence[float], erased: Sequence[bool]) -> None:
    numbers = np.arange(1, len(weights) + 1)
    bars = axes.bar(numbers, weights, color=COLORS[0], width=0.6)
    for bar, gone in zip(bars, erased):
        if gone:
            bar.set(facecolor="white", edgecolor=FAINT, hatch="///")
    for number, weight, gone in zip(numbers, weights, erased):
        text = f"{weight:.2f}{' erased' if gone else ''}"
        axes.text(number, weight, text, ha="center", va="bottom", fontsize=8, color=INK)
    _plain(axes)
    axes.set(xlim=(0.4, len(weights) + 0.6), ylim=(0, max(weights) * 1.3 + 1e-9), xticks=[])
    axes.set_ylabel("weight", fontsize=9, color=FAINT)


def _draw_said(figure: Any, axes: Any, said: np.ndarray, erased: Sequence[bool], labels: Sequence[str]) -> None:
    shown = np.where(np.array(erased)[:, None], np.nan, said)
    image = axes.imshow(
        shown.T, cmap="cividis", vmin=0, vmax=1, aspect="auto", extent=(0.5, len(said) + 0.5, len(labels) - 0.5, -0.5)
    )
    for number, row in enumerate(shown, start=1):
        for k, value in enumerate(row):
            text = "-" if np.isnan(value) else f"{value:.2f}"
            color = FAINT if np.isnan(value) else "black" if value > 0.5 else "white"
            axes.text(number, k, text, ha="center", va="center", fontsize=8, color=color)
    axes.set_xlim(0.4, len(said) + 0.6)
    axes.set_yticks(range(len(labels)), labels, fontsize=9)
    axes.set_xticks(range(1, len(said) + 1), [f"snippet {k}" for k in range(1, len(said) + 1)], fontsize=9)
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.9, aspect=20)
    bar.set_label("probability", fontsize=8, color=FAINT)
    bar.ax.tick_params(labelsize=7, colors=FAINT)


# -- t-SNE -------------------------------------------------------------------------------------------------------------


def tsne(embeddings: np.ndarray, *, perplexity: float = 30.0, seed: int = 0) -> np.ndarray:
    """Project embeddings to two dimensions with t-SNE.

    Args:
        embeddings: (clips, features).
        perplexity: Approximate number of neighbors; lowered for few clips.
        seed: Seed of the optimization.

    Returns:
        (clips, 2).

    Raises:
        InputError: There are fewer than three clips, or scikit-learn is not installed.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise InputError('t-SNE needs scikit-learn: pip install "dfer-zoo[visualize]".') from error
    if len(embeddings) < 3:
        raise InputError(f"t-SNE needs three clips or more; there are {len(embeddings)}.")
    if not perplexity > 0:
        raise InputError(f"perplexity is {perplexity}; expected more than 0.")
    most = max(1.0, (len(embeddings) - 1) / 3)
    plane = TSNE(perplexity=min(perplexity, most), init="pca", random_state=seed, learning_rate="auto")
    return plane.fit_transform(np.asarray(embeddings, np.float64))


def tsne_figure(points: np.ndarray, classes: Sequence[int], labels: Sequence[str], title: str = "") -> Any:
    """Plot clips as points, with a color and a marker per class.

    Args:
        points: (clips, 2), from `tsne`.
        classes: The true class of each clip.
        labels: The names of the classes.
        title: The title.

    Returns:
        A matplotlib figure.
    """
    figure = _figure((7.2, 5.4))
    axes = figure.add_subplot()
    numbers = np.asarray(classes)
    size = float(np.clip(4000 / max(len(numbers), 1), 8, 48))
    for k, name in enumerate(labels):
        here = points[numbers == k]
        if len(here):
            axes.scatter(
                here[:, 0],
                here[:, 1],
                s=size,
                color=COLORS[k % len(COLORS)],
                marker=MARKERS[k % len(MARKERS)],
                linewidths=0.4,
                edgecolors="white",
                label=f"{name} ({len(here)})",
            )
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color("#d0d0d6")
    axes.margins(0.06)
    legend = axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=9)
    for handle in legend.legend_handles:
        handle.set_sizes([40])
    _title(figure, title, f"t-SNE of the embeddings of {len(numbers)} clips")
    return figure


# -- shared ------------------------------------------------------------------------------------------------------------


def _spread(count: int) -> list[int]:
    """Choose up to eight frames, evenly spread."""
    return sorted({round(number) for number in np.linspace(0, count - 1, min(count, SHOWN))})


def _show(axes: Any, picture: np.ndarray, title: str = "", **options: Any) -> None:
    axes.imshow(picture, **options)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if title:
        axes.set_title(title, fontsize=8, color=FAINT, pad=3)


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#b0b0b8")
    axes.tick_params(labelsize=8, colors=FAINT)


def _title(figure: Any, title: str, fact: str) -> None:
    """Set the title, wrapped to the width of the figure, and a fact below it."""
    width = int(figure.get_size_inches()[0] * 10)
    lines = [*textwrap.wrap(title, width), *textwrap.wrap(fact, width)]
    figure.suptitle("\n".join(lines), fontsize=11, color=INK, parse_math=False)
