"""Class-balanced sampling: rare classes are drawn as often as frequent ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np


def balanced_weights(labels: Sequence[int]) -> list[float]:
    """The weight of every clip: 1 / the number of clips of its class.

    Args:
        labels: The class of every clip.

    Returns:
        One weight per clip; those of a class sum to 1.

    Examples:
        >>> balanced_weights([0, 0, 3])
        [0.5, 0.5, 1.0]
    """
    counts = Counter(labels)
    return [1 / counts[label] for label in labels]


def draw_balanced(labels: Sequence[int], rng: np.random.Generator) -> list[int]:
    """An epoch of as many clips as there are, each drawn independently, with replacement and by its weight.

    Args:
        labels: The class of every clip.
        rng: Where the draws come from.

    Returns:
        Numbers of clips.

    Examples:
        >>> len(draw_balanced([0, 0, 3], np.random.default_rng(0)))
        3
    """
    weights = np.asarray(balanced_weights(labels))
    return rng.choice(len(labels), size=len(labels), p=weights / weights.sum()).tolist()
