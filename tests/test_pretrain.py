"""The pre-training example on drawn faces: it learns, it writes what fine-tuning starts from, it shows what it guesses."""

from pathlib import Path

import pytest
from PIL import Image

import dfer_zoo
from dfer_zoo.weights.safetensors import read_safetensors
from tests.scripts import load_script
from tests.tiny import TINY

pytestmark = pytest.mark.train

pytest.importorskip("accelerate")


def test_the_loss_falls_and_fine_tuning_starts_from_the_encoder(tmp_path):
    settings = [f"{name}={value!r}" for name, value in TINY["mae_dfer_pretrain"].items()] + [
        "decoder_positions=matched"
    ]
    arguments = f"--data puppets:clips=32 --out {tmp_path} --epochs 4 --warmup-epochs 1 --batch-size 8 --lr 0.1 --set"
    history = load_script("examples/pretrain.py").main([*arguments.split(), *settings])
    assert history[-1]["loss"] < 0.97 * history[0]["loss"]

    state, _ = read_safetensors(tmp_path / "last" / "model.safetensors")
    model = dfer_zoo.create_model("mae_dfer", **TINY["mae_dfer"])
    report = model.load_backbones({"encoder": state})
    assert len(report.loaded) > len(report.initialized) > 0
    picture = Image.open(tmp_path / "reconstruction.png")
    assert (
        picture.height
        == 3 * dfer_zoo.create_model("mae_dfer_pretrain", **TINY["mae_dfer_pretrain"]).video_spec.img_size
    )


def test_a_folder_without_videos_and_a_setting_without_a_value_are_one_sentence(tmp_path, capsys):
    pretrain = load_script("examples/pretrain.py")
    (tmp_path / "notes.txt").write_text("no video")
    with pytest.raises(dfer_zoo.MediaError, match=f"no video below {tmp_path}"):
        pretrain.unlabelled(str(tmp_path))
    with pytest.raises(SystemExit):
        pretrain.main(["--data", str(tmp_path), "--out", str(tmp_path), "--set", "depth"])
    assert "'depth' sets nothing; write NAME=VALUE" in capsys.readouterr().err


def test_clips_that_cannot_be_read_are_left_out(tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    pretrain = load_script("examples/pretrain.py")
    rows = pretrain.unlabelled(str(tmp_path))
    assert [Path(row.path).name for row in rows] == ["broken.mp4"]
    clips = pretrain.Clips(rows, lambda clip: {"video": clip.take([0])}, seed=0)
    with pytest.raises(dfer_zoo.MediaError, match="None of the clips"):
        clips[0]
    assert "left out" in capsys.readouterr().out
