"""MAE-DFER's masked pre-training on your own unlabelled video.

    python examples/pretrain.py --data videos/ --out runs/pretrain                       # a folder of video files
    python examples/pretrain.py --data puppets:clips=64 --out runs/p --set depth=2 --epochs 3 --batch-size 8
    accelerate launch --num_processes 4 examples/pretrain.py ...

Fine-tuning starts from what it writes:

    model = dfer_zoo.create_model("mae_dfer", labels=[...])
    model.load_report = model.load_backbones({"encoder": read_safetensors(Path("runs/pretrain/last/model.safetensors"))[0]})

The published values are the defaults: AdamW (0.9, 0.95), weight decay 0.05, learning rate 3e-4 * batch / 256, five epochs
of warm-up, a cosine to 1e-5 * batch / 256, nine tenths of the tokens masked, no labels.
"""

from __future__ import annotations

import argparse
import ast
import csv
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

import dfer_zoo
from dfer_zoo.data.annotations import Row, read_row, read_rows
from dfer_zoo.training.groups import parameter_groups
from dfer_zoo.training.schedules import warmup_then_cosine
from dfer_zoo.transforms.train.mae_dfer import PretrainTransform


class Clips(Dataset):
    """Clips by number, seeded by (seed, epoch, number). One that cannot be read is replaced by the next that can, as in
    the published training: there are always some among a million."""

    def __init__(self, rows: list[Row], transform, seed: int) -> None:
        self.rows, self.transform, self.seed, self.epoch = rows, transform, seed, 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> torch.Tensor:
        seed = int(np.random.SeedSequence((self.seed, self.epoch, number)).generate_state(1)[0])
        random.seed(seed), np.random.seed(seed)
        for row in (self.rows[(number + step) % len(self.rows)] for step in range(len(self.rows))):
            try:
                return self.transform(read_row(row))["video"]
            except dfer_zoo.MediaError as error:
                print(f"left out: {error}")
        raise dfer_zoo.MediaError("None of the clips can be read.")


def unlabelled(source: str) -> list[Row]:
    """Every video below a folder, or any data set that `read_rows` knows, without a look at its labels."""
    folder = Path(source)
    if folder.is_dir():
        suffixes = {".mp4", ".avi", ".mkv", ".mov", ".webm"}
        videos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
        if not videos:
            raise dfer_zoo.MediaError(
                f"There is no video below {folder}; its names end in {', '.join(sorted(suffixes))}."
            )
        return [Row(str(path), label=0) for path in videos]
    feelings = ["neutral", "happiness", "sadness", "surprise", "anger"] if source.startswith("puppets") else None
    return read_rows(source, feelings)


def setting(text: str) -> tuple[str, Any]:
    """NAME=VALUE; the value is Python's, like 16 or (2, 2, 4), or else a plain word."""
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"'{text}' sets nothing; write NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def picture(model, video: torch.Tensor):
    """What is hidden, what is guessed, and the clip itself; every second frame of the first clip."""
    from PIL import Image

    shown = model.reconstruct(video[:1])
    rows = [shown.masked, shown.frames, model.pixels(video[:1])]
    rows = [row[0, ::2].permute(2, 0, 3, 1).flatten(1, 2) for row in rows]  # (T, 3, H, W) -> (H, T * W, 3)
    return Image.fromarray((torch.cat(rows).clamp(0, 1) * 255).byte().cpu().numpy())


def pretrain(options: argparse.Namespace) -> list[dict]:
    accelerator = Accelerator(mixed_precision=options.precision)
    torch.manual_seed(options.seed)
    model = dfer_zoo.create_model("mae_dfer_pretrain", **dict(options.set))
    dataset = Clips(unlabelled(options.data), PretrainTransform(model.video_spec, options.voxceleb2), options.seed)
    batch = min(options.batch_size, len(dataset))
    loader = DataLoader(
        dataset, batch // accelerator.num_processes, shuffle=True, drop_last=True, num_workers=options.workers
    )
    rate, floor = options.lr * batch / 256, options.min_lr * batch / 256
    optimizer = torch.optim.AdamW(parameter_groups(model, lr=rate, weight_decay=0.05), betas=(0.9, 0.95))
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    inner = accelerator.unwrap_model(model)
    steps, warmup = len(loader) * options.epochs, len(loader) * options.warmup_epochs

    history: list[dict] = []
    for epoch in range(options.epochs):
        dataset.epoch = epoch
        model.train()
        losses = []
        bar = tqdm(loader, desc=f"epoch {epoch + 1}", leave=False, disable=not accelerator.is_local_main_process)
        for number, video in enumerate(bar):
            for group in optimizer.param_groups:
                group["lr"] = warmup_then_cosine(
                    epoch * len(loader) + number, lr=rate, steps=steps, warmup=warmup, floor=floor
                )
            mask = inner.draw_mask(len(video)).to(video.device)
            with accelerator.autocast():
                loss = inner.loss(model(video, mask), video, mask)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        history.append({"epoch": epoch + 1, "loss": float(np.mean(losses))})
        accelerator.print(f"epoch {epoch + 1}  loss {history[-1]['loss']:.4f}")
        if accelerator.is_main_process:
            dfer_zoo.save_pretrained(inner, options.out / "last", tag="last", dataset=options.data)
            picture(inner.eval(), video).save(options.out / "reconstruction.png")
            with (options.out / "history.csv").open("w", newline="") as stream:
                writer = csv.DictWriter(stream, history[0])
                writer.writeheader()
                writer.writerows(history)
    accelerator.end_training()
    return history


def main(arguments: list[str] | None = None) -> list[dict]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", required=True, help="a folder of video files, an annotation file, or puppets:clips=64"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--warmup-epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64, help="clips per update, over all processes")
    parser.add_argument("--lr", type=float, default=3e-4, help="for a batch of 256; scaled with the batch")
    parser.add_argument("--min-lr", type=float, default=1e-5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--precision", choices=("no", "fp16", "bf16"), default="no")
    parser.add_argument("--voxceleb2", action="store_true", help="cut the face out of VoxCeleb2's 224 x 224 frames")
    parser.add_argument(
        "--set", nargs="*", type=setting, default=[], metavar="NAME=VALUE", help="constructor arguments of the model"
    )
    try:
        return pretrain(parser.parse_args(arguments))
    except dfer_zoo.DferZooError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
