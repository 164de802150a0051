"""S2D beyond its parity cases: records, files, the network, training, and clips on disk."""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dfer_zoo
from dfer_zoo import cli
from dfer_zoo.convert import convert_state_dict
from dfer_zoo.data.annotations import read_rows
from dfer_zoo.errors import InputError, WeightsError, WeightsUnavailable
from dfer_zoo.models.anchors import EmotionAnchors
from dfer_zoo.models.base import skip_init
from dfer_zoo.models.mobile_face_net import MobileFaceNet
from dfer_zoo.models.s2d import GRID, S2D, Fovea, S2DImage
from dfer_zoo.registry import get_weights, list_pretrained, manifest, model_class
from dfer_zoo.training.batches import draw_balanced
from tests.media_files import test_pattern
from tests.parity.checks.s2d import our_arguments, video_input
from tests.parity.compare import relative_l2
from tests.parity.making import seeded_state
from tests.parity.runner import read_case
from tests.tiny import TINY

CASES = Path(__file__).parent / "parity" / "s2d"


def tiny(seed=0, **changes):
    torch.manual_seed(seed)
    return S2D(**{**TINY["s2d"], **changes}).eval()


# -- records -----------------------------------------------------------------------------------------------------------


def test_every_record_fits_its_model():
    for arch in ("s2d", "s2d_image", "mobile_face_net"):
        for _, tag in list_pretrained(arch):
            record = get_weights(arch, tag)
            with torch.device("meta"), skip_init():
                model = model_class(arch)(**record.model_args)
            assert sum(p.numel() for p in model.parameters()) == record.params
            assert model.video_spec == record.video
            assert model.num_classes == len(record.labels)


def test_every_list_has_weights_of_both_samplings_and_its_own_order_of_labels():
    tags = {tag for _, tag in list_pretrained("s2d")}
    lists = {"ferv39k", *(f"{data}_fold{fold}" for data in ("dfew", "mafw") for fold in range(1, 6))}
    assert tags == {"backbone", *lists, *(f"{name}_oversampled" for name in lists)}
    first = {data: get_weights("s2d", tag).labels[0] for data, tag in (("dfew", "dfew_fold3"), ("mafw", "mafw_fold3"))}
    assert first == {"dfew": "happy", "mafw": "anger"}
    assert get_weights("s2d.ferv39k").labels == tuple(sorted(get_weights("s2d.dfew_fold1").labels))


def test_the_folds_have_the_published_means():
    """The authors' README gives 74.81 as mean WAR of DFEW with oversampling; the mean of its five numbers is 75.01."""
    for tags, uar, war in (
        ("dfew_fold{}", 61.82, 76.03),
        ("dfew_fold{}_oversampled", 65.45, 75.01),
        ("mafw_fold{}", 41.86, 57.37),
        ("mafw_fold{}_oversampled", 43.40, 55.22),
    ):
        numbers = [{m.name: m.value for m in get_weights("s2d", tags.format(k)).metrics} for k in range(1, 6)]
        assert np.mean([n["uar"] for n in numbers]) == pytest.approx(uar, abs=0.011)
        assert np.mean([n["war"] for n in numbers]) == pytest.approx(war, abs=0.011)


# -- files -------------------------------------------------------------------------------------------------------------


def authors_file(path, state, key="model"):
    """Write a checkpoint in the format of the training script: no optimizer, options as a Namespace."""
    content = {key: state, "optimizer": None, "epoch": 61, "scaler": {"scale": 65536.0}}
    torch.save({**content, "args": argparse.Namespace(model="vit_base", lr=1e-5)}, path)
    return str(path)


@pytest.fixture
def case(monkeypatch, tmp_path):
    """A small case, with records of its sizes in the manifest and an empty store."""
    monkeypatch.setenv("DFER_ZOO_WEIGHTS", str(tmp_path / "store"))
    monkeypatch.setenv("DFER_ZOO_DOWNLOAD", "never")
    case = read_case(CASES / "small_base.json")
    arguments = our_arguments(case["config"])
    with skip_init():
        models = {"s2d": S2D(**arguments)}
        sizes = {n: v for n, v in arguments.items() if n in ("img_size", "patch_size", "width", "depth", "num_heads")}
        models["s2d_image"] = S2DImage(**sizes)
    for arch, tag in (("s2d", "dfew_fold1"), ("s2d_image", "affectnet7")):
        published, model = get_weights(arch, tag), models[arch]
        record = dataclasses.replace(
            published,
            params=sum(p.numel() for p in model.parameters()),
            model_args={**published.model_args, **model.config()},
            video=model.video_spec,
        )
        monkeypatch.setitem(manifest(), (arch, tag), record)
    return case


def model_state(case):
    return seeded_state(case["state_dict"], case["weights"]["model"])


def convert_landmarks(case, tmp_path):
    state = seeded_state(case["landmark_state_dict"], case["weights"]["landmark"])
    path = tmp_path / "mobilefacenet_model_best.pth.tar"
    torch.save({"epoch": 88, "state_dict": state, "acc": 0, "best_acc": 0}, path, _use_new_zipfile_serialization=False)
    assert cli.main(["convert", "mobile_face_net", "landmarks68", str(path)]) == 0


@torch.no_grad()
def test_both_authors_files_are_converted_once_and_give_the_published_logits(case, tmp_path):
    convert_landmarks(case, tmp_path)
    file = authors_file(tmp_path / "checkpoint-best.pth", model_state(case))
    assert cli.main(["convert", "s2d", "dfew_fold1", file]) == 0
    (tmp_path / "checkpoint-best.pth").unlink()

    model = dfer_zoo.create_model("s2d.dfew_fold1")
    assert model.labels[6] == "fear" and model.weights.tag == "dfew_fold1"
    reference = case["outputs"]["09_logits"]["full"]["values"]
    logits = model(video_input(case)).flatten()
    assert relative_l2(logits, reference) <= case["tolerance"]["feature_and_logits"]


def test_the_error_without_a_landmark_network_says_how_to_get_it(case, tmp_path, capsys):
    file = authors_file(tmp_path / "checkpoint-best.pth", model_state(case))
    assert cli.main(["convert", "s2d", "dfew_fold1", file]) != 0
    error = capsys.readouterr().err
    assert "'landmarks'" in error and "dfer-zoo convert mobile_face_net landmarks68" in error
    with pytest.raises(WeightsUnavailable):
        dfer_zoo.create_model("s2d.dfew_fold1")


def test_a_training_of_your_own_is_converted_with_the_landmark_network(case, tmp_path):
    convert_landmarks(case, tmp_path)
    file = authors_file(tmp_path / "own.pth", model_state(case))
    path = dfer_zoo.checkpoints.convert_own("s2d", file, tmp_path / "own", num_heads=4)
    model = dfer_zoo.create_model(f"local-dir:{path.parent}")
    assert model.config()["num_frames"] == 4
    stored = dfer_zoo.create_model("mobile_face_net.landmarks68")
    assert torch.equal(model.landmarks.stem.conv.weight, stored.features.stem.conv.weight)


def test_training_starts_from_the_image_model(case, tmp_path):
    convert_landmarks(case, tmp_path)
    image = {n: v for n, v in model_state(case).items() if not ("TMA" in n or n.startswith(("temporal", "head")))}
    image = {n.replace("ln_post", "norm"): v for n, v in image.items()}
    image |= {"head.weight": torch.zeros(7, 64), "head.bias": torch.zeros(7), "weak_head.weight": torch.zeros(7, 64)}
    file = authors_file(tmp_path / "pretrain-AffectNet-7.pth", image, key="model_state_dict")
    assert cli.main(["convert", "s2d_image", "affectnet7", file]) == 0

    sizes = {n: v for n, v in our_arguments(case["config"]).items() if n != "num_classes"}
    model = dfer_zoo.create_model("s2d", pretrained="backbone", labels=("calm", "excited"), **sizes)
    source, own = dfer_zoo.create_model("s2d_image.affectnet7").state_dict(), model.state_dict()
    assert set(model.load_report.loaded) == source.keys()
    assert all(torch.equal(own[name], value) for name, value in source.items())
    assert all(
        n == "temporal_positions" or ".adapter." in n or "classifier" in n for n in model.load_report.initialized
    )


def test_a_backbone_that_does_not_fit_is_an_error_and_loads_nothing():
    model, image = tiny(), S2DImage(**TINY["s2d_image"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = image.state_dict()
    del state["encoder.blocks.1.mlp.fc1.weight"]
    for states, sentence in (
        ({"image": state}, r"1 missing \(encoder.blocks.1.mlp.fc1.weight\)"),
        ({"image": S2DImage(**{**TINY["s2d_image"], "width": 64}).state_dict()}, "of another shape"),
    ):
        with pytest.raises(WeightsError, match=sentence):
            model.load_backbones(states)
    with pytest.raises(InputError, match=r"backbones image;.*face"):
        model.load_backbones({"face": state})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_landmark_network_in_the_same_state_dict_is_converted():
    case = read_case(CASES / "small_base.json")
    state = model_state(case) | seeded_state(case["landmark_state_dict"], case["weights"]["landmark"])
    conversion = convert_state_dict("s2d", state)
    assert conversion.state.keys() == S2D(**our_arguments(case["config"])).state_dict().keys()
    assert "output_layer.linear.weight" in conversion.dropped


def test_the_error_names_the_kind_of_a_wrong_file():
    state = model_state(read_case(CASES / "small_base.json"))
    with pytest.raises(WeightsError, match="not a checkpoint of s2d_image but of s2d"):
        convert_state_dict("s2d_image", state)
    del state["temporal_embedding"]
    with pytest.raises(WeightsError, match="s2d_image"):
        convert_state_dict("s2d", state)


# -- the network -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_every_frame_and_its_position_matter():
    model, video = tiny(), torch.randn(1, 3, 3, 56, 56)
    logits = model(video)
    for other in (video.flip(1), torch.cat([video[:, :2], video[:, :1]], dim=1)):
        assert not torch.allclose(model(other), logits, rtol=0, atol=1e-6)


@torch.no_grad()
def test_clips_of_a_batch_are_independent():
    model, clips = tiny(), torch.randn(2, 3, 3, 56, 56)
    torch.testing.assert_close(model(clips), torch.cat([model(clips[:1]), model(clips[1:])]))


@torch.no_grad()
def test_a_fovea_of_zero_scales_nothing():
    fovea, x = Fovea(), torch.randn(2, 9, 4)
    fovea.smooth.zero_()
    torch.testing.assert_close(fovea(x), x.softmax(1) * x)


@torch.no_grad()
def test_frames_of_112_pixels_enter_the_landmark_network_as_they_are():
    torch.manual_seed(0)
    model = S2DImage(img_size=112, patch_size=8, width=32, depth=1, num_heads=2).eval()
    seen = []
    model.landmarks.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = torch.randn(1, 3, 112, 112)
    model(image)
    assert torch.equal(seen[0], image)


def test_the_landmark_network_is_frozen():
    model = tiny().train()
    before = {name: value.clone() for name, value in model.landmarks.state_dict().items()}
    model(torch.randn(2, 3, 3, 56, 56)).sum().backward()
    assert all(p.grad is None for p in model.landmarks.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.landmarks.state_dict().items())
    assert not any(module.training for module in model.landmarks.modules())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"img_size": 64}, "img_size is 64 and patch_size 4;.*img_size=56"),
        ({"img_size": 56.0}, "img_size is 56.0;"),
        ({"num_frames": 0}, "num_frames is 0"),
        ({"width": 33}, "width is 33;.*num_heads, 2"),
        ({"adapter_scale": 0.3}, "adapter_scale is 0.3, 9 of 32 channels;"),
        ({"prompts": "wide"}, "prompts is 'wide';.*deep, shallow, none"),
        ({"pooling": "avg"}, "pooling is 'avg';.*token, average"),
        ({"anchors": -1}, "anchors is -1"),
    ],
)
def test_a_wrong_option_is_an_error(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        tiny(**changes)


# -- training ----------------------------------------------------------------------------------------------------------


def test_the_published_training_updates_prompts_adapters_last_norm_and_head():
    model = tiny()
    model.freeze()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in trained} == {
        *("prompt_blocks", "prompt_norms", "landmark_embed", "temporal_positions", "encoder", "classifier"),
    }
    assert {name for name in trained if name.startswith("encoder.")} == {"encoder.norm.weight", "encoder.norm.bias"}


def test_distillation_starts_late_and_anchors_update_on_request():
    targets, video = torch.tensor([0, 3]), {"video": torch.randn(2, 3, 3, 56, 56)}
    for updates in (False, True):
        model = tiny(anchors=3, update_anchors=updates)
        plain = torch.nn.functional.cross_entropy(model(**video), targets)
        before = model.anchors.features.clone()
        early, _ = model.training_loss(video, targets, torch.nn.functional.cross_entropy, epoch=20)
        assert torch.equal(early, plain) and torch.equal(model.anchors.features, before)
        late, _ = model.training_loss(video, targets, torch.nn.functional.cross_entropy, epoch=80)
        assert late > plain
        moved = (model.anchors.features != before).flatten(1).any(1)
        assert moved.tolist() == [updates and label in targets for label in range(7)]
        late.backward()
        assert model.classifier.weight.grad.isfinite().all()


def test_a_new_head_has_anchors_for_its_classes():
    model = tiny(anchors=4)
    model.reset_classifier(("calm", "excited"))
    assert model.anchors.features.shape == (2, 4, 32) and model.anchors.probabilities.shape == (2, 4, 2)
    assert model.anchors.features.min() >= 0 and model.anchors.features.max() <= 1


def test_soft_targets_are_the_probabilities_of_the_nearest_anchors():
    anchors = EmotionAnchors(2, 3, size=2, nearest=1)
    anchors.features = torch.tensor([[[1.0, 0, 0], [0, 1, 0]], [[0, 0, 1], [0, 0, 2]]])
    anchors.probabilities = torch.tensor([[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.4, 0.6]]])
    soft = anchors.soft_targets(torch.tensor([[5.0, 0, 0]]))  # the other class is at a right angle, so counts nothing
    torch.testing.assert_close(soft, torch.tensor([[0.9, 0.1]]))


def test_balanced_sampling_draws_rare_classes_as_often_as_frequent_ones():
    labels = [0] * 900 + [1] * 90 + [2] * 10
    drawn = draw_balanced(labels, np.random.default_rng(0))
    assert len(drawn) == 1000
    counts = np.bincount([labels[i] for i in drawn])
    assert counts.min() > 280


# -- landmarks ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_landmarks_are_points_and_their_features_have_the_grid_of_the_patches():
    model = MobileFaceNet().eval()
    image = torch.randn(2, 3, 112, 112)
    assert model(image).shape == (2, 68, 2)
    assert model.features(image).shape == (2, 128, GRID, GRID)


# -- clips -------------------------------------------------------------------------------------------------------------


def frames_folder(path, count, seed=0):
    """A folder of frames, named as in the data sets."""
    path.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(1, count + 1):
        Image.fromarray(rng.integers(0, 256, (60, 60, 3), dtype=np.uint8)).save(path / f"{number:05d}.png")
    return path


@pytest.mark.parametrize("header", ["video_name,label", "video_name,labels", "path,id"])
def test_lists_keep_names_as_text_and_labels_in_their_order(tmp_path, header):
    (tmp_path / "test.csv").write_text(f"{header}\n00017,3\nWar/Neutral/0120,0\n", encoding="utf-8")
    rows = read_rows(tmp_path / "test.csv", get_weights("s2d.dfew_fold1").labels, root="/frames", order="string")
    found = [(row.path, row.label, row.order) for row in rows]
    assert found == [("/frames/00017", 3, "string"), ("/frames/War/Neutral/0120", 0, "string")]


def test_a_long_clip_has_two_views_and_a_short_one_repeats_its_last_frame():
    model = tiny()
    transform = dfer_zoo.create_transform(model, faces="none")
    frames = np.arange(8, dtype=np.uint8)[:, None, None, None] * np.ones((60, 60, 3), dtype=np.uint8)
    spec = model.video_spec

    def brightness(count):
        views = transform.views(dfer_zoo.Clip.from_arrays(frames[:count], fps=25))
        return [[round(float(f[0].mean() * spec.std[0] + spec.mean[0]) * 255) for f in v["video"]] for v in views]

    assert brightness(8) == [[0, 1, 2], [5, 6, 7]]
    assert brightness(2)[0] == [0, 1, 1]


def test_a_video_file_is_predicted_from_the_command_line(tmp_path, capsys):
    dfer_zoo.save_pretrained(tiny(), tmp_path / "weights")
    clip = test_pattern(tmp_path / "clip.mp4", seconds=1, rate=12)
    model = f"local-dir:{tmp_path / 'weights'}"
    assert cli.main(["predict", str(clip), "--model", model, "--faces", "none"]) == 0
    assert "clip.mp4" in capsys.readouterr().out


def test_a_list_of_clips_is_evaluated_from_the_command_line(tmp_path, capsys):
    dfer_zoo.save_pretrained(tiny(), tmp_path / "weights")
    for number, count in (("00017", 5), ("00018", 2)):
        frames_folder(tmp_path / "frames" / number, count, seed=count)
    (tmp_path / "test.csv").write_text("video_name,label\n00017,3\n00018,0\n")
    arguments = [f"local-dir:{tmp_path / 'weights'}", str(tmp_path / "test.csv"), "--root", str(tmp_path / "frames")]
    assert cli.main(["evaluate", *arguments]) == 0
    assert "UAR" in capsys.readouterr().out


def test_a_training_clip_has_the_shape_of_the_models_input():
    from dfer_zoo.transforms.train import augmentation

    transform = dfer_zoo.create_transform(tiny(), faces="none")
    frames = np.random.default_rng(0).integers(0, 256, (8, 60, 60, 3), dtype=np.uint8)
    sample = augmentation("s2d", transform)(dfer_zoo.Clip.from_arrays(frames, fps=25))
    assert sample["video"].shape == (3, 3, 56, 56)
