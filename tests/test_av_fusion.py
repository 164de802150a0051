"""av_fusion and efficient_face beyond the parity cases: files, missing modalities, clips, training."""

import random
import wave
from collections import OrderedDict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import dfer_zoo
from dfer_zoo.checkpoints import convert_checkpoint
from dfer_zoo.convert import convert_state_dict
from dfer_zoo.data.annotations import Row, read_row
from dfer_zoo.data.formats import read_audiovisual_list, read_ravdess
from dfer_zoo.errors import InputError, MediaError, WeightsError
from dfer_zoo.media.clip import Clip
from dfer_zoo.media.faces.crops import largest_box
from dfer_zoo.models.av_fusion import AVFusion
from dfer_zoo.models.efficient_face import EfficientFace
from dfer_zoo.training.mixing import MIXES, MODALITY_DROPOUT, soft_targets
from dfer_zoo.training.optim import create_optimizer, learning_rate
from dfer_zoo.training.recipe import read_recipe
from dfer_zoo.transforms import sampling
from dfer_zoo.transforms.audio import centre_crop_or_pad, mfcc, prepare_audio, sixteen_bits
from dfer_zoo.transforms.train.av_fusion import augment_frames
from tests.parity.making import seeded_input, seeded_state
from tests.parity.published import crop_faces
from tests.parity.runner import read_case

FOLDER = Path(__file__).parent / "parity"
TINY = {"img_size": 32, "num_frames": 3, "seconds": 1.0}
every_fusion = pytest.mark.parametrize("fusion", ["ia", "it", "lt"])


def case(name):
    return read_case(FOLDER / "av_fusion" / f"{name}.json")


def tiny(fusion="ia", seed=0, **changes):
    """A random model whose batch statistics let logits depend on the input in eval mode."""
    torch.manual_seed(seed)
    model = AVFusion(fusion=fusion, **{**TINY, **changes}).eval()
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.fill_(0.17)
    return model


def tiny_inputs(batch=2):
    generator = torch.Generator().manual_seed(1)
    return {
        "video": torch.rand(batch, 3, 3, 32, 32, generator=generator),
        "audio": torch.randn(batch, 10, 44, generator=generator),
    }


# -- files ---------------------------------------------------------------------------------------------------------------


def authors_file(path, name, prefix="module."):
    """Write a checkpoint in the format of the training script on a GPU."""
    state = seeded_state(case(name)["state_dict"], case(name)["weights"])
    content = {
        "epoch": 87,
        "arch": "multimodalcnn",
        "state_dict": OrderedDict((prefix + key, tensor) for key, tensor in state.items()),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.04, "params": [0, 1]}]},
        "best_prec1": torch.tensor(75.0),
    }
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("tag", "name", "heads"),
    [("ravdess_ia", "model_ia_heads1", {}), ("ravdess_lt", "model_lt_heads4", {"num_heads": 4})],
)
@torch.no_grad()
def test_a_converted_checkpoint_is_found_by_its_tag(tag, name, heads, tmp_path, monkeypatch):
    monkeypatch.setenv("DFER_ZOO_WEIGHTS", str(tmp_path / "store"))
    convert_checkpoint("av_fusion", tag, authors_file(tmp_path / "RAVDESS_multimodalcnn_15_best0.pth", name))
    model = dfer_zoo.create_model("av_fusion", pretrained=tag, **heads)
    assert model.labels[4] == "angry" and model.weights.tag == tag
    inputs = {key: seeded_input(value) for key, value in case(name)["inputs"].items()}
    reference = torch.tensor(case(name)["outputs"]["logits"])
    assert (model(**inputs) - reference).norm() <= case(name)["tolerance"]["logits"] * reference.norm()


@torch.no_grad()
def test_the_same_weights_take_fewer_frames(tmp_path, monkeypatch):
    monkeypatch.setenv("DFER_ZOO_WEIGHTS", str(tmp_path / "store"))
    convert_checkpoint("av_fusion", "ravdess_it", authors_file(tmp_path / "best0.pth", "model_it_heads1", prefix=""))
    model = dfer_zoo.create_model("av_fusion.ravdess_it", num_frames=4, seconds=1.0)
    batch = dfer_zoo.create_transform(model, faces="none").batch([numbered_clip(40, seconds=2.0)])
    assert batch["video"].shape == (1, 4, 3, 224, 224) and batch["audio"].shape == (1, 10, 44)
    assert model.video_spec.channel_order == "bgr" and model(**batch).shape == (1, 8)


@torch.no_grad()
def test_the_frame_encoder_loads_a_converted_efficient_face(tmp_path, monkeypatch):
    monkeypatch.setenv("DFER_ZOO_WEIGHTS", str(tmp_path / "store"))
    init = case("visual_init_from_efficientface")
    state = seeded_state(init["state_dict"], init["checkpoint"]["weights"])
    path = tmp_path / "EfficientFace_Trained_on_AffectNet7.pth.tar"
    torch.save({"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}, "best_acc": 63.7}, path)
    convert_checkpoint("efficient_face", "affectnet7", path)
    model = dfer_zoo.create_model("av_fusion", pretrained="backbone", fusion="it", num_classes=5)
    report = model.load_report
    assert len(report.loaded) == 416 and set(report.ignored) == {"classifier.weight", "classifier.bias"}
    assert set(report.loaded) | set(report.initialized) == set(model.state_dict())
    face = dfer_zoo.create_model("efficient_face.affectnet7")
    image = seeded_input(init["inputs"]["image"])
    assert torch.equal(model.face(image), face.forward_features(image))
    assert model.num_classes == 5


@pytest.mark.parametrize(
    ("arch", "state", "sentence"),
    [
        ("av_fusion", {"conv1.0.weight": 0, "fc.weight": 0}, "not a checkpoint of av_fusion.*av1.q.weight"),
        (
            "av_fusion",
            {"av.attn.q.weight": 0, "backbone.0": 0},
            "not a checkpoint of av_fusion: 1 of .*backbone.0",
        ),
        (
            "efficient_face",
            {"audio_model.conv1d_0.0.weight": 0},
            "not a checkpoint of efficient_face: 1 of .*audio_model",
        ),
        ("efficient_face", {"conv1.0.weight": 0}, "not a checkpoint of efficient_face.*'fc.weight'"),
    ],
)
def test_a_file_of_another_model_is_an_error(arch, state, sentence):
    with pytest.raises(WeightsError, match=sentence):
        convert_state_dict(arch, {key: torch.zeros(1) for key in state})


def test_a_wrong_backbone_does_not_change_the_model():
    model = tiny()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = EfficientFace(img_size=32).state_dict()
    del state["encoder.expand.conv.weight"]
    with pytest.raises(WeightsError, match="efficient_face: 1 "):
        model.load_backbones({"face": state})
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with pytest.raises(InputError, match="backbones face"):
        model.load_backbones({})


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_parameter_counts_are_the_published_ones_without_unused_layers():
    idle_classifiers = 2 * (128 * 8 + 8)
    idle_projections = 128 * 128 + 128 + 64 * 64 + 64
    assert parameters(AVFusion(fusion="ia")) == 1_854_766 - idle_classifiers - idle_projections
    assert parameters(AVFusion(fusion="it")) == 1_938_414 - idle_classifiers
    assert parameters(AVFusion(fusion="lt")) == 2_045_550 - idle_classifiers
    assert parameters(EfficientFace()) == 1_275_293


@pytest.mark.parametrize("arch", ["av_fusion", "efficient_face"])
def test_the_records_fit_their_models(arch):
    for _, tag in dfer_zoo.list_pretrained(arch):
        record = dfer_zoo.get_weights(arch, tag)
        model = dfer_zoo.create_model(arch, **record.model_args)
        assert parameters(model) == record.params and model.num_classes == len(record.labels)
        assert model.audio_spec == record.audio
        assert (model.video_spec.img_size, model.video_spec.num_frames) == (
            record.video.img_size,
            record.video.num_frames,
        )


# -- missing modalities --------------------------------------------------------------------------------------------------


@every_fusion
@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_a_missing_modality_equals_zeros(fusion, training):
    inputs = tiny_inputs()
    for name in inputs:
        by_none = tiny(fusion).train(training)(**{**inputs, name: None})
        by_zeros = tiny(fusion).train(training)(**{**inputs, name: torch.zeros_like(inputs[name])})
        torch.testing.assert_close(by_none, by_zeros)
        assert not torch.allclose(by_none, tiny(fusion).train(training)(**inputs))


@torch.no_grad()
def test_missing_frames_leave_the_same_batch_statistics_as_zeros():
    one, other = tiny().train(), tiny().train()
    audio = tiny_inputs()["audio"]
    one(audio=audio), other(video=torch.zeros(2, 3, 3, 32, 32), audio=audio)
    for name, value in other.state_dict().items():
        torch.testing.assert_close(one.state_dict()[name], value, msg=name)


def test_two_missing_modalities_and_different_batch_sizes_are_errors():
    with pytest.raises(InputError, match="both None"):
        tiny()()
    with pytest.raises(InputError, match=r"batch size.* 2 and 3"):
        tiny()(video=tiny_inputs(2)["video"], audio=tiny_inputs(3)["audio"])


# -- the network ---------------------------------------------------------------------------------------------------------


@every_fusion
@torch.no_grad()
def test_encoded_frames_can_be_reused(fusion):
    model, inputs = tiny(fusion), tiny_inputs()
    frames = model.encode_frames(inputs["video"])
    assert torch.equal(model.fuse(frames, inputs["audio"]), model.forward_features(**inputs))


@pytest.mark.graph
@pytest.mark.parametrize("fusion", ["it", "lt"])  # "ia" is in the contract of all models
@torch.no_grad()
def test_the_other_fusions_compile_as_one_graph(fusion):
    model, inputs = tiny(fusion), tiny_inputs()
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="eager")(**inputs), model(**inputs))


@pytest.mark.graph
@torch.no_grad()
def test_a_model_for_sound_alone_can_be_exported():
    model, audio = tiny(), tiny_inputs()["audio"]
    program = torch.export.export(model, (), {"audio": audio}).module()
    torch.testing.assert_close(program(audio=audio), model(audio=audio))


@every_fusion
def test_checkpointing_counts_a_batch_once_in_the_statistics(fusion):
    plain, saving = tiny(fusion).train(), tiny(fusion).train()
    saving.set_grad_checkpointing()
    inputs = tiny_inputs()
    for model in (plain, saving):
        model(**inputs).square().sum().backward()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(saving.state_dict()[name], value, msg=name)
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(saving.get_parameter(name).grad, parameter.grad, msg=name)


def test_the_attention_gates_sum_to_the_time_steps_of_the_other_modality():
    model = tiny("ia")
    frames, sound = torch.randn(2, 64, 3), torch.randn(2, 128, 38)
    weighted_frames, _ = model.gate(frames, sound)
    gate = (weighted_frames / frames)[:, 0]
    torch.testing.assert_close(gate.sum(1), torch.full((2,), 38.0))
    assert torch.allclose(weighted_frames, frames * gate[:, None])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"fusion": "early"}, "fusion is 'early'.*'ia'"),
        ({"num_heads": 3}, "num_heads is 3;"),
        ({"fusion": "ia", "num_heads": 128}, "num_heads is 128;.* 64"),
        ({"img_size": 100}, "img_size is 100;.* 16"),
        ({"num_heads": 2.0}, "num_heads is 2.0;"),
        ({"num_heads": "1"}, "num_heads is '1';"),
        ({"seconds": float("nan")}, "nan seconds"),
        ({"seconds": 0.2}, "0.2 seconds.* 9 MFCC frames"),
        ({"num_frames": 0}, "num_frames is 0"),
    ],
)
def test_invalid_sizes_are_errors(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        AVFusion(**arguments)


# -- from a clip to tensors ----------------------------------------------------------------------------------------------


def numbered_clip(frames, fps=30.0, seconds=None, rate=48000):
    """Frame n has the value n in blue and a size of 40 x 60."""
    images = np.zeros((frames, 40, 60, 3), np.uint8)
    images[..., 2] = np.arange(frames)[:, None, None]
    sound = None if seconds is None else 0.1 * np.sin(np.arange(int(seconds * rate)) / 20).astype(np.float32)
    return Clip.from_arrays(images, sound, fps=fps, sample_rate=rate if seconds else None)


@torch.no_grad()
def test_a_clip_becomes_bgr_frames_and_mfccs():
    model = AVFusion()
    sample = dfer_zoo.create_transform(model, faces="none")(numbered_clip(100, seconds=4.0))
    assert sample["video"].shape == (15, 3, 224, 224) and sample["audio"].shape == (10, 156)
    levels = [3, 10, 17, 24, 31, 39, 46, 53, 60, 67, 75, 82, 89, 96, 0]  # the last lies behind the clip's end: black
    assert sample["video"][:, 0, 0, 0].mul(255).round().int().tolist() == levels
    assert sample["video"][:, 1:].abs().sum() == 0


@torch.no_grad()
def test_efficient_face_samples_five_frames_per_second():
    model = EfficientFace()
    clip = numbered_clip(100)
    assert [view[0] for view in dfer_zoo.create_transform(model, faces="none").plan(clip).views] == [*range(0, 100, 6)]
    image = dfer_zoo.create_transform(model, faces="none")(clip)["image"]
    mean, std = (torch.tensor(values) for values in (model.video_spec.mean, model.video_spec.std))
    assert image.shape == (3, 224, 224)
    torch.testing.assert_close(image[:, 0, 0] * std + mean, torch.tensor([0.0, 0.0, 48 / 255]), atol=1e-6, rtol=0)
    assert model.eval()(image[None]).shape == (1, 7)


@torch.no_grad()
def test_a_clip_without_sound_goes_through_transform_and_model():
    model = AVFusion()
    batch = dfer_zoo.create_transform(model, faces="none").batch([numbered_clip(120)])
    assert batch["audio"] is None
    assert model.eval()(**batch).shape == (1, 8)


def test_the_window_counts_thirty_frames_per_second():
    spec = AVFusion().video_spec
    ntsc = sampling.indices(150, 30000 / 1001, spec)
    assert ntsc == sampling.indices(150, 30.0, spec) == sampling.indices(150, None, spec)
    assert sampling.indices(300, 60.0, spec)[:3] == [6, 20, 34]
    assert sampling.indices(90, 25.0, spec)[-1] == 86


def test_centred_sampling_takes_frames_and_sound_of_the_same_time():
    spec = dfer_zoo.create_transform(AVFusion(), sampling="centred_window", faces="none").video
    aligned, published = sampling.indices(150, 30.0, spec), sampling.indices(150, 30.0, AVFusion().video_spec)
    assert [index - 21 for index in aligned] == published  # half of the 42 frames that are too many
    seconds, rate = 5.0, 22050
    sound = centre_crop_or_pad(torch.arange(int(seconds * rate)), 79380)
    assert abs(sound[0].item() / rate - 21 / 30) < 1 / 30
    assert sampling.indices(100, 30.0, spec) == sampling.indices(100, 30.0, AVFusion().video_spec)


def test_a_prepared_sound_file_is_not_resampled():
    saved = sixteen_bits(0.2 * torch.sin(torch.arange(79380) / 15))
    assert torch.equal(prepare_audio(saved.numpy(), 22050, AVFusion().audio_spec), mfcc(saved, 22050))


def test_prepared_files_are_read_unchanged(tmp_path):
    saved = np.random.RandomState(0).randint(0, 256, (15, 224, 224, 3)).astype(np.uint8)  # blue first
    np.save(tmp_path / "01_facecroppad.npy", saved)
    samples = np.random.RandomState(1).randint(-9000, 9000, 79380).astype("<i2")
    with wave.open(str(tmp_path / "03_croppad.wav"), "wb") as file:
        file.setparams((1, 2, 22050, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    clip = read_row(Row(str(tmp_path / "01_facecroppad.npy"), 0, str(tmp_path / "03_croppad.wav")))
    sample = dfer_zoo.create_transform(AVFusion(), faces="none")(clip)
    assert np.array_equal(sample["video"].mul(255).round().byte().permute(0, 2, 3, 1).numpy(), saved)
    assert torch.equal(sample["audio"], mfcc(torch.from_numpy(samples.astype(np.float32) / 32768), 22050))


def test_boxes_are_clipped_to_the_frame():
    assert largest_box((-3.6, 2.5, 50.5, 300.0), 60, 40) == (0, 2, 50, 38)
    with pytest.raises(MediaError, match="60 x 40"):
        largest_box((61.0, 2.0, 70.0, 30.0), 60, 40)


def test_the_first_frame_needs_a_face():
    frames = [np.zeros((40, 60, 3), np.uint8)] * 2
    assert [face.shape for face in crop_faces(frames, [(1, 1, 9, 9), None], 16)] == [(16, 16, 3)] * 2
    with pytest.raises(MediaError, match="frame 0"):
        crop_faces(frames, [None, (1, 1, 9, 9)], 16)


# -- training ------------------------------------------------------------------------------------------------------------


def test_all_frames_of_a_clip_are_rotated_by_the_same_angle():
    rng = np.random.RandomState(0)
    frame = rng.randint(0, 256, (32, 32, 3)).astype(np.uint8)
    turned = augment_frames([frame] * 3, rng=random.Random(3))
    assert all(np.array_equal(turned[0], other) for other in turned) and not np.array_equal(turned[0], frame)


@pytest.mark.parametrize(("mode", "rows"), [("softhard", 8), ("noise", 6), ("nodropout", 2)])
def test_modality_dropout_draws_from_torchs_generator_in_the_published_order(mode, rows):
    inputs, targets = tiny_inputs(), torch.tensor([3, 5])
    inputs["video"] = torch.rand(2, 4, 3, 32, 32)  # not as many frames as colours
    given = {}
    torch.manual_seed(4)
    if mode == "softhard":
        given = {"shares": torch.randint(0, 100, (2, 1, 1)), "order": torch.randperm(8)}
    elif mode == "noise":
        given = {"audio_noise": torch.randn(2, 10, 44)}
        given["video_noise"] = torch.randn(2, 3, 4, 32, 32).transpose(
            1, 2
        )  # drawn as the published clips lie: colours first
        given["order"] = torch.randperm(6)
    torch.manual_seed(4)
    drawn = MODALITY_DROPOUT[mode](inputs["video"], inputs["audio"], targets)
    expected = MODALITY_DROPOUT[mode](inputs["video"], inputs["audio"], targets, **given)
    assert [len(part) for part in drawn] == [rows] * 3
    assert all(torch.equal(a, b) for a, b in zip(drawn, expected))


@pytest.mark.parametrize("mix", ["modality_dropout", "drop_modalities"])
def test_modality_dropout_needs_both_modalities(mix):
    inputs, targets = tiny_inputs(), torch.tensor([3, 5])
    soft = partial(soft_targets, num_classes=8)
    with pytest.raises(InputError, match=f"'{mix}' .*no audio"):
        MIXES[mix]({**inputs, "audio": None}, targets, soft)
    with pytest.raises(InputError, match="no audio"):
        MIXES[mix]({"video": inputs["video"]}, targets, soft)
    with pytest.raises(InputError, match="no video and no audio"):
        MIXES[mix]({"image": inputs["video"][:, 0]}, targets, soft)


def test_the_recipe_has_the_published_learning_rates():
    recipe = read_recipe(Path(__file__).parent.parent / "dfer_zoo" / "recipes" / "av_fusion_ravdess.toml")
    for epoch, rate in case("metrics_and_schedule")["outputs"]["learning_rate_by_epoch"].items():
        update = 10 * (int(epoch) - 1)
        for within in (0, 9):
            ours = learning_rate(recipe.schedule, recipe.optimizer.lr, update + within, 10, recipe.train.epochs)
            assert ours == pytest.approx(rate)
    published = case("train_steps_ia")["optimiser"]
    group = create_optimizer(tiny(), recipe).param_groups[0]
    assert all(group[name] == published[name] for name in ("lr", "momentum", "dampening", "weight_decay", "nesterov"))


def test_a_permutation_of_the_wrong_length_is_an_error():
    inputs = tiny_inputs()
    with pytest.raises(InputError, match=r"order must be \(8,\)"):
        MODALITY_DROPOUT["softhard"](inputs["video"], inputs["audio"], torch.tensor([0, 1]), order=torch.randperm(6))


# -- data ----------------------------------------------------------------------------------------------------------------


def test_the_list_of_clips_is_read_by_subset(tmp_path):
    path = tmp_path / "annotations.txt"
    path.write_text("a/f.npy;a/s.wav;3;testing\n\nb/f.npy;b/s.wav;8;training\n")
    rows = read_audiovisual_list(path, root="/data")
    assert [(r.path, r.audio, r.label, r.subset) for r in rows] == [
        ("/data/a/f.npy", "/data/a/s.wav", 2, "testing"),
        ("/data/b/f.npy", "/data/b/s.wav", 7, "training"),
    ]
    assert read_audiovisual_list(path, subset="validation") == []
    for line in ("a.npy;a.wav;0;testing", "a.npy;a.wav;3;test", "a.npy a.wav 3 testing"):
        path.write_text(line)
        with pytest.raises(InputError, match=r"line 1: .*'faces;sound;label;subset'"):
            read_audiovisual_list(path)


def test_ravdess_is_split_by_actor_and_labelled_by_name(tmp_path):
    for actor in (1, 5, 11):
        folder = tmp_path / f"ACTOR{actor:02}"
        folder.mkdir()
        for name in (f"01-01-08-01-01-01-{actor:02}.mp4", f"02-01-08-01-01-01-{actor:02}.mp4"):
            (folder / name).touch()
    (tmp_path / "ACTOR05" / "03-01-08-01-01-01-05.wav").touch()
    rows = read_ravdess(tmp_path)
    assert len(rows) == 6 and {row.label for row in rows} == {7}
    assert [row.subset for row in rows] == ["training"] * 2 + ["testing"] * 2 + ["validation"] * 2
    tested = read_ravdess(tmp_path, subset="testing")
    assert {row.audio for row in tested} == {str(tmp_path / "ACTOR05" / "03-01-08-01-01-01-05.wav")}
    assert rows[0].audio is None
    with pytest.raises(InputError, match="testing and validation"):
        read_ravdess(tmp_path, testing=(1,), validation=(1,))
    (tmp_path / "holiday.mp4").touch()
    with pytest.raises(InputError, match=r"holiday.*RAVDESS"):
        read_ravdess(tmp_path)
