"""Memory and descriptors do not grow with the number or the length of files."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("av")
pytest.importorskip("resource")

from tests.hostile.many_files import looks

ROOT = Path(__file__).resolve().parent.parent
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells what a process holds")


@linux
@pytest.mark.parametrize(("count", "workers"), [(400, 0), (200, 2)])
def test_many_files_hold_no_more_memory_and_descriptors_than_few(count, workers):
    seen = list(looks(count, workers=workers))
    assert seen[-1].files == count
    first, last = seen[len(seen) // 4], seen[-1]
    assert last.descriptors <= first.descriptors + 1
    assert last.bytes - first.bytes < 20 << 20


@linux
@pytest.mark.parametrize("kind", ["video", "sound"])
def test_the_peak_does_not_grow_with_the_length_of_a_clip(kind):
    code = "import sys; from tests.hostile.memory import peak; print(peak(sys.argv[1], float(sys.argv[2])))"
    peaks = []
    for minutes in (0.5, 4):
        command = [sys.executable, "-c", code, kind, str(minutes)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 16 << 20, peaks  # 4 minutes of the frames are 29 MiB, of the sound 15 MiB in float32
