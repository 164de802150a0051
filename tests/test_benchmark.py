"""The shortcuts in the benchmark match the plain computation on tiny models; a difference stops it."""

import math

import pytest
import torch

from tests.scripts import load_script
from tests.test_contract import build

benchmark = load_script("examples/benchmark.py")


@pytest.mark.parametrize("arch", sorted(benchmark.SHORTCUTS))
def test_every_shortcut_matches_the_plain_computation(arch, capsys):
    rows = benchmark.measure(arch, build(arch), rounds=1)
    assert len(rows) == len(benchmark.SHORTCUTS[arch])
    assert all(math.isfinite(times) and times > 0 for _, _, times in rows)
    assert "GFLOP per clip" in capsys.readouterr().out


def test_a_shortcut_with_other_results_stops_the_benchmark():
    wrong = benchmark.Shortcut("none", "wrong", lambda: torch.ones(3), lambda: torch.ones(3) * 1.01)
    with pytest.raises(SystemExit, match="differ by"):
        benchmark.ratio(wrong, 1, "cpu")
