"""The kinds of files that are attacked: a few whole ones of each, and the function that reads them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

VIDEO = (
    ("clip.mp4", ("-c:v", "libx264", "-c:a", "aac")),
    ("clip.mkv", ("-c:v", "libx264", "-c:a", "flac")),
    ("clip.webm", ("-c:v", "libvpx", "-c:a", "libopus")),
    ("clip.avi", ("-c:v", "mpeg4", "-c:a", "libmp3lame")),
    ("clip.ts", ("-c:v", "mpeg2video", "-c:a", "mp2")),
    ("clip.flv", ("-c:v", "flv", "-an")),
    ("clip.gif", ("-an",)),
    ("sound.wav", ("-vn", "-ac", "12")),
    ("sound.flac", ("-vn", "-ac", "8")),
    ("sound.ogg", ("-vn", "-c:a", "libvorbis")),
    ("sound.mp3", ("-vn",)),
    ("sound.aac", ("-vn",)),
)
IMAGES = ("i.jpg", "i.png", "i.bmp", "i.webp", "i.ppm", "i.tif")


def make_media(folder: Path) -> None:
    from tests.media_files import test_pattern

    for name, codec in VIDEO:
        test_pattern(folder / name, *codec, seconds=0.4, rate=10, size="64x48")


def read_media(path: Path) -> None:
    from dfer_zoo import read_clip

    clip = read_clip(path, recover=path.stem.endswith("recover"))
    if clip.num_frames:
        clip.take([0, clip.num_frames - 1])


def make_images(folder: Path) -> None:
    from PIL import Image

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    for name in IMAGES:
        picture.save(folder / name)


def make_safetensors(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    state = {"a.weight": torch.zeros(4, 4), "a.bias": torch.zeros(4), "count": torch.tensor(3)}
    record = {"arch": "av_fusion", "tag": "x", "labels": ["yes", "no"], "model_args": {"num_classes": 2}}
    save_file(state, folder / "a.safetensors", {"dfer_zoo": json.dumps(record)})
    save_file(state, folder / "b.safetensors")


def read_weights(path: Path) -> None:
    from dfer_zoo.weights.safetensors import read_safetensors

    read_safetensors(path)


def make_pickles(folder: Path) -> None:
    import torch

    state = {"state_dict": {"a.weight": torch.zeros(4, 4), "a.bias": torch.zeros(4)}, "epoch": 3, "best": 0.5}
    torch.save(state, folder / "new.pth")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)


def read_pickle(path: Path) -> None:
    from dfer_zoo.checkpoints import read_checkpoint

    read_checkpoint(path)


def make_lists(folder: Path) -> None:
    (folder / "frames.txt").write_text("/data/00001 16 3\n/data/a name/00002 120 0\n")
    (folder / "clips.csv").write_text("/data/00001 3\n/data/00002 0\n")
    (folder / "sound.txt").write_text("a.npy;a.wav;1;training\nb.npy;b.wav;8;testing\n")
    np.save(folder / "faces.npy", np.zeros((15, 8, 8, 3), np.uint8))


def read_list(path: Path) -> None:
    from dfer_zoo.data.annotations import Row, read_row, read_rows

    if path.suffix == ".npy":
        read_row(Row(str(path), 0))
    else:
        read_rows(path, ["a", "b", "c", "d", "e", "f", "g", "h"])


def make_recipes(folder: Path) -> None:
    shipped = Path(__file__).resolve().parents[2] / "examples" / "recipes"
    for path in sorted(shipped.glob("*.toml"))[::3]:
        shutil.copy(path, folder / path.name)


def read_a_recipe(path: Path) -> None:
    from dfer_zoo.training.recipe import read_recipe

    read_recipe(path)


# kind -> (writes whole files into a folder, reads one file)
KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], None]]] = {
    "media": (make_media, read_media),
    "images": (make_images, read_media),
    "safetensors": (make_safetensors, read_weights),
    "pickles": (make_pickles, read_pickle),
    "annotations": (make_lists, read_list),
    "recipes": (make_recipes, read_a_recipe),
}
