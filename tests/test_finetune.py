"""Training: resuming, several processes, recipes, and learning."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from dfer_zoo.cli import main
from dfer_zoo.data.annotations import Row, read_row, read_rows
from dfer_zoo.errors import InputError, WeightsError
from dfer_zoo.factory import create_model
from dfer_zoo.inference import evaluate as evaluation
from dfer_zoo.registry import get_weights
from dfer_zoo.training.optim import create_optimizer, learning_rate
from dfer_zoo.training.recipe import ScheduleSection, read_recipe
from dfer_zoo.weights.safetensors import read_header, read_safetensors
from tests import small as small_models
from tests.drawn_data import draw_frames, write_list
from tests.parity.published import step_decay
from tests.tiny import TINY

pytestmark = pytest.mark.train

pytest.importorskip("accelerate")
pytest.importorskip("tqdm")

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "dfer_zoo" / "recipes").glob("*.toml"))
LABELS = ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]
SEVEN = ("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear")

SMALL = f"""
source = "a test"
[model]
name = "stand_in"
labels = {LABELS}
[data]
train = "puppets:clips=22,seed=1,size=32"
valid = "puppets:clips=8,seed=2,split=test,size=32"
augment = "flip"
[train]
epochs = 3
batch_size = 6
seed = 3
save_every = 2
smoothing = 0.1
mix = "drop_modalities"
[optimizer]
name = "adamw"
lr = 1e-3
weight_decay = 0.01
[schedule]
name = "cosine"
warmup_epochs = 1
"""


@pytest.fixture(scope="module")
def finetune():
    from dfer_zoo.training import loop

    return loop


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    small_models.register(monkeypatch)


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def start(recipe, out, *options, env=None):
    command = [sys.executable, "-m", "tests.small", str(recipe), "--out", str(out), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", **(env or {})}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def start_two(recipe, out, *options):
    """Two processes with the environment that torchrun gives them.

    tests/test_processes.py runs the real launchers. They are left out here because the launcher of torch 2.6 sometimes
    hangs at its exit, after both processes have ended. USE_LIBUV=0 selects the older store, also for that torch.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "USE_LIBUV": "0"}
    return [
        start(recipe, out, *options, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(2)
    ]


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def kill_and_resume(recipe, out, kills, rng):
    """Kill a training at random times, first early in its work, then after the first epoch; finally let it finish.

    Returns what the runs printed.
    """
    outputs = []
    for number in range(kills):
        process = start(recipe, out, "--resume")
        for line in process.stdout:  # until training starts
            if "clips for training" in line:
                break
        while process.poll() is None and epochs_done(out) < min(number, 1):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.2))  # an epoch takes a third of a second or less
        process.send_signal(signal.SIGKILL)
        outputs.append(process.communicate()[0])
    return [*outputs, finish(start(recipe, out, "--resume"))]


def epochs_done(out):
    """The number of finished epochs in the saved state; -1 if there is none."""
    try:
        return read_header(out / "state.safetensors")["progress"]["epoch"]
    except WeightsError:
        return -1


# the files of a training, including the state with the moments of the optimizer
FILES = ("last/model.safetensors", "best/model.safetensors", "state.safetensors", "history.csv", "confusion.png")


def test_a_killed_training_resumes_to_identical_files(small, tmp_path):
    kills = int(os.environ.get("DFER_ZOO_KILLS", "3"))
    rng = random.Random(int(os.environ.get("DFER_ZOO_KILL_SEED", "0")))
    finish(start(small, tmp_path / "whole"))
    outputs = kill_and_resume(small, tmp_path / "killed", kills, rng)
    assert any(re.search(r"continuing at epoch [23],", output) for output in outputs), (
        "no kill interrupted the training"
    )
    for name in FILES:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes(), name
    assert not list((tmp_path / "whole").rglob(".*")), "a run that was not killed left a temporary file"


def test_a_training_interrupted_before_validation_resumes_to_identical_files(small, tmp_path, finetune, monkeypatch):
    """The state then has all updates of the epoch and one line of history; columns and rates must be the same."""
    finetune.train(read_recipe(small), tmp_path / "whole")
    validate, calls = finetune.validate, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return validate(*args)

    monkeypatch.setattr(finetune, "validate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune.train(read_recipe(small), tmp_path / "cut")
    finetune.train(read_recipe(small), tmp_path / "cut", resume=True)
    for name in FILES:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes(), name


def test_saved_weights_record_the_transform(small, tmp_path, finetune):
    changes = ["train.epochs=1", 'data.transform={short_clip="black", face_crop="union_square"}']
    finetune.train(read_recipe(small, changes), tmp_path)
    for name in ("best", "last"):
        spec = create_model(f"local-dir:{tmp_path / name}").video_spec
        assert (spec.short_clip, spec.face_crop) == ("black", "union_square")


def best_epoch(finetune, monkeypatch, recipe, out, *tables):
    """Train with these confusion tables, {(true, predicted): clips}, as validation. Returns the best epoch."""
    answers = iter(tables)

    def validate(*_):
        table = np.zeros((8, 8), int)
        for place, clips in next(answers).items():
            table[place] = clips
        return table, {}

    monkeypatch.setattr(finetune, "validate", validate)
    finetune.train(recipe, out)
    return create_model(f"local-dir:{out / 'best'}").weights.metrics[0].protocol.split()[-1]


def test_the_recipe_sets_the_metric_of_the_best_epoch(small, tmp_path, finetune, monkeypatch):
    many, even = {(0, 0): 9, (1, 0): 1}, {(0, 0): 5, (0, 1): 4, (1, 1): 1}  # UAR 50 and 78, WAR 90 and 60
    for rate, epoch in (("uar", "2"), ("war", "1")):
        recipe = read_recipe(small, ["train.epochs=2", f"train.best={rate}"])
        assert best_epoch(finetune, monkeypatch, recipe, tmp_path / rate, many, even) == epoch


def test_the_best_epoch_is_saved_if_a_class_has_no_clips(small, tmp_path, finetune, monkeypatch):
    recipe = read_recipe(small, ["train.epochs=2"])
    assert best_epoch(finetune, monkeypatch, recipe, tmp_path, {(0, 7): 1, (0, 0): 1}, {(0, 7): 1}) == "1"
    assert (tmp_path / "confusion.png").exists()


def test_a_folder_with_a_training_is_not_overwritten(small, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "state.safetensors").write_bytes(b"")
    assert main(["train", str(small), "--out", str(tmp_path / "out")]) == 2
    assert "--resume" in capsys.readouterr().err


def test_data_workers_do_not_change_the_result(small, tmp_path, finetune, one_thread):
    """With one torch thread, as in a worker: spectra by two threads differ in the last digits."""
    runs = []
    for workers in (0, 2):
        finetune.train(read_recipe(small, [f"data.workers={workers}", "train.epochs=1"]), tmp_path / str(workers))
        runs.append((tmp_path / str(workers) / "last" / "model.safetensors").read_bytes())
    # the headers are the same too
    assert runs[0] == runs[1]


def test_gradient_accumulation_matches_the_whole_batch(small, tmp_path, finetune):
    still = ["model.args.dropout=0.0", "train.mix=none", "train.epochs=1"]
    for name, more in (("whole", []), ("pieces", ["train.micro_batch=4"])):
        finetune.train(read_recipe(small, [*still, *more]), tmp_path / name)
    whole, pieces = (read_safetensors(tmp_path / n / "last" / "model.safetensors")[0] for n in ("whole", "pieces"))
    for name in whole:
        torch.testing.assert_close(pieces[name], whole[name], rtol=1e-4, atol=1e-6)


def test_two_processes_match_one_process(small, tmp_path, finetune):
    """The same global batches, gradients averaged by gloo; nothing random per process and no batch statistics."""
    still = ["model.args.dropout=0.0", "train.mix=none", "optimizer.name=sgd", "optimizer.lr=0.01"]
    finetune.train(read_recipe(small, still), tmp_path / "one")
    for process in start_two(small, tmp_path / "two", *(f"--set={change}" for change in still)):
        finish(process)
    one, two = (read_safetensors(tmp_path / n / "last" / "model.safetensors")[0] for n in ("one", "two"))
    start_model = create_model("stand_in", labels=LABELS, dropout=0.0).state_dict()
    for name in one:
        assert not torch.equal(one[name], start_model[name])
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-6)
    one, two = (np.genfromtxt(tmp_path / n / "history.csv", delimiter=",", skip_header=1) for n in ("one", "two"))
    np.testing.assert_allclose(two, one, rtol=1e-4)


# -- recipes -----------------------------------------------------------------------------------------------------------


def test_wrong_recipes_are_errors(small, tmp_path):
    with pytest.raises(InputError, match=r"train: .*\['epoch'\]. Did you mean epochs"):
        read_recipe(small, ["train.epoch=3"])
    with pytest.raises(InputError, match=r"'adamW'. Did you mean adamw"):
        read_recipe(small, ["optimizer.name=adamW"])
    with pytest.raises(InputError, match=r"train.epochs: .*int.*'many'"):
        read_recipe(small, ["train.epochs=many"])
    with pytest.raises(InputError, match="no value"):
        read_recipe(small, ["train.epochs"])
    with pytest.raises(InputError, match=r"\['optimizer', 'train'\]"):
        (tmp_path / "empty.toml").write_text('source = "x"\n[model]\nname = "a"\n[data]\ntrain = "a"\nvalid = "b"\n')
        read_recipe(tmp_path / "empty.toml")
    with pytest.raises(InputError, match="is not TOML"):
        (tmp_path / "broken.toml").write_text("[model")
        read_recipe(tmp_path / "broken.toml")
    with pytest.raises(InputError, match="is not TOML"):
        (tmp_path / "latin.toml").write_bytes(b'source = "\xe9"')
        read_recipe(tmp_path / "latin.toml")
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("train.epochs.x=3", "train.epochs is"),
        ("train.mix=mixupp", "'mixupp'. Did you mean mixup_cutmix"),
        (
            "train.mix_options={vidio=0.1}",
            "mix_options.vidio: .*Did you mean video",
        ),
        ('train.mix_options={video="0.1"}', "mix_options.video: .*float.*'0.1'"),
        ("train.micro_batch=-2", "train.micro_batch is -2;"),
        ("train.seed=-1", "train.seed is -1;"),
        ("train.clip_norm=-1", "train.clip_norm is -1.0;"),
        ("train.smoothing=3.0", "train.smoothing is 3.0;"),
        ("train.epochs=0", "train.epochs is 0;"),
        ("optimizer.lr=-1", "optimizer.lr is -1.0;"),
        ("optimizer.lr=nan", "optimizer.lr is nan"),
        ("optimizer.lr=inf", "optimizer.lr is inf"),
        ("optimizer.betas=[0.9]", "betas: .*tuple\\[float, float\\].*\\[0.9\\]"),
        ("optimizer.betas=[0.9, 1]", "optimizer.betas is 1.0;"),
        ('optimizer.rates={"body.*"="fast"}', "rates\\[body.\\*\\]: .*float.*'fast'"),
        ('optimizer.rates={"body.*"=-1}', "optimizer.rates is -1.0;"),
        ("optimizer.layer_decay=0.0", "optimizer.layer_decay is 0.0;"),
        ('schedule.milestones=["a"]', "milestones\\[0\\]: .*int.*'a'"),
        ("model.labels=[1, 2]", "labels\\[0\\]: .*str.* 1"),
    ],
)
def test_invalid_recipe_values_are_refused_on_reading(small, change, sentence):
    with pytest.raises(InputError, match=sentence):
        read_recipe(small, [change])


def test_layer_decay_excludes_other_group_options(small):
    for other in ('optimizer.rates={"body.*"=1e-3}', "optimizer.decay_all=true"):
        with pytest.raises(InputError, match="layer_decay"):
            read_recipe(small, ["optimizer.layer_decay=0.5", other])


def test_an_update_has_a_clip_for_every_process(small, finetune):
    for changes in (["train.batch_size=1"], ["train.batch_size=1", "train.drop_last=true"]):
        with pytest.raises(InputError, match=r"1 clip .*2 processes"):
            finetune.update_batches(read_recipe(small, changes), clips=22, epoch=0, world=2)
    assert [len(b) for b in finetune.update_batches(read_recipe(small), clips=7, epoch=0, world=2)] == [6]


def test_a_balanced_epoch_draws_all_classes_equally_often(small, finetune):
    recipe, labels = read_recipe(small, ["train.balanced=true"]), [0] * 95 + [1] * 5
    drawn = [n for batch in finetune.update_batches(recipe, 100, epoch=0, world=1, labels=labels) for n in batch]
    assert len(drawn) > 90 and 30 < sum(labels[n] for n in drawn) < 70
    again = finetune.update_batches(recipe, 100, epoch=0, world=2, labels=labels)
    assert drawn == [n for batch in again for n in batch]
    assert drawn != [
        n for batch in finetune.update_batches(recipe, 100, epoch=1, world=1, labels=labels) for n in batch
    ]


def test_freezing_nothing_or_everything_is_an_error(small, tmp_path, finetune):
    with pytest.raises(InputError, match=r"'lok\.\*'"):
        finetune.train(read_recipe(small, ['model.freeze=["lok.*"]']), tmp_path)
    with pytest.raises(InputError, match="frozen"):
        finetune.train(read_recipe(small, ['model.freeze=["*"]']), tmp_path)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("train", "none.toml", "--out", "OUT"), "none.toml"),
        (("train", "mae_dfer_dfw", "--out", "OUT"), "'mae_dfer_dfw'. Did you mean mae_dfer_dfew"),
        (("train",), "--out"),
        (("train", "puppets_demo", "--out", "OUT", "--replace", "x"), "OLD=NEW"),
        (("train", "puppets_demo", "--out", "OUT", "--folds", "2-1"), "1-5"),
        (("pretrain", "none", "--out", "OUT"), "'none'"),
    ],
)
def test_wrong_commands_are_one_line_errors(command, message, tmp_path, capsys):
    assert main([word.replace("OUT", str(tmp_path)) for word in command]) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1


def test_the_recipes_of_the_package_are_listed(capsys):
    assert main(["train", "--list"]) == 0
    out = capsys.readouterr().out
    for path in RECIPES:
        assert re.search(rf"^{path.stem}  +\S", out, re.MULTILINE)
        assert "dfer-zoo train" in path.read_text() or "-m dfer_zoo train" in path.read_text()


def test_folds_fill_in_the_recipe_and_are_pooled(small, tmp_path, capsys):
    small.write_text(small.read_text().replace("puppets:clips=22,seed=1", "puppets:clips=22,seed={fold}"))
    with pytest.raises(InputError, match="--folds"):
        read_recipe(small)
    assert read_recipe(small, fold=3).data.train == "puppets:clips=22,seed=3,size=32"
    assert main(["train", str(small), "--out", str(tmp_path), "--folds", "1-2", "--set", "train.epochs=1"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^1 +[\d.]+ +[\d.]+ +8\n2 +.*\nmean .*\npooled .* 16$", out, re.MULTILINE)
    assert (tmp_path / "fold2" / "last" / "model.safetensors").is_file()


def test_unreadable_clips_are_replaced_and_reported(small, tmp_path, finetune, capsys, monkeypatch):
    rows = [f"/nowhere/{number} 0" for number in range(2)]
    for number in range(4):
        place = draw_frames(tmp_path / "frames" / str(number), 3, seed=number)
        rows.append(f"{place} {number}")
    lists = write_list(tmp_path / "list.txt", rows)
    command = [
        "train",
        str(small),
        "--out",
        str(tmp_path / "out"),
        "--set",
        "train.epochs=1",
        "--set",
        "train.mix=none",
    ]
    command += [f"--set=data.{part}={lists}" for part in ("train", "valid")] + ['--set=data.without=["audio"]']
    assert main(command) == 1
    out = capsys.readouterr().out
    assert "2 clips cannot be read" in out and "/nowhere/1" in out
    command[3] = str(tmp_path / "strict")
    assert main([*command, "--strict"]) == 2
    assert "/nowhere/" in capsys.readouterr().err


def test_training_an_audio_model_without_sound_needs_an_option(small, tmp_path, finetune):
    place = draw_frames(tmp_path / "frames", 3)
    lists = write_list(tmp_path / "list.txt", [f"{place} 0"])
    with pytest.raises(InputError, match="1 clips has sound"):
        finetune.train(read_recipe(small, [f"data.train={lists}"]), tmp_path / "out")


def test_class_weights_balance_the_classes(finetune):
    np.testing.assert_allclose(finetune.class_weights([Row("a", 0)] * 6 + [Row("b", 1)] * 2, 3), [4 / 6, 2, 0])


@pytest.mark.parametrize("change", ["train.class_weights=balanced", "train.balanced=true"])
def test_a_balanced_training_runs(small, tmp_path, finetune, change):
    assert np.isfinite(finetune.train(read_recipe(small, [change, "train.epochs=1"]), tmp_path)["history"][0]["loss"])


def test_clips_without_sound_share_a_batch_with_others(small, tmp_path, finetune, monkeypatch):
    """As in the augmentation of mma_dfer: clips without sound get the value for silence."""

    def read(row, **_):
        clip = read_row(row)
        return dataclasses.replace(clip, waveform=None) if row.label % 2 else clip

    monkeypatch.setattr(finetune, "read_row", read)
    monkeypatch.setattr(evaluation, "read_row", read)
    recipe = read_recipe(small, ["train.epochs=1"])
    assert np.isfinite(finetune.train(recipe, tmp_path)["history"][0]["loss"])


def test_a_learning_rate_for_an_unknown_parameter_is_an_error(small, tmp_path, finetune):
    with pytest.raises(InputError, match=r"'visual\.\*'"):
        finetune.train(read_recipe(small, ['optimizer.rates={"visual.*"=1e-3}']), tmp_path / "out")


def test_a_recipe_can_search_faces_in_training_and_validation(small, tmp_path, finetune, monkeypatch):
    from PIL import Image

    from dfer_zoo.media import faces

    for name in ("train/happy/1", "valid/sad/1"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (64, 48)).save(tmp_path / name / "0.png")
    searched = []
    monkeypatch.setattr(
        faces.detect, "find_detector", lambda name: lambda frame: searched.append(name) or np.array([[8, 8, 40, 40]])
    )
    changes = [f"data.{part}={tmp_path / part}" for part in ("train", "valid")]
    changes += ["train.epochs=1", "train.mix=none", "data.augment=none", 'data.without=["audio"]']
    recipe = read_recipe(small, changes)
    finetune.train(recipe, tmp_path / "without")
    assert searched == []
    found = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, faces="mtcnn"))
    finetune.train(found, tmp_path / "with")
    assert searched == ["mtcnn"] * 2  # one frame for training, one for validation


def test_weights_record_the_face_detector_of_their_training(small, tmp_path, finetune, monkeypatch):
    from dfer_zoo.inference.recognizer import Recognizer
    from dfer_zoo.media.faces import detect

    for name in ("train/happy/1", "valid/sad/1"):
        draw_frames(tmp_path / name, 3, size=(48, 64))
    searched = []
    monkeypatch.setattr(
        detect.Cascade, "__call__", lambda self, frame: searched.append(1) or np.array([[8.0, 8.0, 40.0, 40.0]])
    )
    changes = [f"data.{part}={tmp_path / part}" for part in ("train", "valid")]
    changes += ["train.epochs=1", "train.mix=none", "data.augment=none", 'data.without=["audio"]']
    recipe = read_recipe(small, [*changes, "data.faces=cascade"])
    finetune.train(recipe, tmp_path / "out")

    model = create_model(f"local-dir:{tmp_path / 'out' / 'best'}")
    assert model.weights.video.detector == "cascade"
    assert Recognizer(model).transforms[0].faces == "auto:cascade"
    searched.clear()
    rows = read_rows(tmp_path / "valid", model.labels)
    evaluation.evaluate(model, rows, without=["audio"])
    assert searched  # as in the training, without an option
    searched.clear()
    evaluation.evaluate(model, rows, without=["audio"], transform=evaluation.create_transform(model, faces="none"))
    assert not searched


def test_a_state_of_another_model_is_refused(small, tmp_path, finetune):
    finetune.train(read_recipe(small, ["train.epochs=1"]), tmp_path / "out")
    with pytest.raises(WeightsError, match="another model"):
        finetune.train(read_recipe(small, ["model.args.img_size=16"]), tmp_path / "out", resume=True)


def test_learning_rates_are_the_published_ones():
    from dfer_zoo.training import optim

    cosine = ScheduleSection(name="cosine", per="epoch")
    steps = ScheduleSection(name="steps", milestones=(39, 54, 64))
    for epoch in range(25):
        rate = learning_rate(cosine, 1e-4, 7 * epoch + 3, per_epoch=7, epochs=25)
        assert rate == pytest.approx(optim.cosine(epoch, lr=1e-4, epochs=25), rel=1e-12)
    for epoch in (0, 38, 39, 54, 99):
        rate = learning_rate(steps, 0.04, 5 * epoch, per_epoch=5, epochs=100)
        published = step_decay(epoch + 1, lr=0.04, milestones=(40, 55, 65))  # counted from 1
        assert rate == pytest.approx(published, rel=1e-12)


@pytest.mark.parametrize("data", ["dfew", "ferv39k", "mafw"])
def test_dk_clip_learning_rates_are_the_published_ones(data):
    """With 584 iterations per epoch, as in the parity case: update u has the rate of iteration 2u - 1."""
    recipe = read_recipe(ROOT / "dfer_zoo" / "recipes" / f"dk_clip_{data}.toml")
    case = json.loads((ROOT / "tests" / "parity" / "dk_clip" / "optimizer_and_schedule.json").read_text())
    published = {(entry["step"] + 1) // 2: entry["lr_base"] for entry in case["schedule"] if entry["step"] % 2}
    assert len(published) > 3
    for update, rate in {0: 0.0, **published}.items():
        ours = learning_rate(recipe.schedule, recipe.optimizer.lr, update, per_epoch=292, epochs=50)
        assert ours == pytest.approx(rate, rel=1e-6)


def tiny_recipe(recipe, **changes):
    """The recipe with a tiny_recipe model and drawn clips; its training section is kept."""
    name = recipe.model.name
    args = {k: v for k, v in {**recipe.model.args, **TINY[name]}.items() if k not in ("labels", "num_classes")}
    labels = recipe.model.labels if recipe.source == "our own" else SEVEN
    # the tiny_recipe model has the same parameter names, so that freezing works
    model = dataclasses.replace(recipe.model, pretrained="", backbones={}, args=args, labels=tuple(labels))
    data = dataclasses.replace(
        recipe.data,
        train="puppets:clips=4,seed=1,size=32",
        valid="puppets:clips=2,seed=2,size=32,split=test",
        train_subset="",
        valid_subset="",
        options={},
        workers=0,
    )
    train = dataclasses.replace(recipe.train, **{"epochs": 1, "batch_size": 4, "precision": "no", **changes})
    return dataclasses.replace(recipe, model=model, data=data, train=train)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_trains_one_epoch(path, tmp_path, finetune, one_thread):
    recipe = read_recipe(path, fold=1)
    if recipe.model.pretrained:
        get_weights(recipe.model.name, recipe.model.pretrained)  # an unknown tag would be an exception
    progress = finetune.train(tiny_recipe(recipe), tmp_path)
    (line,) = progress["history"]
    assert np.isfinite(line["loss"]) and line["loss"] > 0.1
    saved = create_model(f"local-dir:{tmp_path / 'last'}")
    assert all(getattr(saved.video_spec, name) == value for name, value in recipe.data.transform.items())


def trained_by(recipe, out, finetune, monkeypatch):
    """Train with a recipe. Returns the names of the trained parameters."""
    models = []

    def seen(model, recipe):
        models.append(model)
        return create_optimizer(model, recipe)

    monkeypatch.setattr(finetune, "create_optimizer", seen)
    finetune.train(recipe, out)
    return {name for name, parameter in models[0].named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("data", ["dfew", "ferv39k", "mafw"])
def test_dk_clip_recipes_train_the_published_modules(data, tmp_path, finetune, monkeypatch):
    """Learning rates for frozen parameters may stay in the recipe."""
    path = ROOT / "dfer_zoo" / "recipes" / f"dk_clip_{data}.toml"
    recipe = tiny_recipe(read_recipe(path))
    trained = trained_by(recipe, tmp_path, finetune, monkeypatch)
    parts = {"local_tower", "semantic_norm", "semantic_projection", "conditioning"}
    assert {name.split(".")[0] for name in trained} == parts


def test_freeze_patterns_can_extend_the_published_freezing(small, tmp_path, finetune, monkeypatch):
    path = ROOT / "dfer_zoo" / "recipes" / "dk_clip_dfew.toml"
    alone, more = (
        trained_by(tiny_recipe(read_recipe(path, [f"model.freeze={patterns}"])), tmp_path / name, finetune, monkeypatch)
        for name, patterns in (("alone", ["published"]), ("more", ["published", "conditioning.alpha"]))
    )
    assert more == alone - {"conditioning.alpha"} != alone
    # the stand-in has no published freezing, so "published" leaves only its head
    recipe = read_recipe(small, ['model.freeze=["published", "classifier.bias"]', "train.epochs=1"])
    assert trained_by(recipe, tmp_path / "head", finetune, monkeypatch) == {"classifier.weight"}


def test_there_is_a_recipe_for_every_published_run():
    runs = {(recipe.model.name, path.stem.split("_")[-1]) for path in RECIPES for recipe in [read_recipe(path, fold=1)]}
    for name in ("mma_dfer", "mae_dfer", "dfer_clip", "dk_clip", "s2d"):
        assert {(name, "dfew"), (name, "mafw")} <= runs
    assert {("mae_dfer", "ferv39k"), ("dfer_clip", "ferv39k"), ("dk_clip", "ferv39k"), ("s2d", "ferv39k")} <= runs
    assert {("hicmae", "mafw"), ("hicmae", "d")} <= runs  # crema_d
    assert {("av_fusion", "ravdess"), ("av_fusion", "it"), ("av_fusion", "lt")} <= runs
    assert {("mae_dfer", "d"), ("mae_dfer", "ravdess"), ("mae_dfer", "enterface")} <= runs


# -- it learns ---------------------------------------------------------------------------------------------------------


def test_av_fusion_learns_puppets_and_generalises_to_new_identities(tmp_path, finetune):
    """Four classes, small pictures, about a minute on one core: UAR above 80 on new identities."""
    labels = '["neutral", "happy", "angry", "surprised"]'
    changes = [
        f"model.labels={labels}",
        'model.args={fusion="ia", num_frames=4, img_size=64}',
        "data.train=puppets:clips=160,seed=1,size=64",
        "data.valid=puppets:clips=80,seed=2,split=test,size=64",
        "train.epochs=6",
    ]
    out = finetune.train(read_recipe(ROOT / "dfer_zoo" / "recipes" / "puppets_demo.toml", changes), tmp_path)
    assert out["history"][-1]["uar"] > 80
    model = create_model(f"local-dir:{tmp_path / 'last'}")
    rows = read_rows("puppets:clips=80,seed=2,split=test,size=64", model.labels)
    table = evaluation.evaluate(model, rows, batch_size=16).confusion
    assert evaluation.metrics.uar(table) == pytest.approx(out["history"][-1]["uar"])


# What a tiny_recipe configuration needs to learn within seconds: model arguments, clips, epochs, learning rate, emotions.
# The text tower is not pre-trained, so it is frozen and the temperature is high.
PATCHES = {"img_size": 32, "patch_size": 8}
CLIP = {"embed_dim": 64, "quick_gelu": True, "text_cfg": {"width": 64, "heads": 1, "layers": 2}}
CLIP["vision_cfg"] = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2}
LEARNERS = {
    "mma_dfer": ({}, 30, 3, 3e-4, ["sadness", "anger"]),
    "mae_dfer": ({**PATCHES, "drop_path_rate": 0.0}, 400, 20, 2e-3, ["sadness", "surprise"]),
    "video_mae": (PATCHES, 240, 18, 1e-3, ["sadness", "surprise"]),
    "dfer_clip": ({"clip_model": CLIP, "temperature": 0.07}, 240, 18, 3e-4, ["sadness", "surprise"]),
    "dk_clip": ({"img_size": 32}, 240, 16, 3e-4, ["sadness", "surprise"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("arch", LEARNERS)
def test_every_architecture_learns_above_chance(arch, tmp_path, finetune, one_thread, monkeypatch):
    """Tiny, from scratch, two emotions of new identities (mma_dfer has sound too): clearly above chance, 50."""
    from dfer_zoo.data import puppets
    from dfer_zoo.data.annotations import read_row

    kept = functools.cache(read_row)  # drawn once for all epochs
    monkeypatch.setattr(finetune, "read_row", kept)
    monkeypatch.setattr(evaluation, "read_row", kept)
    monkeypatch.setattr(puppets._PuppetFrames, "_frame", functools.cache(puppets._PuppetFrames._frame))
    args, clips, epochs, rate, feelings = LEARNERS[arch]
    changes = [
        f"model.name={arch}",
        f"model.labels={feelings}",
        f"data.train=puppets:clips={clips},seed=1,size=32,noise=0.0,blur=0.0",
        f"data.valid=puppets:clips={max(20, clips // 4)},seed=2,split=test,size=32,noise=0.0,blur=0.0",
        "train.mix=none",
        "train.mix_options={}",
        "train.smoothing=0.0",
        "train.clip_norm=1.0",
        f"train.batch_size={10 if clips > 100 else 5}",
        f"train.epochs={epochs}",
        f"optimizer.lr={rate}",
    ]
    recipe = read_recipe(ROOT / "dfer_zoo" / "recipes" / "puppets_demo.toml", changes)
    known = {k: v for k, v in {**TINY[arch], **args}.items() if k not in ("labels", "num_classes")}
    freeze = ("text_encoder.*",) if arch == "dfer_clip" else ()
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, args=known, freeze=freeze))
    history = finetune.train(recipe, tmp_path)["history"]
    assert history[-1]["uar"] > 65
