"""The demo: bundled weights, a drawn person, no network."""

import json
import socket

import numpy as np
import pytest
from PIL import Image

from dfer_zoo import cli, create_model, get_weights
from dfer_zoo.data.annotations import read_rows
from dfer_zoo.inference import evaluate as evaluation
from dfer_zoo.inference import metrics

pytest.importorskip("av")


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **options):
        raise OSError("this test has no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_the_demo_runs_without_a_network(tmp_path, no_network, capsys):
    assert cli.main(["demo", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "test object" in text
    # the windows that cover exactly one emotion, from neutral to its apex and back
    answers = [line.split()[3] for line in text.splitlines() if line.startswith(("0.0 -", "3.6 -", "7.2 -"))]
    assert answers == ["happy", "angry", "surprised"]
    assert (tmp_path / "puppet.mp4").stat().st_size > 10_000
    assert np.asarray(Image.open(tmp_path / "timeline.png")).std() > 0


def test_an_unknown_emotion_is_a_one_line_error(tmp_path, capsys):
    assert cli.main(["demo", "hungry", "--out", str(tmp_path)]) == 2
    assert "'hungry'" in capsys.readouterr().err


@pytest.mark.parametrize("without", [(), ("audio",), ("video",)], ids=["both", "no audio", "no video"])
def test_the_record_has_the_measured_rates(without):
    """Other versions of numpy, Pillow and torch may change the prediction of one or two of the 160 clips."""
    record = get_weights("av_fusion", "puppets")
    model = create_model("av_fusion", "puppets")
    rows = read_rows("puppets:clips=160,seed=2026,split=test,size=64", model.labels)
    table = evaluation.evaluate(model, rows, without=without, batch_size=16).confusion
    what = {(): "both modalities", ("audio",): "video only", ("video",): "audio only"}[without]
    recorded = {m.name: m.value for m in record.metrics if m.protocol.startswith(what)}
    assert recorded.keys() == {"uar", "war"}
    assert metrics.war(table) == pytest.approx(recorded["war"], abs=2 * 100 / 160)
    assert metrics.uar(table) == pytest.approx(recorded["uar"], abs=2 * 100 / 160)


def test_the_bundled_file_is_small_and_in_half_precision():
    from dfer_zoo.weights.fetch import fetch
    from dfer_zoo.weights.safetensors import read_safetensors

    record = get_weights("av_fusion", "puppets")
    path = fetch(record)
    state, header = read_safetensors(path)
    assert path.stat().st_size <= 5_000_000
    assert {str(t.dtype) for t in state.values()} == {"torch.float16", "torch.int64"}
    assert header["dataset"].startswith("puppets") and tuple(header["labels"]) == record.labels
    assert "test object" in record.metrics[0].protocol


def test_evaluate_prints_a_table_or_json(tmp_path, capsys):
    data = "puppets:clips=8,seed=5,split=test,size=64"
    assert cli.main(["evaluate", "av_fusion.puppets", data, "--plot", str(tmp_path / "table.png")]) == 0
    assert capsys.readouterr().out.startswith("UAR ")
    assert Image.open(tmp_path / "table.png").size[0] > 100
    assert cli.main(["evaluate", "av_fusion.puppets", data, "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert np.sum(numbers["confusion"]) == 8
    assert cli.main(["evaluate", "av_fusion", data]) == 2
    assert "has no weights to evaluate" in capsys.readouterr().err


def test_evaluate_refuses_an_untrained_head(monkeypatch, capsys):
    from types import SimpleNamespace

    from dfer_zoo import factory

    fresh = SimpleNamespace(weights=get_weights("av_fusion", "backbone"), labels=("happy",))
    monkeypatch.setattr(factory, "create_model", lambda name, **options: fresh)
    assert cli.main(["evaluate", "av_fusion.backbone", "puppets:clips=1"]) == 2
    assert "its head is random" in capsys.readouterr().err
