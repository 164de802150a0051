"""`dfer-zoo evaluate`: recognition rates on an annotated data set."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import DferZooError, InputError
from .common import Command, boxes_option, parse_faces, parse_folds, reading, reading_options

if TYPE_CHECKING:
    import numpy as np

    from ..inference.evaluate import Evaluation
    from ..weights.record import Weights


def evaluate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help='"mma_dfer.dfew_fold1", "local-dir:FOLDER" or "hf-hub:OWNER/REPO"')
    parser.add_argument(
        "data", help='an annotation file, a folder with one folder per class, or "puppets:clips=100,split=test"'
    )
    parser.add_argument(
        "--folds",
        metavar="1-5",
        help="evaluate these folds and print their mean and pooled rates; {fold} in NAME and DATA is the number",
    )
    parser.add_argument(
        "--subset", help="only these rows, where the file names subsets (training, validation, testing)"
    )
    reading_options(parser)
    parser.add_argument(
        "--faces", default="none", help="for videos that are no face crops yet; as of predict, and by default none"
    )
    boxes_option(parser)
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
    if options.folds is not None:
        return _evaluate_folds(options, parse_folds(options.folds))
    evaluation, labels, _ = _evaluated(options, options.name, options.data)
    _plotted(options, evaluation.confusion, labels, f"{options.name} on {options.data}")
    if options.json:
        print(json.dumps(_facts(options.name, options.data, evaluation, labels)))
    else:
        from ..inference.evaluate import report

        print(report(evaluation, labels))
    return 1 if evaluation.failed else 0


def _evaluate_folds(options: argparse.Namespace, folds: Sequence[int]) -> int:
    """Every fold by its own weights and list; the plain mean is the published protocol."""
    from ..inference import metrics

    for what, text in (("NAME", options.name), ("DATA", options.data)):
        if "{fold}" not in text:
            raise InputError(f"--folds needs {{fold}} in {what}, where the number goes: {text!r} has none.")
    evaluations: list[Evaluation] = []
    labels: tuple[str, ...] = ()
    published: dict[str, float] = {}
    for fold in folds:
        name, data = options.name.replace("{fold}", str(fold)), options.data.replace("{fold}", str(fold))
        evaluation, found, weights = _evaluated(options, name, data)
        if labels and found != labels:
            raise InputError(f"{name} has other labels than fold {folds[0]}, so the folds cannot be pooled.")
        labels = found
        published |= {m.name: m.value for m in weights.metrics if m.name in ("uar", "war")}
        evaluations.append(evaluation)
    tables = [evaluation.confusion for evaluation in evaluations]
    _plotted(options, sum(tables[1:], tables[0]), labels, f"{options.name}, folds {', '.join(map(str, folds))}")
    if options.json:
        rows = [
            _facts(options.name.replace("{fold}", str(k)), options.data.replace("{fold}", str(k)), e, labels)
            for k, e in zip(folds, evaluations)
        ]
        rates = {name: None if math.isnan(rate) else rate for name, rate in metrics.over_folds(tables).items()}
        print(json.dumps({"folds": rows, "over_folds": rates, "published": published}))
    else:
        print(metrics.folds_table(folds, tables, published))
        recalls = metrics.recalls(sum(tables[1:], tables[0]))
        print("\nrecall of the pooled clips")
        for label, recall in zip(labels, recalls):
            print(f"{label:{max(map(len, labels))}}  {'-' if math.isnan(recall) else f'{recall:6.2f}'}")
    return 1 if any(evaluation.failed for evaluation in evaluations) else 0


def _evaluated(options: argparse.Namespace, name: str, data: str) -> tuple[Evaluation, tuple[str, ...], Weights]:
    """One list, evaluated by one model: the evaluation, the labels, and the record of the weights."""
    from ..data.annotations import read_rows
    from ..factory import create_model
    from ..inference.evaluate import check_sound, evaluate
    from ..transforms import create_transform

    model = create_model(name, device=options.device)
    if model.weights is None:
        raise DferZooError(f"{name} names no weights, so there is nothing to evaluate. Name some: ARCH.TAG.")
    if model.weights.distribution == "composed":
        raise DferZooError(f"{name}: its head is new and answers at random. Train it first, and evaluate that.")
    transform = create_transform(model)
    rows = read_rows(data, model.labels, subset=options.subset, transform=transform, **reading(options))
    check_sound(model, rows, options.without)
    evaluation = evaluate(
        model,
        rows,
        transform=transform,
        batch_size=options.batch_size,
        without=options.without,
        faces=parse_faces(options.faces, options.boxes),
        no_face=options.no_face,
        strict=options.strict,
        progress=sys.stderr.isatty(),
    )
    return evaluation, model.labels, model.weights


def _plotted(options: argparse.Namespace, table: np.ndarray, labels: Sequence[str], title: str) -> None:
    if options.plot:
        from ..inference.plots import confusion_figure, write_figure

        write_figure(options.plot, confusion_figure(table, labels, title))


def _facts(name: str, data: str, evaluation: Evaluation, labels: Sequence[str]) -> dict[str, Any]:
    """An evaluation as plain values, for JSON."""
    from ..inference import metrics

    table = evaluation.confusion
    # a rate may be undefined, for a class that has no clips, and JSON has no NaN
    uar, war = (None if math.isnan(rate) else rate for rate in (metrics.uar(table), metrics.war(table)))
    return {
        "model": name,
        "data": data,
        "labels": list(labels),
        "uar": uar,
        "war": war,
        "confusion": table.tolist(),
        "missing": dict(evaluation.missing),
        "short": evaluation.short,
        "skipped": list(evaluation.skipped),
        "failed": [{"path": row.path, "error": why} for row, why in evaluation.failed],
    }


COMMANDS = {"evaluate": Command("Measure UAR and WAR on an annotated data set.", evaluate_options, evaluate_command)}
