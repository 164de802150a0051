"""The temporal EMO-AffectNet needs two files of the Hub; the real client reads them from a server on this machine."""

import dataclasses
import hashlib
import io
from pathlib import Path

import pytest
import torch

import dfer_zoo
from dfer_zoo.registry import manifest
from tests.parity.compare import close
from tests.parity.making import seeded_input, seeded_state
from tests.parity.runner import read_case
from tests.weights import publish_hub

CASE = Path(__file__).parents[1] / "parity" / "emo_affectnet" / "video_64.json"
RECORDS = {"static": ("emo_affectnet_static", "affectnet"), "temporal": ("emo_affectnet", "ravdess")}

pytestmark = pytest.mark.hub


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The authors' repository at the recorded revision, with seeded values in both files."""
    case = read_case(CASE)
    monkeypatch.setenv("DFER_ZOO_WEIGHTS", str(tmp_path / "store"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with publish_hub.serve() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        for part, name in RECORDS.items():
            stream = io.BytesIO()
            torch.save(seeded_state(case["state_dict"][part], case["weights"][part]["seed"]), stream)
            content = stream.getvalue()
            record = manifest()[name]
            (origin,) = record.origin
            revision, _, file = origin.where.partition("@")[2].partition("/")
            running.commits.setdefault(revision, {})[file] = content
            seeded = dataclasses.replace(origin, size=len(content), sha256=hashlib.sha256(content).hexdigest())
            monkeypatch.setitem(manifest(), name, dataclasses.replace(record, origin=(seeded,)))
        yield running


def test_both_files_of_a_temporal_system_are_downloaded_and_give_the_logits_of_the_case(hub, capsys):
    model = dfer_zoo.create_model("emo_affectnet", pretrained="ravdess")
    said = capsys.readouterr().err
    assert "FER_dinamic_LSTM_RAVDESS.pt" in said and "FER_static_ResNet50_AffectNet.pt" in said

    case = read_case(CASE)
    video = seeded_input(case["inputs"]["video"])  # 64 x 64; the weights were trained at 224
    with torch.no_grad():
        frames = model.encoder(video.flatten(0, 1)).unflatten(0, video.shape[:2])
        logits = model.forward_frames(frames)
    assert close("logits", logits, case["outputs"]["logits"]["full"], case["tolerance"]).ok


def test_one_file_that_is_missing_is_named(hub):
    for files in hub.commits.values():
        files.pop("FER_static_ResNet50_AffectNet.pt")
    with pytest.raises(dfer_zoo.DferZooError, match=r"FER_static_ResNet50_AffectNet\.pt"):
        dfer_zoo.create_model("emo_affectnet", pretrained="ravdess")
