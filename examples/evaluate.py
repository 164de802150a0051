"""Evaluate a model on an annotated data set and print a report, as `dfer-zoo evaluate` does.

python examples/evaluate.py mma_dfer.dfew_fold1 DFEW_set_1_test.txt --audio dfew
python examples/evaluate.py local-dir:runs/demo/last puppets:clips=80,split=test,seed=2026
"""

from __future__ import annotations

import argparse

import dfer_zoo
from dfer_zoo.data.annotations import read_rows
from dfer_zoo.inference.evaluate import evaluate as evaluate_rows
from dfer_zoo.inference.evaluate import report
from dfer_zoo.transforms import create_transform


def evaluate(options: argparse.Namespace) -> None:
    model = dfer_zoo.create_model(options.name)
    transform = create_transform(model, faces=options.faces)
    reading = {"audio": options.audio} if options.audio else {}
    rows = read_rows(options.data, model.labels, transform=transform, **reading)
    # with all inputs, then without each optional one
    for name in ((), *((one,) for one in model.optional_inputs)):
        evaluation = evaluate_rows(model, rows, transform=transform, without=name, progress=True)
        print(f"\nwithout {name[0]}" if name else "\nall inputs")
        print(report(evaluation, model.labels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a model with weights")
    parser.add_argument("data", help="an annotation file, a folder with one folder per class, or puppets")
    parser.add_argument("--audio", help="where the sound files of frame folders are")
    parser.add_argument("--faces", default="none", help="a detector, for videos that are not cropped to faces")
    options = parser.parse_args()
    try:
        evaluate(options)
    except dfer_zoo.DferZooError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
