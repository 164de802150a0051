"""Training and evaluation in two processes, launched as in the docs."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.train, pytest.mark.slow]

pytest.importorskip("accelerate")

ROOT = Path(__file__).parents[1]
LAUNCHERS = {
    "torchrun": ("torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1", "--master-port={port}"),
    "accelerate": (
        "accelerate.commands.launch",
        "--multi_gpu",  # several processes; on the CPU if there is no GPU
        "--num_processes=2",
        "--num_machines=1",
        "--mixed_precision=no",
        "--dynamo_backend=no",
        "--main_process_port={port}",
    ),
}
TINY = ("train.epochs=1", "train.batch_size=4", "data.train=puppets:clips=8,size=32", "model.args.img_size=32")
TINY = (*TINY, "data.valid=puppets:clips=4,size=32,split=test")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launched(launcher, *command):
    """Run ``LAUNCHER -m dfer_zoo COMMAND`` in two processes. Returns the standard output."""
    module, *options = (part.format(port=free_port()) for part in LAUNCHERS[launcher])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", module, *options, "-m", "dfer_zoo", *map(str, command)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_train_together(launcher, tmp_path):
    changes = [f"--set={change}" for change in TINY]
    out = launched(launcher, "train", "puppets_demo", "--out", tmp_path / "run", *changes)
    assert out.count("8 clips for training, 4 for validation") == 1  # only one process prints
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"best", "last", "history.csv", "confusion.png"}


def test_two_processes_evaluate_to_the_rates_of_one(tmp_path):
    from dfer_zoo.data.annotations import read_rows
    from dfer_zoo.factory import create_model
    from dfer_zoo.inference.evaluate import evaluate

    (tmp_path / "nothing.mp4").write_bytes(b"no film")
    data = "puppets:clips=9,size=64,split=test"
    out = launched("torchrun", "evaluate", "av_fusion.puppets", data, "--json", "--csv", tmp_path / "rates.csv")
    found = json.loads(out)
    model = create_model("av_fusion.puppets")
    alone = evaluate(model, read_rows(data, model.labels))
    assert found["confusion"] == alone.confusion.tolist() and np.sum(found["confusion"]) == 9
    assert (tmp_path / "rates.csv").read_text().splitlines()[1].startswith("all,")
