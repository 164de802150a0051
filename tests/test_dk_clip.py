"""DK-CLIP beyond its parity cases: files, prompts, still clips, training, and mixing."""

import json
import math
import random
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

import dfer_zoo
from dfer_zoo.checkpoints import convert_own, read_checkpoint
from dfer_zoo.convert import convert_parts, convert_state_dict
from dfer_zoo.convert.dk_clip import our_name
from dfer_zoo.errors import InputError, WeightsError
from dfer_zoo.media.clip import ArrayFrames, Clip
from dfer_zoo.media.resize import RESIZES, shorter_side_size
from dfer_zoo.models.base import load_strictly, skip_init
from dfer_zoo.models.dk_clip import DKCLIP, PROMPTS, kept_mean, l2_normalize, weigh_snippets
from dfer_zoo.training.mixing import MIXES, fourier_mask, mix_clips, soft_targets
from dfer_zoo.transforms import create_transform
from dfer_zoo.transforms.images import prepare_video, three_crops
from dfer_zoo.transforms.train import augmentation
from dfer_zoo.transforms.train.dk_clip import DKCLIPTrainTransform, jitter_colors, random_views, train_indices
from tests.parity.checks.dk_clip import inputs_of, whole
from tests.parity.compare import relative_l2
from tests.parity.making import seeded_state
from tests.parity.published import dk_clip_groups
from tests.parity.runner import check_file, read_case
from tests.tiny import TINY

CASES = Path(__file__).parent / "parity" / "dk_clip"


@pytest.fixture(autouse=True)
def seeds():
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


@pytest.fixture(scope="module")
def case():
    return read_case(CASES / "tiny_t16_n4_7.json")


@pytest.fixture
def authors_state(case):
    return seeded_state(case["state_dict"], case["weights"]["seed"])


@pytest.fixture
def model():
    """A tiny model whose output depends on every parameter."""
    return perturbed(dfer_zoo.create_model("dk_clip", **TINY["dk_clip"]))


def perturbed(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def videos(model, batch=2):
    shape = (batch, model.video_spec.num_frames, 3, model.video_spec.img_size, model.video_spec.img_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


# -- sizes and files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("patch_size", "count"), [(16, 315_983_873), (32, 317_527_553)])
def test_parameter_counts_are_the_published_ones(patch_size, count):
    with skip_init():
        model = DKCLIP(patch_size=patch_size)
    assert sum(p.numel() for p in model.parameters()) == count


def test_every_published_entry_is_renamed_once_including_those_of_open_clip():
    table = {name: tuple(e["shape"]) for name, e in read_case(CASES / "dfew7_vitb16.json")["state_dict"].items()}
    with skip_init():
        own = {name: tuple(tensor.shape) for name, tensor in DKCLIP().state_dict().items()}
    assert {our_name(name): shape for name, shape in table.items()} == own
    assert len(table) == len(own) == 690
    with torch.device("meta"):
        config = open_clip.get_model_config("ViT-B-16-quickgelu")
        clip = open_clip.CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"], quick_gelu=True)
    theirs = {name: tuple(tensor.shape) for name, tensor in clip.state_dict().items()}
    assert len(theirs) == 302
    assert all(table[name] == shape for name, shape in theirs.items())


@torch.no_grad()
def test_a_checkpoint_of_the_released_training_gives_the_published_logits(case, authors_state, tmp_path):
    training = {"model": authors_state, "optimizer": {"state": {}}, "max_accuracy": 75.4, "epoch": 28}
    torch.save(training, tmp_path / "best.pth")
    conversion = convert_state_dict("dk_clip", read_checkpoint(tmp_path / "best.pth"))
    model = dfer_zoo.create_model("dk_clip", **conversion.model_args)
    load_strictly(model, conversion.state, "best.pth")
    dfer_zoo.save_pretrained(model, tmp_path / "mine")

    again = dfer_zoo.create_model(f"local-dir:{tmp_path / 'mine'}")
    assert again.labels == model.labels and again.prompts == tuple(case["texts"])
    logits = again(inputs_of(case)["video"])
    tolerance = case["tolerance"]["relative_l2_per_output"]["logits"]
    assert relative_l2(logits, whole(case["outputs"]["logits"])) <= tolerance


def test_a_checkpoint_of_your_own_classes_is_converted_with_their_labels(authors_state, tmp_path):
    torch.save({"model": authors_state}, tmp_path / "best.pth")
    texts = ["loose jaw.", "tight jaw."]
    for options, prompts in (({}, ("calm", "tense")), ({"prompts": texts}, tuple(texts))):
        convert_own("dk_clip", tmp_path / "best.pth", tmp_path / "mine", labels=["calm", "tense"], **options)
        model = dfer_zoo.create_model(f"local-dir:{tmp_path / 'mine'}")
        assert model.labels == ("calm", "tense") and model.prompts == prompts


def test_files_of_other_models_are_errors(authors_state):
    with pytest.raises(WeightsError, match=r"not a checkpoint of DK-CLIP.*'msim.positional_embedding'"):
        convert_state_dict("dk_clip", {"visual.conv1.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"1 of .* unknown.* surprise"):
        convert_state_dict("dk_clip", {**authors_state, "surprise": torch.zeros(1)})
    conversion = convert_state_dict("dk_clip", {k: v for k, v in authors_state.items() if "alpha" not in k})
    with pytest.raises(WeightsError, match=r"1 missing \(conditioning.alpha\)"):
        load_strictly(DKCLIP(**conversion.model_args), conversion.state, "best.pth")


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ({"num_frames": 5}, "5 frames .*snippets of 2"),
        ({"patch_size": 7}, "16 pixels .*patches of 7"),
        ({"width": 100}, "width is 100;.* 64"),
        *(
            ({name: wrong}, f"{name} is {wrong};")
            for name in ("num_frames", "frames_per_snippet", "img_size", "patch_size", "depth", "text_depth")
            for wrong in (0, -4, 2.0)
        ),
        ({"width": 64.0}, "width is 64.0;"),
        ({"interaction_depth": 0}, "interaction_depth is 0;"),
        ({"context_length": 0}, "context_length is 0;"),
        ({"vocab_size": 100}, "vocab_size is 100;.* 49408"),
    ],
)
def test_invalid_sizes_are_errors(argument, sentence):
    with pytest.raises(InputError, match=sentence):
        DKCLIP(**{**TINY["dk_clip"], **argument})


# -- backbones ---------------------------------------------------------------------------------------------------------

TINY_CLIP = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 64, "layers": 2},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}


@torch.no_grad()
def test_clip_fills_its_layers_and_the_report_lists_them(model):
    clip = perturbed(open_clip.CLIP(**TINY_CLIP, quick_gelu=True)).eval()
    openai = {**clip.state_dict(), "input_resolution": torch.tensor(16), "vocab_size": torch.tensor(49408)}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = model.load_backbones(convert_parts("dk_clip", {"clip": openai}))
    after = model.state_dict()
    assert sorted(report.loaded + report.initialized) == sorted(after)
    assert len(report.loaded) == len(clip.state_dict())
    assert all(torch.equal(after[our_name(name)], tensor) for name, tensor in clip.state_dict().items())
    assert all(torch.equal(after[name], before[name]) for name in report.initialized)
    ids = open_clip.tokenize(list(model.prompts))
    torch.testing.assert_close(model.text_features(), clip.encode_text(ids), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("tag", "source"),
    [
        ("backbone", "open_clip:ViT-B-16-quickgelu/openai"),
        ("backbone_b32", "open_clip:ViT-B-32-quickgelu/openai@ab5b8ef490e86faa07d3523926b842c765de1de5"),
    ],
)
def test_the_openai_backbone_takes_your_own_labels(monkeypatch, tag, source):
    asked = []

    def backbone_state(name, *_):
        asked.append(name)
        return open_clip.CLIP(**TINY_CLIP, quick_gelu=True).state_dict()

    monkeypatch.setattr("dfer_zoo.weights.fetch.backbone_state", backbone_state)
    mine = {"labels": ("calm", "bored"), "prompts": ("calm with a still face", "bored with drooping lids")}
    model = dfer_zoo.create_model("dk_clip", tag, **{**TINY["dk_clip"], **mine})
    assert asked == [source]
    assert model.weights.tag == tag and model.labels == mine["labels"] and model.prompts == mine["prompts"]
    assert any(name.startswith("semantic_tower.") for name in model.load_report.initialized)


def test_the_published_numbers_state_their_protocol_and_missing_weights():
    tags = [tag for arch, tag in dfer_zoo.list_pretrained("dk_clip") if arch == "dk_clip"]
    assert tags == ["backbone", "backbone_b32"]
    metrics = dfer_zoo.get_weights("dk_clip", "backbone").metrics
    assert metrics and all("not released" in m.protocol for m in metrics)
    assert all("best epoch on the test fold" in m.protocol or "last epoch" in m.protocol for m in metrics)


def test_a_clip_that_does_not_fit_loads_nothing(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = open_clip.CLIP(**TINY_CLIP, quick_gelu=True).state_dict()
    with pytest.raises(WeightsError, match=r"1 missing \(local_tower.projection\)"):
        model.load_backbones(convert_parts("dk_clip", {"clip": {k: v for k, v in state.items() if k != "visual.proj"}}))
    with pytest.raises(WeightsError, match=r"1 of another shape \(local_tower.positions \("):
        model.load_backbones(
            convert_parts("dk_clip", {"clip": {**state, "visual.positional_embedding": torch.zeros(50, 64)}})
        )
    with pytest.raises(WeightsError, match="not a checkpoint of CLIP"):
        convert_parts("dk_clip", {"clip": {"conv1.weight": torch.zeros(1)}})
    with pytest.raises(InputError, match=r"backbones clip;.*face"):
        model.load_backbones({"face": state})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_x_clip_fills_all_but_the_semantic_tower_and_the_positions_of_frames(authors_state):
    """The names and shapes come from the specification; Microsoft's files were never tried."""
    x_clip = {
        name.replace("msim.", "mit.").replace("prompts_generator_cmam.", "prompts_generator."): tensor
        for name, tensor in authors_state.items()
        if not name.startswith("visual_semantic.")
    }
    x_clip["mit.positional_embedding"] = torch.zeros(1, 8, 128)  # of eight frames
    model = DKCLIP(**convert_state_dict("dk_clip", authors_state).model_args)
    report = model.load_backbones(convert_parts("dk_clip", {"x_clip": x_clip}))
    assert {name.split(".")[0] for name in report.initialized} == {"semantic_tower", "interaction"}
    assert [name for name in report.initialized if name.startswith("interaction")] == ["interaction.positions"]
    own = model.state_dict()
    for name, tensor in authors_state.items():
        assert torch.equal(own[our_name(name)], tensor) == (our_name(name) in report.loaded), name


# -- snippets ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("frames_per_snippet", [1, 2, 4])
def test_a_static_clip_has_finite_outputs_and_equal_weights(frames_per_snippet):
    model = perturbed(DKCLIP(**{**TINY["dk_clip"], "num_frames": 8, "frames_per_snippet": frames_per_snippet})).eval()
    still = videos(model)[:, :1].expand(-1, 8, -1, -1, -1)
    details = model.explain(still)
    assert all(tensor.isfinite().all() for tensor in details)
    assert model(still).isfinite().all()


def test_equal_similarities_give_equal_weights_erase_nothing_and_have_gradients():
    for snippets in (2, 4, 8):  # an eighth is below the threshold
        similarity = torch.full((3, snippets), 5.0, requires_grad=True)
        weights, erased = weigh_snippets(similarity)
        assert torch.equal(weights, torch.full((3, snippets), 1 / snippets))
        assert not erased.any()
        (weights * torch.randn(3, snippets)).sum().backward()
        assert similarity.grad.isfinite().all()


def test_a_static_clip_has_finite_gradients(model):
    still = videos(model)[:, :1].expand(-1, 4, -1, -1, -1)
    loss, _ = model.train().training_loss({"video": still}, torch.tensor([0, 1]), F.cross_entropy)
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_the_mean_of_no_snippets_is_zero():
    assert torch.equal(kept_mean(torch.ones(1, 2, 3, 4), torch.ones(1, 2, dtype=torch.bool)), torch.zeros(1, 3, 4))


@torch.no_grad()
def test_explained_logits_are_those_of_forward():
    model = perturbed(DKCLIP(**{**TINY["dk_clip"], "num_frames": 16, "frames_per_snippet": 2})).eval()
    video = videos(model, 4)
    details = model.explain(video)
    torch.testing.assert_close(details.logits, model(video))
    torch.testing.assert_close(details.embedding, model.forward_head(model.forward_features(video), pre_logits=True))
    torch.testing.assert_close(details.snippet_weights.sum(1), torch.ones(4))
    torch.testing.assert_close(details.attention.sum(1), torch.ones(4))
    assert details.erased.any() and not details.erased.all()
    assert (details.local_logits[details.erased] == 0).all() and (details.local_logits[~details.erased] != 0).all()


def published_weights(similarity, erase_below=0.15):
    low, high = similarity.amin(1, keepdim=True), similarity.amax(1, keepdim=True)
    weights = ((similarity - low) / (high - low)).softmax(1)
    return weights, weights < erase_below


def test_a_recorded_division_by_zero_expects_a_finite_number(tmp_path, monkeypatch):
    """With one snippet per clip the published weight is 0 / 0, which a case records as null."""
    case = json.loads((CASES / "noise_erasing.json").read_text())
    for entry in case["inputs"]:
        entry["call"] = entry["call"].replace("[4, 4", "[4, 1")
    tokens = inputs_of(case)["tokens"]
    shapes = {"weights": [4, 1], "local_weighted": [4, 1, 7], "local_summed": [4, 7]}
    undefined = {name: {"shape": shape, "values": [None] * math.prod(shape)} for name, shape in shapes.items()}
    kept_mean = {"shape": [4, 5, 6], "values": tokens.flatten().tolist()}
    case["outputs"] = {**undefined, "erased": [[0]] * 4, "kept_mean": kept_mean}
    path = tmp_path / "case.json"
    path.write_text(json.dumps(case))
    assert [c.output for c in check_file(path) if not c.ok] == []
    monkeypatch.setattr("dfer_zoo.models.dk_clip.weigh_snippets", published_weights)
    assert [c.output for c in check_file(path) if not c.ok] == list(undefined)


@pytest.mark.parametrize("call", ["[2, 1, 3, 32, 32]", "[2, 16, 3, 32, 32]"])
def test_parity_inputs_may_repeat_a_frame_and_reject_unknown_steps(case, call):
    entry = case["inputs"]["video"]
    entry = {**entry, "call": f"seeded.normal('video', {call}, 0)", "then": "frame 0 repeated 16 times"}
    still = {**case.data, "inputs": {"video": entry}}
    video = inputs_of(still)["video"]
    assert video.shape == (2, 16, 3, 32, 32) and torch.equal(video, video[:, :1].expand_as(video))
    entry["then"] = "upside down"
    with pytest.raises(ValueError, match="upside down"):
        inputs_of(still)


# -- texts -------------------------------------------------------------------------------------------------------------


def test_published_labels_get_published_prompts_and_others_their_names(model):
    published = PROMPTS["texts"]["action_units"]
    assert model.prompts == tuple(published[label] for label in model.labels)
    model.reset_classifier(11)
    assert model.labels[-1] == "disappointment" and model.prompts[:7] == tuple(published[n] for n in model.labels[:7])
    model.reset_classifier(("fear", "calm"))
    assert model.prompts == ("fear", "calm")
    with pytest.raises(InputError, match="5 classes"):
        model.reset_classifier(5)
    with pytest.raises(InputError, match="2 prompts and 1 labels"):
        model.reset_classifier(("calm",), prompts=("a", "b"))
    with pytest.raises(InputError, match=r"num_classes is 3 .*2 labels"):
        DKCLIP(**{**TINY["dk_clip"], "labels": ("a", "b"), "num_classes": 3})


@torch.no_grad()
def test_logits_follow_the_order_of_the_texts(model):
    video, logits = videos(model), model(videos(model))
    labels = model.labels
    model.reset_classifier(labels[::-1])
    torch.testing.assert_close(model(video), logits.flip(1))
    model.reset_classifier(labels, prompts=[f"a face of {label}" for label in labels])
    assert not torch.allclose(model(video), logits)
    model.reset_classifier(labels)
    torch.testing.assert_close(model(video), logits)


@torch.no_grad()
def test_texts_are_cached_until_texts_or_weights_change(model):
    calls = []
    model.text_tower.register_forward_hook(lambda *_: calls.append(1))
    video = videos(model)
    first = model(video)
    assert torch.equal(model(video), first) and len(calls) == 1
    parameter = model.text_tower.text_projection
    parameter.mul_(1.5)
    changed = model(video)
    assert len(calls) == 2 and not torch.equal(changed, first)
    parameter.div_(1.5)
    torch.testing.assert_close(model(video), first)
    model.load_state_dict({k: v * 0.9 for k, v in model.state_dict().items()})
    assert not torch.allclose(model(video), first)
    model.double()
    assert model(video.double()).dtype == torch.float64


@torch.no_grad()
def test_texts_cut_after_the_last_end_mark_have_the_same_features(model):
    whole_texts = model.text_tower(model.text_tower.token_embedding(model.token_ids), model.text_ends)
    assert model._text_length < model.token_ids.shape[1]
    assert relative_l2(model.text_features(), whole_texts) < 1e-5


@pytest.mark.parametrize("training", [True, False])
def test_forward_does_not_change_the_mode(model, training):
    model.train(training)
    modes = [module.training for module in model.modules()]
    model(videos(model))
    model.explain(videos(model))
    assert [module.training for module in model.modules()] == modes


@torch.no_grad()
def test_without_classes_the_output_is_the_embedding():
    model = DKCLIP(**{**TINY["dk_clip"], "labels": ()}).eval()
    video = videos(model)
    torch.testing.assert_close(model(video), model.explain(video).embedding)
    torch.testing.assert_close(model(video).norm(dim=-1), torch.ones(2))


def test_conditioned_texts_differ_between_clips(model):
    features = model.forward_features(videos(model))
    texts = model.conditioned_texts(features[:, 1:])
    assert texts.shape == (2, 7, 64)
    assert not torch.allclose(texts[0], texts[1])
    assert not torch.allclose(texts[0], l2_normalize(model.text_features()))


# -- training ----------------------------------------------------------------------------------------------------------


def test_the_snippets_are_trained_for_fourteen_epochs(model):
    inputs, targets = {"video": videos(model)}, soft_targets(torch.tensor([1, 4]), 7, 0.1)
    losses = {epoch: model.training_loss(inputs, targets, F.cross_entropy, epoch=epoch)[0] for epoch in (0, 13, 14)}
    assert torch.equal(losses[0], losses[13])
    torch.testing.assert_close(losses[14], F.cross_entropy(model(**inputs), targets))
    assert losses[14] < losses[13]
    model.consistency_epochs = 20
    assert torch.equal(model.training_loss(inputs, targets, F.cross_entropy, epoch=14)[0], losses[0])


def test_the_published_freezing_includes_two_random_modules(model):
    def trained(**options):
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        groups = dk_clip_groups(model, **options)
        return {name: group["lr"] for group in groups for name in group["names"]}

    released, ours = trained(published_freeze=True), trained()
    extra = {name.split(".")[0] for name in ours.keys() - released.keys()}
    assert extra == {"semantic_tower", "interaction"}
    assert not any(name.startswith(("text_tower.", "logit_scale")) for name in ours)
    assert {ours[n] for n in ours if n.startswith("local_tower") and ".message" not in n} == {2e-6}
    assert {ours[n] for n in ours if not n.startswith("local_tower") or ".message" in n} == {10 * 2e-6}


def test_a_few_updates_lower_the_loss_and_keep_the_text_tower(model):
    optimizer = torch.optim.AdamW(dk_clip_groups(model.train(), lr=2e-4))
    inputs, targets = {"video": videos(model, 4)}, torch.tensor([0, 1, 2, 3])
    texts = model.text_features().clone()
    losses = []
    for _ in range(12):
        loss, _ = model.training_loss(inputs, targets, F.cross_entropy)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05
    assert torch.equal(model.text_features(), texts)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_fourier_mask_covers_its_share_in_blobs(share):
    mask = fourier_mask(share, 32, rng=np.random.RandomState(0))
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert abs(mask.sum().item() - share * 32 * 32) < 1
    changes = (mask[1:] != mask[:-1]).float().mean() + (mask[:, 1:] != mask[:, :-1]).float().mean()
    assert changes < 0.2  # dots that know nothing of each other would have 0.84


@pytest.mark.parametrize("fmix", [0.0, 1.0])
def test_labels_are_mixed_by_the_share_of_pixels(fmix):
    video = torch.arange(6.0).view(6, 1, 1, 1, 1).expand(6, 2, 3, 16, 16)
    labels = torch.eye(6)
    mixed, soft = mix_clips(video, labels, fmix=fmix, rng=np.random.RandomState(3))
    assert not torch.equal(mixed, video)
    torch.testing.assert_close(soft.sum(1), torch.ones(6))
    # every clip is filled with its own number, so the mean pixel is the mean label
    expected = (soft * torch.arange(6.0)).sum(1)
    torch.testing.assert_close(mixed.mean((1, 2, 3, 4)), expected, rtol=0, atol=5 / 256 + 1e-4)
    if fmix:
        assert torch.equal(mixed, mixed.round())  # nothing is faded


def test_recipes_find_its_mix_and_its_augmentation(model):
    np.random.seed(0)
    inputs, targets = MIXES["fmix_or_mixup"](
        {"video": videos(model)}, torch.tensor([0, 6]), lambda t: soft_targets(t, 7, 0.1)
    )
    assert inputs["video"].shape == videos(model).shape and targets.shape == (2, 7)
    clip = Clip.from_arrays(np.random.randint(0, 256, (9, 30, 40, 3), dtype=np.uint8))
    sample = augmentation("dk_clip", create_transform(model, faces="none"))(clip)
    assert sample["video"].shape == (4, 3, 16, 16)


# -- frames and pixels -------------------------------------------------------------------------------------------------


def test_a_short_clip_wraps_as_published_or_stays_at_its_end():
    assert train_indices(5, 16) == [0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 4, 0]
    assert train_indices(5, 16, wrap=False) == [0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4]


def test_training_clips_depend_on_the_seed(model):
    clip = Clip.from_arrays(np.random.default_rng(0).integers(0, 256, (20, 40, 30, 3), dtype=np.uint8))
    transform = DKCLIPTrainTransform(model.video_spec)

    def drawn(seed):
        torch.manual_seed(seed)
        return transform(clip, rng=random.Random(seed), sampling_rng=np.random.RandomState(seed))["video"]

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_color_jitter_varies_by_frame_and_grayscale_applies_to_the_clip():
    frames = [np.full((4, 4, 3), (200, 100, 50), np.uint8)] * 3
    torch.manual_seed(0)
    jittered = jitter_colors(frames, rng=random.Random(0), jitter=1.0, gray=0.0)
    assert len({frame.tobytes() for frame in jittered}) == 3
    grey = jitter_colors(frames, rng=random.Random(0), jitter=0.0, gray=1.0)
    assert all((frame == frame[..., :1]).all() for frame in grey)
    assert all(np.array_equal(f, frames[0]) for f in jitter_colors(frames, jitter=0.0, gray=0.0))


def test_twelve_views_are_four_draws_of_three_crops(model):
    clip = Clip.from_arrays(np.random.default_rng(0).integers(0, 256, (20, 16, 48, 3), dtype=np.uint8))
    views = random_views(clip, model.video_spec, rng=np.random.RandomState(0))
    assert len(views) == 12 and all(view.shape == (4, 3, 16, 16) for view in views)
    start, end, middle = views[0], views[4], views[8]  # of the same draw
    rng = np.random.RandomState(0)
    frames = np.stack(clip.take(train_indices(20, 4, rng=rng)))
    for view, left in ((start, 0), (end, 32), (middle, 16)):
        pixels = torch.from_numpy(frames[:, :, left : left + 16]).permute(0, 3, 1, 2) / 255
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.video_spec.mean, model.video_spec.std))
        torch.testing.assert_close(view, (pixels - mean) / std)


SIZES = [(50, 200), (120, 90), (90, 120), (100, 100)]


def test_frames_of_other_sizes_are_resized_like_the_first(model):
    rng = np.random.default_rng(0)
    spec = model.video_spec
    frames = [rng.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]
    for crops, side in ((three_crops, spec.img_size), (lambda *of: [prepare_video(*of)], spec.resize_shorter)):
        height, width = shorter_side_size(frames[0], side)
        pressed = [RESIZES[spec.resize](frame, height, width) for frame in frames]
        alone = [crops([frame], spec) for frame in pressed]
        for view, parts in zip(crops(frames, spec), zip(*alone)):
            assert torch.equal(view, torch.cat(parts))


def test_frames_of_other_sizes_get_the_same_training_crop(model):
    clip = Clip(ArrayFrames([np.full((*size, 3), 90, np.uint8) for size in SIZES]))
    transform = DKCLIPTrainTransform(model.video_spec)
    for seed in range(5):  # the places differ; most are outside of a narrow frame
        assert transform(clip, rng=random.Random(seed))["video"].shape == (4, 3, 16, 16)


# -- the factory and models whose classes are texts --------------------------------------------------------------------


@torch.no_grad()
def test_saved_weights_take_other_labels_together_with_their_texts(model, tmp_path):
    dfer_zoo.save_pretrained(model, tmp_path)
    mine = {"labels": ("calm", "bored"), "prompts": ("calm with a still face", "bored with drooping lids")}
    again = dfer_zoo.create_model(f"local-dir:{tmp_path}", **mine)
    assert again.labels == mine["labels"] and again.prompts == mine["prompts"]
    model.reset_classifier(mine["labels"], prompts=mine["prompts"])
    assert torch.equal(again(videos(model)), model(videos(model)))


@torch.no_grad()
def test_saved_weights_take_other_texts_for_the_same_labels(model, tmp_path):
    dfer_zoo.save_pretrained(model, tmp_path)
    texts = [f"a face of {label}" for label in model.labels]
    again = dfer_zoo.create_model(f"local-dir:{tmp_path}", prompts=texts)
    assert again.labels == model.labels and again.prompts == tuple(texts)
    assert not torch.allclose(again(videos(model)), model(videos(model)))


def test_weights_do_not_load_into_a_model_with_other_texts(model, tmp_path):
    path = dfer_zoo.save_pretrained(model, tmp_path)
    other = dfer_zoo.create_model("dk_clip", **{**TINY["dk_clip"], "prompts": ["a face"] * 7})
    with pytest.raises(WeightsError, match="prompts="):
        dfer_zoo.load_weights(other, path)
