"""HiCMAE beyond its parity cases: sizes, records, files, sound, losses, and the lists of its data sets."""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import dfer_zoo
from dfer_zoo import cli
from dfer_zoo.convert import convert_state_dict
from dfer_zoo.data.annotations import Row, read_rows
from dfer_zoo.data.crema_d import CODES, FOLDS, MAFW_WITHOUT_SOUND, list_lines, read_crema_d, without_silent_clips
from dfer_zoo.data.formats import read_sound_list
from dfer_zoo.errors import DferZooError, InputError, MediaError, WeightsError
from dfer_zoo.media.clip import Clip
from dfer_zoo.media.write import write_mp4
from dfer_zoo.models.base import skip_init
from dfer_zoo.models.hicmae import HiCMAE
from dfer_zoo.models.hicmae_pretrain import HiCMAEPretrain, flat
from dfer_zoo.registry import get_weights, list_pretrained, manifest, model_class, systems_without
from dfer_zoo.transforms import audio
from dfer_zoo.transforms.train import augmentation
from tests.parity.checks.hicmae import inputs_of, our_arguments
from tests.parity.compare import relative_l2
from tests.parity.making import seeded_state
from tests.parity.regression import REGRESSION
from tests.parity.runner import read_case
from tests.tiny import TINY

CASES = Path(__file__).parent / "parity" / "hicmae"
RATE = 16000


def tiny(kind=HiCMAE, seed=0, **changes):
    torch.manual_seed(seed)
    name = {HiCMAE: "hicmae", HiCMAEPretrain: "hicmae_pretrain"}[kind]
    return kind(**{**TINY[name], **changes}).eval()


def a_clip(frames=100, seconds=4.0, rate=RATE, channels=1, fps=25.0):
    draw = np.random.RandomState(0)
    pictures = draw.randint(0, 256, (frames, 48, 64, 3), dtype=np.uint8)
    sound = (0.1 * draw.randn(channels, int(seconds * rate))).astype(np.float32)
    return Clip.from_arrays(pictures, fps=fps, waveform=sound, sample_rate=rate)


# -- sizes and records -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "changes", "parameters"),
    [
        (HiCMAE, {"preset": "tiny", "num_classes": 7}, 20_474_395),
        (HiCMAE, {"preset": "small", "num_classes": 7}, 45_653_787),
        (HiCMAE, {"num_classes": 7}, 80_794_651),
        (HiCMAE, {"num_classes": 6}, 80_792_602),
        (HiCMAE, {}, 80_802_847),
        (HiCMAEPretrain, {"preset": "small"}, 50_584_576),
        (HiCMAEPretrain, {}, 99_609_344),
    ],
)
def test_the_published_models_have_the_published_numbers_of_parameters(kind, changes, parameters):
    with skip_init():
        model = kind(**changes)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_every_record_fits_its_model():
    pairs = [*list_pretrained("hicmae"), *list_pretrained("hicmae_pretrain")]
    assert len(pairs) == 12
    for arch, tag in pairs:
        record = get_weights(arch, tag)
        with skip_init():
            model = model_class(arch)(**record.model_args)
        assert sum(p.numel() for p in model.parameters()) == record.params
        assert len(record.labels) == model.num_classes
        assert record.video == model.video_spec and record.audio == model.audio_spec


def test_the_pooled_accuracy_of_the_folds_is_the_published_one():
    """The total in the authors' README is the share of correct clips over all test lists."""
    sizes = {"crema_d": (1463, 1470, 1475, 1474, 1555), "mafw": (1836, 1833, 1827, 1829, 1831)}
    for data, total in (("crema_d", 84.91), ("mafw", 56.21)):
        war = [
            m.value for k in range(1, 6) for m in get_weights("hicmae", f"{data}_fold{k}").metrics if m.name == "war"
        ]
        right = [round(value / 100 * clips) for value, clips in zip(war, sizes[data])]
        assert all(abs(100 * r / n - value) < 0.006 for r, n, value in zip(right, sizes[data], war))
        assert round(100 * sum(right) / sum(sizes[data]), 2) == total


def test_each_data_set_has_its_own_label_order():
    assert get_weights("hicmae.mafw_fold1").labels == get_weights("mae_dfer.mafw_fold1").labels
    assert get_weights("hicmae.crema_d_fold3").labels == ("anger", "disgust", "fear", "happiness", "neutral", "sadness")
    assert [name[:3].upper() for name in get_weights("hicmae.crema_d_fold3").labels] == list(CODES)


# -- files -------------------------------------------------------------------------------------------------------------


def authors_file(path, state):
    """Write a checkpoint in the format of the training script."""
    content = {
        "model": {f"module.{name}": value for name, value in state.items()},
        "optimizer": {"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": [{"lr": 1e-3}]},
        "epoch": 49,
        "scaler": {"scale": 65536.0},
        "args": argparse.Namespace(model="avit_dim512_patch16_160_a256", lr=1e-3, output_dir=Path("saved")),
    }
    torch.save(content, path)
    return path


def record_of(case, arch, tag, monkeypatch):
    """Change the published record to the sizes of a case. Returns the constructor arguments."""
    arguments = our_arguments(case["config"])
    published = get_weights(arch, tag)
    labels = tuple(f"label {number}" for number in range(arguments.get("num_classes", 0)))
    video = dataclasses.replace(
        published.video, img_size=arguments["img_size"], num_frames=arguments.get("num_frames", 16)
    )
    small = dataclasses.replace(
        published,
        params=case["parameters"],
        model_args=arguments,
        labels=labels,
        video=video,
        audio=dataclasses.replace(published.audio, shape=(1, *arguments["audio_size"])),
    )
    monkeypatch.setitem(manifest(), (arch, tag), small)
    return arguments


def test_a_fine_tuned_file_is_converted_by_the_command_and_gives_the_published_logits(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DFER_ZOO_WEIGHTS", str(tmp_path / "store"))
    case = read_case(CASES / "finetune_toy_base.json")
    record_of(case, "hicmae", "crema_d_fold1", monkeypatch)
    path = authors_file(tmp_path / "checkpoint-49.pth", seeded_state(case["state_dict"], case["weights"]))
    assert cli.main(["convert", "hicmae", "crema_d_fold1", str(path)]) == 0
    assert [file.suffix for file in (tmp_path / "store").rglob("*") if file.is_file()].count(".safetensors") == 1

    model = dfer_zoo.create_model("hicmae.crema_d_fold1")
    assert model.weights.tag == "crema_d_fold1" and len(model.labels) == 7
    with torch.no_grad():
        logits = model(**inputs_of(case["inputs"]))
    assert relative_l2(logits.flatten(), case["outputs"]["43_output"]["full"]["values"]) <= case["tolerance"]


def test_a_pre_trained_file_becomes_the_backbone_of_the_fine_tuning(tmp_path, monkeypatch):
    monkeypatch.setenv("DFER_ZOO_WEIGHTS", str(tmp_path / "store"))
    case = read_case(CASES / "pretrain_toy_base.json")
    arguments = record_of(case, "hicmae_pretrain", "voxceleb2", monkeypatch)
    path = authors_file(tmp_path / "checkpoint-99.pth", seeded_state(case["state_dict"], case["weights"]))
    assert cli.main(["convert", "hicmae_pretrain", "voxceleb2", str(path)]) == 0

    pretrained = dfer_zoo.create_model("hicmae_pretrain.voxceleb2")
    unshared = ("levels", "temperature", "decoder_width", "decoder_heads", "audio_decoder_width", "audio_decoder_heads")
    shared = {name: value for name, value in arguments.items() if name not in unshared}
    model = dfer_zoo.create_model("hicmae", pretrained="backbone", labels=("calm", "excited"), **shared)
    own, source, report = model.state_dict(), pretrained.state_dict(), model.load_report
    fresh = {"video_layer_weights", "audio_layer_weights"}
    fresh |= {f"{part}.{n}" for part in ("feature_norm", "classifier") for n in ("weight", "bias")}
    assert set(report.initialized) == fresh
    assert all(torch.equal(own[name], source[name]) for name in report.loaded)
    assert "video_encoder.norm.weight" in report.loaded  # MAE-DFER throws it away, this system needs it


def test_a_backbone_of_another_size_is_an_error_and_loads_nothing():
    model, other = tiny(), tiny(HiCMAEPretrain, width=48)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match="does not fit"):
        model.load_backbones({"encoders": other.state_dict()})
    with pytest.raises(InputError, match=r"backbones encoders;.*encoder"):
        model.load_backbones({"encoder": other.state_dict()})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_error_names_the_stage_of_a_wrong_file():
    finetuned, pretrained = (
        seeded_state(case["state_dict"], case["weights"])
        for case in map(read_case, (CASES / "finetune_toy_base.json", CASES / "pretrain_toy_base.json"))
    )
    with pytest.raises(WeightsError, match="not a checkpoint of hicmae but of hicmae_pretrain"):
        convert_state_dict("hicmae", pretrained)
    with pytest.raises(WeightsError, match="not a checkpoint of hicmae_pretrain but of hicmae"):
        convert_state_dict("hicmae_pretrain", finetuned)
    with pytest.raises(WeightsError, match=r"'encoder_audio\.patch_embed\.proj\.weight' .*\(48,\)"):
        convert_state_dict("hicmae", {**finetuned, "encoder_audio.patch_embed.proj.weight": torch.zeros(48)})


# -- the model ---------------------------------------------------------------------------------------------------------


def test_layer_weights_start_equal():
    model = tiny()
    assert torch.equal(model.video_layer_weights, torch.full((2,), 0.5))
    model.audio_layer_weights.data += 3.0  # the softmax does not see it
    inputs = model.example_inputs()
    with torch.no_grad():
        before = model(**inputs)
        model.audio_layer_weights[0] += 3.0
        assert not torch.allclose(model(**inputs), before)


def test_both_blocks_of_a_fusion_pair_take_the_same_tokens():
    fusion, seen = tiny().fusion, []
    fusion.audio_blocks[0].register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    frames, sound = torch.rand(1, 6, 24), torch.rand(1, 4, 24)
    fusion(frames, sound, lambda block, *args: block(*args))
    assert torch.equal(seen[0], sound) and torch.equal(seen[1], frames)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (HiCMAE, {"audio_size": 64}, r"audio_size is 64;.*\(time, mel bands\)"),
        (HiCMAE, {"audio_size": (64, 30)}, "64x30"),
        (HiCMAE, {"audio_width": 32, "fusion_heads": 3}, "width is 32;.*3 heads"),
        (HiCMAE, {"preset": "large"}, "preset is 'large';.*tiny, small, base"),
        (HiCMAE, {"head_activation": "softmax"}, "head_activation is 'softmax'"),
        (HiCMAE, {"fusion_depth": 0}, "depth is 0"),
        (HiCMAEPretrain, {"preset": "tiny", "decoder_width": None}, "preset 'tiny' .*decoder"),
        (HiCMAEPretrain, {"audio_width": 48}, "width is 24, audio_width is 48"),
        (HiCMAEPretrain, {"levels": (1, 0)}, r"levels is \(1, 0\);.*from 0 to 1"),
        (HiCMAEPretrain, {"levels": (0, 2)}, "from 0 to 1"),
        (HiCMAEPretrain, {"audio_mask_ratio": 0.01}, "audio_mask_ratio 0.01 .*0 of 8"),
    ],
)
def test_invalid_arguments_are_errors(kind, changes, message):
    with pytest.raises(InputError, match=message):
        tiny(kind, **changes)


def test_a_regression_head_has_an_activation_and_names_no_class():
    model = tiny(num_classes=3, head_activation="sigmoid")
    with torch.no_grad():
        model.classifier.weight.mul_(100)
        outputs = model(**model.example_inputs(4))
    assert ((outputs >= 0) & (outputs <= 1)).all() and model.labels == ("class_0", "class_1", "class_2")


def test_regression_losses_of_correct_outputs_are_zero():
    targets = torch.randn(20, 3)
    for name, loss in REGRESSION.items():
        assert loss(targets, targets).item() == pytest.approx(0, abs=1e-5), name
        assert loss(-targets, targets) > 0.1, name
    assert REGRESSION["pcc"](2 * targets + 1, targets) < 1e-4 < REGRESSION["ccc"](2 * targets + 1, targets)


# -- pre-training ------------------------------------------------------------------------------------------------------


def test_masks_are_new_in_training_and_the_same_in_evaluation():
    model = tiny(HiCMAEPretrain)
    inputs = model.example_inputs(2)
    with torch.no_grad():
        assert torch.equal(model(**inputs), model(**inputs))
        model.train()
        assert not torch.equal(model(**inputs), model(**inputs))
    video, sound = model.draw_masks(3)
    assert (video.sum(1) == 4).all() and (sound.sum(1) == 4).all()
    frames = video.view(3, 2, 4)
    assert torch.equal(frames[:, 0], frames[:, 1])  # a tube


def test_given_masks_must_have_the_same_number_in_every_clip():
    model = tiny(HiCMAEPretrain)
    inputs, (video, sound) = model.example_inputs(2), model.draw_masks(2)
    loss, guess = model.training_loss({**inputs, "video_mask": video, "audio_mask": sound})
    assert loss.isfinite() and guess.shape == flat(model.guess(**inputs)).shape
    uneven = sound.clone()
    uneven[0] = False
    with pytest.raises(InputError, match="same number"):
        model(**inputs, audio_mask=uneven)
    with pytest.raises(InputError, match="video_mask must be boolean"):
        model(**inputs, video_mask=video.int())
    nothing = torch.zeros_like(sound)
    assert model.forward_features(**inputs, video_mask=torch.zeros_like(video), audio_mask=nothing).audio.shape[1] == 8
    with pytest.raises(InputError, match="audio mask"):
        model.training_loss({**inputs, "video_mask": video, "audio_mask": nothing})


def test_the_contrastive_loss_is_small_for_matching_frames_and_sound():
    model = tiny(HiCMAEPretrain)
    with torch.no_grad():
        encoded = model.forward_features(**model.example_inputs(4))
    own = torch.eye(4, 24)[:, None]
    alike = encoded._replace(video_levels=[own, own], audio_levels=[3 * own, own])
    other = alike._replace(audio_levels=[own.roll(1, 0), own.roll(1, 0)])
    assert model.contrast(alike).max() < 0.01 and model.contrast(other).min() > 10
    torch.testing.assert_close(model.similarities(alike)[0], torch.eye(4) / 0.07)


def test_in_training_the_head_needs_the_masks_of_the_features():
    model = tiny(HiCMAEPretrain).train()
    inputs, (video, sound) = model.example_inputs(1), model.draw_masks(1)
    masks = {"video_mask": video, "audio_mask": sound}
    encoded = model.forward_features(**inputs, **masks)
    with pytest.raises(InputError, match="forward_head"):
        model.forward_head(encoded)
    assert model.forward_head(encoded, **masks).shape == model(**inputs).shape


# -- what it sees and hears ----------------------------------------------------------------------------------------------


def test_every_view_has_the_sound_of_its_frames(monkeypatch):
    clip, heard = a_clip(frames=200, seconds=8), []
    front_end = audio.kaldi_front_end
    monkeypatch.setattr(audio, "kaldi_front_end", lambda w, *args: heard.append(w.shape[1]) or front_end(w, *args))
    transform = dfer_zoo.create_transform(HiCMAE(preset="tiny", depth=1, audio_depth=1, fusion_depth=1), faces="none")
    first, last = transform.views(clip)
    assert first["audio"].shape == (1, 256, 128) and not torch.equal(first["audio"], last["audio"])
    # frames 0 to 64 and 136 to 199 of 199 steps over 128000 samples
    assert heard == [int(64 / 199 * 128000), 128000 - int(136 / 199 * 128000)]


def test_sound_is_converted_to_mono_at_16_kilohertz():
    spec = tiny(audio_size=(256, 128)).audio_spec
    time = np.arange(4 * 48000) / 48000
    tone = 0.3 * np.sin(2 * np.pi * 440 * time).astype(np.float32)
    stereo = audio.prepare_audio(np.stack([tone, np.zeros_like(tone)]), 48000, spec)
    mono = audio.prepare_audio(0.5 * tone[::3], RATE, spec)
    loud = mono > 0  # quiet bands hold the noise of the resampling
    assert loud.float().mean() > 0.02 and (stereo - mono)[loud].abs().max() < 0.02


def test_the_gain_is_one_in_evaluation_and_drawn_in_training():
    clip = a_clip()
    model = tiny(audio_size=(256, 128))
    transform = dfer_zoo.create_transform(model, faces="none")
    assert torch.equal(transform(clip)["audio"], transform(clip)["audio"])
    np.random.seed(0)
    gains = [audio.draw_gain() for _ in range(500)]
    assert np.mean(gains) == pytest.approx(1, abs=0.02) and np.std(gains) == pytest.approx(0.109, abs=0.01)
    sound = clip.waveform
    louder = audio.prepare_audio(sound, RATE, model.audio_spec, gain=1.5) - audio.prepare_audio(
        sound, RATE, model.audio_spec
    )
    assert louder.median().item() == pytest.approx(2 * np.log(1.5) / (2 * audio.AUDIOSET_STD), rel=1e-3)


@pytest.mark.parametrize("name", ["hicmae", "hicmae_pretrain"])
def test_the_training_input_has_the_shapes_of_the_model(name):
    model = dfer_zoo.create_model(name, **TINY[name])
    augmented = augmentation(name, dfer_zoo.create_transform(model, faces="none"))
    np.random.seed(0)
    samples = [augmented(a_clip()) for _ in range(2)]
    assert {key: value.shape for key, value in samples[0].items()} == {
        key: value.shape[1:] for key, value in model.example_inputs().items()
    }
    assert not torch.equal(samples[0]["audio"], samples[1]["audio"])
    silent = dataclasses.replace(a_clip(), waveform=None)
    with pytest.raises(MediaError, match="clips with sound"):
        augmented(silent)


def test_a_clip_without_sound_is_an_error_that_names_other_systems():
    transform = dfer_zoo.create_transform(tiny(), faces="none")
    with pytest.raises(DferZooError) as caught:
        transform(dataclasses.replace(a_clip(), waveform=None))
    message = str(caught.value)
    assert "no sound" in message and "\n" not in message
    assert "mae_dfer" in message and "mma_dfer" in message and "hicmae" not in message
    assert "hicmae" not in systems_without("audio") and "mae_dfer" in systems_without("audio")


@pytest.mark.parametrize(
    ("frames", "seconds", "message"),
    [(100, 0.06, "960 samples;.*1024"), (1, 4.0, "too long for the few frames")],
)
def test_too_little_sound_is_an_error(frames, seconds, message):
    with pytest.raises(MediaError, match=message):
        dfer_zoo.create_transform(tiny(), faces="none")(a_clip(frames=frames, seconds=seconds))


def test_a_video_file_is_predicted_and_evaluated_by_the_commands(tmp_path, monkeypatch, capsys):
    pytest.importorskip("av")
    model = tiny(num_classes=2)
    dfer_zoo.save_pretrained(model, tmp_path / "weights")
    for number, label in enumerate(model.labels):
        (tmp_path / "data" / label).mkdir(parents=True)
        write_mp4(a_clip(frames=30, seconds=1.2), tmp_path / "data" / label / f"{number}.mp4")
    name = f"local-dir:{tmp_path / 'weights'}"
    file = tmp_path / "data" / model.labels[0] / "0.mp4"
    assert cli.main(["predict", str(file), "--model", name, "--faces", "none"]) == 0
    assert model.labels[0] in capsys.readouterr().out
    assert cli.main(["evaluate", name, str(tmp_path / "data"), "--json"]) == 0
    assert "war" in json.loads(capsys.readouterr().out)


# -- lists -------------------------------------------------------------------------------------------------------------


def crema_d(folder, actors=(1001, 1018, 1019, 1091), sentence="DFA", codes=CODES):
    for name in ("VideoFlash", "AudioWAV"):
        (folder / name).mkdir(parents=True)
    for actor in actors:
        for code in codes:
            (folder / "VideoFlash" / f"{actor}_{sentence}_{code}_XX.flv").touch()
            (folder / "AudioWAV" / f"{actor}_{sentence}_{code}_XX.wav").touch()
    return folder


def test_every_actor_is_tested_once():
    assert [actor for fold in FOLDS for actor in fold] == [*range(1001, 1092)]


def test_crema_d_is_read_from_the_names_of_its_files(tmp_path):
    root = crema_d(tmp_path)
    rows = read_crema_d(root / "VideoFlash", sounds=root / "AudioWAV", fold=1, subset="testing")
    assert [Path(row.path).stem[:4] for row in rows] == ["1001"] * 6 + ["1018"] * 6
    assert [row.label for row in rows[:6]] == [0, 1, 2, 3, 4, 5]
    assert rows[0].audio == str(root / "AudioWAV" / "1001_DFA_ANG_XX.wav")
    assert len(read_crema_d(root, fold=1, subset="training")) == 12
    assert {row.subset for row in read_crema_d(root)} == {None}


def test_folders_of_face_frames_are_clips_too(tmp_path):
    (tmp_path / "1001_IEO_HAP_LO").mkdir()
    (tmp_path / "1001_IEO_HAP_LO" / "0001.jpg").touch()
    (row,) = read_crema_d(tmp_path)
    assert row.label == 3 and row.audio is None


def test_clips_without_usable_sound_are_left_out_by_default(tmp_path):
    root = crema_d(tmp_path, actors=(1064,), sentence="TIE", codes=("SAD", "ANG"))
    assert [row.label for row in read_crema_d(root)] == [0]
    assert [row.label for row in read_crema_d(root, without_sound=())] == [0, 5]
    rows = [Row(f"data/frames/{name}", 0) for name in ("00902", *sorted(MAFW_WITHOUT_SOUND))]
    assert len(MAFW_WITHOUT_SOUND) == 16 and [row.path for row in without_silent_clips(rows)] == ["data/frames/00902"]


def test_wrong_folders_and_folds_are_errors(tmp_path):
    with pytest.raises(InputError, match="CREMA-D"):
        read_crema_d(tmp_path)
    with pytest.raises(InputError, match="nowhere"):
        read_crema_d(tmp_path / "nowhere")
    root = crema_d(tmp_path)
    with pytest.raises(InputError, match=r"fold is 6;.*1 to 5"):
        read_crema_d(root, fold=6)
    with pytest.raises(InputError, match="subset is 'validation'"):
        read_crema_d(root, fold=1, subset="validation")
    with pytest.raises(InputError, match="sound file"):
        read_crema_d(root / "VideoFlash", sounds=root)
    (root / "VideoFlash" / "1001_DFA_JOY_XX.flv").touch()
    with pytest.raises(InputError, match="'JOY'"):
        read_crema_d(root)


def test_lists_of_folder_sound_and_label_are_written_and_read(tmp_path):
    root = crema_d(tmp_path / "data")
    rows = read_crema_d(root / "VideoFlash", sounds=root / "AudioWAV")
    path = tmp_path / "train.csv"
    path.write_text("\n".join(list_lines(rows)) + "\n")
    assert read_sound_list(path) == rows and read_rows(path, [*"abcdef"]) == rows
    moved = read_sound_list(path, replace=(str(root), "/elsewhere"))
    assert moved[0].path == "/elsewhere/VideoFlash/1001_DFA_ANG_XX.flv"
    assert moved[0].audio == "/elsewhere/AudioWAV/1001_DFA_ANG_XX.wav"
    path.write_text("faces/1001_X audio/1001_X.wav 0.5 1.0 0.75\n")
    with pytest.raises(InputError, match="'folder wav label'"):
        read_sound_list(path)
    with pytest.raises(InputError, match="a folder"):
        list_lines([Row("a folder", 0, "a.wav")])


def test_the_lists_of_a_fold_of_crema_d_are_written_by_one_command(tmp_path, capsys):
    root = crema_d(tmp_path / "data")
    command = ["prepare", "annotations", "crema_d", str(root / "VideoFlash"), "--sounds", str(root / "AudioWAV")]
    assert cli.main([*command, "--fold", "1", "--out", str(tmp_path / "lists")]) == 0
    assert "train.csv: 12 clips" in capsys.readouterr().out
    rows = read_rows(tmp_path / "lists" / "test.csv", [code.lower() for code in CODES])
    assert [row.label for row in rows] == [*range(6), *range(6)] and rows[0].audio.endswith("1001_DFA_ANG_XX.wav")
    assert cli.main([*command, "--fold", "6", "--out", str(tmp_path / "lists")]) == 2
    assert "1 to 5" in capsys.readouterr().err
