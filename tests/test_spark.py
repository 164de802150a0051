"""`examples/spark_predict.py`: the pandas function, and a local Spark if Java is installed."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pandas = pytest.importorskip("pandas")
parquet = pytest.importorskip("pyarrow.parquet")

from dfer_zoo.data.puppets import Puppet  # noqa: E402
from dfer_zoo.inference.batch import Batch  # noqa: E402
from tests.scripts import load_script  # noqa: E402

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spark")
    for number, emotion in enumerate(("happiness", "sadness", "anger")):
        Puppet(emotion, seed=number, size=64).write(folder / f"{number}.mp4")
    (folder / "broken.mp4").write_bytes(b"not a video")
    return folder


def test_frames_of_files_become_frames_of_answers(clips):
    example = load_script("examples/spark_predict.py")
    paths = sorted(clips.iterdir())
    content = [path.read_bytes() for path in paths]
    frames = [
        pandas.DataFrame({"path": list(map(str, paths[:2])), "content": content[:2]}),
        pandas.DataFrame({"path": [], "content": []}),
        pandas.DataFrame({"path": list(map(str, paths[2:])), "content": content[2:]}),
    ]
    answers = pickle.loads(pickle.dumps(example.Answers(model="av_fusion.puppets", faces="none", window=1.5)))
    found = pandas.concat(answers(iter(frames)))
    expected = Batch("av_fusion.puppets", path="content", id="path", faces="none", window=1.5)(
        {"content": content, "path": list(map(str, paths))}
    )
    assert list(found.columns) == list(expected)
    assert found["file"].tolist() == expected["file"] and found["label"].tolist() == expected["label"]
    assert found["window"].dtype == "Int32" and found["window"].isna().sum() == 1  # the broken clip
    described = [column.split("`")[1:] for column in example.schema("av_fusion.puppets").split(", ")]
    assert [name for name, _ in described] == list(expected) and dict(described)["p_happy"].strip() == "double"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java")
def test_spark_writes_a_row_per_clip(clips, tmp_path):
    pytest.importorskip("pyspark")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    environment |= {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    environment |= {"PYSPARK_SUBMIT_ARGS": "--master local[2] --conf spark.ui.enabled=false pyspark-shell"}
    command = [sys.executable, "examples/spark_predict.py", str(clips), str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "--model", "av_fusion.puppets", "--faces", "none", "--partitions", "2"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=550,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    rows = parquet.read_table(tmp_path / "out").to_pylist()
    assert sorted(Path(row["file"]).name for row in rows) == ["0.mp4", "1.mp4", "2.mp4", "broken.mp4"]
    assert [Path(row["file"]).name for row in rows if row["error"]] == ["broken.mp4"]
    assert all(abs(sum(v for n, v in row.items() if n.startswith("p_")) - 1) < 1e-5 for row in rows if not row["error"])
