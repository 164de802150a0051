"""`dfer-zoo predict`: files in, labelled probabilities out."""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DferZooError, InputError, printable
from .common import Command, in_options, parse_faces, table

if TYPE_CHECKING:
    from ..inference.prediction import Prediction


LONGEST_NAME = 150  # characters of a source's name in the name of its picture; file systems allow 255 bytes


def predict_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="video or sound files, images, folders of frames")
    parser.add_argument(
        "--model", help='"mma_dfer.dfew_fold1", "hf-hub:...", "local-dir:..."; without it the baseline in the package'
    )
    parser.add_argument("--pretrained", metavar="TAG[,TAG...]", help="which weights; several are averaged")
    parser.add_argument(
        "--faces", default="auto", help="auto (default), none, cascade, mtcnn, yunet:FILE, or LEFT,TOP,RIGHT,BOTTOM"
    )
    parser.add_argument("--no-face", choices=("error", "frame"), default="error", help="what to do without a face")
    parser.add_argument(
        "--window",
        type=_window,
        default="auto",
        metavar="SECONDS",
        help='length of the windows of an answer over time; "auto" (default): for long clips; "none": one answer for all',
    )
    parser.add_argument("--stride", type=float, metavar="SECONDS", help="between windows; half a window by default")
    parser.add_argument("--fps", type=float, help="the rate of frames that do not carry one, such as folders")
    parser.add_argument("--order", choices=("numeric", "string"), default="numeric", help="of the frames in a folder")
    parser.add_argument("--recover", action="store_true", help="take from damaged files what can be decoded")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", help='"cpu" (default), "cuda", "mps"')
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="precision of the model")
    parser.add_argument("--json", metavar="PATH", help="one JSON object per file; - is the standard output")
    parser.add_argument(
        "--plot", metavar="PATH", help="plot the probabilities over time with the faces; one picture per file"
    )
    parser.add_argument("--fail-fast", action="store_true", help="stop at the first file that cannot be used")


def _window(text: str) -> float | str | None:
    if text in ("auto", "none"):
        return None if text == "none" else text
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds, auto or none") from error


def predict_command(options: argparse.Namespace) -> int:
    import torch

    from ..inference.prediction import Prediction
    from ..inference.recognizer import Recognizer
    from ..media.clip import check_fps

    check_fps(options.fps)
    tags = options.pretrained.split(",") if options.pretrained else None
    recognizer = Recognizer(
        options.model,
        tags[0] if tags and len(tags) == 1 else tags,
        faces=parse_faces(options.faces),
        no_face=options.no_face,
        window=options.window,
        stride=options.stride,
        batch_size=options.batch_size,
        device=options.device,
        dtype=getattr(torch, options.dtype) if options.dtype else None,
        thumbnails=8 if options.plot else 0,
    )
    reading = {"fps": options.fps, "order": options.order, "recover": options.recover}
    bar = sys.stderr.isatty() and not sys.stdout.isatty()  # on a terminal the answers themselves show the progress
    answers = recognizer.many(options.files, on_error="return", progress=bar, **reading)
    plots = _plot_paths(options.plot, options.files) if options.plot else [None] * len(options.files)
    bad = 0
    with _lines(options.json) as write:
        for source, plot, answer in zip(options.files, plots, answers):
            if isinstance(answer, Prediction):
                if options.json != "-":
                    print(_readable(answer, source), flush=True)
                write({"source": str(source), **answer.to_dict()})
                if plot is None or (problem := _plotted(answer, plot)) is None:
                    continue
                bad += 1
                print(f"dfer-zoo predict: {problem}", file=sys.stderr, flush=True)
                continue
            bad += 1
            print(f"dfer-zoo predict: {in_options(str(answer))}", file=sys.stderr, flush=True)
            write({"source": str(source), "error": str(answer)})
            if options.fail_fast:
                break
    return 1 if bad else 0


@contextlib.contextmanager
def _lines(path: str | None) -> Iterator[Callable[[dict], None]]:
    """A function that writes one JSON object per line, at once, so that what is done is there if the rest fails."""
    if path is None:
        yield lambda row: None
    elif path == "-":
        yield lambda row: print(json.dumps(row), flush=True)
    else:
        with _told(path):
            stream = open(path, "w", encoding="utf-8", buffering=1)  # noqa: SIM115

        def write(row: dict) -> None:
            with _told(path):
                print(json.dumps(row), file=stream)

        try:
            yield write
        finally:
            with contextlib.suppress(OSError):  # a line that did not fit on the disk was told already
                stream.close()


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"--json {path}: this file cannot be written ({error.strerror}).") from error


def _readable(answer: Prediction, source: str) -> str:
    best = ", ".join(f"{label} {100 * chance:.1f} %" for label, chance in answer.top(3))
    lines = [f"{printable(str(source))}: {best}"]
    if len(answer.windows) > 1:
        rows = [("FROM", "TO", "LABEL", "")]
        for window in answer.windows:
            chance = max(window.probabilities)
            label = answer.labels[window.probabilities.index(chance)]
            rows.append((f"{window.start:.2f} s", f"{window.stop or 0:.2f} s", label, f"{100 * chance:.1f} %"))
        lines += ["  " + line for line in table(rows).splitlines()]
    if answer.faces and answer.faces["searched"]:
        whole = "; the whole frame was taken" if answer.faces.get("whole_frame") else ""
        lines.append(
            f"  face in {answer.faces['found']} of {answer.faces['searched']} frames ({answer.faces['detector']}){whole}"
        )
        if fallback := answer.faces.get("fallback"):
            lines.append(f"  {fallback}")
    if answer.overlooked and len(answer.windows) == 1:
        lines.append(f"  {answer.overlooked}; --window SECONDS answers for all of it")
    lines += [f"  {caution}" for caution in answer.cautions]
    for name in answer.missing:
        count = sum(name in window.missing for window in answer.windows)
        where = f" in {count} of {len(answer.windows)} windows" if len(answer.windows) > 1 else ""
        lines.append(f"  without {name}{where}: there is none that can be used")
    return "\n".join(lines)


def _plotted(answer: Prediction, path: Path) -> DferZooError | None:
    """Write the picture, and return the error if that fails: the other files go on."""
    try:
        answer.plot(path)
    except DferZooError as error:
        return error
    return None


def _plot_paths(plot: str, sources: Sequence[str]) -> list[Path]:
    """The path for one source; a path for each of several, with the source's name, numbered where names are the same."""
    path = Path(plot)
    if len(sources) == 1:
        return [path]
    seen: collections.Counter[str] = collections.Counter()
    paths = []
    for name in (Path(source).name[-LONGEST_NAME:] for source in sources):
        seen[name] += 1
        number = f".{seen[name]}" if seen[name] > 1 else ""
        paths.append(path.with_name(f"{path.stem}.{name}{number}{path.suffix or '.png'}"))
    return paths


COMMANDS = {"predict": Command("Recognize the expression in video files.", predict_options, predict_command)}
