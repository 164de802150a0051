"""The training loop: `train` runs a recipe. Copy this file and change it for what recipes cannot say.

After a kill at any moment ``resume=True`` continues to the same weights, bit for bit, on the same machine: everything
random is seeded by (seed, epoch, update) or (seed, epoch, clip), and files are written under a temporary name and moved.
"""

from __future__ import annotations

import csv
import io
import math
import os
import random
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts; without it matmuls may vary

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, gather_object
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..atomic import write_atomically
from ..data.annotations import Row, read_row, read_rows
from ..errors import DferZooError, InputError, MediaError
from ..factory import create_model
from ..inference import doctor, metrics
from ..inference import evaluate as evaluation
from ..inference.plots import confusion_figure, write_figure
from ..media.faces import known_detector
from ..saving import arch_of, save_pretrained
from ..transforms import collate, create_transform
from ..transforms.audio import silence
from ..transforms.train import augmentation
from ..weights.record import AudioSpec, Metric
from .mixes import MIXES, soft_targets
from .oversampling import draw_balanced
from .recipe import Recipe, create_optimizer, set_learning_rates
from .state import load_state, save_state


class Clips(Dataset):
    """Training samples by (epoch, number): what is drawn depends on these alone, not on the order or the worker.

    A clip that cannot be read is replaced by the next one that can; the sample says which were.
    """

    def __init__(
        self, rows: Sequence[Row], read: Any, augmented: Any, seed: int, sound: AudioSpec | None, strict: bool = False
    ) -> None:
        self.rows, self.read, self.augmented, self.seed, self.sound = rows, read, augmented, seed, sound
        self.strict = strict

    def __getitem__(self, key: tuple[int, int]) -> tuple[dict, int, dict[str, str]]:
        epoch, number = key
        failed: dict[str, str] = {}
        for step in range(len(self.rows)):
            row = self.rows[(number + step) % len(self.rows)]
            seed_all(self.seed, epoch, number)
            try:
                sample = self.augmented(self.read(row))
            except MediaError as error:
                if self.strict:
                    raise
                failed[row.path] = str(error)
                continue
            if self.sound and sample["audio"] is None:  # so that it can share a batch with others
                sample["audio"] = silence(self.sound)
            return sample, row.label, failed
        raise MediaError(f"None of the {len(self.rows)} clips can be read; the first: {next(iter(failed.values()))}")

    @staticmethod
    def stack(samples: Sequence[tuple[dict, int, dict[str, str]]]) -> tuple[dict, Tensor, dict[str, str]]:
        """Samples as (inputs, class numbers, what could not be read)."""
        inputs = collate([sample for sample, _, _ in samples])
        failed = {path: reason for _, _, some in samples for path, reason in some.items()}
        return inputs, torch.tensor([label for _, label, _ in samples]), failed


class Objective(nn.Module):
    """The model together with its loss, so that distributed wrappers and autocast see one forward."""

    class_weights: Tensor | None

    def __init__(self, model: nn.Module, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, inputs: dict, targets: Tensor, epoch: int) -> Any:
        criterion = partial(F.cross_entropy, weight=self.class_weights)
        return self.model.training_loss(inputs, targets, criterion, epoch=epoch)  # type: ignore[operator]


def balance(rows: Sequence[Row], num_classes: int) -> np.ndarray:
    """One weight per class, inverse to its number of clips; the mean over the clips is 1. Absent classes have 0.

    >>> balance([Row("a", 0), Row("b", 0), Row("c", 0), Row("d", 1)], 3).round(2).tolist()
    [0.67, 2.0, 0.0]
    """
    clips = np.bincount([row.label for row in rows], minlength=num_classes)
    return np.divide(len(rows) / max(1, (clips > 0).sum()), clips, out=np.zeros(num_classes), where=clips > 0)


def batches(recipe: Recipe, clips: int, epoch: int, world: int, labels: Sequence[int] = ()) -> list[list[int]]:
    """The clips of every update of an epoch; the same in every process. No process may be left without a clip.

    ``labels``, one per clip, are what balanced sampling (``train.balanced``) goes by.
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
    """This process' part of a batch, cut into pieces that fit on the device."""
    mine = batch[rank::world]
    piece = recipe.train.micro_batch or len(mine) or 1
    return [mine[i : i + piece] for i in range(0, len(mine), piece)]


def validate(
    model: Any, transform: Any, rows: Sequence[Row], options: dict, accelerator: Accelerator
) -> tuple[np.ndarray, dict[str, str]]:
    """(the confusion table, {clip: why it cannot be read}); every process answers for its part of the clips."""
    part = rows[accelerator.process_index :: accelerator.num_processes]
    pairs, failed = [], []
    if part:
        found = evaluation.evaluate(
            model, part, transform=transform, progress=accelerator.is_local_main_process, **options
        )
        pairs = [(row.label, int(answer)) for row, answer in zip(found.rows, found.answers.argmax(1))]
        failed = [(row.path, reason) for row, reason in found.failed]
    pairs, failed = gather_object(pairs), gather_object(failed)
    table = metrics.confusion([true for true, _ in pairs], [guess for _, guess in pairs], model.num_classes)
    return table, dict(failed)


def write_csv(path: Path, history: list[dict]) -> None:
    """The history of a training, one line per epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ("epoch", "lr", "loss", "uar", "war"), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_atomically(path, text.getvalue().encode())


def seed_all(*numbers: int) -> None:
    """Seed Python's, numpy's and torch's global generators."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    for draw in (random.seed, np.random.seed, torch.manual_seed):
        draw(seed)


def build(recipe: Recipe) -> tuple[Any, Any]:
    """The model of a recipe, and its transform."""
    model = create_model(
        recipe.model.name, recipe.model.pretrained or None, labels=recipe.model.labels or None, **recipe.model.args
    )
    for pattern in recipe.model.freeze:
        model.freeze(*([] if pattern == "published" else [pattern]))
    transform = create_transform(model, faces="none", **recipe.data.transform)  # `read_row` crops
    # what is saved says how it was trained: `predict` and `evaluate` find faces as the training did
    model.video_spec, model.audio_spec = transform.video, transform.audio
    if transform.video is not None:
        model.video_spec = replace(transform.video, detector=known_detector(recipe.data.faces))
    return model, transform


def train(recipe: Recipe, out: Path, resume: bool = False, strict: bool = False) -> dict:
    """Train by a recipe.

    Args:
        recipe: From `read_recipe`.
        out: The folder for ``best``, ``last``, ``history.csv``, ``confusion.png`` and the state.
        resume: Continue from the state in ``out``, where there is one.
        strict: Stop at the first clip that cannot be read. By default such clips are replaced by others.

    Returns:
        ``history`` (one dict per epoch), ``table`` (the last confusion table) and ``failed`` ({clip: reason}).

    Raises:
        InputError: The recipe does not fit the model or the data.
        DferZooError: The loss is not finite.
    """
    settings, data = recipe.train, recipe.data
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    # some published parameters get no gradient
    ddp = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(mixed_precision=settings.precision, kwargs_handlers=[ddp])
    rank, world = accelerator.process_index, accelerator.num_processes

    # the model, its data, its optimiser
    seed_all(settings.seed)
    model, transform = build(recipe)
    rows = read_rows(data.train, model.labels, subset=data.train_subset or None, transform=transform, **data.options)
    valid_rows = read_rows(
        data.valid, model.labels, subset=data.valid_subset or None, transform=transform, **data.options
    )
    for part in (rows, valid_rows):
        evaluation.check_sound(model, part, data.without)
    finding: dict[str, Any] = {"faces": data.faces, "no_face": data.no_face}
    caution = None
    if data.faces == "none" and (uncropped := doctor.uncropped(rows)):
        accelerator.print(
            f"The frames look uncropped; train on faces with data.faces = 'auto'. {uncropped[0].report()}"
        )
        model.video_spec = replace(model.video_spec, face_crop="whole")
        caution = "Trained on whole frames, not on face crops."
    accelerator.print(f"{arch_of(model)}: {len(rows)} clips for training, {len(valid_rows)} for validation")
    weights = balance(rows, model.num_classes)
    class_weights = torch.tensor(weights).float() if settings.class_weights == "balanced" else None
    labels = [row.label for row in rows]
    objective, optimizer = accelerator.prepare(Objective(model, class_weights), create_optimizer(model, recipe))
    model, scaler = accelerator.unwrap_model(objective).model, accelerator.scaler
    read = partial(read_row, crop=transform.face_crop, frame_count=transform.frame_count, **finding)
    dataset = Clips(rows, read, augmentation(data.augment, transform), settings.seed, transform.audio, strict)
    per_epoch = len(batches(recipe, len(rows), 0, world, labels))
    soft = partial(soft_targets, num_classes=model.num_classes, smoothing=settings.smoothing)

    state_file = out / "state.safetensors"
    progress: dict[str, Any] = {
        "epoch": 0,
        "update": 0,
        "loss": 0.0,
        "clips": 0,
        "best": -1.0,
        "history": [],
        "failed": {},
    }
    if resume and state_file.exists():
        progress |= load_state(state_file, model, optimizer, scaler)
        accelerator.print(f"continuing at epoch {progress['epoch'] + 1}, update {progress['update'] + 1}")
    accelerator.wait_for_everyone()

    for epoch in range(progress["epoch"], settings.epochs):
        whole = batches(recipe, len(rows), epoch, world, labels)
        todo = [shares(batch, recipe, rank, world) for batch in whole[progress["update"] :]]
        keys = [[(epoch, number) for number in piece] for pieces in todo for piece in pieces]
        loader = iter(DataLoader(dataset, batch_sampler=keys, collate_fn=Clips.stack, num_workers=data.workers))
        bar = tqdm(todo, desc=f"epoch {epoch + 1}", leave=False, disable=not accelerator.is_local_main_process)
        objective.train()
        loss_sum = progress["loss"] if rank == 0 else 0.0

        for update, pieces in enumerate(bar, start=progress["update"]):
            set_learning_rates(optimizer, recipe, epoch * per_epoch + update, per_epoch)
            for number, piece in enumerate(pieces, start=1):
                inputs, targets, failed = next(loader)
                progress["failed"] |= failed
                seed_all(settings.seed, epoch, update, number, rank)
                inputs = {k: v if v is None else v.to(accelerator.device) for k, v in inputs.items()}
                targets = targets.to(accelerator.device)
                inputs, targets = MIXES[settings.mix](inputs, targets, soft, **settings.mix_options)
                # gradients are averaged over the processes; the share makes them the mean over the clips of the batch
                share = len(piece) * world / len(whole[update])
                with accelerator.no_sync(objective) if number < len(pieces) else nullcontext():
                    loss, _ = objective(inputs, targets, epoch)
                    accelerator.backward(loss * share)
                loss_sum += loss.item() * len(piece)
            if not math.isfinite(loss_sum):
                raise DferZooError(f"The loss is not finite in epoch {epoch + 1}, update {update + 1}.")
            if settings.clip_norm:
                accelerator.clip_grad_norm_(objective.parameters(), settings.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            progress["update"] = update + 1
            progress["clips"] += len(whole[update])
            if settings.save_every and progress["update"] % settings.save_every == 0:
                progress["loss"] = sum(gather_object([loss_sum]))
                if accelerator.is_main_process:
                    save_state(state_file, model, optimizer, scaler, progress)

        table, failed = validate(
            model, transform, valid_rows, {**finding, "without": data.without, "strict": strict}, accelerator
        )
        line = {
            "epoch": epoch + 1,
            "lr": set_learning_rates(optimizer, recipe, (epoch + 1) * per_epoch - 1, per_epoch),
            "loss": sum(gather_object([loss_sum])) / max(1, progress["clips"]),
            "uar": metrics.uar_of_present(table),
            "war": metrics.war(table),
        }
        accelerator.print("  ".join(f"{name} {value:.6g}" for name, value in line.items()))
        better = line[settings.best] > progress["best"]
        everywhere = dict(pair for some in gather_object([progress["failed"]]) for pair in some.items())
        progress |= {"epoch": epoch + 1, "update": 0, "loss": 0.0, "clips": 0, "table": table.tolist()}
        progress |= {
            "best": line[settings.best] if better else progress["best"],
            "history": [*progress["history"], line],
            "failed": dict(sorted({**everywhere, **failed}.items())),
        }
        if accelerator.is_main_process:
            write_weights(model, recipe, out, line, better, caution)
            if better:
                write_figure(out / "confusion.png", confusion_figure(table, model.labels, f"epoch {epoch + 1}"))
            write_csv(out / "history.csv", progress["history"])
            # last of all: after a kill before this line the epoch is repeated, to the same files
            save_state(state_file, model, optimizer, scaler, progress)
        accelerator.wait_for_everyone()
    accelerator.end_training()
    return progress


def write_weights(model: Any, recipe: Recipe, out: Path, line: dict, better: bool, caution: str | None = None) -> None:
    """``out/last``, and ``out/best`` if this epoch is the best, with what was measured."""
    protocol = f"{recipe.data.valid} after epoch {line['epoch']}"
    measured = [Metric(name, round(line[name], 4), protocol, "dfer-zoo train") for name in ("uar", "war")]
    for tag in ("best", "last") if better else ("last",):
        save_pretrained(model, out / tag, tag=tag, dataset=recipe.data.train, metrics=measured, caution=caution)
