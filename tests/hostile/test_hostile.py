"""Damaged files of every kind give an answer or an error of the family, in bounded time and memory."""

import pytest

from tests.hostile.kinds import KINDS
from tests.hostile.mutate import mutated
from tests.hostile.run import run

pytest.importorskip("av")
pytest.importorskip("resource")


def test_damage_is_decided_by_the_seed():
    content = bytes(range(256)) * 8
    assert [mutated(content, seed) for seed in range(50)] == [mutated(content, seed) for seed in range(50)]
    assert sum(mutated(content, seed) != content for seed in range(50)) > 40


def test_damaged_files_give_an_answer_or_an_error_of_the_family():
    report = run(50 * len(KINDS), seed=1, workers=1)
    assert not report.failures, str(report)
    assert {kind for kind, outcome in report.counts if outcome == "error"} == set(KINDS)
    assert sum(report.counts.values()) == 50 * len(KINDS)
