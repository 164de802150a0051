"""`dfer-zoo prepare`: write face crops, sound files, frames and lists, like the authors' preprocessing scripts."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .common import Command, in_options, parse_faces, parse_folds, parse_replace

if TYPE_CHECKING:
    from ..data.prepare import Report

DATASETS = ("ravdess", "dfew", "mafw", "ferv39k", "crema_d", "enterface", "folders")


def prepare_options(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    _faces_options(what.add_parser("faces", help="crop videos or frames to the face"))
    _audio_options(what.add_parser("audio", help="write the sound of videos as wav files"))
    _frames_options(what.add_parser("frames", help="write the frames of videos as images"))
    _annotations_options(what.add_parser("annotations", help="write the training and testing lists of a fold"))


def _faces_options(parser: argparse.ArgumentParser) -> None:
    _clip_options(parser)
    parser.add_argument(
        "--rule",
        required=True,
        help="the crop rule: union_square (MMA-DFER on MAFW), largest (av_fusion on RAVDESS), aligned, detector_box, "
        "gray_square, whole, or the name of weights, whose rule is used",
    )
    parser.add_argument("--faces", default="auto", help="the detector, as in predict")
    parser.add_argument(
        "--no-face",
        choices=("error", "frame"),
        default="error",
        help="a clip without a face: error (write nothing) or frame (write whole frames)",
    )
    parser.add_argument(
        "--format",
        choices=("jpg", "png", "npy"),
        default="jpg",
        help="a folder of images per clip, or the .npy file of av_fusion; png keeps every pixel",
    )
    parser.add_argument(
        "--names", choices=("padded", "plain"), help="00000.jpg, or 0.jpg (the default for union_square)"
    )
    parser.add_argument("--avi", action="store_true", help="also write an .avi preview of each .npy file")


def _audio_options(parser: argparse.ArgumentParser) -> None:
    _clip_options(parser)
    parser.add_argument(
        "--rule",
        choices=("file", "ravdess"),
        default="file",
        help="file: rate and channels of the file (MMA-DFER); ravdess: mono, 22050 Hz, 3.6 seconds (av_fusion)",
    )


def _frames_options(parser: argparse.ArgumentParser) -> None:
    _clip_options(parser)
    parser.add_argument("--fps", type=float, help="frames per second to write; by default every frame")
    parser.add_argument("--format", choices=("jpg", "png"), default="jpg")


def _clip_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="an annotation list, a folder of videos or of frames, or one video")
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="DIR",
        help="the output folder; a second run continues an interrupted one",
    )
    parser.add_argument("--root", metavar="DIR", help="the folder of the data, for a list")
    parser.add_argument("--replace", metavar="OLD=NEW", help="replace the start of every path of a list")
    parser.add_argument("--subset", help="only these rows of a list (training, validation, testing)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="worker processes; 0: none")
    parser.add_argument(
        "--report", type=Path, metavar="PATH", help="a second report, .csv or .json, next to OUT/report.csv"
    )


def _annotations_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", choices=DATASETS, help="the data set; folders: your own, a folder per class")
    parser.add_argument("root", type=Path, help="the folder of the data set")
    parser.add_argument("--system", help="whose format and label order: mma_dfer, dfer_clip, dk_clip, mae_dfer, ...")
    parser.add_argument("--fold", metavar="K", help="1, or 1-5 with {fold} in --out; RAVDESS: by actors, 1-6")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the lists are written")
    parser.add_argument("--frames", type=Path, metavar="DIR", help="the folder with a folder of face frames per clip")
    parser.add_argument("--sounds", type=Path, metavar="DIR", help="the folder with the wav files")
    parser.add_argument(
        "--all", action="store_true", help="include the clips that HiCMAE leaves out because they have no sound"
    )
    parser.add_argument("--skip-missing", action="store_true", help="leave out clips without frames")
    parser.add_argument("--parts", type=int, default=5, help="folders: the number of folds (5)")
    parser.add_argument(
        "--group", metavar="REGEX", help="folders: finds the person in a clip's name; each person is in one fold"
    )


def prepare_command(options: argparse.Namespace) -> int:
    commands: dict[str, Callable[[argparse.Namespace], int]] = {
        "faces": _prepare_faces,
        "audio": _prepare_audio,
        "frames": _prepare_frames,
        "annotations": _prepare_annotations,
    }
    return commands[options.what](options)


def _prepare_faces(options: argparse.Namespace) -> int:
    from ..data import prepare

    report = prepare.faces(
        options.source,
        options.out,
        rule=options.rule,
        detector=parse_faces(options.faces),
        no_face=options.no_face,
        kind=options.format,
        names=options.names,
        preview=options.avi,
        workers=options.workers,
        **_reading(options),
    )
    return _told(report, options)


def _prepare_audio(options: argparse.Namespace) -> int:
    from ..data import prepare

    return _told(
        prepare.audio(options.source, options.out, rule=options.rule, workers=options.workers, **_reading(options)),
        options,
    )


def _prepare_frames(options: argparse.Namespace) -> int:
    from ..data import prepare

    report = prepare.frames(
        options.source, options.out, fps=options.fps, kind=options.format, workers=options.workers, **_reading(options)
    )
    return _told(report, options)


def _reading(options: argparse.Namespace) -> dict[str, Any]:
    if options.workers < 0:
        raise InputError(f"--workers is {options.workers}; expected 0 or more.")
    given = {"root": options.root, "replace": parse_replace(options.replace), "subset": options.subset}
    return {name: value for name, value in given.items() if value is not None}


def _told(report: Report, options: argparse.Namespace) -> int:
    """Print the summary. Return 1 if a clip has no face or cannot be read."""
    from ..data.prepare import REPORT, write_report

    print(in_options(report.summary()))
    if options.report is not None:
        write_report(report, options.report)
    print(f"The report is {options.report or options.out / REPORT}.")
    return 1 if report.failed or report.without_face else 0


def _prepare_annotations(options: argparse.Namespace) -> int:
    from ..data import lists

    numbers = [None] if options.fold is None else parse_folds(options.fold)
    if len(numbers) > 1 and "{fold}" not in options.out:
        raise InputError(
            f"--fold {options.fold} writes {len(numbers)} folds; put {{fold}} into --out: lists/fold{{fold}}."
        )
    for number in numbers:
        fold = lists.Fold(
            options.root,
            number,
            options.system or lists.DATASETS[options.dataset].systems[0],
            frames=options.frames,
            sounds=options.sounds,
            all_clips=options.all,
            skip_missing=options.skip_missing,
            parts=options.parts,
            group=options.group,
        )
        written = lists.write_lists(options.dataset, fold, options.out.replace("{fold}", str(number)))
        for path, clips in written.items():
            print(f"{path}: {clips} clips")
    return 0


COMMANDS = {
    "prepare": Command(
        "Crop faces, extract sound and frames, write the lists of a data set.", prepare_options, prepare_command
    )
}
