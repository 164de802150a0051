"""Kill tasks that write files at a few moments. Full run: `python -m tests.hostile.kills --moments 25`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("av")
pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="/proc tells which processes are left")

ROOT = Path(__file__).resolve().parent.parent


def killed(task, moments=2):
    command = [sys.executable, "-m", "tests.hostile.kills", "--moments", str(moments), "--seed", "3", task]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=600)
    row = next(line for line in done.stdout.splitlines() if line.startswith(f"| {task} |"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert row.endswith(f"| {moments} | {moments} |"), row


@pytest.mark.parametrize("task", ["conversion", "preparation"])
def test_killed_runs_end_equal_and_leave_nothing(task):
    killed(task)


@pytest.mark.hub
@pytest.mark.parametrize("task", ["fetching", "hub"])
def test_killed_downloads_end_equal_and_leave_nothing(task):
    killed(task)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["batch", "embedding"])
def test_killed_batches_end_equal_and_leave_nothing(task):
    killed(task)


@pytest.mark.train
@pytest.mark.slow
@pytest.mark.parametrize("task", ["training"])
def test_killed_trainings_end_equal_and_leave_nothing(task):
    pytest.importorskip("accelerate")
    killed(task)
