"""Train or fine-tune any model of the zoo by a recipe.

    python examples/finetune.py examples/recipes/puppets_demo.toml --out runs/demo
    python examples/finetune.py examples/recipes/mma_dfer_dfew.toml --out runs/mma \
        --set data.train=DFEW_set_1_train.txt --set data.valid=DFEW_set_1_test.txt --set data.options.audio=dfew
    accelerate launch --num_processes 4 examples/finetune.py ... --resume

The loop is this file: copy it and change it. After a kill at any moment ``--resume`` continues to the same weights, bit
for bit, on the same machine: everything random is seeded by (seed, epoch, update) or (seed, epoch, clip), and files
are written under a temporary name and moved.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import os
import random
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts; without it matmuls may vary

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, gather_object
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

import dfer_zoo
from dfer_zoo.atomic import write_atomically
from dfer_zoo.data.annotations import read_row, read_rows
from dfer_zoo.inference import doctor, metrics
from dfer_zoo.inference import evaluate as evaluation
from dfer_zoo.inference.plots import confusion_figure, write_figure
from dfer_zoo.saving import arch_of
from dfer_zoo.training.mixes import MIXES, soft_targets
from dfer_zoo.training.oversampling import draw_balanced
from dfer_zoo.training.recipe import Recipe, create_optimizer, read_recipe, set_learning_rates
from dfer_zoo.training.state import load_state, save_state
from dfer_zoo.transforms import collate, create_transform
from dfer_zoo.transforms.audio import silence
from dfer_zoo.transforms.train import augmentation
from dfer_zoo.weights.record import AudioSpec


class Clips(Dataset):
    """Training samples by (epoch, number): what is drawn depends on these alone, not on the order or the worker."""

    def __init__(self, rows, read, augmented, seed: int, sound: AudioSpec | None) -> None:
        self.rows, self.read, self.augmented, self.seed, self.sound = rows, read, augmented, seed, sound

    def __getitem__(self, key: tuple[int, int]):
        epoch, number = key
        seed_all(self.seed, epoch, number)
        sample = self.augmented(self.read(self.rows[number]))
        if self.sound and sample["audio"] is None:  # so that it can share a batch with others
            sample["audio"] = silence(self.sound)
        return sample, self.rows[number].label

    @staticmethod
    def stack(samples):
        inputs = collate([sample for sample, _ in samples])
        return inputs, torch.tensor([label for _, label in samples])


class Objective(nn.Module):
    """The model together with its loss, so that distributed wrappers and autocast see one forward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs, targets, epoch: int):
        return self.model.training_loss(inputs, targets, F.cross_entropy, epoch=epoch)


def batches(recipe: Recipe, clips: int, epoch: int, world: int, labels: list[int] = ()) -> list[list[int]]:
    """The clips of every update of an epoch; the same in every process. No process may be left without a clip.
    ``labels``, one per clip, are read by balanced sampling."""
    size = min(recipe.train.batch_size, clips)
    if size < world:
        raise dfer_zoo.InputError(f"An update of {size} clip{'s' * (size > 1)} cannot be shared by {world} processes.")
    rng = np.random.default_rng([recipe.train.seed, epoch])
    order = draw_balanced(labels, rng) if recipe.train.balanced else rng.permutation(clips).tolist()
    whole = [order[i : i + size] for i in range(0, clips, size)]
    least = size if recipe.train.drop_last else world
    return [batch for batch in whole if len(batch) >= least]


def shares(batch: list[int], recipe: Recipe, rank: int, world: int) -> list[list[int]]:
    """This process' part of a batch, cut into pieces that fit on the device."""
    mine = batch[rank::world]
    piece = recipe.train.micro_batch or len(mine) or 1
    return [mine[i : i + piece] for i in range(0, len(mine), piece)]


def validate(model, transform, rows, finding, accelerator) -> np.ndarray:
    """The confusion table; every process answers for its part of the clips."""
    part = rows[accelerator.process_index :: accelerator.num_processes]
    pairs = []
    if part:
        answers = evaluation.probabilities(
            model, part, transform=transform, progress=accelerator.is_local_main_process, **finding
        ).argmax(1)
        pairs = [(row.label, int(answer)) for row, answer in zip(part, answers)]
    pairs = gather_object(pairs)
    return metrics.confusion([true for true, _ in pairs], [guess for _, guess in pairs], model.num_classes)


def write_csv(path: Path, history: list[dict]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, ("epoch", "lr", "loss", "uar", "war"), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_atomically(path, text.getvalue().encode())


def seed_all(*numbers: int) -> None:
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    for draw in (random.seed, np.random.seed, torch.manual_seed):
        draw(seed)


def train(recipe: Recipe, out: Path, resume: bool = False) -> dict:
    """Train by the recipe; write ``out/best``, ``out/last``, ``out/history.csv``, ``out/confusion.png``."""
    settings = recipe.train
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    # some published parameters get no gradient
    ddp = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(mixed_precision=settings.precision, kwargs_handlers=[ddp])
    rank, world = accelerator.process_index, accelerator.num_processes

    # the model, its data, its optimiser
    seed_all(settings.seed)
    model = dfer_zoo.create_model(
        recipe.model.name, recipe.model.pretrained or None, labels=recipe.model.labels or None, **recipe.model.args
    )
    for pattern in recipe.model.freeze:
        model.freeze(*([] if pattern == "published" else [pattern]))
    transform = create_transform(model, faces="none", **recipe.data.transform)  # `read_row` crops
    model.video_spec, model.audio_spec = transform.video, transform.audio  # what is saved says how it was trained
    data, reader = recipe.data, recipe.data.options
    rows = read_rows(data.train, model.labels, subset=data.train_subset or None, **reader)
    valid_rows = read_rows(data.valid, model.labels, subset=data.valid_subset or None, **reader)
    finding = {"faces": data.faces, "no_face": data.no_face}
    caution = None
    if data.faces == "none" and (whole := doctor.uncropped(rows)):
        # faces are part of what a model is trained on: predict and evaluate must take whole frames too
        accelerator.print(f"The frames look uncropped; train on faces with data.faces = 'auto'. {whole[0].report()}")
        model.video_spec = replace(model.video_spec, face_crop="whole")
        caution = "Trained on whole frames, not on face crops."
    accelerator.print(f"{arch_of(model)}: {len(rows)} clips for training, {len(valid_rows)} for validation")
    objective, optimizer = accelerator.prepare(Objective(model), create_optimizer(model, recipe))
    model, scaler = accelerator.unwrap_model(objective).model, accelerator.scaler
    read = partial(read_row, crop=transform.face_crop, **finding)
    dataset = Clips(rows, read, augmentation(data.augment, transform), settings.seed, transform.audio)
    labels = [row.label for row in rows]
    per_epoch = len(batches(recipe, len(rows), 0, world, labels))
    soft = partial(soft_targets, num_classes=model.num_classes, smoothing=settings.smoothing)

    state_file = out / "state.safetensors"
    progress = {"epoch": 0, "update": 0, "loss": 0.0, "clips": 0, "best": -1.0, "history": []}
    if resume and state_file.exists():
        progress = load_state(state_file, model, optimizer, scaler)
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
                inputs, targets = next(loader)
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
                raise SystemExit(f"The loss is not finite in epoch {epoch + 1}, update {update + 1}.")
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

        table = validate(model, transform, valid_rows, finding, accelerator)
        line = {
            "epoch": epoch + 1,
            "lr": set_learning_rates(optimizer, recipe, (epoch + 1) * per_epoch - 1, per_epoch),
            "loss": sum(gather_object([loss_sum])) / max(1, progress["clips"]),
            "uar": metrics.uar_of_present(table),
            "war": metrics.war(table),
        }
        accelerator.print("  ".join(f"{name} {value:.6g}" for name, value in line.items()))
        better = line[settings.best] > progress["best"]
        progress |= {"epoch": epoch + 1, "update": 0, "loss": 0.0, "clips": 0}
        progress |= {
            "best": line[settings.best] if better else progress["best"],
            "history": [*progress["history"], line],
        }
        if accelerator.is_main_process:
            measured = [
                dfer_zoo.Metric(
                    name, round(line[name], 4), f"{data.valid} after epoch {epoch + 1}", "examples/finetune.py"
                )
                for name in ("uar", "war")
            ]
            facts = {"dataset": data.train, "metrics": measured}
            if better:
                dfer_zoo.save_pretrained(model, out / "best", tag="best", caution=caution, **facts)
                write_figure(out / "confusion.png", confusion_figure(table, model.labels, f"epoch {epoch + 1}"))
            dfer_zoo.save_pretrained(model, out / "last", tag="last", caution=caution, **facts)
            write_csv(out / "history.csv", progress["history"])
            # last of all: who is killed before this line does the epoch again, to the same files
            save_state(state_file, model, optimizer, scaler, progress)
        accelerator.wait_for_everyone()
    accelerator.end_training()
    return progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="a TOML file, see examples/recipes")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, numbers and the state")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.NAME=VALUE", help="exchange a value")
    parser.add_argument("--resume", action="store_true", help="continue from OUT where there is a state")
    options = parser.parse_args()
    if not options.resume and (options.out / "state.safetensors").exists():
        parser.error(f"{options.out} holds a training already; add --resume, or choose another folder.")
    try:
        train(read_recipe(options.recipe, options.set), options.out, options.resume)
    except dfer_zoo.DferZooError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
