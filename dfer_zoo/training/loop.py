"""The training loop: `train` runs a recipe. Copy this file and edit it for what recipes cannot express.

A training that was killed at any moment continues with ``resume=True`` to bit-identical weights on the same machine:
everything random is seeded by (seed, epoch, update) or (seed, epoch, clip), and files are written atomically.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

# read when CUDA starts: without it matrix products are not deterministic
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, gather_object
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..atomic import writable_folder, write_atomically
from ..data.annotations import Row, read_row, read_rows
from ..errors import DferZooError, InputError
from ..factory import create_model
from ..inference import doctor, metrics
from ..inference import evaluate as evaluation
from ..inference.plots import confusion_figure, write_figure
from ..media.clip import Clip
from ..media.faces import keep_boxes, known_detector
from ..saving import arch_of, save_pretrained
from ..transforms import Transform, create_transform
from ..transforms.train import augmentation
from ..weights.fetch import MODEL_FILE
from ..weights.record import Metric
from ..weights.safetensors import read_safetensors
from .batches import Clips, class_weights, seed_all, shares, update_batches
from .mixing import MIXES, soft_targets
from .optim import create_optimizer, set_learning_rates
from .recipe import Recipe
from .state import load_state, save_state


def read_faces(row: Row, transform: Transform) -> Clip:
    """Read the clip of a row and crop it to the face."""
    return transform.crop(read_row(row, frame_count=transform.frame_count))


class Objective(nn.Module):
    """The model and its loss in one module, so that DDP and autocast wrap a single forward."""

    class_weights: Tensor | None

    def __init__(self, model: nn.Module, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, inputs: dict, targets: Tensor, epoch: int) -> Any:
        criterion = partial(F.cross_entropy, weight=self.class_weights)
        return self.model.training_loss(inputs, targets, criterion, epoch=epoch)  # type: ignore[operator]


def validate(
    model: Any, transform: Transform, rows: Sequence[Row], options: dict, accelerator: Accelerator
) -> tuple[np.ndarray, dict[str, str]]:
    """Return the confusion table and {unreadable clip: reason}. Every process evaluates its share of the clips."""
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
    """Write the history of a training, one line per epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ("epoch", "lr", "loss", "uar", "war"), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_atomically(path, text.getvalue().encode())


def load_backbones(model: Any, folders: Mapping[str, str]) -> None:
    """Load parts of a model from the weights in these folders, such as ``last`` of a pre-training."""
    states = {}
    for part, folder in folders.items():
        path = Path(folder) / MODEL_FILE
        if not path.is_file():
            raise InputError(f"model.backbones.{part}: no such file: {path}. Give the folder `last` of a pre-training.")
        states[part] = read_safetensors(path)[0]
    model.load_backbones(states)


def build(recipe: Recipe) -> tuple[Any, Any]:
    """Create the model of a recipe, and its transform."""
    model = create_model(
        recipe.model.name, recipe.model.pretrained or None, labels=recipe.model.labels or None, **recipe.model.args
    )
    if recipe.model.backbones:
        load_backbones(model, recipe.model.backbones)
    for pattern in recipe.model.freeze:
        model.freeze(*([] if pattern == "published" else [pattern]))
    transform = create_transform(model, faces=recipe.data.faces, no_face=recipe.data.no_face, **recipe.data.transform)
    # saved with the weights, so that `predict` and `evaluate` find faces as the training did
    model.video_spec, model.audio_spec = transform.video, transform.audio
    if transform.video is not None:
        model.video_spec = replace(transform.video, detector=known_detector(transform.faces))
    return model, transform


def train(recipe: Recipe, out: Path, resume: bool = False, strict: bool = False) -> dict:
    """Train a model by a recipe.

    Args:
        recipe: From `read_recipe`.
        out: The folder for ``best``, ``last``, ``history.csv``, ``confusion.png`` and the state.
        resume: Continue from the state in ``out``, if there is one.
        strict: Stop at the first unreadable clip. By default unreadable clips are replaced by others.

    Returns:
        ``history`` (one dict per epoch), ``table`` (the last confusion table), ``labels`` and ``failed`` ({clip: reason}).

    Raises:
        InputError: The recipe does not fit the model or the data.
        DferZooError: The loss is not finite.
    """
    settings, data = recipe.train, recipe.data
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    # some parameters of published models get no gradient
    ddp = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(mixed_precision=settings.precision, kwargs_handlers=[ddp])
    rank, world = accelerator.process_index, accelerator.num_processes

    # model, data, optimizer
    seed_all(settings.seed)
    model, transform = build(recipe)
    writable_folder(out)
    transform = replace(transform, faces=keep_boxes(transform.faces, out / "boxes.jsonl"))  # no epoch searches again
    rows = read_rows(data.train, model.labels, subset=data.train_subset or None, transform=transform, **data.options)
    valid_rows = read_rows(
        data.valid, model.labels, subset=data.valid_subset or None, transform=transform, **data.options
    )
    for part in (rows, valid_rows):
        evaluation.check_sound(model, part, data.without)
    caution = None
    if data.faces == "none" and (uncropped := doctor.uncropped(rows)):
        accelerator.print(
            f"The frames look uncropped. Set data.faces = 'auto' to train on face crops. {uncropped[0].report()}"
        )
        model.video_spec = replace(model.video_spec, face_crop="whole")
        caution = "Trained on whole frames, not on face crops."
    accelerator.print(f"{arch_of(model)}: {len(rows)} clips for training, {len(valid_rows)} for validation")
    balanced = torch.tensor(class_weights(rows, model.num_classes)).float()
    weights = balanced if settings.class_weights == "balanced" else None
    labels = [row.label for row in rows]
    objective, optimizer = accelerator.prepare(Objective(model, weights), create_optimizer(model, recipe))
    model, scaler = accelerator.unwrap_model(objective).model, accelerator.scaler
    read = partial(read_faces, transform=transform)
    dataset = Clips(rows, read, augmentation(data.augment, transform), settings.seed, transform.audio, strict)
    per_epoch = len(update_batches(recipe, len(rows), 0, world, labels))
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
        whole = update_batches(recipe, len(rows), epoch, world, labels)
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
                # DDP averages gradients over processes; this factor turns that into the mean over the clips of the batch
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

        table, failed = validate(model, transform, valid_rows, {"without": data.without, "strict": strict}, accelerator)
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
            # last: if the process is killed before this line, the epoch is repeated and writes the same files
            save_state(state_file, model, optimizer, scaler, progress)
        accelerator.wait_for_everyone()
    accelerator.end_training()
    return progress | {"labels": list(model.labels)}


def write_weights(model: Any, recipe: Recipe, out: Path, line: dict, better: bool, caution: str | None = None) -> None:
    """Write ``out/last``, and ``out/best`` if this is the best epoch so far, with the validation metrics."""
    protocol = f"{recipe.data.valid} after epoch {line['epoch']}"
    measured = [Metric(name, round(line[name], 4), protocol, "dfer-zoo train") for name in ("uar", "war")]
    for tag in ("best", "last") if better else ("last",):
        save_pretrained(model, out / tag, tag=tag, dataset=recipe.data.train, metrics=measured, caution=caution)
