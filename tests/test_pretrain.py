"""`dfer-zoo pretrain` on drawn faces: learning, resuming, and fine-tuning from its files."""

from pathlib import Path

import pytest
from PIL import Image

import dfer_zoo
from dfer_zoo.cli import main
from dfer_zoo.weights.safetensors import read_safetensors
from tests.tiny import TINY

pytestmark = pytest.mark.train

pytest.importorskip("accelerate")
pytest.importorskip("tqdm")

SIZES = [f"--set={name}={value!r}" for name, value in TINY["mae_dfer_pretrain"].items()]
SIZES.append("--set=decoder_positions=matched")


def pretrain(*arguments):
    return main(["pretrain", *map(str, arguments), *SIZES])


def test_the_loss_falls_and_fine_tuning_starts_from_the_encoder(tmp_path, capsys):
    options = ("--epochs", 4, "--warmup-epochs", 1, "--batch-size", 8, "--lr", 0.1)
    assert pretrain("puppets:clips=32", "--out", tmp_path, *options) == 0
    losses = [float(line.split(",")[1]) for line in (tmp_path / "history.csv").read_text().splitlines()[1:]]
    assert losses[-1] < 0.97 * losses[0]

    state, _ = read_safetensors(tmp_path / "last" / "model.safetensors")
    model = dfer_zoo.create_model("mae_dfer", **TINY["mae_dfer"])
    assert len(model.load_backbones({"encoder": state}).loaded) > 0

    sizes = [
        f"--set=model.args.{name}={list(v) if isinstance(v, tuple) else v}" for name, v in TINY["mae_dfer"].items()
    ]
    recipe = ("train", "mae_dfer_own_pretraining", "--out", str(tmp_path / "tuned"), *sizes)
    data = ("data.train=puppets:clips=4,size=64", "data.valid=puppets:clips=2,size=64,split=test", "data.workers=0")
    short = ("train.epochs=1", "train.batch_size=4", "train.precision=no", 'model.labels=["neutral", "happiness"]')
    changes = [f"--set={change}" for change in (*data, *short)]
    assert main([*recipe, *changes, f"--set=model.backbones.encoder={tmp_path / 'last'}"]) == 0
    assert main([*recipe[:3], str(tmp_path / "no"), *sizes, *changes, "--set=model.backbones.encoder=nowhere"]) == 2
    assert "nowhere/model.safetensors" in capsys.readouterr().err
    size = dfer_zoo.create_model("mae_dfer_pretrain", **TINY["mae_dfer_pretrain"]).video_spec.img_size
    assert Image.open(tmp_path / "reconstruction.png").height == 3 * size


def test_an_interrupted_pretraining_resumes_to_identical_files(tmp_path, monkeypatch, capsys):
    from dfer_zoo.training import pretrain as module

    options = ("--epochs", 2, "--warmup-epochs", 1, "--batch-size", 4, "--save-every", 1)
    assert pretrain("puppets:clips=12", "--out", tmp_path / "whole", *options) == 0
    save, calls = module.save_state, []

    def interrupted(*arguments):
        save(*arguments)
        calls.append(arguments)
        if len(calls) == 2:  # in the middle of the first epoch
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "save_state", interrupted)
    assert pretrain("puppets:clips=12", "--out", tmp_path / "cut", *options) == 130
    assert pretrain("puppets:clips=12", "--out", tmp_path / "cut", *options) == 2
    assert "add --resume" in capsys.readouterr().err
    assert pretrain("puppets:clips=12", "--out", tmp_path / "cut", *options, "--resume") == 0
    assert "continuing at epoch 1, update 3" in capsys.readouterr().out
    for name in ("last/model.safetensors", "state.safetensors", "history.csv", "reconstruction.png"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes(), name


def test_a_folder_without_videos_is_a_one_line_error(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("no video")
    assert pretrain(tmp_path, "--out", tmp_path / "out") == 2
    assert f"{tmp_path}" in capsys.readouterr().err
    assert pretrain(tmp_path, "--out", tmp_path / "out", "--set", "depth") == 2
    assert "NAME=VALUE" in capsys.readouterr().err


def test_a_data_set_without_any_readable_clip_is_an_error(tmp_path):
    from dfer_zoo.training.batches import Clips
    from dfer_zoo.training.pretrain import unlabeled

    (tmp_path / "broken.mp4").write_bytes(b"no video")
    rows = unlabeled(str(tmp_path))
    assert [Path(row.path).name for row in rows] == ["broken.mp4"]
    from dfer_zoo.data.annotations import read_row

    with pytest.raises(dfer_zoo.MediaError, match="None of the 1 clips"):
        Clips(rows, read_row, lambda clip: {"video": clip.take([0])}, 0, None)[0, 0]
