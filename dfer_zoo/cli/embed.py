"""`dfer-zoo embed`: files in, one embedding per file out."""

from __future__ import annotations

import argparse
import sys

from .common import Command, boxes_option, parse_faces
from .predict import error_printer, given_items, input_options, table_options, told_report


def embed_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="files, folders, globs, @list.txt, a CSV or Parquet table, - (stdin)"
    )
    parser.add_argument("--model", required=True, help='"mma_dfer.dfew_fold1", "hf-hub:...", "local-dir:..."')
    parser.add_argument("--out", required=True, metavar="TABLE", help="embeddings.csv, .jsonl, .parquet or .npz")
    parser.add_argument("--faces", default="auto", help="as in predict")
    boxes_option(parser)
    parser.add_argument("--no-face", choices=("error", "frame"), default="error", help="what to do without a face")
    parser.add_argument("--fps", type=float, help="frame rate of sources without one, such as folders")
    parser.add_argument("--order", choices=("numeric", "string"), default="numeric", help="of the frames in a folder")
    parser.add_argument("--recover", action="store_true", help="read what can be decoded of damaged files")
    parser.add_argument("--batch-size", type=int, metavar="N", help="clips in a forward pass; 1 on a CPU, else 8")
    parser.add_argument("--device", help='"cpu" (default), "cuda", "mps"')
    input_options(parser)
    table_options(parser)


def embed_command(options: argparse.Namespace) -> int:
    from ..inference.batch import embed_table
    from ..inference.recognizer import Recognizer
    from ..inference.tables import VECTOR_SUFFIXES, check_table_path

    check_table_path(options.out, VECTOR_SUFFIXES)  # an unknown format is an error now, not after an hour
    items = given_items(options)
    recognizer = Recognizer(
        options.model,
        faces=parse_faces(options.faces, options.boxes),
        no_face=options.no_face,
        window=None,
        batch_size=options.batch_size,
        device=options.device,
    )

    report = embed_table(
        recognizer,
        items,
        options.out,
        resume=options.resume,
        retry_errors=options.retry_errors,
        shard=options.shard,
        workers=options.workers,
        progress=sys.stderr.isatty(),
        told=error_printer("embed"),
        fps=options.fps,
        order=options.order,
        recover=options.recover,
    )
    return told_report(report)


COMMANDS = {"embed": Command("Write the embeddings of video files.", embed_options, embed_command)}
