"""`dfer-zoo embed`: files in, one embedding per file out."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DferZooError, InputError
from .common import Command, boxes_option, parse_faces

if TYPE_CHECKING:
    import numpy as np


def embed_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="video or sound files, images, folders of frames")
    parser.add_argument("--model", required=True, help='"mma_dfer.dfew_fold1", "hf-hub:...", "local-dir:..."')
    parser.add_argument("--out", required=True, metavar="PATH", help="embeddings.parquet, .npz or .csv")
    parser.add_argument("--faces", default="auto", help="as in predict")
    boxes_option(parser)
    parser.add_argument("--no-face", choices=("error", "frame"), default="error", help="what to do without a face")
    parser.add_argument("--fps", type=float, help="the rate of frames that do not carry one, such as folders")
    parser.add_argument("--order", choices=("numeric", "string"), default="numeric", help="of the frames in a folder")
    parser.add_argument("--recover", action="store_true", help="read what can be decoded of damaged files")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", help='"cpu" (default), "cuda", "mps"')


def embed_command(options: argparse.Namespace) -> int:
    import numpy as np

    from ..inference.recognizer import Recognizer

    write = _writer(options.out)  # an unknown format is an error now, not after an hour
    recognizer = Recognizer(
        options.model,
        faces=parse_faces(options.faces, options.boxes),
        no_face=options.no_face,
        window=None,
        batch_size=options.batch_size,
        device=options.device,
    )
    reading = {"fps": options.fps, "order": options.order, "recover": options.recover}
    sources, vectors = [], []
    for source, answer in zip(options.files, recognizer.embeddings(options.files, on_error="return", **reading)):
        if isinstance(answer, DferZooError):
            print(f"dfer-zoo embed: {answer}", file=sys.stderr, flush=True)
        else:
            sources.append(source)
            vectors.append(answer)
    if not vectors:
        raise InputError(f"None of the {len(options.files)} files can be used.")
    content = io.BytesIO()

    write(content, sources, np.stack(vectors))
    from ..atomic import write_atomically

    try:
        write_atomically(Path(options.out), content.getvalue())
    except OSError as error:
        raise InputError(f"--out {options.out}: this file cannot be written ({error.strerror}).") from error
    print(f"{len(sources)} embeddings of {vectors[0].size} numbers: {options.out}")
    return 0 if len(sources) == len(options.files) else 1


Writer = Callable[[io.BytesIO, list[str], "np.ndarray"], None]


def _writer(path: str) -> Writer:
    suffix = Path(path).suffix.lower()
    if suffix not in WRITERS:
        raise InputError(f"--out {path}: expected a file name ending in {', '.join(WRITERS)}.")
    if suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise InputError('Parquet files need pyarrow: pip install "dfer-zoo[tables]".') from error
    return WRITERS[suffix]


def _write_parquet(stream: io.BytesIO, sources: list[str], vectors: np.ndarray) -> None:
    """Columns ``source`` and ``embedding`` (a list of float32)."""
    import pyarrow
    import pyarrow.parquet

    flat = pyarrow.array(vectors.reshape(-1))
    columns = {"source": sources, "embedding": pyarrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1])}
    pyarrow.parquet.write_table(pyarrow.table(columns), stream)


def _write_npz(stream: io.BytesIO, sources: list[str], vectors: np.ndarray) -> None:
    """Arrays ``source`` and ``embedding``, (files, features)."""
    import numpy as np

    np.savez(stream, source=np.array(sources), embedding=vectors)


def _write_csv(stream: io.BytesIO, sources: list[str], vectors: np.ndarray) -> None:
    """Columns source, e0, e1, ..."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["source", *(f"e{number}" for number in range(vectors.shape[1]))])
    rows.writerows([source, *map(repr, vector.tolist())] for source, vector in zip(sources, vectors))
    stream.write(text.getvalue().encode("utf-8", "surrogateescape"))


WRITERS: dict[str, Writer] = {".parquet": _write_parquet, ".npz": _write_npz, ".csv": _write_csv}
COMMANDS = {"embed": Command("Write the embeddings of video files.", embed_options, embed_command)}
