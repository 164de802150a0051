"""A folder of clips on a Spark cluster: `spark-submit examples/spark_predict.py FOLDER OUT --model ARCH.TAG`.

Spark reads the files, gives them to Python workers that each hold one model (`mapInPandas`), tries again where a worker
died, and writes Parquet. Needs `pip install 'dfer-zoo[spark,video]'` on every machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import Any

import pandas

from dfer_zoo import get_weights
from dfer_zoo.inference.batch import Batch
from dfer_zoo.inference.tables import columns

WORDS = ("file", "id", "label", "missing", "weights", "error")
NUMBERS = ("person", "window")


class Answers:
    """The function for `mapInPandas`: maps data frames with `path` and `content` to data frames with a row per window."""

    def __init__(self, **options: Any) -> None:
        self.batch = Batch(path="content", id="path", **options)  # the worker loads the model at the first call

    def __call__(self, frames: Iterable[pandas.DataFrame]) -> Iterator[pandas.DataFrame]:
        for frame in frames:
            if len(frame):
                found = self.batch({"content": frame["content"], "path": frame["path"]})
                yield pandas.DataFrame({name: pandas.Series(v, dtype=_kind(name)) for name, v in found.items()})


def _kind(name: str) -> str:
    return "Int32" if name in NUMBERS else "object" if name in WORDS else "float64"


def schema(model: str) -> str:
    """Return the Spark schema of the output. Column names are quoted."""
    kinds = {**dict.fromkeys(WORDS, "string"), **dict.fromkeys(NUMBERS, "int")}
    return ", ".join(f"`{name}` {kinds.get(name, 'double')}" for name in columns(get_weights(model).labels))


def predict(spark: Any, folder: str, out: str, *, model: str, partitions: int | None = None, **options: Any) -> None:
    """Write a folder of Parquet files, with the columns of `dfer-zoo predict --out`."""
    clips = spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(folder).select("path", "content")
    if partitions:
        clips = clips.repartition(partitions)
    clips.mapInPandas(Answers(model=model, **options), schema(model)).write.mode("overwrite").parquet(out)


def main() -> None:
    from pyspark.sql import SparkSession

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("out")
    parser.add_argument("--model", required=True, help='such as "mma_dfer.dfew_fold1"')
    parser.add_argument("--faces", default="auto")
    parser.add_argument("--device", help='"cuda" on machines with a GPU')
    parser.add_argument("--partitions", type=int, help="tasks; a few for every worker")
    options = parser.parse_args()
    # small batches, because they contain whole files
    spark = (
        SparkSession.builder.appName("dfer-zoo")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", "16")
        .getOrCreate()
    )
    predict(
        spark,
        options.folder,
        options.out,
        model=options.model,
        partitions=options.partitions,
        faces=options.faces,
        device=options.device,
    )
    spark.stop()


if __name__ == "__main__":
    main()
