"""MAE-DFER's masked pre-training on unlabeled video.

The defaults are the published values: AdamW (0.9, 0.95), weight decay 0.05, learning rate 3e-4 * batch / 256, 5 warmup
epochs, cosine to 1e-5 * batch / 256, 90 % of the tokens masked. As in `training.loop`, a killed run resumes to the same
weights.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..atomic import atomic_path, writable_folder, write_atomically
from ..data.annotations import Row, read_row, read_rows
from ..errors import DferZooError, InputError, MediaError
from ..factory import create_model
from ..media.files import VIDEO_SUFFIXES
from ..saving import save_pretrained
from ..transforms.train.mae_dfer import MAEDFERPretrainTransform
from .batches import Clips, seed_all
from .optim import parameter_groups, warmup_then_cosine
from .state import load_state, save_state


@dataclass(frozen=True)
class Settings:
    """Settings of `pretrain`; the fields are the options of `dfer-zoo pretrain`."""

    data: str
    epochs: int = 100
    warmup_epochs: int = 5
    batch_size: int = 64  # clips per update, over all processes
    lr: float = 3e-4  # for a batch of 256
    min_lr: float = 1e-5  # for a batch of 256
    seed: int = 0
    workers: int = 0
    precision: str = "no"
    save_every: int = 0  # updates between two saved states; 0: only at the end of an epoch
    voxceleb2: bool = False
    model_args: Mapping[str, Any] = field(default_factory=dict)


def unlabeled(source: str) -> Sequence[Row]:
    """List every video below a folder, or the clips of any data set that `read_rows` reads. Labels are ignored."""
    folder = Path(source)
    if folder.is_dir():
        videos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
        if not videos:
            raise MediaError(f"No video below {folder} ({', '.join(sorted(VIDEO_SUFFIXES))}).")
        return [Row(str(path), label=0) for path in videos]
    emotions = ["neutral", "happiness", "sadness", "surprise", "anger"] if source.startswith("puppets") else None
    return read_rows(source, emotions)


def picture(model: Any, video: Tensor) -> Any:
    """Draw the masked input, the reconstruction and the target: every second frame of the first clip."""
    from PIL import Image

    shown = model.reconstruct(video[:1])
    rows = [shown.masked, shown.frames, model.pixels(video[:1])]
    rows = [row[0, ::2].permute(2, 0, 3, 1).flatten(1, 2) for row in rows]  # (T, 3, H, W) -> (H, T * W, 3)
    return Image.fromarray((torch.cat(rows).clamp(0, 1) * 255).byte().cpu().numpy())


def pretrain(settings: Settings, out: Path, resume: bool = False, strict: bool = False) -> dict:
    """Pre-train a ``mae_dfer_pretrain`` model.

    Args:
        settings: Data and hyperparameters.
        out: The folder for ``last``, ``history.csv``, ``reconstruction.png`` and the state.
        resume: Continue from the state in ``out``, if there is one.
        strict: Stop at the first unreadable clip. By default unreadable clips are replaced by others, as published.

    Returns:
        ``history`` (one dict per epoch) and ``failed`` ({clip: reason}).

    Raises:
        InputError: There are fewer clips than processes.
        DferZooError: The loss is not finite.
    """
    accelerator = Accelerator(mixed_precision=settings.precision)
    rank, world = accelerator.process_index, accelerator.num_processes
    seed_all(settings.seed)
    model = create_model("mae_dfer_pretrain", **settings.model_args)
    assert model.video_spec is not None
    writable_folder(out)
    rows = unlabeled(settings.data)
    size = min(settings.batch_size, len(rows)) // world * world
    if size == 0:
        raise InputError(f"{len(rows)} clips cannot be shared by {world} processes.")
    transform = MAEDFERPretrainTransform(model.video_spec, settings.voxceleb2)
    dataset = Clips(rows, read_row, transform, settings.seed, None, strict)
    rate, floor = settings.lr * size / 256, settings.min_lr * size / 256
    groups = parameter_groups(model, lr=rate, weight_decay=0.05)
    objective, optimizer = accelerator.prepare(model, torch.optim.AdamW(groups, betas=(0.9, 0.95)))
    model = accelerator.unwrap_model(objective)
    per_epoch = len(rows) // size
    schedule = partial(
        warmup_then_cosine,
        lr=rate,
        steps=per_epoch * settings.epochs,
        warmup=per_epoch * settings.warmup_epochs,
        floor=floor,
    )
    state_file = out / "state.safetensors"
    progress: dict[str, Any] = {"epoch": 0, "update": 0, "loss": 0.0, "history": [], "failed": {}}
    if resume and state_file.exists():
        progress |= load_state(state_file, model, optimizer, accelerator.scaler)
        accelerator.print(f"continuing at epoch {progress['epoch'] + 1}, update {progress['update'] + 1}")
    accelerator.wait_for_everyone()

    for epoch in range(progress["epoch"], settings.epochs):
        order = np.random.default_rng([settings.seed, epoch]).permutation(len(rows)).tolist()
        todo = [order[i * size : (i + 1) * size][rank::world] for i in range(progress["update"], per_epoch)]
        keys = [[(epoch, number) for number in batch] for batch in todo]
        loader = DataLoader(dataset, batch_sampler=keys, collate_fn=Clips.stack, num_workers=settings.workers)
        bar = tqdm(loader, desc=f"epoch {epoch + 1}", leave=False, disable=not accelerator.is_local_main_process)
        objective.train()
        loss_sum = progress["loss"] if rank == 0 else 0.0
        for update, (inputs, _, failed) in enumerate(bar, start=progress["update"]):
            progress["failed"] |= failed
            video = inputs["video"].to(accelerator.device)
            for group in optimizer.param_groups:
                group["lr"] = schedule(epoch * per_epoch + update)
            seed_all(settings.seed, epoch, update, rank)
            mask = model.draw_mask(len(video)).to(video.device)
            with accelerator.autocast():
                loss = model.loss(objective(video, mask), video, mask)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            loss_sum += loss.item()
            if not np.isfinite(loss_sum):
                raise DferZooError(f"The loss is not finite in epoch {epoch + 1}, update {update + 1}.")
            progress["update"] = update + 1
            if settings.save_every and progress["update"] % settings.save_every == 0:
                progress["loss"] = sum(gather_object([loss_sum]))
                if accelerator.is_main_process:
                    save_state(state_file, model, optimizer, accelerator.scaler, progress)
        line = {"epoch": epoch + 1, "loss": sum(gather_object([loss_sum])) / (per_epoch * world)}
        accelerator.print(f"epoch {epoch + 1}  loss {line['loss']:.4f}")
        everywhere = dict(pair for some in gather_object([progress["failed"]]) for pair in some.items())
        progress |= {"epoch": epoch + 1, "update": 0, "loss": 0.0, "failed": dict(sorted(everywhere.items()))}
        progress["history"] = [*progress["history"], line]
        if accelerator.is_main_process:
            save_pretrained(model, out / "last", tag="last", dataset=settings.data)
            seed_all(settings.seed, epoch)
            sample, _, _ = dataset[epoch, 0]
            shown = picture(model.eval(), sample["video"][None].to(accelerator.device))
            with atomic_path(out / "reconstruction.png") as temporary:
                shown.save(temporary, format="PNG")
            write_history(out / "history.csv", progress["history"])
            save_state(state_file, model, optimizer, accelerator.scaler, progress)
        accelerator.wait_for_everyone()
    accelerator.end_training()
    return progress


def write_history(path: Path, history: list[dict]) -> None:
    """Write the history of a pre-training, one line per epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, history[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_atomically(path, text.getvalue().encode())
