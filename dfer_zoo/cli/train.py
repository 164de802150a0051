"""`dfer-zoo train` and `dfer-zoo pretrain`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import DferZooError, InputError
from .common import Command, defined, parse_folds, parse_replace, parse_values, table

SHOWN = 10  # unreadable clips to list by name


def train_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", nargs="?", help="the name of a recipe (see --list), or a TOML file")
    parser.add_argument("--list", action="store_true", help="list the recipes and what each trains")
    parser.add_argument("--out", type=Path, help="folder for weights, numbers and the state")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.NAME=VALUE", help="override a value")
    parser.add_argument("--resume", action="store_true", help="continue the run in OUT")
    parser.add_argument("--strict", action="store_true", help="stop at the first clip that cannot be read")
    parser.add_argument("--root", metavar="DIR", help="the folder of the data; the same as --set data.options.root=DIR")
    parser.add_argument("--replace", metavar="OLD=NEW", help="replace the start of every path of the lists")
    parser.add_argument(
        "--folds", metavar="1-5", help="train several folds; {fold} in the recipe's values is replaced by the number"
    )


def train_command(options: argparse.Namespace) -> int:
    from ..training.recipe import list_recipes, read_recipe

    if options.list:
        print(table([("RECIPE", "TRAINS"), *list_recipes().items()]))
        return 0
    if options.recipe is None or options.out is None:
        raise InputError("Give a recipe and --out FOLDER. `dfer-zoo train --list` shows the recipes.")
    changes = [*options.set, *_reading(options)]
    runs: list[tuple[int | None, Path]] = [(None, options.out)]
    if options.folds:
        runs = [(fold, options.out / f"fold{fold}") for fold in parse_folds(options.folds)]
    recipes = [
        read_recipe(options.recipe, changes, fold=fold) for fold, _ in runs
    ]  # check all recipes before training starts
    for _, out in runs:
        if not options.resume and (out / "state.safetensors").exists():
            raise InputError(f"{out} contains a training already; add --resume, or choose another folder.")
    _needs_accelerate()
    from ..training.loop import train

    done = [train(recipe, out, options.resume, options.strict) for recipe, (_, out) in zip(recipes, runs)]
    if options.folds:
        _tell_folds([fold for fold, _ in runs if fold is not None], done, options.out)
    return _report_failed({path: why for progress in done for path, why in progress["failed"].items()})


def _reading(options: argparse.Namespace) -> list[str]:
    changes = [] if options.root is None else [f"data.options.root={json.dumps(options.root)}"]
    if (pair := parse_replace(options.replace)) is not None:
        changes.append(f"data.options.replace={json.dumps(list(pair))}")
    return changes


def _needs_accelerate() -> None:
    try:
        import accelerate
        import tqdm  # noqa: F401
    except ImportError as error:
        raise DferZooError(f'Training needs {error.name}: pip install "dfer-zoo[train]".') from error
    del accelerate


def _tell_folds(folds: Sequence[int], done: Sequence[dict[str, Any]], out: Path) -> None:
    """Print the final rates of all folds; write them as CSV and JSON, with the pooled confusion matrix."""
    import numpy as np

    from ..atomic import write_atomically
    from ..inference import metrics
    from ..inference.plots import confusion_figure, write_figure

    if not _is_main_process():
        return
    tables = [np.array(progress["table"]) for progress in done]
    labels = done[0]["labels"]
    print(metrics.folds_table(folds, tables))
    write_atomically(out / "folds.csv", metrics.rates_csv(tables, labels, folds).encode())
    rates = {name: defined(rate) for name, rate in metrics.over_folds(tables).items()}
    told = {"labels": labels, "folds": dict(zip(folds, (table.tolist() for table in tables))), "over_folds": rates}
    write_atomically(out / "folds.json", (json.dumps(told) + "\n").encode())
    title = f"folds {', '.join(map(str, folds))}, last epoch"
    write_figure(out / "confusion.png", confusion_figure(np.sum(tables, axis=0), labels, title))


def _report_failed(failed: dict[str, str]) -> int:
    if failed and _is_main_process():
        print(f"{len(failed)} clip{'s' * (len(failed) > 1)} cannot be read and were replaced by others:")
        for reason in list(failed.values())[:SHOWN]:
            print(f"  {reason}")
        if len(failed) > SHOWN:
            print(f"  and {len(failed) - SHOWN} more")
    return 1 if failed else 0


def _is_main_process() -> bool:
    from accelerate import PartialState

    return PartialState().is_main_process


def pretrain_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", help="a folder of video files, an annotation file, or puppets:clips=64")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, numbers and the state")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--warmup-epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64, help="clips per update, over all processes")
    parser.add_argument("--lr", type=float, default=3e-4, help="for a batch of 256; scaled with the batch")
    parser.add_argument("--min-lr", type=float, default=1e-5, help="for a batch of 256")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--precision", choices=("no", "fp16", "bf16"), default="no")
    parser.add_argument("--save-every", type=int, default=0, metavar="N", help="also save the state every N updates")
    parser.add_argument("--voxceleb2", action="store_true", help="crop the face of VoxCeleb2's 224 x 224 frames")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="an argument of the model")
    parser.add_argument("--resume", action="store_true", help="continue the run in OUT")
    parser.add_argument("--strict", action="store_true", help="stop at the first clip that cannot be read")


def pretrain_command(options: argparse.Namespace) -> int:
    if not options.resume and (options.out / "state.safetensors").exists():
        raise InputError(f"{options.out} contains a training already; add --resume, or choose another folder.")
    _needs_accelerate()
    from ..training.pretrain import Settings, pretrain

    values = {name: getattr(options, name) for name in Settings.__dataclass_fields__ if hasattr(options, name)}
    settings = Settings(**{**values, "model_args": parse_values("--set", options.set)})
    return _report_failed(pretrain(settings, options.out, options.resume, options.strict)["failed"])


COMMANDS = {
    "train": Command("Train or fine-tune a model by a recipe.", train_options, train_command),
    "pretrain": Command("Pre-train MAE-DFER on unlabelled video.", pretrain_options, pretrain_command),
}
