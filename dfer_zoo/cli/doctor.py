"""`dfer-zoo doctor`: check clips and annotation lists."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from ..errors import DferZooError, InputError
from .common import Command, in_options, parse_faces, reading, reading_options


def doctor_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", metavar="CLIP", help="video or sound files, images, folders of frames")
    parser.add_argument(
        "--data", help="an annotation file, or other data that evaluate takes, to compare with the disk"
    )
    parser.add_argument("--model", help='weights whose label order --data is compared with: "mma_dfer.dfew_fold1"')
    parser.add_argument("--subset", help="only these rows of the annotation file")
    reading_options(parser)
    parser.add_argument("--faces", default="auto", help="the detector, as in predict")
    parser.add_argument("--json", action="store_true", help="one JSON object per clip")


def doctor_command(options: argparse.Namespace) -> int:
    from ..inference.doctor import examine

    if not options.files and not options.data:
        raise InputError("Nothing to check: give clips, or --data LIST --model ARCH.TAG.")
    bad = 0
    if options.data:
        bad += _data(options)
    for file in options.files:
        try:
            checkup = examine(file, faces=parse_faces(options.faces))
        except DferZooError as error:
            bad += 1
            print(f"dfer-zoo doctor: {in_options(str(error))}", file=sys.stderr, flush=True)
            continue
        facts = {**dataclasses.asdict(checkup), "verdict": checkup.verdict}
        print(json.dumps(facts) if options.json else checkup.report(), flush=True)
    return 1 if bad else 0


def _data(options: argparse.Namespace) -> int:
    """Compare the list with the files, and check some of its clips."""
    from ..data.annotations import read_row, read_rows
    from ..inference.doctor import MOST_CLIPS, examine, examine_rows
    from ..registry import get_weights

    if not options.model:
        raise InputError("--data needs --model, for the order of the labels.")
    labels = get_weights(options.model).labels
    rows = read_rows(options.data, labels, subset=options.subset, **reading(options))
    print("\n".join(examine_rows(rows, labels)), flush=True)
    bad = 0
    for row in rows[:: max(1, len(rows) // MOST_CLIPS)][:MOST_CLIPS]:
        try:
            print(examine(read_row(row), faces=parse_faces(options.faces)).report(), flush=True)
        except DferZooError as error:
            bad += 1
            print(f"dfer-zoo doctor: {in_options(str(error))}", file=sys.stderr, flush=True)
    return bad


COMMANDS = {"doctor": Command("Check clips and lists before you trust a number.", doctor_options, doctor_command)}
