"""The runner of the parity cases fails when it should: a check that compares nothing proves nothing."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from tests.parity import compare, runner, seeded
from tests.parity.__main__ import main
from tests.parity.checks import dfer_clip

CASES = Path(__file__).parent / "parity"


def write(folder: Path, **case) -> Path:
    path = folder / "case.json"
    path.write_text(json.dumps(case))
    return path


def test_an_unknown_kind_is_a_failure(tmp_path, capsys):
    assert main([str(write(tmp_path, architecture="dfer_clip", kind="palmistry"))]) == 1
    assert "no check" in capsys.readouterr().out


def test_an_unknown_architecture_is_a_failure(tmp_path, capsys):
    assert main([str(write(tmp_path, architecture="phrenology", kind="model"))]) == 1
    assert "1 compared, 1 failed" in capsys.readouterr().out


def test_a_file_that_is_no_case_is_a_failure(tmp_path, capsys):
    (tmp_path / "broken.json").write_text("{")
    assert main([str(tmp_path)]) == 1
    assert "unreadable" in capsys.readouterr().out


def test_an_empty_folder_is_a_failure(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "0 compared, 0 failed" in capsys.readouterr().out


def test_a_check_that_compares_nothing_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "find_check", lambda architecture, kind: lambda case: iter(()))
    (only,) = runner.check_file(write(tmp_path, architecture="dfer_clip", kind="model"))
    assert not only.ok and "compared nothing" in only.output


def test_a_check_that_raises_is_a_failure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "find_check", lambda architecture, kind: lambda case: iter([case["nothing"]]))
    (only,) = runner.check_file(write(tmp_path, architecture="dfer_clip", kind="model"))
    assert not only.ok and "KeyError" in only.output


@pytest.mark.parametrize("case", ["av_fusion/frame_selection", "dfer_clip/frame_indices", "mma_dfer/frame_indices"])
def test_a_changed_number_is_seen(case, tmp_path):
    text = (CASES / f"{case}.json").read_text()
    data = json.loads(text)
    assert all(c.ok for c in runner.check_file(CASES / f"{case}.json"))
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(shifted(data)))
    assert not all(c.ok for c in runner.check_file(path))


def shifted(value, inside=False):
    """The case with every recorded index moved by one."""
    if isinstance(value, dict):
        return {k: shifted(v, inside or k in ("outputs", "test", "train")) for k, v in value.items()}
    if isinstance(value, list) and inside and value and all(isinstance(v, int) for v in value):
        return [v + 1 for v in value]
    if isinstance(value, list):
        return [shifted(v, inside) for v in value]
    return value


def test_every_case_of_the_repository_has_a_check():
    for path in runner.case_files([CASES]):
        case = runner.read_case(path)
        assert runner.find_check(case["architecture"], case["kind"]), path


def test_a_text_is_its_tokens():
    assert dfer_clip.same_texts(["a smiling mouth , raised cheeks ."], ["a smiling mouth, raised cheeks."]).ok
    assert not dfer_clip.same_texts(["tears."], ["a tear."]).ok


def test_a_list_of_names_finds_the_case_of_its_network_beside_it_or_in_the_repository(tmp_path):
    case = runner.read_case(write(tmp_path, architecture="dfer_clip", kind="checkpoint_keys"))
    beside = {"architecture": "dfer_clip", "kind": "model", "state_dict": {"prompt_learner.ctx": {"shape": [4, 64]}}}
    (tmp_path / "generic.json").write_text(json.dumps(beside))
    assert dfer_clip.case_of_shapes(case, {"prompt_learner.ctx": [4, 64]}).path.stem == "generic"
    for stem in ("dfew_descriptor_ctx8_end_specific_depth1", "dfew_names_ctx4_end_generic_depth2"):
        table = runner.read_case(CASES / "dfer_clip" / f"{stem}.json")["state_dict"]
        assert dfer_clip.case_of_shapes(case, {name: e["shape"] for name, e in table.items()}).path.stem == stem
    with pytest.raises(FileNotFoundError, match="no model case beside it or in the repository"):
        dfer_clip.case_of_shapes(case, {"prompt_learner.ctx": [5, 64]})


def test_a_summary_sees_a_change_in_one_sampled_value_and_in_the_scale():
    values = seeded.normal("x", (7, 50), 0)
    recorded = seeded.summary(values)
    assert all(c.ok for c in compare.summary("x", values, recorded, 1e-6))
    other = values.copy()
    other[0, 0] += 1.0
    assert not all(c.ok for c in compare.summary("x", other, recorded, 1e-2))
    assert not all(c.ok for c in compare.summary("x", values * 1.01, recorded, 1e-3))
    assert not all(c.ok for c in compare.summary("x", values[:, :49], recorded, 1e9))


def test_nan_agrees_with_null_only():
    assert compare.relative_l2([1.0, None], [1.0, None]) == 0
    assert compare.relative_l2([1.0, 2.0], [1.0, None]) == math.inf
    assert not compare.close("x", [np.nan], [1.0], 1e9).ok
    assert not compare.Comparison("", "x", math.nan, 1.0).ok
