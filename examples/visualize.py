"""What an answer stands on, as a picture: how much of it is lost where something is covered.

    python examples/visualize.py av_fusion.puppets clip.mp4                          # out: clip.png
    python examples/visualize.py mma_dfer.dfew_fold1 interview.mp4 --faces auto --label angry
    python examples/visualize.py mae_dfer_pretrain.voxceleb2 clip.mp4             # masked, guessed, the guess's movement

Nothing is looked up inside the network: places, moments and whole inputs are covered one after the other, and the odds
of one label are compared with those of the whole clip. (Probabilities would hide what moves a sure answer.) What is red
spoke for the label, what is blue against it. It says what this model used in this clip, and not how people feel.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

import dfer_zoo
from dfer_zoo.errors import DferZooError, InputError
from dfer_zoo.models.base import DferModel

SIDE, GAP, LINE = 112, 4, 18  # of the picture, in pixels
INK, PAPER, FOR, AGAINST = (40, 40, 46), (255, 255, 255), (178, 34, 52), (34, 84, 150)


def main(arguments: list[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="ARCH.TAG, local-dir:FOLDER, ...")
    parser.add_argument("clip", help="a video file, or a folder of frames")
    parser.add_argument("--out", type=Path, help="the picture; by default the clip's name with .png")
    parser.add_argument("--label", help="the label to explain; by default the answer")
    parser.add_argument("--faces", default="none", help="as of `dfer-zoo predict`")
    parser.add_argument("--cells", type=int, default=7, help="places along a side")
    options = parser.parse_args(arguments)
    try:
        model = dfer_zoo.create_model(options.model)
        inputs = dfer_zoo.create_transform(model, faces=options.faces).batch([options.clip])
        if hasattr(model, "reconstruct"):
            picture = guessed(model, inputs)
        else:
            picture = explained(model, inputs, options.label, options.cells)
    except DferZooError as error:
        parser.error(str(error))
    out = options.out or Path(Path(options.clip).stem + ".png")
    picture.save(out)
    return out


# -- covering ----------------------------------------------------------------------------------------------------------


def explained(model: DferModel, inputs: dict[str, Tensor | None], label: str | None, cells: int) -> Image.Image:
    name = next((name for name in ("video", "image") if inputs.get(name) is not None), None)
    if name is None:
        raise InputError(f"{type(model).__name__} saw no picture in this clip; there is nothing to cover.")
    if not 1 <= cells <= model.video_spec.img_size:
        raise InputError(f"--cells is {cells}; expected 1 to {model.video_spec.img_size}.")
    if label is not None and label not in model.labels:
        raise InputError(f"There is no label '{label}'; the labels are {', '.join(model.labels)}.")
    answer = odds(model, inputs)
    k = model.labels.index(label) if label else int(answer.argmax())
    places = torch.stack([answer[k] - covered(model, inputs, name, box)[k] for box in boxes(inputs[name], cells)])
    moments = [answer[k] - covered(model, inputs, name, (t,))[k] for t in range(frames_of(inputs[name]).shape[0])]
    without = {
        other: odds(model, {**inputs, other: None})[k]
        for other in model.optional_inputs
        if inputs.get(other) is not None and any(inputs[rest] is not None for rest in model.inputs if rest != other)
    }
    lines = [f"{model.labels[k]}: {answer[k].sigmoid():.1%}"]
    lines += [f"without {other}: {value.sigmoid():.1%}" for other, value in without.items()]
    return draw(colours(model, inputs[name]), places.view(cells, cells), torch.stack(moments), lines)


@torch.inference_mode()
def odds(model: DferModel, inputs: dict[str, Tensor | None]) -> Tensor:
    """The logarithm of p / (1 - p) for each label."""
    return model(**inputs)[0].double().softmax(-1).logit(eps=1e-12)


def covered(model: DferModel, inputs: dict[str, Tensor | None], name: str, where: tuple) -> Tensor:
    """The answer with the clip's mean colour over a part of all frames, or over one frame."""
    frames = frames_of(inputs[name]).clone()
    frames[where] = frames.mean((0, 2, 3), keepdim=True)[0]
    return odds(model, {**inputs, name: frames.view_as(inputs[name])})


def frames_of(tensor: Tensor) -> Tensor:
    """(1, T, 3, H, W), or one image (1, 3, H, W) -> (T, 3, H, W)"""
    return tensor.flatten(0, -4)


def boxes(tensor: Tensor, cells: int) -> list[tuple]:
    """The cells of a grid, row after row, as indices into (T, 3, H, W)."""
    rows, columns = (np.linspace(0, side, cells + 1).round().astype(int) for side in tensor.shape[-2:])
    return [(..., slice(a, b), slice(c, d)) for a, b in pairwise(rows) for c, d in pairwise(columns)]


def colours(model: DferModel, tensor: Tensor) -> np.ndarray:
    """What the model saw, as colours again: (T, H, W, 3) uint8."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.video_spec.mean, model.video_spec.std))
    frames = frames_of(tensor) * std + mean
    if model.video_spec.channel_order == "bgr":
        frames = frames.flip(1)
    return bytes_of(frames)


def bytes_of(frames: Tensor) -> np.ndarray:
    """(T, 3, H, W) in [0, 1] -> (T, H, W, 3) uint8"""
    return (frames.permute(0, 2, 3, 1) * 255).round().clamp(0, 255).byte().numpy()


# -- drawing -----------------------------------------------------------------------------------------------------------


def draw(frames: np.ndarray, places: Tensor, moments: Tensor, lines: list[str]) -> Image.Image:
    """The frames, the same under the map of places, and a bar for each moment. Maps and bars have a scale each."""
    count, step = len(frames), SIDE + GAP
    bars = 2 * step + GAP
    picture = Image.new("RGB", (max(GAP + count * step, 460), bars + SIDE + GAP + LINE * (len(lines) + 1)), PAPER)
    pen = ImageDraw.Draw(picture)
    heat = shades(places)
    for t, frame in enumerate(frames):
        small = Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        picture.paste(small, (GAP + t * step, GAP))
        picture.paste(Image.blend(small.convert("L").convert("RGB"), heat, 0.5), (GAP + t * step, GAP + step))
        height = float(moments[t] / moments.abs().max().clamp(min=1e-12)) * SIDE / 2
        zero = bars + SIDE / 2
        box = (GAP + t * step, zero - max(height, 0), GAP + t * step + SIDE, zero - min(height, 0))
        pen.rectangle(box, fill=FOR if height > 0 else AGAINST)
    place, moment = (f"{values.abs().max().exp():.2g}" for values in (places, moments))
    lines = [*lines, f"covered, a place changes the odds by a factor of up to {place}, a frame by {moment}"]
    for number, line in enumerate(lines):
        pen.text((GAP, bars + SIDE + GAP + LINE * number), line, fill=INK)
    return picture


def shades(places: Tensor) -> Image.Image:
    """Red where the label loses, blue where it gains, white where nothing happens."""
    share = (places / places.abs().max().clamp(min=1e-12)).numpy()[..., None]
    ends = np.where(share > 0, np.array(FOR), np.array(AGAINST))
    values = 255 + np.abs(share) * (ends - 255)
    return Image.fromarray(values.astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def guessed(model: DferModel, inputs: dict[str, Tensor | None]) -> Image.Image:
    """What a masked autoencoder was given, what it made of it, and what moves in that: three rows."""
    with torch.inference_mode():
        made = model.reconstruct(inputs["video"])
    rows = [made.masked[0], made.frames[0], made.differences[0] / 2 + 0.5]
    step = SIDE + GAP
    picture = Image.new("RGB", (GAP + len(rows[0]) * step, GAP + len(rows) * step), PAPER)
    for y, row in enumerate(rows):
        for x, frame in enumerate(bytes_of(row)):
            small = Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
            picture.paste(small, (GAP + x * step, GAP + y * step))
    return picture


if __name__ == "__main__":
    main()
