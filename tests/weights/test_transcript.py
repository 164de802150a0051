"""The example of docs/weights.md: weights of mae_dfer are downloaded from Drive to an empty machine."""

import dataclasses

import pytest
import torch

import dfer_zoo
from dfer_zoo.registry import manifest
from dfer_zoo.weights.record import Origin
from tests.test_mae_dfer import CASES, authors_file, our_arguments, read_case, record_of, seeded_state
from tests.weights.servers import FILE_ID

pytestmark = pytest.mark.hub


def test_mae_dfer_is_downloaded_on_an_empty_machine(drive, monkeypatch, tmp_path, capsys):
    """A smaller file in the authors' format replaces theirs."""
    monkeypatch.setenv("DFER_ZOO_WEIGHTS", str(tmp_path / "store"))
    case = read_case(CASES / "finetune_small_base.json")
    record_of(case, "mae_dfer", "dfew_fold1", monkeypatch, our_arguments(case["config"], joint=False))
    state = seeded_state(case["state_dict"], case["weights"])
    drive.files[FILE_ID] = authors_file(tmp_path / "checkpoint-99.pth", state).read_bytes()
    drive.fault = "confirm"
    record = dataclasses.replace(
        manifest()["mae_dfer", "dfew_fold1"], distribution="origin", origin=(Origin("gdrive", FILE_ID),)
    )
    monkeypatch.setitem(manifest(), ("mae_dfer", "dfew_fold1"), record)
    model = dfer_zoo.create_model("mae_dfer", pretrained="dfew_fold1")
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"mae_dfer.dfew_fold1: fetching from https://drive.google.com/file/d/{FILE_ID}/view")
    assert said[1].startswith("note: sha256 ") and len(said) == 2
    print("\n".join(said))
    asked = len(drive.requests)
    again = dfer_zoo.create_model("mae_dfer", pretrained="dfew_fold1")
    assert len(drive.requests) == asked
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))
