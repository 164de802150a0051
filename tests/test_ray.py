"""`examples/ray_predict.py` with Ray: two actors on this machine, one of which is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("ray")
parquet = pytest.importorskip("pyarrow.parquet")

from dfer_zoo.data.puppets import Puppet  # noqa: E402

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
EMOTIONS = ("happiness", "sadness", "anger", "fear")


def actors():
    """The process ids of the actors."""
    found = subprocess.run(["pgrep", "-f", r"ray::.*Predict"], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def test_a_killed_actor_loses_no_clip(tmp_path):
    clips = tmp_path / "clips"
    clips.mkdir()
    for number in range(16):
        Puppet(EMOTIONS[number % 4], seed=number, size=64).write(clips / f"{number:02d}.mp4")
    (clips / "broken.mp4").write_bytes(b"not a video")
    out = tmp_path / "out"
    command = [sys.executable, "examples/ray_predict.py", str(clips), str(out), "--model", "av_fusion.puppets"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    log = (tmp_path / "log.txt").open("w")
    process = subprocess.Popen(
        [*command, "--faces", "none", "--cpus", "0.4"], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
    )
    deadline = time.monotonic() + 120
    while not actors() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    killed = actors()[:1]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    assert process.wait(timeout=120) == 0, (tmp_path / "log.txt").read_text()[-3000:]
    assert killed  # else nothing was tested
    rows = parquet.read_table(out).to_pylist()
    files = {Path(row["file"]).name for row in rows}
    assert files == {path.name for path in clips.iterdir()}
    assert {Path(row["file"]).name for row in rows if row["error"]} == {"broken.mp4"}
