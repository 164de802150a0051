"""Train on tar shards of videos: `python examples/webdataset_train.py 'shards/{0000..0099}.tar' RUN --labels happy,sad`.

A shard is a tar file with pairs `NAME.mp4` (the video) and `NAME.cls` (the number of its class), as the package
webdataset writes and reads them: from a disk, or from a store (`pipe:aws s3 cp ...`). Every worker reads whole shards
from start to end, so a store is read in order; the order of clips is shuffled in a buffer.
Needs `pip install 'dfer-zoo[webdataset,video]'`.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch
import webdataset
from torch.nn import functional
from torch.utils.data import DataLoader

import dfer_zoo
from dfer_zoo.inference.inputs import Item
from dfer_zoo.inference.sources import local
from dfer_zoo.media.files import read_clip
from dfer_zoo.transforms import collate
from dfer_zoo.transforms.train import augmentation


class Sample:
    """Map a sample of a shard to (model inputs, class). Frames are cropped to the face and augmented."""

    def __init__(self, transform: Any, augment: str) -> None:
        self.transform, self.augment = transform, augmentation(augment, transform)

    def __call__(self, sample: dict) -> tuple[dict, int]:
        with local(Item(sample["mp4"], sample["__key__"])) as (here, name):
            clip = self.transform.crop(dataclasses.replace(read_clip(here.source), source=name))
            return self.augment(clip), int(sample["cls"])


def stack(samples: list[tuple[dict, int]]) -> tuple[dict, torch.Tensor]:
    return collate([inputs for inputs, _ in samples]), torch.tensor([label for _, label in samples])


def skip(error: Exception) -> bool:
    """Print the error of an unusable clip and continue."""
    if not isinstance(error, dfer_zoo.DferZooError):
        raise error
    print(error, file=sys.stderr)
    return True


def batches(shards: str, sample: Sample, *, batch_size: int, workers: int = 0, shuffle: int = 200) -> DataLoader:
    """Return a loader of (inputs, classes) that reads all shards once."""
    data = webdataset.WebDataset(shards, shardshuffle=100, handler=skip, empty_check=False)
    data = data.shuffle(shuffle).map(sample, handler=skip)
    return DataLoader(data, batch_size=batch_size, collate_fn=stack, num_workers=workers)


def train(
    shards: str,
    out: Path,
    labels: list[str],
    *,
    arch: str = "av_fusion",
    faces: str = "auto",
    augment: str = "none",
    epochs: int = 10,
    batch_size: int = 8,
    rate: float = 1e-3,
    workers: int = 0,
    device: str = "cpu",
    **model_options: Any,
) -> list[float]:
    """Train a model, and save it to the folder `out` after every epoch. Load it with `local-dir:OUT`.

    Returns:
        The mean loss of every epoch.
    """
    model = dfer_zoo.create_model(arch, labels=labels, **model_options).to(device)
    sample = Sample(dfer_zoo.create_transform(model, faces=faces), augment)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    history = []
    for epoch in range(epochs):
        model.train()
        losses = []
        for inputs, classes in batches(shards, sample, batch_size=batch_size, workers=workers):
            inputs = {name: None if tensor is None else tensor.to(device) for name, tensor in inputs.items()}
            loss = functional.cross_entropy(model(**inputs), classes.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        if not losses:
            raise SystemExit(f"{shards}: there is no clip that can be used.")
        history.append(sum(losses) / len(losses))
        print(f"epoch {epoch + 1}: loss {history[-1]:.4f}")
        dfer_zoo.save_pretrained(model.eval(), out, tag="webdataset")
    return history


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", help="a pattern, such as 'shards/{0000..0099}.tar'")
    parser.add_argument("out", type=Path, help="the folder of the weights")
    parser.add_argument("--labels", required=True, help="names of the classes, separated by commas")
    parser.add_argument("--arch", default="av_fusion")
    parser.add_argument("--faces", default="auto")
    parser.add_argument("--augment", default="none", help="as in recipes: none, flip, ...")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    options = vars(parser.parse_args())
    labels = options.pop("labels").split(",")
    train(options.pop("shards"), options.pop("out"), labels, **options)


if __name__ == "__main__":
    main()
