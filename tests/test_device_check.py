"""The device script with small models on a CPU: all cells, failures, and the time limit."""

import json

import pytest
import torch

import dfer_zoo
from dfer_zoo.registry import MODELS
from tests.scripts import load_script
from tests.test_contract import build

device_check = load_script("examples/device_check.py")


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(device_check, "random_network", lambda name: build(name))
    for name, value in {"CLIPS": 7, "TRAINED": 7, "STEPS": 1, "BATCH": 2, "BATCHES": (2,), "COMPILED": ()}.items():
        monkeypatch.setattr(device_check, name, value)
    columns = [dict(group) for group in device_check.COLUMNS]
    columns[0] = {title: run for title, run in columns[0].items() if not title.startswith("clips/s")}
    columns[0]["clips/s at 2"] = ("rate", 2)
    monkeypatch.setattr(device_check, "COLUMNS", columns)


@pytest.mark.parametrize("arch", sorted(MODELS))
def test_every_architecture_passes_on_a_cpu(arch, tmp_path, capsys):
    file = tmp_path / "device.json"
    status = device_check.main(["--device", "cpu", "--only", arch, "--json", str(file)])
    (row,) = json.loads(file.read_text())["rows"]
    assert status == 0, row
    assert row["training step"] == "finite" and float(row["parity"]) == 0 and float(row["clips/s at 2"]) > 0
    assert f"| {arch} |" in capsys.readouterr().out


def test_a_failure_is_one_cell_and_exit_1(monkeypatch, capsys):
    monkeypatch.setattr(device_check.Check, "step", lambda self, model: 1 / 0)
    assert device_check.main(["--device", "cpu", "--only", "mae_face"]) == 1
    assert "failed: ZeroDivisionError" in capsys.readouterr().out


def test_what_the_time_does_not_allow_is_left_out(capsys):
    assert device_check.main(["--device", "cpu", "--only", "mae_face", "--limit", "0"]) == 0
    assert "left out" in capsys.readouterr().out


def test_a_difference_between_devices_fails(monkeypatch):
    calls = []

    def drifting(output):
        calls.append(output)
        return torch.ones(2) * (1 + len(calls))

    monkeypatch.setattr(device_check, "first_of", drifting)
    assert device_check.main(["--device", "cpu", "--only", "mae_face"]) == 1


@pytest.mark.parametrize("weights, learned", [("av_fusion.puppets", True), ("av_fusion", False)])
def test_labels_of_two_precisions_are_compared_on_drawn_clips(weights, learned, monkeypatch, tmp_path):
    torch.manual_seed(0)
    model = dfer_zoo.create_model(weights)
    monkeypatch.setattr(device_check, "random_network", lambda name: model)
    file = tmp_path / "device.json"
    arguments = ["--device", "cpu", "--only", "av_fusion", "--columns", "bf16 labels", "--json", str(file)]
    assert device_check.main(arguments) == 0
    (row,) = json.loads(file.read_text())["rows"]
    assert row.keys() == {"model", "bf16 labels"}
    if learned:
        assert float(row["bf16 labels"].split(" %")[0]) > 50
    else:
        assert row["bf16 labels"] == "not learned"
    assert next(model.parameters()).dtype is torch.bfloat16


def test_unknown_columns_are_named(capsys):
    with pytest.raises(SystemExit):
        device_check.main(["--columns", "parity", "speed"])
    assert "there is no column speed" in capsys.readouterr().err
