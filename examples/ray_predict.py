"""A folder of clips on a cluster, with Ray Data: `python examples/ray_predict.py FOLDER OUT [--model ARCH.TAG]`.

Ray reads the files, keeps a pool of processes that each hold one model, restarts those that die, and writes Parquet.
Needs `pip install 'ray[data]' 'dfer-zoo[video]'` on every machine.
"""

from __future__ import annotations

import argparse

import ray

from dfer_zoo.inference.batch import Batch


class Predict:
    """A Ray actor with one model."""

    def __init__(self, options: dict) -> None:
        self.batch = Batch(path="bytes", id="path", **options)

    def __call__(self, columns: dict) -> dict:
        found = self.batch(columns)
        # the same column types in all batches, even if a column has no values
        words = ("file", "id", "label", "missing", "weights", "error")
        return {
            name: [str(v) if v is not None else "" for v in values]
            if name in words
            else [float("nan") if v is None else float(v) for v in values]
            for name, values in found.items()
        }


def predict(
    folder: str, out: str, *, actors: int = 2, cpus: float = 1, gpus: float = 0, batch_size: int = 8, **options
) -> None:
    """Write one Parquet file per block, with the columns of `dfer-zoo predict --out`."""
    clips = ray.data.read_binary_files(folder, include_paths=True)
    answers = clips.map_batches(
        Predict,
        fn_constructor_args=(options,),
        batch_size=batch_size,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=cpus,
        num_gpus=gpus or None,
    )
    answers.write_parquet(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("out")
    parser.add_argument("--model", help='such as "mma_dfer.dfew_fold1"; default: the frame-wise baseline')
    parser.add_argument("--faces", default="auto")
    parser.add_argument("--actors", type=int, default=2, help="processes with a model each")
    parser.add_argument(
        "--cpus", type=float, default=1, help="cores per actor; Ray's readers need some of the machine's cores too"
    )
    parser.add_argument("--gpus", type=float, default=0, help="GPUs per actor")
    options = parser.parse_args()
    predict(
        options.folder,
        options.out,
        actors=options.actors,
        cpus=options.cpus,
        gpus=options.gpus,
        model=options.model,
        faces=options.faces,
    )


if __name__ == "__main__":
    main()
