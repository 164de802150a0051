"""Networks of the parity checks on another device. Real devices are not at hand in tests, so moves are recorded."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn

from dfer_zoo.models.av_fusion import AVFusion
from tests.parity import device
from tests.parity.__main__ import main
from tests.parity.runner import find_check
from tests.tiny import TINY


@pytest.fixture
def moves(monkeypatch):
    """The places that modules were moved to; "far" is no device, so nothing moves."""
    found, to = [], torch.Tensor.to
    monkeypatch.setattr(nn.Module, "to", lambda module, place: found.append(place) or module)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *a, **k: tensor if a == ("far",) else to(tensor, *a, **k))
    return found


def test_a_call_moves_the_network_there_and_back(moves):
    find_check("av_fusion", "")
    model = AVFusion(**TINY["av_fusion"]).eval()
    inputs = model.example_inputs(1)
    expected = model(**inputs).detach()
    with device.networks_on("far") as calls, torch.no_grad():
        found = model(**inputs)
        assert moves == ["far", "cpu"] and calls == [1]  # once for the network, not for each of its modules
        model.forward_features(**inputs)
    assert calls == [2]
    torch.testing.assert_close(found, expected)
    model(**inputs)
    assert calls == [2]  # nothing is left behind


def test_with_gradients_the_network_stays_there(moves):
    layer = nn.Linear(2, 2)
    with device.networks_on("far"):
        layer(torch.zeros(1, 2)).sum().backward()
    assert moves == ["far"] and layer.weight.grad is not None


def test_modules_and_tensors_in_containers_are_moved(moves):
    class Output(NamedTuple):
        first: nn.Module
        rest: int = 1

    values = {"layers": [nn.Linear(1, 1)], "pair": (torch.zeros(1), nn.ReLU()), "name": "x", "out": Output(nn.ReLU())}
    assert isinstance(device.to(values, "far")["out"], Output)
    assert moves == ["far"] * 3


def test_the_program_reports_calls_on_the_device(moves, capsys):
    case = Path(device.__file__).parent / "av_fusion" / "efficientface_7classes.json"
    assert main([str(case), "--failures", "--device", "far"]) == 0
    assert "calls of networks on far" in capsys.readouterr().out
