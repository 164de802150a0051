"""The batches of a training: which clips make an update, and how a sample is read.

Everything random is seeded by (seed, epoch) or (seed, epoch, clip), so a batch does not depend on the number of workers
or on where a training was resumed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..data.annotations import Row
from ..errors import InputError, MediaError
from ..transforms import collate
from ..transforms.audio import silence
from ..weights.record import AudioSpec
from .recipe import Recipe


class Clips(Dataset):
    """Training samples by (epoch, index). A sample depends on these two only, not on the order or the worker.

    A clip that cannot be read is replaced by the next one that can; the sample names the unreadable ones.

    Args:
        rows: The clips of the list.
        read: Reads the clip of a row.
        augment: Turns a clip into a sample.
        seed: The seed of the training.
        sound: The audio record, to replace missing audio by silence so that clips with and without audio share a batch.
        strict: Raise an error for the first clip that cannot be read.
    """

    def __init__(
        self, rows: Sequence[Row], read: Any, augment: Any, seed: int, sound: AudioSpec | None, strict: bool = False
    ) -> None:
        self.rows, self.read, self.augment, self.seed, self.sound = rows, read, augment, seed, sound
        self.strict = strict

    def __getitem__(self, key: tuple[int, int]) -> tuple[dict, int, dict[str, str]]:
        epoch, number = key
        failed: dict[str, str] = {}
        for step in range(len(self.rows)):
            row = self.rows[(number + step) % len(self.rows)]
            seed_all(self.seed, epoch, number)
            try:
                sample = self.augment(self.read(row))
            except MediaError as error:
                if self.strict:
                    raise
                failed[row.path] = str(error)
                continue
            if self.sound and sample["audio"] is None:
                sample["audio"] = silence(self.sound)
            return sample, row.label, failed
        raise MediaError(f"None of the {len(self.rows)} clips can be read; the first: {next(iter(failed.values()))}")

    @staticmethod
    def stack(samples: Sequence[tuple[dict, int, dict[str, str]]]) -> tuple[dict, Tensor, dict[str, str]]:
        """Collate samples to (inputs, class indices, {unreadable clip: reason})."""
        inputs = collate([sample for sample, _, _ in samples])
        failed = {path: reason for _, _, some in samples for path, reason in some.items()}
        return inputs, torch.tensor([label for _, label, _ in samples]), failed


def seed_all(*numbers: int) -> None:
    """Seed the global generators of Python, numpy and torch."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    for draw in (random.seed, np.random.seed, torch.manual_seed):
        draw(seed)


def update_batches(recipe: Recipe, clips: int, epoch: int, world: int, labels: Sequence[int] = ()) -> list[list[int]]:
    """Return the clip numbers of every update of an epoch; the same in every process.

    Args:
        recipe: The recipe.
        clips: The number of training clips.
        epoch: The epoch, from 0.
        world: The number of processes. Each gets at least one clip of every update.
        labels: The class of every clip, for balanced sampling (``train.balanced``).

    Raises:
        InputError: There are fewer clips in an update than processes.
    """
    size = min(recipe.train.batch_size, clips)
    if size < world:
        raise InputError(f"An update of {size} clip{'s' * (size > 1)} cannot be shared by {world} processes.")
    rng = np.random.default_rng([recipe.train.seed, epoch])
    order = draw_balanced(list(labels), rng) if recipe.train.balanced else rng.permutation(clips).tolist()
    whole = [order[i : i + size] for i in range(0, len(order), size)]
    least = size if recipe.train.drop_last else world
    return [batch for batch in whole if len(batch) >= least]


def shares(batch: list[int], recipe: Recipe, rank: int, world: int) -> list[list[int]]:
    """Return this process' part of a batch, split into micro-batches that fit on the device."""
    mine = batch[rank::world]
    piece = recipe.train.micro_batch or len(mine) or 1
    return [mine[i : i + piece] for i in range(0, len(mine), piece)]


# -- class imbalance ---------------------------------------------------------------------------------------------------


def class_weights(rows: Sequence[Row], num_classes: int) -> np.ndarray:
    """Return loss weights inverse to the number of clips of a class; absent classes have 0. Their mean over clips is 1.

    >>> class_weights([Row("a", 0), Row("b", 0), Row("c", 0), Row("d", 1)], 3).round(2).tolist()
    [0.67, 2.0, 0.0]
    """
    clips = np.bincount([row.label for row in rows], minlength=num_classes)
    return np.divide(len(rows) / max(1, (clips > 0).sum()), clips, out=np.zeros(num_classes), where=clips > 0)


def balanced_weights(labels: Sequence[int]) -> list[float]:
    """Return the sampling weight of every clip: 1 / the number of clips of its class.

    >>> balanced_weights([0, 0, 3])
    [0.5, 0.5, 1.0]
    """
    counts = Counter(labels)
    return [1 / counts[label] for label in labels]


def draw_balanced(labels: Sequence[int], rng: np.random.Generator) -> list[int]:
    """Draw an epoch of ``len(labels)`` clip numbers, with replacement, each class equally likely.

    >>> len(draw_balanced([0, 0, 3], np.random.default_rng(0)))
    3
    """
    weights = np.asarray(balanced_weights(labels))
    return rng.choice(len(labels), size=len(labels), p=weights / weights.sum()).tolist()
