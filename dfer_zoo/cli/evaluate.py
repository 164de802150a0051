"""`dfer-zoo evaluate`: recognition rates on an annotated data set."""

from __future__ import annotations

import argparse
import json
import math
import sys

from ..errors import DferZooError
from .common import Command, parse_faces, reading, reading_options


def evaluate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help='"mma_dfer.dfew_fold1", "local-dir:FOLDER" or "hf-hub:OWNER/REPO"')
    parser.add_argument(
        "data", help='an annotation file, a folder with one folder per class, or "puppets:clips=100,split=test"'
    )
    parser.add_argument(
        "--subset", help="only these rows, where the file names subsets (training, validation, testing)"
    )
    reading_options(parser)
    parser.add_argument(
        "--faces", default="none", help="for videos that are no face crops yet; as of predict, and by default none"
    )
    parser.add_argument("--no-face", choices=("error", "frame"), default="error", help="what to do without a face")
    parser.add_argument("--without", action="append", default=[], help="withhold a modality: video or audio")
    parser.add_argument("--strict", action="store_true", help="stop at the first clip that cannot be read")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", help='"cuda", "mps", ...; default: the processor')
    parser.add_argument("--plot", metavar="PATH", help="write a plot of the confusion table")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object with the confusion table instead of a table"
    )


def evaluate_command(options: argparse.Namespace) -> int:
    from ..data.annotations import read_rows
    from ..factory import create_model
    from ..inference import metrics
    from ..inference.evaluate import check_sound, evaluate, report
    from ..transforms import create_transform

    model = create_model(options.name, device=options.device)
    if model.weights is None:
        raise DferZooError(f"{options.name} names no weights; a model at random has nothing to evaluate.")
    if model.weights.distribution == "composed":
        raise DferZooError(f"{options.name}: its head is new and answers at random. Train it first, and evaluate that.")
    transform = create_transform(model)
    rows = read_rows(options.data, model.labels, subset=options.subset, transform=transform, **reading(options))
    check_sound(model, rows, options.without)
    evaluation = evaluate(
        model,
        rows,
        transform=transform,
        batch_size=options.batch_size,
        without=options.without,
        faces=parse_faces(options.faces),
        no_face=options.no_face,
        strict=options.strict,
        progress=sys.stderr.isatty(),
    )
    table = evaluation.confusion
    if options.plot:
        from ..inference.plots import confusion_figure, write_figure

        write_figure(options.plot, confusion_figure(table, model.labels, f"{options.name} on {options.data}"))
    if options.json:
        about = {"model": options.name, "data": options.data, "labels": list(model.labels)}
        # a rate may be undefined, for a class that has no clips, and JSON has no NaN
        uar, war = (None if math.isnan(rate) else rate for rate in (metrics.uar(table), metrics.war(table)))
        about |= {"uar": uar, "war": war, "confusion": table.tolist(), "missing": dict(evaluation.missing)}
        about |= {"short": evaluation.short, "skipped": list(evaluation.skipped)}
        print(json.dumps({**about, "failed": [{"path": row.path, "error": why} for row, why in evaluation.failed]}))
    else:
        print(report(evaluation, model.labels))
    return 1 if evaluation.failed else 0


COMMANDS = {"evaluate": Command("Measure UAR and WAR on an annotated data set.", evaluate_options, evaluate_command)}
