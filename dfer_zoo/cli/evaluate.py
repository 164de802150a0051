"""`dfer-zoo evaluate`: recognition rates on an annotated data set."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import DferZooError, InputError
from .common import Command, boxes_option, defined, parse_faces, parse_folds, reading, reading_options

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
        help="evaluate these folds, and print their mean and pooled rates; {fold} in NAME and DATA is replaced by the number",
    )
    parser.add_argument(
        "--subset", help="only these rows, where the file names subsets (training, validation, testing)"
    )
    reading_options(parser)
    parser.add_argument(
        "--faces",
        help="how to find faces, as in predict; default: as for the training of the weights, else the data are face crops",
    )
    boxes_option(parser)
    parser.add_argument("--no-face", choices=("error", "frame"), default="error", help="what to do without a face")
    parser.add_argument("--without", action="append", default=[], help="withhold a modality: video or audio")
    parser.add_argument("--strict", action="store_true", help="stop at the first clip that cannot be read")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", help='"cuda", "mps", ...; default: the CPU')
    parser.add_argument("--plot", metavar="PATH", help="write a plot of the confusion table")
    parser.add_argument("--csv", metavar="PATH", help="write the rates and recalls of every fold as CSV")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object with the confusion table instead of a table"
    )


def evaluate_command(options: argparse.Namespace) -> int:
    from ..inference import processes

    try:
        if options.folds is not None:
            return _evaluate_folds(options, parse_folds(options.folds))
        return _evaluate_list(options)
    finally:
        processes.leave()


def _evaluate_list(options: argparse.Namespace) -> int:
    from ..inference import processes
    from ..inference.evaluate import report

    evaluation, labels, _ = _evaluated(options, options.name, options.data)
    if processes.is_main():
        _write_files(options, [evaluation.confusion], labels, f"{options.name} on {options.data}")
        if options.json:
            print(json.dumps(_facts(options.name, options.data, evaluation, labels)))
        else:
            print(report(evaluation, labels))
    return 1 if evaluation.failed else 0


def _evaluate_folds(options: argparse.Namespace, folds: Sequence[int]) -> int:
    """Evaluate every fold with its own weights and list. The mean is the published protocol."""
    from ..inference import metrics, processes

    for what, text in (("NAME", options.name), ("DATA", options.data)):
        if "{fold}" not in text:
            raise InputError(f"--folds needs {{fold}} in {what} as a placeholder of the number: {text!r} has none.")
    evaluations: list[Evaluation] = []
    labels: tuple[str, ...] = ()
    records: list[Weights] = []
    for fold in folds:
        name, data = options.name.replace("{fold}", str(fold)), options.data.replace("{fold}", str(fold))
        evaluation, found, weights = _evaluated(options, name, data)
        if labels and found != labels:
            raise InputError(f"{name} has other labels than fold {folds[0]}, so the folds cannot be pooled.")
        labels = found
        records.append(weights)
        evaluations.append(evaluation)
    failed = any(evaluation.failed for evaluation in evaluations)
    if not processes.is_main():
        return 1 if failed else 0
    tables = [evaluation.confusion for evaluation in evaluations]
    each, mean = _published(records)
    title = f"{options.name} on {options.data}, folds {', '.join(map(str, folds))}"
    _write_files(options, tables, labels, title, folds)
    if options.json:
        rows = [
            _facts(options.name.replace("{fold}", str(k)), options.data.replace("{fold}", str(k)), e, labels)
            for k, e in zip(folds, evaluations)
        ]
        rates = {name: defined(rate) for name, rate in metrics.over_folds(tables).items()}
        told = {"folds": rows, "over_folds": rates, "published": mean, "published_folds": each}
        print(json.dumps(told))
    else:
        print(metrics.folds_table(folds, tables, mean, each))
        print()
        print(metrics.recall_table(tables, labels, _published_recalls(records)))
    return 1 if failed else 0


def _published(records: Sequence[Weights]) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Return the published rates of every fold, and their means.

    Some systems publish a number per fold. Others publish only the mean, which is in the records of all folds or of
    the first fold.
    """
    each: list[dict[str, float]] = []
    mean: dict[str, float] = {}
    for record in records:
        rates = {m.name: m.value for m in record.metrics if m.name in ("uar", "war") and not _is_mean(m.protocol)}
        mean |= {m.name: m.value for m in record.metrics if m.name in ("uar", "war") and _is_mean(m.protocol)}
        each.append(rates)
    for name in ("uar", "war"):
        if name not in mean and all(name in rates for rates in each):
            mean[name] = round(sum(rates[name] for rates in each) / len(each), 2)
    return each, mean


def _published_recalls(records: Sequence[Weights]) -> dict[str, float]:
    """Return published recalls by label, preferably those of the mean over the folds."""
    found: dict[str, float] = {}
    for record in records:
        for metric in record.metrics:
            if metric.label and (_is_mean(metric.protocol) or len(records) == 1):
                found[metric.label] = metric.value
    return found


def _is_mean(protocol: str) -> bool:
    return "mean of" in protocol and "fold" in protocol


def _evaluated(options: argparse.Namespace, name: str, data: str) -> tuple[Evaluation, tuple[str, ...], Weights]:
    """Evaluate one model on one list, and return (evaluation, labels, record)."""
    from ..data.annotations import read_rows
    from ..factory import create_model
    from ..inference import processes
    from ..inference.evaluate import check_sound, evaluate
    from ..transforms import create_transform, faces_of_training

    model = create_model(name, device=processes.device(options.device))
    if model.weights is None:
        raise DferZooError(f"{name} has no weights to evaluate. Give ARCH.TAG.")
    if model.weights.distribution == "composed":
        raise DferZooError(f"{name}: its head is random. Train it first, and evaluate the result.")
    faces = faces_of_training(model.video_spec, "none") if options.faces is None else options.faces
    faces = faces if faces == "none" and not options.boxes else parse_faces(faces, options.boxes)
    transform = create_transform(model, faces=faces, no_face=options.no_face)
    rows = read_rows(data, model.labels, subset=options.subset, transform=transform, **reading(options))
    check_sound(model, rows, options.without)
    evaluation = evaluate(
        model,
        rows,
        transform=transform,
        batch_size=options.batch_size,
        without=options.without,
        strict=options.strict,
        progress=sys.stderr.isatty() and processes.is_main(),
        shared=True,
    )
    return evaluation, model.labels, model.weights


def _write_files(
    options: argparse.Namespace,
    tables: Sequence[np.ndarray],
    labels: Sequence[str],
    title: str,
    folds: Sequence[int] | None = None,
) -> None:
    """Write the confusion plot of the pooled clips, and the rates as CSV."""
    if options.plot:
        from ..inference.plots import confusion_figure, write_figure

        write_figure(options.plot, confusion_figure(sum(tables[1:], tables[0]), labels, title))
    if options.csv:
        from pathlib import Path

        from ..atomic import write_atomically
        from ..inference.metrics import rates_csv

        write_atomically(Path(options.csv), rates_csv(tables, labels, folds).encode())


def _facts(name: str, data: str, evaluation: Evaluation, labels: Sequence[str]) -> dict[str, Any]:
    """Return an evaluation as plain values, for JSON."""
    from ..inference import metrics

    table = evaluation.confusion
    return {
        "model": name,
        "data": data,
        "labels": list(labels),
        "uar": defined(metrics.uar(table)),
        "war": defined(metrics.war(table)),
        "confusion": table.tolist(),
        "missing": dict(evaluation.missing),
        "short": evaluation.short,
        "skipped": list(evaluation.skipped),
        "failed": [{"path": row.path, "error": why} for row, why in evaluation.failed],
    }


COMMANDS = {"evaluate": Command("Measure UAR and WAR on an annotated data set.", evaluate_options, evaluate_command)}
