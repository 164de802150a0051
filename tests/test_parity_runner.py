"""The runner of the parity cases fails when it should, for example if a check compares nothing."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from dfer_zoo.convert import convert_state_dict
from dfer_zoo.models.mae_dfer import MAEDFER
from dfer_zoo.models.video_mae import VideoMAE
from tests.parity import compare, runner, seeded
from tests.parity.__main__ import main
from tests.parity.checks import dfer_clip, mae_dfer

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


def test_a_file_that_is_not_a_case_is_a_failure(tmp_path, capsys):
    (tmp_path / "broken.json").write_text("{")
    assert main([str(tmp_path)]) == 1
    assert "unreadable" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["[]", "3", "null"])
def test_a_file_that_is_not_an_object_is_a_failure(tmp_path, capsys, content):
    (tmp_path / "list.json").write_text(content)
    assert main([str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "unreadable" in out and "1 compared, 1 failed" in out


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
def test_a_changed_number_is_a_failure(case, tmp_path):
    text = (CASES / f"{case}.json").read_text()
    data = json.loads(text)
    assert all(c.ok for c in runner.check_file(CASES / f"{case}.json"))
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(shifted(data)))
    assert not all(c.ok for c in runner.check_file(path))


def shifted(value, inside=False):
    """Add one to every recorded index of a case."""
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


def test_texts_are_compared_by_their_tokens():
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
    with pytest.raises(FileNotFoundError, match="no model case"):
        dfer_clip.case_of_shapes(case, {"prompt_learner.ctx": [5, 64]})


# -- combinations of mae_dfer's options that no case of the repository has ---------------------------------------------


@pytest.mark.parametrize(
    ("case", "option", "left_out"),
    [("share_all", "lg_no_second", "second_attn"), ("share_first_third", "lg_no_third", "third_attn")],
)
def test_shared_attention_is_inferred_without_the_repeated_entries(case, option, left_out):
    case = runner.read_case(CASES / "mae_dfer" / f"finetune_small_{case}.json")
    state = mae_dfer.seeded_state(case["state_dict"], case["weights"])
    conversion = convert_state_dict("mae_dfer", {n: t for n, t in state.items() if f".{left_out}" not in n})
    arguments = mae_dfer.our_arguments({**case["config"], option: True}, joint=False)
    model = mae_dfer.build(MAEDFER, arguments, conversion)
    assert all(c.ok for c in mae_dfer.concluded(conversion, arguments, model))
    other = {**arguments, "width": 96}
    assert not all(c.ok for c in mae_dfer.concluded(conversion, other, model))


def test_per_frame_outputs_need_mean_pooling():
    config = runner.read_case(CASES / "mae_dfer" / "finetune_small_joint_per_frame_sigmoid.json")["config"]
    assert mae_dfer.our_arguments(config, joint=True)["per_frame"]
    VideoMAE(**mae_dfer.our_arguments({**config, "use_mean_pooling": False}, joint=True))


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("finetune_small_joint", "finetune_depth_2_layer_decay_0.5_weight_decay_0.05"),
        ("pretrain_vit_base", "pretrain_depth_12_decoder_4_weight_decay_0.05"),
    ],
)
def test_the_groups_of_joint_attention_are_checked_too(case, name):
    groups = {}
    for entry, value in runner.read_case(CASES / "mae_dfer" / f"{case}.json")["state_dict"].items():
        layer = 0 if entry.startswith("patch_embed.") else 3
        if entry.startswith("blocks."):
            layer = int(entry.split(".")[1]) + 1
        decayed = len(value["shape"]) > 1 and entry != "mask_token"
        groups.setdefault((0.5 ** (3 - layer), 0.05 if decayed else 0.0), []).append(entry)
    reference = [{"lr_scale": rate, "weight_decay": decay, "params": n} for (rate, decay), n in groups.items()]
    assert all(c.ok for c in mae_dfer.check_optimizer({"tolerance": 1e-6, "outputs": {name: reference}}))
    reference[0]["weight_decay"] += 0.01
    assert not all(c.ok for c in mae_dfer.check_optimizer({"tolerance": 1e-6, "outputs": {name: reference}}))


def test_a_summary_detects_a_changed_value_and_a_changed_scale():
    values = seeded.normal("x", (7, 50), 0)
    recorded = seeded.summary(values)
    assert all(c.ok for c in compare.summary("x", values, recorded, 1e-6))
    other = values.copy()
    other[0, 0] += 1.0
    assert not all(c.ok for c in compare.summary("x", other, recorded, 1e-2))
    assert not all(c.ok for c in compare.summary("x", values * 1.01, recorded, 1e-3))
    assert not all(c.ok for c in compare.summary("x", values[:, :49], recorded, 1e9))


def test_a_summary_of_a_single_value_has_no_deviation_to_measure_by():
    recorded = seeded.summary(np.array([0.25]))
    assert all(c.ok for c in compare.summary("x", np.array([0.25 + 1e-9]), recorded, 1e-6, spread="std"))
    assert not all(c.ok for c in compare.summary("x", np.array([0.26]), recorded, 1e-3, spread="std"))
    assert not all(c.ok for c in compare.summary("x", np.array([1e-9]), seeded.summary(np.zeros(1)), 1, spread="std"))


def test_untrained_parameters_may_be_recorded_after_the_training(tmp_path):
    data = json.loads((CASES / "av_fusion" / "train_steps_ia.json").read_text())
    first = {name: data["outputs"][name] for name in ("logits_step1", "parameters_without_gradient")}
    unused = "av1.proj.weight"
    start = seeded.parameter(unused, data["state_dict"][unused]["shape"], data["weights"]["seed"])
    for scale, fits in ((1.0, True), (1.01, False)):
        after = {unused: seeded.summary(scale * start)}
        outputs = {**first, "loss": data["outputs"]["loss"][:1], "after_1_steps": after}
        path = write(tmp_path, **{**data, "outputs": outputs})
        about = [c for c in runner.check_file(path) if unused in c.output]
        assert len(about) == 4 and all(c.ok for c in about) == fits


def test_nan_agrees_with_null_only():
    assert compare.relative_l2([1.0, None], [1.0, None]) == 0
    assert compare.relative_l2([1.0, 2.0], [1.0, None]) == math.inf
    assert not compare.close("x", [np.nan], [1.0], 1e9).ok
    assert not compare.Comparison("", "x", math.nan, 1.0).ok
