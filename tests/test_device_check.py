"""The device script with small models on a CPU: all cells, failures, and the time limit."""

import json

import pytest
import torch

from dfer_zoo.registry import MODELS
from tests.scripts import load_script
from tests.test_contract import build

device_check = load_script("examples/device_check.py")


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(device_check, "model_of", lambda name: build(name))
    monkeypatch.setattr(device_check, "CLIPS", 2)
    monkeypatch.setattr(device_check, "BATCHES", (2,))
    monkeypatch.setattr(device_check, "COMPILED", ())


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
