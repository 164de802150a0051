"""MMA-DFER, MAE-Face and AudioMAE beyond the parity cases: files, backbones, training, sound."""

import argparse
import dataclasses
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import dfer_zoo
from dfer_zoo.checkpoints import convert_checkpoint, read_checkpoint
from dfer_zoo.convert import convert_state_dict
from dfer_zoo.errors import InputError, MediaError, WeightsError
from dfer_zoo.media.clip import Clip
from dfer_zoo.models.audio_mae import AudioMAE, published_positions
from dfer_zoo.models.mae_face import MAEFace
from dfer_zoo.models.mma_dfer import LABELS, MMADFER, MORE_LABELS, Prompts
from dfer_zoo.models.parts import DropPath
from dfer_zoo.models.vit import PRESETS, resize_positions
from dfer_zoo.registry import get_weights, manifest
from dfer_zoo.training.optim import cosine, create_optimizer, learning_rate, parameter_groups
from dfer_zoo.training.recipe import read_recipe
from dfer_zoo.transforms import audio
from dfer_zoo.transforms.train import augmentation
from dfer_zoo.transforms.train.mma_dfer import MMADFERTrainTransform
from dfer_zoo.weights import fetch
from dfer_zoo.weights.record import AudioSpec
from tests.parity.checks.mma_dfer import authors_state
from tests.parity.compare import relative_l2
from tests.parity.making import seeded_input
from tests.parity.published import cosine_with_restarts
from tests.parity.runner import read_case
from tests.reference_torchaudio import reference_torchaudio

FOLDER = Path(__file__).parent / "parity" / "mma_dfer"
TINY = {"preset": "tiny", "img_size": 32}
SPEC = AudioSpec(front_end="kaldi_fbank", shape=(1, 512, 128))


def tiny(seed=0, **changes):
    """A model whose output depends on every parameter. New gates are zero and would hide others."""
    torch.manual_seed(seed)
    model = MMADFER(**{**TINY, **changes}).eval()
    for name, parameter in model.named_parameters():
        if name.endswith(".gate"):
            nn.init.normal_(parameter)
    return model


def tiny_inputs(batch=2):
    generator = torch.Generator().manual_seed(1)
    return {
        "video": torch.rand(batch, 16, 3, 32, 32, generator=generator),
        "audio": torch.randn(batch, 1, 512, 128, generator=generator),
    }


def pretrained_parts(seed=0, rows=4, frames=1024):
    """Converted state dicts of the two pre-trained encoders."""
    torch.manual_seed(seed)
    face = MAEFace(preset="tiny", img_size=16 * rows, pooling="class")
    sound = AudioMAE(preset="tiny", num_frames=frames, pooling="class", num_classes=0)
    return {"face": face.state_dict(), "sound": sound.state_dict()}


def noise(samples, channels=1, seed=0):
    return (0.1 * np.random.RandomState(seed).randn(channels, samples) + 0.05).astype(np.float32)


# -- files ---------------------------------------------------------------------------------------------------------------


class RecorderMeter:
    """A class of the authors' script whose objects are stored in its files."""

    def __init__(self):
        self.epoch_losses = np.zeros((2, 2), np.float32)


@pytest.mark.slow
def test_a_released_checkpoint_gives_the_published_logits(tmp_path, monkeypatch):
    case = read_case(FOLDER / "dfew_64.json")
    monkeypatch.setattr(RecorderMeter, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "RecorderMeter", RecorderMeter, raising=False)
    monkeypatch.setenv("DFER_ZOO_WEIGHTS", str(tmp_path / "store"))
    published = get_weights("mma_dfer", "dfew_fold1")
    # the record of a file with the image size of the case
    at_64 = dataclasses.replace(
        published,
        params=published.params - (203 - 23) * 768,
        model_args={**published.model_args, "img_size": 64},
        video=dataclasses.replace(published.video, img_size=64),
    )
    monkeypatch.setitem(manifest(), ("mma_dfer", "dfew_fold1"), at_64)

    state = {f"module.{name}": value for name, value in authors_state(case).items()}
    file = tmp_path / "fold1_64.pth"
    content = {"epoch": 25, "state_dict": state, "best_acc": torch.tensor([63.0]), "recorder": RecorderMeter()}
    torch.save({**content, "optimizer": {"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": []}}, file)
    del state, content
    path = convert_checkpoint("mma_dfer", "dfew_fold1", file)
    file.unlink()

    model = dfer_zoo.create_model("mma_dfer", pretrained="dfew_fold1")
    path.unlink()
    assert model.labels == LABELS and model.weights.model_args["temporal_depth"] == 1
    inputs = {name: seeded_input(rule) for name, rule in case["inputs"].items()}
    with torch.no_grad():
        logits = model(video=inputs["image"], audio=inputs["audio"])
    reference = case["outputs"]["logits"]
    assert relative_l2(logits, np.reshape(reference["values"], reference["shape"])) <= case["tolerance"]["logits"]


def authors_backbone(channels, rows, decoder=True, width=192):
    """A small state dict with the names of a masked autoencoder's file."""
    encoder = (MAEFace(preset="tiny", img_size=32) if channels == 3 else AudioMAE(preset="tiny", num_frames=32)).encoder
    state = {name: value.clone() for name, value in encoder.state_dict().items() if name.startswith("blocks.")}
    state |= {
        "cls_token": torch.zeros(1, 1, width),
        "pos_embed": torch.randn(1, rows, width),
        "patch_embed.proj.weight": torch.randn(width, channels, 16, 16),
        "patch_embed.proj.bias": torch.randn(width),
        "norm.weight": torch.randn(width),
        "norm.bias": torch.randn(width),
    }
    if decoder:
        state |= {"mask_token": torch.zeros(1, 1, 8), "decoder_blocks.0.norm1.weight": torch.zeros(8)}
    return state


def test_a_backbone_file_with_its_options_is_read_and_its_decoder_dropped(tmp_path):
    file = tmp_path / "audiomae_pretrained.pth"
    options = argparse.Namespace(lr=1e-3, output_dir=Path("out"))
    torch.save({"model": authors_backbone(1, 513), "args": options, "epoch": 31}, file)
    conversion = convert_state_dict("audio_mae", read_checkpoint(file))
    assert conversion.model_args == {"num_classes": 0, "num_frames": 1024, "preset": "tiny", "pooling": "class"}
    assert sorted(conversion.dropped) == ["decoder_blocks.0.norm1.weight", "mask_token"]
    model = AudioMAE(**conversion.model_args)
    model.load_state_dict(conversion.state, strict=True)


def test_the_length_of_a_spectrogram_is_read_from_the_position_table():
    large_patches = {
        "pos_embed": torch.zeros(1, 1 + 73 * 9, 1280),
        "patch_embed.proj.weight": torch.zeros(1280, 1, 14, 14),
    }
    blocks = {f"blocks.{i}.norm1.weight": torch.ones(1280) for i in range(32)}
    arguments = convert_state_dict("audio_mae", large_patches | blocks).model_args
    assert (arguments["preset"], arguments["num_frames"]) == ("huge", 1024)
    assert convert_state_dict("audio_mae", authors_backbone(1, 1 + 8 * 40)).model_args["num_frames"] == 640


def test_a_file_of_another_model_is_an_error():
    face, sound = authors_backbone(3, 5), authors_backbone(1, 513)
    with pytest.raises(WeightsError, match=r"not a checkpoint of audio_mae: .*3 channels"):
        convert_state_dict("audio_mae", face | {"pos_embed": torch.zeros(1, 513, 192)})
    with pytest.raises(WeightsError, match="not a square"):
        convert_state_dict("mae_face", sound | {"pos_embed": torch.zeros(1, 258, 192)})
    with pytest.raises(WeightsError, match=r"not a checkpoint of mma_dfer: 152 of .*152 entries"):
        convert_state_dict("mma_dfer", face)
    with pytest.raises(WeightsError, match=r"1 of .*\d+ entries.*blocks.0.adapter"):
        convert_state_dict("mae_face", face | {"blocks.0.adapter": torch.zeros(1)})
    with pytest.raises(WeightsError, match="12 blocks of width 200"):
        convert_state_dict("mae_face", face | {"patch_embed.proj.weight": torch.zeros(200, 3, 16, 16)})


def test_parameter_counts_are_the_published_ones_without_unused_layers():
    """Published: 179,312,147 parameters, 7,632,415 of them trained. Ours lack those that are never used."""
    model = MMADFER()
    heads = (12 + 1000) * (768 + 1)
    second_norms = 2 * 2 * 512
    assert sum(p.numel() for p in model.parameters()) == 178_531_871 == 179_312_147 - heads - second_norms
    model.freeze()
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 7_630_367 == 7_632_415 - second_norms


@pytest.mark.parametrize(
    "name", [name for name in sorted(manifest()) if name[0] in ("mma_dfer", "mae_face", "audio_mae")]
)
def test_every_record_matches_its_model(name):
    record = get_weights(*name)
    small = {"preset": "tiny"}
    model = dfer_zoo.create_model(name[0], **{**record.model_args, **small})
    assert model.labels == record.labels
    if record.audio is not None:  # what to do with clips without sound is a rule of the data set
        assert dataclasses.replace(record.audio, without_audio="keep") == model.audio_spec
    if record.video is not None:
        assert dataclasses.replace(record.video, face_crop="aligned") == model.video_spec
    if name[0] == "mma_dfer" and record.fold:
        protocols = {metric.protocol for metric in record.metrics}
        assert len(protocols) == (record.fold == 1)  # the mean over the folds stands with the first of them
        assert all(record.dataset in p and "mean of the five folds" in p for p in protocols)


# -- backbones -----------------------------------------------------------------------------------------------------------


def test_a_model_starts_from_two_backbones_and_reports_random_entries(monkeypatch):
    states = pretrained_parts()
    sources = {"mae_face.pretrained": states["face"], "audio_mae.pretrained": states["sound"]}
    monkeypatch.setattr(fetch, "backbone_state", lambda source, *_: sources[source.name])
    torch.manual_seed(3)
    model = dfer_zoo.create_model("mma_dfer", pretrained="backbone", **TINY, num_classes=11)
    assert model.labels == LABELS + MORE_LABELS and model.weights.name == "mma_dfer.backbone"
    report = model.load_report
    names = set(model.state_dict())
    assert set(report.loaded) == {n for n in names if n.startswith(("face.", "sound."))}
    assert set(report.initialized) == (names - set(report.loaded)) | {
        "face.positions[:, 5:]",
        "sound.positions[:, 257:]",
    }
    assert report.ignored == ()
    assert torch.equal(model.face.norm.weight, states["face"]["encoder.norm.weight"])
    expected = resize_positions(states["sound"]["encoder.positions"], (64, 8), (32, 8))
    assert torch.equal(model.sound.positions[:, :257], expected)
    # random entries come from torch's generator
    torch.manual_seed(3)
    again = dfer_zoo.create_model("mma_dfer", pretrained="backbone", **TINY, num_classes=11).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
    assert model.sound.positions[:, 257:].std() > 0.5 > model.sound_prompts.initial.std()


def test_a_wrong_backbone_is_named_and_loads_nothing():
    model = tiny()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    good = pretrained_parts(rows=2)
    lacking = {name: value for name, value in good["face"].items() if "blocks.3." not in name}
    pooled = AudioMAE(preset="tiny", num_classes=5).state_dict()
    wrong = [
        ({"face": good["sound"], "sound": good["face"]}, "'face': 1 of another shape .patch_embed.weight"),
        ({"face": lacking, "sound": good["sound"]}, "'face': 12 missing .blocks.3.attn.proj.bias"),
        ({"face": good["face"] | {"encoder.gate": torch.zeros(1)}, "sound": good["sound"]}, "1 unexpected .gate"),
        ({"face": good["face"], "sound": pooled}, "'sound': 2 missing .norm.bias, norm.weight"),
        ({"face": good["face"]}, "backbones face, sound;"),
        ({"face": {"w": torch.zeros(1)}, "sound": good["sound"]}, "missing .blocks.0.attn.proj.bias"),
    ]
    for states, message in wrong:
        with pytest.raises((InputError, WeightsError), match=message):
            model.load_backbones(states)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_mean_pooling_has_its_own_norm():
    model = MAEFace(preset="tiny", img_size=48, num_classes=4)
    report = model.load_backbones({"encoder": pretrained_parts(rows=2)["face"]})
    assert report.initialized == ("classifier.bias", "classifier.weight", "pooled_norm.bias", "pooled_norm.weight")
    assert report.ignored == ("encoder: encoder.norm.bias", "encoder: encoder.norm.weight")
    assert model.encoder.positions.shape == (1, 10, 192)


@pytest.mark.parametrize("file_frames", [512, 1024])
def test_a_spectrogram_with_a_square_grid_is_not_an_image(file_frames):
    sound = pretrained_parts(frames=file_frames)["sound"]
    model = AudioMAE(preset="tiny", num_frames=128, pooling="class", num_classes=0)
    model.load_backbones({"encoder": sound})
    expected = resize_positions(sound["encoder.positions"], (file_frames // 16, 8), (8, 8))
    assert torch.equal(model.encoder.positions, expected)


@pytest.mark.parametrize("shape", [(), (192,), (1, 0, 192), (1, 1, 192), (1, 13, 192), (2, 5, 192), (1, 5, 191)])
def test_a_position_table_without_a_square_grid_is_an_error(shape):
    state = {**pretrained_parts(rows=2)["face"], "encoder.positions": torch.zeros(shape)}
    model = MAEFace(preset="tiny", img_size=48, pooling="class")
    with pytest.raises(WeightsError, match="position table"):
        model.load_backbones({"encoder": state})


def test_positions_of_the_same_grid_are_unchanged():
    table = torch.randn(1, 10, 4)
    assert resize_positions(table, (3, 3), (3, 3)) is table
    assert torch.equal(resize_positions(table, (3, 3), (5, 2))[:, 0], table[:, 0])


# -- the model -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_missing_sound_is_the_published_constant():
    model, inputs = tiny(), tiny_inputs()
    quiet = torch.full((2, 1, 512, 128), model.audio_spec.silence_value)
    assert torch.equal(model(inputs["video"]), model(inputs["video"], quiet))
    clip = Clip.from_arrays(np.zeros((20, 40, 50, 3), np.uint8))
    sample = dfer_zoo.create_transform(model, faces="none").batch([clip])
    assert sample["audio"] is None and model(**sample).isfinite().all()
    # missing sound and the padding of short sound have the same value
    padded = audio.prepare_audio(noise(8000), 16000, model.audio_spec)
    assert torch.equal(padded[:, 60:], quiet[0, :, 60:])


def test_the_second_set_of_prompts_is_added_to_its_group():
    prompts = Prompts(width=2, groups=2)
    for number, parameter in enumerate(prompts.progressive):
        nn.init.constant_(parameter, number + 1.0)
    tokens = torch.zeros(1, 10, 2)
    assert prompts.add_group(tokens, 0)[0, :, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 0, 0, 0]
    assert prompts.add_group(tokens, 1)[0, :, 1].tolist() == [0, 0, 0, 0, 0, 0, 0, 2, 2, 2]


@torch.no_grad()
def test_gates_of_zero_exchange_nothing():
    torch.manual_seed(0)
    model, inputs = MMADFER(**TINY).eval(), tiny_inputs()
    faces, _ = [], model.face.norm.register_forward_hook(lambda m, args, result: faces.append(result))
    model(**inputs)
    model(inputs["video"], inputs["audio"].flip(0))
    assert torch.equal(*faces)
    nn.init.ones_(model.exchanges[0].face.gate)
    model(inputs["video"], inputs["audio"].flip(0))
    assert not torch.equal(faces[-1], faces[0])


def test_presets_are_the_published_ones():
    assert [(n, p.width, p.depth, p.heads, p.patch) for n, p in PRESETS.items()] == [
        ("tiny", 192, 12, 3, 16),
        ("small", 384, 12, 6, 16),
        ("base", 768, 12, 12, 16),
        ("large", 1024, 24, 16, 16),
        ("huge", 1280, 32, 16, 14),
        ("giant", 1408, 40, 16, 14),
        ("gigantic", 1664, 48, 16, 14),
    ]
    widths = [int(PRESETS[name].width * PRESETS[name].mlp_ratio) for name in ("base", "giant", "gigantic")]
    assert widths == [3072, 6144, 8192]
    with pytest.raises(InputError, match=r"'bass'\. Did you mean base"):
        MAEFace(preset="bass")
    with pytest.raises(InputError, match="'huge'"):  # patches of 14 do not fit 512 x 128 prompts and tables
        MMADFER(preset="huge")
    with pytest.raises(InputError, match=r"img_size is 100;.* 16"):
        MMADFER(preset="tiny", img_size=100)
    with pytest.raises(InputError, match="pooling is 'max'"):
        MAEFace(preset="tiny", pooling="max")


@pytest.mark.parametrize("depth", [0, -1])
def test_a_temporal_layer_is_required(depth):
    with pytest.raises(InputError, match=f"temporal_depth is {depth};"):
        MMADFER(**TINY, temporal_depth=depth)


def test_contextual_tokens_need_the_norm_of_the_pre_trained_encoder():
    sound = torch.rand(1, 1, 32, 128)
    model = AudioMAE(preset="tiny", num_frames=32, pooling="class", num_classes=0).eval()
    assert model.contextual_tokens(sound).shape == (1, 17, 192)
    with pytest.raises(InputError, match="pooling='class'"):
        AudioMAE(preset="tiny", num_frames=32).contextual_tokens(sound)


def test_audio_mae_starts_with_the_published_table():
    model = AudioMAE(preset="tiny", num_frames=64)
    assert torch.equal(model.encoder.positions, published_positions((4, 8), 192))
    assert not model.encoder.positions[0, 0].any()


# -- training ------------------------------------------------------------------------------------------------------------


def paths(model):
    return [module for module in model.modules() if isinstance(module, DropPath)]


def test_stochastic_depth_of_frozen_encoders_is_off_unless_requested():
    model, inputs = tiny(drop_path_rate=0.5), tiny_inputs()
    assert [p.drop_prob for p in paths(model)[:4]] == pytest.approx([0.5 / 11, 0.5 / 11, 1 / 11, 1 / 11])
    model.freeze()
    model.train()
    assert not any(p.training for p in paths(model)) and model.exchanges.training
    assert torch.equal(model(**inputs), model(**inputs))

    live = tiny(drop_path_rate=0.5, drop_path_when_frozen=True)
    live.freeze()
    live.train()
    assert all(p.training for p in paths(live))
    assert not any(block.training or block.norm1.training for block in [*live.face.blocks, *live.sound.blocks])
    assert not torch.equal(live(**inputs), live(**inputs))
    live.eval()
    assert not any(p.training for p in paths(live))
    assert torch.equal(live(**inputs), model.eval()(**inputs))


def test_the_published_optimizer_decays_all_trained_parameters():
    model = tiny()
    model.freeze()
    (group,) = parameter_groups(model, lr=1e-4, weight_decay=1e-2, decay_all=True)
    assert len(group["params"]) == sum(p.requires_grad for p in model.parameters())
    assert any(name.endswith(".gate") for name in group["names"]) and "face.positions" in group["names"]


def test_training_samples_are_random_and_may_lack_sound():
    frames = np.random.RandomState(0).randint(0, 256, (40, 50, 60, 3)).astype(np.uint8)
    model = tiny()
    clip = Clip.from_arrays(frames, noise(16000), sample_rate=16000)

    def sample(seed, clip=clip):
        draw = MMADFERTrainTransform(
            model.video_spec, model.audio_spec, random.Random(seed), np.random.RandomState(seed)
        )
        return draw(clip)

    first, again, other = sample(0), sample(0), sample(1)
    assert first["video"].shape == (16, 3, 32, 32) and first["audio"].shape == (1, 512, 128)
    assert torch.equal(first["video"], again["video"]) and not torch.equal(first["video"], other["video"])
    assert torch.equal(first["audio"], other["audio"])
    silent = sample(0, Clip.from_arrays(frames))
    assert torch.equal(silent["audio"], torch.full((1, 512, 128), model.audio_spec.silence_value))
    named = augmentation("mma_dfer", dfer_zoo.create_transform(model, faces="none"))(clip)
    assert named.keys() == {"video", "audio"}
    with pytest.raises(InputError, match="with sound"):
        augmentation("mma_dfer", dfer_zoo.create_transform(MAEFace(preset="tiny", img_size=32), faces="none"))


def test_the_learning_rate_falls_to_zero_and_can_restart():
    assert cosine(25, lr=1e-4, epochs=25) == 0 and cosine(12.5, lr=1e-4, epochs=25) == pytest.approx(5e-5)
    rates = [cosine_with_restarts(s, lr=1.0, floor=0.0, cycle=4, warmup=1, stretch=2, decay=0.5) for s in range(12)]
    assert rates[0] == rates[4] == rates[11] == 0 and rates[1] == 1 and rates[5] == 0.5


# -- sound ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_log_mels_match_torchaudio(rate):
    signal = torch.from_numpy(noise(rate, seed=rate))
    theirs = reference_torchaudio().compliance.kaldi.fbank(
        signal,
        sample_frequency=rate,
        num_mel_bins=128,
        window_type="hanning",
        use_energy=False,
        dither=0.0,
        htk_compat=True,
    )
    ours = audio.kaldi_log_mel(signal, rate)[0]
    assert ours.shape == theirs.shape and relative_l2(ours, theirs) < 1e-5


def test_only_the_first_channel_is_used_minus_the_mean_of_all():
    left, right = noise(16000), noise(16000, seed=1)
    stereo = audio.prepare_audio(np.concatenate([left, right]), 16000, SPEC)
    other = audio.prepare_audio(np.concatenate([left, right[:, ::-1]]), 16000, SPEC)
    torch.testing.assert_close(stereo, other, rtol=0, atol=1e-4)
    mono = audio.prepare_audio(left, 16000, SPEC)
    # every window subtracts its mean again, except where the pre-emphasis repeats the first sample
    assert relative_l2(stereo, mono) < 0.05 and not torch.equal(stereo, mono)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_batched_sounds_match_single_sounds(rate):
    sounds = [
        torch.from_numpy(noise(n, channels=c)) for n, c in ((rate, 1), (rate // 40, 2), (7 * rate, 1), (3 * rate, 2))
    ]
    together = audio.kaldi_front_end_batch(sounds, rate, SPEC)
    alone = torch.stack([audio.prepare_audio(sound, rate, SPEC) for sound in sounds])
    assert together.shape == (4, 1, 512, 128)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    shorter = dataclasses.replace(SPEC, shape=(1, 64, 128))
    torch.testing.assert_close(audio.kaldi_front_end_batch(sounds, rate, shorter), together[:, :, :64])


def test_samples_after_the_last_frame_count_in_the_mean_only(monkeypatch):
    framed, log_mel = [], audio.kaldi_log_mel
    monkeypatch.setattr(audio, "kaldi_log_mel", lambda x, *rest: (framed.append(x), log_mel(x, *rest))[1])
    long = noise(60 * 16000)
    result = audio.prepare_audio(long, 16000, SPEC)
    assert framed[0].shape == (1, 511 * 160 + 400)
    whole = log_mel(torch.from_numpy(long - long.mean()), 16000)[:, :512]
    torch.testing.assert_close(result, (whole + 4.2677393) / (2 * 4.5689974), rtol=1e-4, atol=1e-4)


def test_a_batch_of_sounds_takes_mono_and_must_not_be_empty():
    mono = torch.from_numpy(noise(8000))
    together = audio.kaldi_front_end_batch([mono[0], mono], 16000, SPEC)
    assert torch.equal(together[0], together[1])
    with pytest.raises(InputError, match="no sound"):
        audio.kaldi_front_end_batch([], 16000, SPEC)


def test_a_sample_rate_other_than_the_records_is_an_error():
    sound = noise(44100)
    spec = AudioMAE(preset="tiny").audio_spec
    with pytest.raises(MediaError, match=r"44100 Hz.*16000 Hz"):
        audio.prepare_audio(sound, 44100, spec)
    assert audio.prepare_audio(sound, 44100, SPEC).shape == (1, 512, 128)
    assert not torch.allclose(
        audio.prepare_audio(sound, 44100, SPEC), audio.prepare_audio(sound, 16000, SPEC), atol=0.1
    )


def test_a_sound_shorter_than_a_window_is_an_error():
    with pytest.raises(MediaError, match="399 samples at 16000 Hz"):
        audio.prepare_audio(noise(399), 16000, SPEC)
    assert audio.prepare_audio(noise(400), 16000, SPEC).shape == (1, 512, 128)


# -- recipes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset, classes", [("dfew", 7), ("mafw", 11)])
def test_recipes_match_the_published_training(dataset, classes):
    recipe = read_recipe(Path(__file__).parent.parent / "dfer_zoo" / "recipes" / f"mma_dfer_{dataset}.toml")
    torch.manual_seed(0)
    options = {**recipe.model.args, **TINY}
    model = dfer_zoo.create_model(recipe.model.name, labels=recipe.model.labels or None, **options)
    assert model.labels == (LABELS + MORE_LABELS)[:classes]
    assert recipe.data.options["num_classes"] == classes and recipe.data.options["audio"] == dataset
    assert recipe.model.freeze == ("published",)
    model.freeze()
    model.train()
    assert all(p.training for p in paths(model))
    (group,) = create_optimizer(model, recipe).param_groups
    assert (group["lr"], group["weight_decay"], group["betas"]) == (1e-4, 1e-2, (0.9, 0.999))
    rates = [learning_rate(recipe.schedule, 1e-4, 10 * epoch + 9, 10, recipe.train.epochs) for epoch in range(25)]
    assert rates == pytest.approx([cosine(epoch, lr=1e-4, epochs=25) for epoch in range(25)])
