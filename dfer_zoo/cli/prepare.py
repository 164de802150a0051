"""`dfer-zoo prepare`: the lists that training and evaluation read, from the files of a data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import InputError
from .common import Command


def prepare_options(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    annotations = what.add_parser("annotations", help="write the training and testing lists of a fold")
    annotations.add_argument("dataset", choices=("crema_d",), help="the data set")
    annotations.add_argument("root", help="the folder with the videos, or with a folder of face frames per clip")
    annotations.add_argument("--sounds", required=True, metavar="DIR", help="the folder with the wav files")
    annotations.add_argument("--fold", type=int, required=True, help="1 to 5")
    annotations.add_argument("--out", required=True, metavar="DIR", help="where train.csv and test.csv are written")
    annotations.add_argument(
        "--all", action="store_true", help="also the clips without usable sound (MAE-DFER's lists)"
    )


def prepare_command(options: argparse.Namespace) -> int:
    from ..atomic import write_atomically
    from ..data.crema_d import CREMA_D_WITHOUT_SOUND, list_lines, read_crema_d

    left_out = () if options.all else CREMA_D_WITHOUT_SOUND
    out = Path(options.out)
    for subset, name in (("training", "train.csv"), ("testing", "test.csv")):
        rows = read_crema_d(
            options.root, fold=options.fold, subset=subset, sounds=options.sounds, without_sound=left_out
        )
        try:
            write_atomically(out / name, ("\n".join(list_lines(rows)) + "\n").encode())
        except OSError as error:
            raise InputError(f"--out {out}: {name} cannot be written ({error.strerror}).") from error
        print(f"{out / name}: {len(rows)} clips")
    return 0


COMMANDS = {"prepare": Command("Write the lists of a data set's fold.", prepare_options, prepare_command)}
