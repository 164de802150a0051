"""The command line: ``dfer-zoo COMMAND``, or ``python -m dfer_zoo COMMAND``.

A command is one function that takes the parsed options and returns an exit status, one function that declares its
options, and one line in `COMMANDS`. Whatever is heavy (torch, av, cv2, ...) is imported inside the functions.

Exit status: 0 done, 1 done but for some of the files, 2 not done (wrong use, or a `DferZooError`, which is one line).
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import DferZooError, InputError
from .version import __version__

if TYPE_CHECKING:
    from .inference.recognizer import Prediction
    from .weights.record import Weights


@dataclass(frozen=True)
class Command:
    summary: str
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; nothing is raised for what a user can cause."""
    try:
        options = _parser().parse_args(arguments)
    except SystemExit as stop:  # argparse has printed its message already
        return stop.code if isinstance(stop.code, int) else 2
    try:
        status = COMMANDS[options.command].run(options)
        sys.stdout.flush()
        return status
    except DferZooError as error:
        print(f"dfer-zoo {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except OSError as error:  # a full disk, no permission, or the reader (head, less) has gone
        try:
            sys.stdout.flush()
        except OSError:  # what is still buffered has nowhere to go
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 0
        print(f"dfer-zoo {options.command}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dfer-zoo", description="Dynamic facial expression recognition: five published systems behind one call."
    )
    parser.add_argument("--version", action="version", version=f"dfer_zoo {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.options(commands.add_parser(name, help=command.summary, description=command.summary))
    return parser


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


# -- list --------------------------------------------------------------------------------------------------------------


def list_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="*", help='shell pattern, such as "mma*" or "*.dfew_fold1"')
    parser.add_argument("--pretrained", action="store_true", help="only the models that have weights")
    parser.add_argument("--json", action="store_true", help="one JSON object per line instead of a table")


def list_command(options: argparse.Namespace) -> int:
    from .registry import list_models, list_pretrained

    tags: dict[str, list[str]] = {name: [] for name in list_models(options.pattern)}
    for arch, tag in list_pretrained(options.pattern):
        tags.setdefault(arch, []).append(tag)
    found = {arch: tags[arch] for arch in sorted(tags) if tags[arch] or not options.pretrained}
    if not found:
        raise DferZooError(f"Nothing matches '{options.pattern}'.")
    if options.json:
        for arch, names in found.items():
            print(json.dumps({"model": arch, "pretrained": names}))
    else:
        print(table([("MODEL", "PRETRAINED"), *((arch, " ".join(names) or "-") for arch, names in found.items())]))
    return 0


# -- info --------------------------------------------------------------------------------------------------------------


def info_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help='"mma_dfer", or with the weights: "mma_dfer.dfew_fold1"')
    parser.add_argument("--json", action="store_true", help="the records as they stand in the manifest, one per line")


def info_command(options: argparse.Namespace) -> int:
    from .registry import check_name, get_weights, list_pretrained

    arch, _, tag = options.name.partition(".")
    check_name(arch)
    records = [get_weights(arch, tag)] if tag else [get_weights(*pair) for pair in list_pretrained(arch)]
    if options.json:
        for record in records:
            print(json.dumps(record.to_dict()))
    elif tag:
        print(describe(records[0]))
    elif records:
        numbers = [(r.tag, f"{r.params / 1e6:.1f} M", _numbers(r) or "-", r.license) for r in records]
        print(f"{arch}\n\n{table([('WEIGHTS', 'PARAMETERS', 'PUBLISHED', 'LICENCE'), *numbers])}")
        print(f"\nMore about one of them: dfer-zoo info {arch}.{records[0].tag}")
    else:
        print(f'{arch}: no weights of it are listed. dfer_zoo.create_model("{arch}") makes a model to be trained.')
    return 0


def describe(record: Weights) -> str:
    """Everything that a user of these weights has to know, in plain text."""
    rows = [("weights", f"{record.name} ({record.params:,} parameters)")]
    if record.dataset:
        rows.append(("data set", record.dataset + (f", fold {record.fold}" if record.fold is not None else "")))
    rows.append(("labels", ", ".join(record.labels) or "none: these are features"))
    if (video := record.video) is not None:
        rate = "" if video.fps is None else f" at {video.fps:g} frames per second"
        rows.append(("video", f"{video.frames} frames of {video.size} x {video.size}, {video.sampling}{rate}"))
        rows.append(("", f"{video.resize}, {video.channel_order}, mean {video.mean}, std {video.std}"))
        rows.append(("face crop", video.face_crop))
    if (audio := record.audio) is not None:
        rate = "the file's own rate" if audio.sample_rate is None else f"{audio.sample_rate} Hz"
        length = "" if audio.seconds is None else f", {audio.seconds:g} s"
        rows.append(("audio", f"{audio.front_end} {tuple(audio.shape)} from {rate}{length}"))
    rows += [("number", f"{m.name} {m.value:g} %: {m.protocol} ({m.source})") for m in record.metrics]
    if not record.metrics and (first := _first_fold(record)):
        rows.append(("number", f"none is published for this fold; the mean over the folds is with {first.name}"))
    rows.append(("licence", f"{record.license} ({record.license_source})"))
    rows.append(("comes as", record.distribution + (f", {record.repo_id}" if record.repo_id else "")))
    if record.origin_url:
        rows.append(("origin", record.origin_url))
    return table(rows)


def _first_fold(record: Weights) -> Weights | None:
    """Where a mean over the folds stands."""
    from .registry import manifest

    folds = (r for r in manifest().values() if (r.arch, r.dataset) == (record.arch, record.dataset))
    return next((r for r in folds if r.fold == 1 and r.metrics), None)


def _numbers(record: Weights) -> str:
    return ", ".join(f"{m.name} {m.value:g}" for m in record.metrics)


# -- convert -----------------------------------------------------------------------------------------------------------


def convert_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("arch", metavar="ARCH", help='the architecture, such as "mma_dfer"')
    parser.add_argument("tag", metavar="TAG", help='which of its weights this is, such as "dfew_fold1"')
    parser.add_argument("file", metavar="FILE", help="the checkpoint as its authors publish it")
    own = parser.add_argument_group("a checkpoint of your own training with the authors' code (TAG is then any name)")
    own.add_argument("--output", metavar="FOLDER", help='where to write it; create_model("local-dir:FOLDER") reads it')
    own.add_argument("--labels", metavar="A,B,...", help="its classes in order, if they are not the published ones")


def convert_command(options: argparse.Namespace) -> int:
    from .checkpoints import convert_checkpoint, convert_own
    from .errors import InputError
    from .registry import check_name

    check_name(options.arch)
    if options.output:
        labels = options.labels.split(",") if options.labels else None
        print(convert_own(options.arch, options.file, options.output, tag=options.tag, labels=labels))
    elif options.labels:
        raise InputError("--labels belongs to --output; published weights have their own labels.")
    else:
        print(convert_checkpoint(options.arch, options.tag, options.file))
    return 0


# -- verify ------------------------------------------------------------------------------------------------------------


def verify_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="*", help='shell pattern, such as "mma*" or "*.dfew_fold1"')
    parser.add_argument("--cache-dir", help="where fetched files are, if not in the Hub's usual folder")


def verify_command(options: argparse.Namespace) -> int:
    from .weights.fetch import check_present

    damaged = found = 0
    for name, path, fault in check_present(options.pattern, cache_dir=options.cache_dir):
        found += 1
        damaged += fault is not None
        print(f"{name}  {path}  {fault or 'ok'}", flush=True)
    print(f"{found} files, {damaged} damaged" if found else "There are no weights on this machine yet.")
    return 1 if damaged else 0


# -- predict -----------------------------------------------------------------------------------------------------------


def predict_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="video or sound files, images, folders of frames")
    parser.add_argument(
        "--model", required=True, help='"mma_dfer", "mma_dfer.dfew_fold1", "hf-hub:...", "local-dir:..."'
    )
    parser.add_argument("--pretrained", metavar="TAG[,TAG...]", help="which weights; several are averaged")
    parser.add_argument(
        "--faces", default="auto", help="auto (default), none, cascade, mtcnn, yunet:FILE, or LEFT,TOP,RIGHT,BOTTOM"
    )
    parser.add_argument("--no-face", choices=("error", "frame"), default="error", help="what to do without a face")
    parser.add_argument(
        "--window", type=float, metavar="SECONDS", help="an answer over time, for windows of this length"
    )
    parser.add_argument("--stride", type=float, metavar="SECONDS", help="between windows; half a window by default")
    parser.add_argument("--fps", type=float, help="the rate of frames that do not carry one, such as folders")
    parser.add_argument("--order", choices=("numeric", "string"), default="numeric", help="of the frames in a folder")
    parser.add_argument("--recover", action="store_true", help="take from damaged files what can be decoded")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", help='"cpu" (default), "cuda", "mps"')
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="precision of the model")
    parser.add_argument("--json", metavar="PATH", help="one JSON object per file; - is the standard output")
    parser.add_argument("--plot", metavar="PATH", help="a picture; with several files, one for each, with its name")
    parser.add_argument("--fail-fast", action="store_true", help="stop at the first file that cannot be used")


def predict_command(options: argparse.Namespace) -> int:
    import torch

    from .inference.recognizer import Prediction, Recognizer
    from .media.clip import check_fps

    check_fps(options.fps)
    tags = options.pretrained.split(",") if options.pretrained else None
    recognizer = Recognizer(
        options.model,
        tags[0] if tags and len(tags) == 1 else tags,
        faces=_faces(options.faces),
        no_face=options.no_face,
        window=options.window,
        stride=options.stride,
        batch_size=options.batch_size,
        device=options.device,
        dtype=getattr(torch, options.dtype) if options.dtype else None,
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
                if plot:
                    answer.plot(plot)
                continue
            bad += 1
            print(f"dfer-zoo predict: {answer}", file=sys.stderr, flush=True)
            write({"source": str(source), "error": str(answer)})
            if options.fail_fast:
                break
    return 1 if bad else 0


def _faces(text: str) -> Any:
    """A detector's name, or a box in four numbers."""
    parts = text.split(",")
    if len(parts) != 4:
        return text
    try:
        return [float(part) for part in parts]
    except ValueError as error:
        raise InputError(f"--faces {text}: expected a detector's name or LEFT,TOP,RIGHT,BOTTOM in pixels.") from error


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
    lines = [f"{source}: {best}"]
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
    for name in answer.missing:
        count = sum(name in window.missing for window in answer.windows)
        where = f" in {count} of {len(answer.windows)} windows" if len(answer.windows) > 1 else ""
        lines.append(f"  without {name}{where}: there is none that can be used")
    return "\n".join(lines)


def _plot_paths(plot: str, sources: Sequence[str]) -> list[Path]:
    """The path for one source; a path for each of several, with the source's name, numbered where names are the same."""
    path = Path(plot)
    if len(sources) == 1:
        return [path]
    seen: collections.Counter[str] = collections.Counter()
    paths = []
    for name in (Path(source).name for source in sources):
        seen[name] += 1
        number = f".{seen[name]}" if seen[name] > 1 else ""
        paths.append(path.with_name(f"{path.stem}.{name}{number}{path.suffix or '.png'}"))
    return paths


# -- the table ---------------------------------------------------------------------------------------------------------

# -- evaluate ----------------------------------------------------------------------------------------------------------


def evaluate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help='"mma_dfer.dfew_fold1", "local-dir:FOLDER" or "hf-hub:OWNER/REPO"')
    parser.add_argument(
        "data", help='an annotation file, a folder with one folder per class, or "puppets:clips=100,split=test"'
    )
    parser.add_argument(
        "--subset", help="only these rows, where the file names subsets (training, validation, testing)"
    )
    parser.add_argument("--root", help="put in front of the paths of the annotation file")
    parser.add_argument("--audio", help='where the sound of folders of frames is: "dfew", "mafw" or a template')
    parser.add_argument(
        "--faces", default="none", help="for videos that are no face crops yet; as of predict, and by default none"
    )
    parser.add_argument("--no-face", choices=("error", "frame"), default="error", help="what to do without a face")
    parser.add_argument("--without", action="append", default=[], help="withhold a modality: video or audio")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", help='"cuda", "mps", ...; default: the processor')
    parser.add_argument("--picture", help="write the confusion table as a picture to this file")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object with the confusion table instead of a table"
    )


def evaluate_command(options: argparse.Namespace) -> int:
    from pathlib import Path

    from .data.annotations import read_rows
    from .factory import create_model
    from .inference import metrics
    from .inference.evaluate import confusion, probabilities, report

    model = create_model(options.name, device=options.device)
    if model.weights is None:
        raise DferZooError(f"{options.name} names no weights; a model at random has nothing to evaluate.")
    if model.weights.distribution == "backbone":
        raise DferZooError(f"{options.name}: its head is new and answers at random. Train it first, and evaluate that.")
    reading = {name: value for name in ("root", "audio") if (value := getattr(options, name)) is not None}
    rows = read_rows(options.data, model.labels, subset=options.subset, **reading)
    answers = probabilities(
        model,
        rows,
        batch_size=options.batch_size,
        without=options.without,
        faces=_faces(options.faces),
        no_face=options.no_face,
        progress=sys.stderr.isatty(),
    )
    table = confusion(rows, answers)
    if options.picture:
        from .inference.plots import confusion_picture, write_png

        write_png(Path(options.picture), confusion_picture(table, model.labels, f"{options.name} on {options.data}"))
    if options.json:
        about = {"model": options.name, "data": options.data, "labels": list(model.labels)}
        # a rate may be undefined, for a class that has no clips, and JSON has no NaN
        uar, war = (None if math.isnan(rate) else rate for rate in (metrics.uar(table), metrics.war(table)))
        print(json.dumps({**about, "uar": uar, "war": war, "confusion": table.tolist()}))
    else:
        print(report(rows, answers, model.labels))
    return 0


# -- demo --------------------------------------------------------------------------------------------------------------


def demo_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("feelings", nargs="*", help="what the person feels, in turn (default: happy angry surprised)")
    parser.add_argument("--out", default="dfer_zoo_demo", help="folder for the video and the picture")
    parser.add_argument("--seed", type=int, default=8, help="another one moves, speaks and is lit differently")


def demo_command(options: argparse.Namespace) -> int:
    from .demo import FEELINGS, demonstrate

    if options.seed < 0:
        raise InputError(f"--seed is {options.seed}; expected 0 or more.")
    answer, video, picture = demonstrate(options.out, options.feelings or FEELINGS, options.seed)
    rows = [("SECONDS", "LABEL", "PROBABILITY", "NEXT")]
    for window in answer.windows:
        ranked = sorted(zip(window.probabilities, answer.labels), reverse=True)[:2]
        (first, label), (second, other) = ranked
        until = "" if window.stop is None else f"{window.stop:.1f}"
        rows.append((f"{window.start:.1f} - {until}", label, f"{first:.3f}", f"{other} {second:.3f}"))
    print(
        f"A drawn person, a test object, seen and heard by av_fusion.demo (all of it inside the package).\n\n{table(rows)}"
    )
    print(f"\nvideo:    {video}\ntimeline: {picture}\nyours:    dfer-zoo predict FILE --model ARCH --pretrained TAG")
    return 0


COMMANDS = {
    "predict": Command("Which expression a face in a video file shows.", predict_options, predict_command),
    "list": Command("The models and the weights there are.", list_options, list_command),
    "info": Command("What is known of a model or of its weights.", info_options, info_command),
    "convert": Command(
        "Turn the authors' checkpoint into weights that create_model finds.", convert_options, convert_command
    ),
    "verify": Command("Read all weights on this machine and compare their digests.", verify_options, verify_command),
    "evaluate": Command("Recognition rates on an annotated data set.", evaluate_options, evaluate_command),
    "demo": Command("A drawn person is recognised: no network, no data.", demo_options, demo_command),
}

if __name__ == "__main__":
    sys.exit(main())
