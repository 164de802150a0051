"""`dfer-zoo demo`: a drawn person, recognized offline."""

from __future__ import annotations

import argparse

from ..errors import InputError
from .common import Command, table


def demo_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("feelings", nargs="*", help="what the person feels, in turn (default: happy angry surprised)")
    parser.add_argument("--out", default="dfer_zoo_demo", help="folder for the video and the picture")
    parser.add_argument("--seed", type=int, default=8, help="another one moves, speaks and is lit differently")


def demo_command(options: argparse.Namespace) -> int:
    from ..demo import FEELINGS, demonstrate

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


COMMANDS = {"demo": Command("Recognize a drawn person: no network, no data.", demo_options, demo_command)}
