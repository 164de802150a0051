"""Masks of MAE-DFER's and HiCMAE's pre-training from numpy's generator, as published. True = masked, the same in all frames.

Only reproducing published seeds needs them: the model draws its own (`MAEDFERPretrain.draw_mask`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dfer_zoo.errors import InputError


def tube_mask(grid: Sequence[int], ratio: float, *, rng: np.random.RandomState | None = None) -> np.ndarray:
    """(tokens,): a share of the tokens of a frame. ``grid`` is the clip in tokens (frames, rows, columns).

    >>> int(tube_mask((8, 10, 10), 0.9).sum())
    720
    """
    frames, rows, columns = grid
    masked = _share(ratio, rows * columns)
    return np.tile(_shuffled(rows * columns - masked, masked, rng), frames)


def random_mask(tokens: int, ratio: float, *, rng: np.random.RandomState | None = None) -> np.ndarray:
    """(tokens,): a share of all tokens, for HiCMAE's spectrograms.

    >>> int(random_mask(128, 0.8).sum())
    102
    """
    masked = _share(ratio, tokens)
    return _shuffled(tokens - masked, masked, rng)


def window_mask(
    grid: Sequence[int],
    ratio: float,
    window: Sequence[int],
    *,
    symmetry: str | None = None,
    rng: np.random.RandomState | None = None,
) -> np.ndarray:
    """(tokens,): the same share of every window of ``window`` (rows, columns) tokens.

    With ``symmetry`` the visible tokens are in the left or right half of the face: "global" draws the side once per clip,
    "local" for every window.
    """
    frames, rows, columns = grid
    height, width = window
    if width != columns or height < 1 or rows % height:
        raise InputError(f"A window must span the {columns} columns and divide the {rows} rows; it is {tuple(window)}.")
    if symmetry not in (None, "global", "local"):
        raise InputError(f"symmetry is '{symmetry}'; expected None, 'global' or 'local'.")
    if symmetry and width % 2:
        raise InputError(f"A window of {width} columns has no two equal halves.")
    masked = _share(ratio, height * width)
    visible = height * width - masked
    half = height * width // 2
    left = _toss(rng) if symmetry == "global" else None
    windows = []
    for _ in range(rows // height):
        if symmetry is None:
            windows.append(_shuffled(visible, masked, rng).reshape(height, width))
            continue
        if visible > half:
            raise InputError(f"mask ratio {ratio}: {visible} visible places are more than half a window.")
        drawn = _shuffled(visible, half - visible, rng).reshape(height, width // 2)
        in_left = _toss(rng) if left is None else left
        hidden = np.ones_like(drawn)
        windows.append(np.concatenate([drawn, hidden] if in_left else [hidden, drawn], axis=1))
    return np.tile(np.concatenate(windows).ravel(), frames)


def _share(ratio: float, places: int) -> int:
    if not 0 <= ratio <= 1:
        raise InputError(f"The mask ratio is {ratio}; expected a share between 0 and 1.")
    return int(ratio * places)


def _toss(rng: np.random.RandomState | None) -> bool:
    return bool((np.random if rng is None else rng).rand() < 0.5)


def _shuffled(visible: int, masked: int, rng: np.random.RandomState | None) -> np.ndarray:
    places = np.array([False] * visible + [True] * masked)
    (np.random if rng is None else rng).shuffle(places)
    return places
