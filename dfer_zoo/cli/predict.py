"""`dfer-zoo predict`: predict labels and probabilities for files."""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DferZooError, InputError, printable
from .common import Command, boxes_option, in_options, parse_faces, table

if TYPE_CHECKING:
    from ..inference.batch import BatchReport
    from ..inference.inputs import Item
    from ..inference.prediction import Prediction
    from ..inference.recognizer import Recognizer


LONGEST_NAME = 150  # characters of a source name in a plot name; file systems allow 255 bytes


def predict_options(parser: argparse.ArgumentParser) -> None:
    input_options(parser)
    parser.add_argument(
        "--model", help='"mma_dfer.dfew_fold1", "hf-hub:...", "local-dir:..."; by default the bundled baseline'
    )
    parser.add_argument("--pretrained", metavar="TAG[,TAG...]", help="which weights; several are averaged")
    parser.add_argument(
        "--window",
        type=_window,
        default="auto",
        metavar="SECONDS",
        help='window length for predictions over time; "auto" (default): for long clips; "none": one prediction per clip',
    )
    parser.add_argument("--stride", type=float, metavar="SECONDS", help="between windows; half a window by default")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="precision of the model")
    parser.add_argument("--json", metavar="PATH", help="one JSON object per file; - is the standard output")
    parser.add_argument(
        "--plot", metavar="PATH", help="plot the probabilities over time with the faces; one picture per file"
    )
    parser.add_argument(
        "--overlay",
        metavar="PATH",
        help="write each video with face boxes, labels and bars drawn into it: a folder, beside (NAME.overlay.mp4 "
        "beside each file), or FILE.mp4 for one clip",
    )
    many = parser.add_argument_group("many files into one table")
    many.add_argument("--out", metavar="TABLE", help="write results.csv, .jsonl or .parquet, a row per file and window")
    table_options(many)
    many.add_argument(
        "--tiers", metavar="KIND[,KIND...]", help="with --out: write eaf, textgrid, vtt, srt next to each file"
    )
    parser.add_argument(
        "--people", choices=("largest", "all"), default="largest", help="all: one prediction per person in a clip"
    )
    parser.add_argument("--fail-fast", action="store_true", help="stop at the first file that cannot be used")


def input_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for inputs, reading and devices; also used by `embed`."""
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="files, folders, globs, @list.txt, a CSV or Parquet table, - (stdin)"
    )
    parser.add_argument(
        "--as",
        dest="treat_as",
        choices=("auto", "clip", "files"),
        default="auto",
        help="how to treat a folder with images",
    )
    parser.add_argument(
        "--urls", metavar="SCHEME[,SCHEME...]", help="open names such as s3://bucket/clip.mp4 with fsspec: s3,https"
    )
    parser.add_argument(
        "--faces", default="auto", help="auto (default), none, cascade, mtcnn, yunet:FILE, or LEFT,TOP,RIGHT,BOTTOM"
    )
    boxes_option(parser)
    parser.add_argument("--no-face", choices=("error", "frame"), default="error", help="what to do without a face")
    parser.add_argument("--fps", type=float, help="frame rate of sources without one, such as folders")
    parser.add_argument("--order", choices=("numeric", "string"), default="numeric", help="of the frames in a folder")
    parser.add_argument("--recover", action="store_true", help="read what can be decoded of damaged files")
    parser.add_argument("--batch-size", type=int, metavar="N", help="windows in a forward pass; 1 on a CPU, else 8")
    parser.add_argument("--device", help='"cpu" (default), "cuda", "mps"')
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that decode and find faces ahead of the model"
    )


def given_items(options: argparse.Namespace) -> list[Item]:
    """Return the clips from the command line."""
    from ..inference.inputs import expand

    schemes = options.urls.split(",") if options.urls else ()
    items = list(expand(options.files, treat_as=options.treat_as, schemes=schemes))
    if not items:
        raise InputError(f"There is no video, sound or image file in {', '.join(options.files)}.")
    return items


def table_options(group: Any) -> None:
    """Add the options of resumable runs; also used by `embed`."""
    group.add_argument("--resume", action="store_true", help="continue an interrupted run")
    group.add_argument("--retry-errors", action="store_true", help="with --resume: retry files that had an error")
    group.add_argument(
        "--shard", type=_shard, default=(1, 1), metavar="I/N", help="only every N-th file, from the I-th"
    )


def _window(text: str) -> float | str | None:
    if text in ("auto", "none"):
        return None if text == "none" else text
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds, auto or none") from error


def _shard(text: str) -> tuple[int, int]:
    number, separator, count = text.partition("/")
    if not (separator and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"'{text}' is not a shard such as 1/4")
    return int(number), int(count)


def predict_command(options: argparse.Namespace) -> int:
    import torch

    from ..inference.batch import predict_items
    from ..inference.prediction import Prediction
    from ..inference.recognizer import Recognizer
    from ..media.clip import check_fps

    check_fps(options.fps)
    _check_table_options(options)
    items = given_items(options)
    names = [item.name for item in items]
    tags = options.pretrained.split(",") if options.pretrained else None
    recognizer = Recognizer(
        options.model,
        tags[0] if tags and len(tags) == 1 else tags,
        faces=parse_faces(options.faces, options.boxes),
        no_face=options.no_face,
        window=options.window,
        stride=options.stride,
        batch_size=options.batch_size,
        device=options.device,
        dtype=getattr(torch, options.dtype) if options.dtype else None,
        thumbnails=8 if options.plot else 0,
        people=options.people,
    )
    if options.out:
        return _predict_table(options, recognizer, items)
    bar = sys.stderr.isatty() and not sys.stdout.isatty()  # results printed on a terminal show the progress already
    answers = predict_items(
        recognizer, items, overlay=options.overlay, progress=bar, workers=options.workers, **reading(options)
    )
    plots = _plot_paths(options.plot, names) if options.plot else [None] * len(items)
    bad = 0
    with _lines(options.json) as write:
        for source, plot, answer in zip(names, plots, answers):
            if isinstance(answer, Prediction):
                if options.json != "-":
                    for person in answer.people or (answer,):
                        print(_readable(person, source), flush=True)
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


def _check_table_options(options: argparse.Namespace) -> None:
    if options.out:
        for name in ("json", "plot", "fail_fast"):
            if getattr(options, name):
                raise InputError(f"--{name.replace('_', '-')} cannot be used with --out.")
        return
    for name in ("resume", "retry_errors", "tiers"):
        if getattr(options, name):
            raise InputError(f"--{name.replace('_', '-')} belongs to --out.")
    if options.shard != (1, 1):
        raise InputError("--shard belongs to --out.")


def _predict_table(options: argparse.Namespace, recognizer: Recognizer, items: Sequence[Item]) -> int:
    from ..inference.batch import predict_table

    report = predict_table(
        recognizer,
        items,
        options.out,
        tiers=options.tiers.split(",") if options.tiers else (),
        overlay=options.overlay,
        **table_run(options, "predict"),
    )
    return told_report(report)


def table_run(options: argparse.Namespace, command: str) -> dict[str, Any]:
    """Return the shared arguments of `predict_table` and `embed_table`."""
    return {
        "resume": options.resume,
        "retry_errors": options.retry_errors,
        "shard": options.shard,
        "workers": options.workers,
        "progress": sys.stderr.isatty(),
        "told": _error_printer(command),
        **reading(options),
    }


def reading(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `read_clip`."""
    return {"fps": options.fps, "order": options.order, "recover": options.recover}


def _error_printer(command: str) -> Callable[[Item, Any], None]:
    """Return a function that prints the error of a clip."""

    def told(item: Item, answer: Any) -> None:
        if isinstance(answer, DferZooError):
            print(f"dfer-zoo {command}: {in_options(str(answer))}", file=sys.stderr, flush=True)

    return told


def told_report(report: BatchReport) -> int:
    """Print a summary of a batch, and return the exit status."""
    skipped = f", {report.skipped} of them in an earlier run" if report.skipped else ""
    print(f"{report.table}: {report.clips} clips{skipped}, {report.failed} with errors, {report.seconds:.1f} s")
    return 1 if report.failed else 0


@contextlib.contextmanager
def _lines(path: str | None) -> Iterator[Callable[[dict], None]]:
    """Yield a function that writes and flushes one JSON object per line, so that errors lose no results."""
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
            with contextlib.suppress(OSError):  # the error was reported by `write`
                stream.close()


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"--json {path}: this file cannot be written ({error.strerror}).") from error


def _readable(answer: Prediction, source: str) -> str:
    best = ", ".join(f"{label} {100 * chance:.1f} %" for label, chance in answer.top(3))
    who = f", person {answer.faces['person']}" if answer.faces and "person" in answer.faces else ""
    lines = [f"{printable(str(source))}{who}: {best}"]
    if len(answer.windows) > 1:
        rows = [("FROM", "TO", "LABEL", "")]
        for window in answer.windows:
            chance = max(window.probabilities)
            label = answer.labels[window.probabilities.index(chance)]
            rows.append((f"{window.start:.2f} s", f"{window.stop or 0:.2f} s", label, f"{100 * chance:.1f} %"))
        lines += ["  " + line for line in table(rows).splitlines()]
    if answer.faces and answer.faces["searched"]:
        whole = "; the whole frame was used" if answer.faces.get("whole_frame") else ""
        lines.append(
            f"  face in {answer.faces['found']} of {answer.faces['searched']} frames ({answer.faces['detector']}){whole}"
        )
        if fallback := answer.faces.get("fallback"):
            lines.append(f"  {fallback}")
    if answer.overlooked and len(answer.windows) == 1:
        lines.append(f"  {answer.overlooked}; --window SECONDS covers all of it")
    lines += [f"  {caution}" for caution in answer.cautions]
    for name in answer.missing:
        count = sum(name in window.missing for window in answer.windows)
        where = f" in {count} of {len(answer.windows)} windows" if len(answer.windows) > 1 else ""
        lines.append(f"  without {name}{where}: no usable {name}")
    return "\n".join(lines)


def _plotted(answer: Prediction, path: Path) -> DferZooError | None:
    """Write the plot. Return an error instead of raising it, so that other files are still processed."""
    try:
        answer.plot(path)
    except DferZooError as error:
        return error
    return None


def _plot_paths(plot: str, sources: Sequence[str]) -> list[Path]:
    """Return the plot path of every source. With several sources, it contains the source name, numbered if equal."""
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
