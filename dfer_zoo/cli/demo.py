"""`dfer-zoo demo`: predict a drawn person offline."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from .common import Command, table
from .predict import predict_command, predict_options


def demo_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        nargs="*",
        metavar="FILE|EMOTION",
        help="video files, or the emotions of a drawn person in order (default: happy angry surprised)",
    )
    parser.add_argument("--out", default="dfer_zoo_demo", help="folder for the plot and the drawn video")
    parser.add_argument("--seed", type=int, default=8, help="seed of the drawn person's motion, voice and lighting")


def demo_command(options: argparse.Namespace) -> int:
    from ..demo import EMOTIONS, demonstrate

    if options.seed < 0:
        raise InputError(f"--seed is {options.seed}; expected 0 or more.")
    if any(Path(word).suffix or Path(word).exists() for word in options.what):
        return _predict(options.what, Path(options.out))
    answer, video, picture = demonstrate(options.out, options.what or EMOTIONS, options.seed)
    rows = [("SECONDS", "LABEL", "PROBABILITY", "NEXT")]
    for window in answer.windows:
        ranked = sorted(zip(window.probabilities, answer.labels), reverse=True)[:2]
        (first, label), (second, other) = ranked
        until = "" if window.stop is None else f"{window.stop:.1f}"
        rows.append((f"{window.start:.1f} - {until}", label, f"{first:.3f}", f"{other} {second:.3f}"))
    print(
        f"A drawn person (a test object), recognized by av_fusion.puppets. Everything is inside the package.\n\n{table(rows)}"
    )
    print(f"\nvideo:    {video}\ntimeline: {picture}\nyours:    dfer-zoo demo FILE")
    return 0


def _predict(files: Sequence[str], folder: Path) -> int:
    """Run `dfer-zoo predict` with a plot."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: this folder cannot be created ({error.strerror}).") from error
    parser = argparse.ArgumentParser()
    predict_options(parser)
    picture = folder / "timeline.png"
    status = predict_command(parser.parse_args([*files, "--plot", str(picture)]))
    print(f"\ntimeline: {picture.with_name('timeline*.png') if len(files) > 1 else picture}")
    return status


SUMMARY = "Recognize a drawn person, or your files with the baseline: no network, no data."
COMMANDS = {"demo": Command(SUMMARY, demo_options, demo_command)}
