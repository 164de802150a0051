"""`dfer-zoo visualize`: plot attention, embeddings and other model outputs."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path
from typing import Any

from ..errors import InputError
from .common import Command, parse_faces, reading, reading_options


def visualize_options(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    tsne = what.add_parser("tsne", help="embeddings of a list of clips in two dimensions")
    _model(tsne, faces="none")
    tsne.add_argument("data", help="an annotation file, a folder with one folder per class, or puppets:clips=100")
    tsne.add_argument("--subset", help="only these rows of the list")
    reading_options(tsne)
    tsne.add_argument("--perplexity", type=float, default=30.0, help="approximate number of neighbors (30)")
    tsne.add_argument("--seed", type=int, default=0)
    tsne.add_argument("--batch-size", type=int, default=8)
    tsne.add_argument("--csv", type=Path, metavar="PATH", help="also write clip, label, x, y")
    for name, summary in (
        ("occlusion", "which places and frames a prediction depends on"),
        ("reconstruct", "the reconstruction of a masked autoencoder (mae_dfer_pretrain)"),
        ("snippets", "the prediction and weight of each snippet (dk_clip)"),
    ):
        command = what.add_parser(name, help=summary)
        _model(command, faces="auto")
        command.add_argument("clip", help="a video file, or a folder of frames")
        if name == "occlusion":
            command.add_argument("--label", help="the label to explain; by default the predicted one")
            command.add_argument("--cells", type=int, default=7, help="places along a side (7)")
        if name == "reconstruct":
            command.add_argument(
                "--difference",
                action=argparse.BooleanOptionalAction,
                help="show the frame difference; by default if the model was trained on it",
            )
            command.add_argument("--seed", type=int, help="seed of the mask")


def _model(parser: argparse.ArgumentParser, faces: str) -> None:
    parser.add_argument("model", help='"mma_dfer.dfew_fold1", "local-dir:FOLDER" or "hf-hub:OWNER/REPO"')
    parser.add_argument(
        "--out", type=Path, metavar="PATH", help="the plot: .png, .pdf or .svg; by default CLIP_WHAT.png"
    )
    parser.add_argument("--faces", default=faces, help=f"as in predict; by default {faces}")
    parser.add_argument("--no-face", choices=("error", "frame"), default="error", help="what to do without a face")
    parser.add_argument("--device", help='"cuda", "mps", ...; default: the CPU')


def visualize_command(options: argparse.Namespace) -> int:
    from ..factory import create_model
    from ..inference.plots import write_figure
    from ..transforms import create_transform

    out = options.out or Path(f"{_stem(options)}_{options.what}.png")
    model = create_model(options.model, device=options.device)
    if options.what == "tsne":
        figure = _tsne(model, options)
    else:
        transform = create_transform(model, faces=parse_faces(options.faces), no_face=options.no_face)
        inputs = {
            name: tensor if tensor is None else tensor.to(options.device or "cpu")
            for name, tensor in transform.batch([options.clip]).items()
        }
        figure = _of_clip(model, inputs, options)
    print(write_figure(out, figure))
    return 0


def _stem(options: argparse.Namespace) -> str:
    return Path(options.data if options.what == "tsne" else options.clip).stem.replace(":", "_").replace(",", "_")


def _of_clip(model: Any, inputs: dict[str, Any], options: argparse.Namespace) -> Any:
    import torch

    from ..inference import visualize

    title = f"{Path(options.clip).name}, {options.model}"
    if options.what == "occlusion":
        found = visualize.occlusion(model, inputs, label=options.label, cells=options.cells)
        return visualize.occlusion_figure(found, title)
    video = inputs.get("video")
    if video is None:
        raise InputError(f"{options.model} has no frames of {options.clip}.")
    if options.what == "snippets":
        return visualize.snippets_figure(model, video, title=title)
    mask = None
    if options.seed is not None and hasattr(model, "draw_mask"):
        torch.manual_seed(options.seed)
        mask = model.draw_mask(1).to(video.device)
    return visualize.reconstruction_figure(model, video, mask=mask, difference=options.difference, title=title)


def _tsne(model: Any, options: argparse.Namespace) -> Any:
    from ..data.annotations import read_rows
    from ..inference import visualize
    from ..inference.evaluate import embeddings
    from ..transforms import create_transform

    transform = create_transform(model, faces=parse_faces(options.faces), no_face=options.no_face)
    rows = read_rows(options.data, model.labels, subset=options.subset, transform=transform, **reading(options))
    found = embeddings(model, rows, transform=transform, batch_size=options.batch_size, progress=sys.stderr.isatty())
    for _, reason in found.failed:
        print(f"dfer-zoo visualize: {reason}", file=sys.stderr)
    points = visualize.tsne(found.answers, perplexity=options.perplexity, seed=options.seed)
    classes = [row.label for row in found.rows]
    if options.csv is not None:
        _write_points(options.csv, [row.path for row in found.rows], [model.labels[k] for k in classes], points)
    return visualize.tsne_figure(points, classes, model.labels, f"{options.model} on {options.data}")


def _write_points(path: Path, clips: list[str], labels: list[str], points: Any) -> None:
    from ..atomic import write_atomically

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("clip", "label", "x", "y"))
    writer.writerows((clip, label, f"{x:.6g}", f"{y:.6g}") for clip, label, (x, y) in zip(clips, labels, points))
    write_atomically(path, text.getvalue().encode())


COMMANDS = {"visualize": Command("Draw what a model does with clips.", visualize_options, visualize_command)}
