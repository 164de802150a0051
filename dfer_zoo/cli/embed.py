"""`dfer-zoo embed`: compute one embedding per file."""

from __future__ import annotations

import argparse

from .common import Command, parse_faces
from .predict import given_items, input_options, table_options, table_run, told_report


def embed_options(parser: argparse.ArgumentParser) -> None:
    input_options(parser)
    parser.add_argument("--model", required=True, help='"mma_dfer.dfew_fold1", "hf-hub:...", "local-dir:..."')
    parser.add_argument("--out", required=True, metavar="TABLE", help="embeddings.csv, .jsonl, .parquet or .npz")
    table_options(parser)


def embed_command(options: argparse.Namespace) -> int:
    from ..inference.batch import embed_table
    from ..inference.recognizer import Recognizer
    from ..inference.tables import VECTOR_SUFFIXES, check_table_path

    check_table_path(options.out, VECTOR_SUFFIXES)  # fail early for an unknown format
    items = given_items(options)
    recognizer = Recognizer(
        options.model,
        faces=parse_faces(options.faces, options.boxes),
        no_face=options.no_face,
        window=None,
        batch_size=options.batch_size,
        device=options.device,
    )
    return told_report(embed_table(recognizer, items, options.out, **table_run(options, "embed")))


COMMANDS = {"embed": Command("Write the embeddings of video files.", embed_options, embed_command)}
