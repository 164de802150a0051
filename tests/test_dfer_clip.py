"""DFER-CLIP beyond its parity cases: files, your own prompts, the cache of text features, exact shortcuts."""

import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

import dfer_zoo
from dfer_zoo import Clip, cli
from dfer_zoo.checkpoints import convert_checkpoint, convert_own
from dfer_zoo.convert import convert_parts, convert_state_dict
from dfer_zoo.errors import InputError, WeightsError
from dfer_zoo.models.base import skip_init
from dfer_zoo.models.clip_towers import build_clip, tokenize
from dfer_zoo.models.dfer_clip import DFERCLIP, PROMPTS, l2_normalize
from dfer_zoo.training.optim import create_optimizer, learning_rate
from dfer_zoo.training.recipe import read_recipe
from dfer_zoo.transforms.train.dfer_clip import DFERCLIPTrainTransform
from dfer_zoo.weights import fetch
from tests.parity import compare
from tests.parity.checks.dfer_clip import seeded_video, with_prompt_buffers
from tests.parity.making import seeded_state
from tests.parity.runner import read_case
from tests.tiny import TINY

TINY_ARGS = TINY["dfer_clip"]
TINY_CLIP = TINY_ARGS["clip_model"]
CASES = Path(__file__).parent / "parity" / "dfer_clip"


def tiny(seed: int = 0, **arguments) -> DFERCLIP:
    torch.manual_seed(seed)
    model = DFERCLIP(**{**TINY_ARGS, **arguments}).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # zero biases and unit norms would hide faults
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def clips(model: DFERCLIP, batch: int = 2, frames: int | None = None) -> torch.Tensor:
    size = model.video_spec.img_size
    return torch.rand(batch, frames or model.video_spec.num_frames, 3, size, size)


# -- size ----------------------------------------------------------------------------------------------------------------


def test_the_published_models_have_the_published_numbers_of_parameters():
    with skip_init():
        model = DFERCLIP()
    count = lambda m: sum(p.numel() for p in m.parameters())  # noqa: E731
    assert count(model) == 153_416_449
    assert count(model.image_encoder) == 87_849_216
    assert count(model.temporal_net) == 2_110_464
    assert count(model.prompt_learner) == 28_672
    model.reset_classifier(11)
    assert count(model) == 153_432_833
    for tag in ("dfew_fold1", "mafw_fold5", "ferv39k", "backbone"):
        record = dfer_zoo.get_weights("dfer_clip", tag)
        assert record.params == {7: 153_416_449, 11: 153_432_833}[len(record.labels)]


def test_the_initialisation_is_the_published_one():
    torch.manual_seed(0)
    model = DFERCLIP(**{**TINY_ARGS, "num_contexts": 50})
    assert model.prompt_learner.contexts.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.temporal_net.positions.std().item() == pytest.approx(1.0, rel=0.2)
    before = model.prompt_learner.contexts.clone()
    model.init_weights()
    assert not torch.equal(before, model.prompt_learner.contexts)


# -- forward -------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_frame_features_are_those_of_open_clip():
    model = tiny()
    video = clips(model)
    plain = model.image_encoder(video.flatten(0, 1)).unflatten(0, video.shape[:2])
    torch.testing.assert_close(model.encode_frames(video), plain, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_any_number_of_frames_up_to_num_frames_works():
    model = tiny()
    for frames in range(1, 5):
        assert model(clips(model, frames=frames)).shape == (2, 7)
    for frames in (5, 0):
        with pytest.raises(InputError, match=rf"1 to 4 frames.*got {frames}"):
            model(torch.zeros(2, frames, 3, 32, 32))


@torch.no_grad()
def test_overlapping_windows_can_share_frame_features():
    model = tiny()
    video = clips(model, batch=1, frames=9)
    features = model.encode_frames(video)
    for start in range(6):
        window = slice(start, start + 4)
        shared = model.forward_head(model.mix_frames(features[:, window]))
        torch.testing.assert_close(shared, model(video[:, window]), rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_logits_are_cosine_similarities_divided_by_the_temperature():
    model = tiny(temperature=0.5)
    video = clips(model)
    cosines = torch.nn.functional.cosine_similarity(
        model.encode_video(video)[:, None], model.encode_text()[None], dim=-1
    )
    torch.testing.assert_close(model(video), cosines / 0.5)


@torch.no_grad()
def test_without_classes_the_output_is_the_embedding():
    model = tiny(num_classes=0)
    video = clips(model)
    assert model.labels == () and torch.equal(model(video), model.encode_video(video))


# -- texts that are kept -------------------------------------------------------------------------------------------------


class TextCalls:
    """Counts the calls of the text tower."""

    def __init__(self, model: DFERCLIP) -> None:
        self.count = 0
        model.text_encoder.register_forward_hook(self.add)

    def add(self, *_) -> None:
        self.count += 1


@torch.no_grad()
def test_class_texts_are_cached_in_eval_mode_only():
    model = tiny()
    calls, video = TextCalls(model), clips(model)
    logits = model(video)
    assert torch.equal(model(video), logits) and calls.count == 1
    model.train()
    torch.testing.assert_close(model(video), logits, rtol=1e-4, atol=1e-4)
    model(video)
    assert calls.count == 3


def step(model: DFERCLIP) -> None:
    model.prompt_learner.contexts.grad = torch.ones_like(model.prompt_learner.contexts)
    torch.optim.SGD([model.prompt_learner.contexts], lr=0.5).step()


@pytest.mark.parametrize(
    "change",
    [
        step,
        lambda m: m.load_state_dict(tiny(seed=5).state_dict()),
        lambda m: m.prompt_learner.load_state_dict(tiny(seed=5).prompt_learner.state_dict()),
        lambda m: m.text_encoder.transformer.resblocks[0].mlp[0].bias.add_(1),
        lambda m: m.bfloat16().float(),
        lambda m: m.text_encoder.half().float(),
        lambda m: m.train().eval(),
        lambda m: m.reset_classifier(["calm", "bored"]),
        lambda m: m.reset_classifier(m.labels, prompts=[f"{label}!" for label in m.labels]),
        lambda m: m.init_weights(),
        lambda m: (m.prompt_learner.contexts.data.add_(1), m.eval()),
    ],
)
@torch.no_grad()
def test_cached_texts_follow_the_weights(change):
    model = tiny()
    calls, video = TextCalls(model), clips(model)
    model(video)
    change(model)
    logits = model(video)
    assert calls.count == 2
    plain = model.encode_video(video) @ model._encode_classes().T / model.temperature
    torch.testing.assert_close(logits, plain)


@pytest.mark.parametrize("class_specific", [True, False])
@torch.no_grad()
def test_cached_texts_without_contexts_follow_the_texts(class_specific, tmp_path):
    """Without contexts there is no parameter whose address could tell the texts apart."""
    dfer_zoo.save_pretrained(tiny(num_contexts=0, class_specific_contexts=class_specific), tmp_path)
    model = dfer_zoo.create_model(f"local-dir:{tmp_path}")
    for labels in (model.labels, ("calm", "bored")):
        model.encode_text()
        model.reset_classifier(labels, prompts=[f"a face of {label}, it seems." for label in labels])
        torch.testing.assert_close(model.encode_text(), model._encode_classes())


@torch.no_grad()
def test_returned_class_texts_may_be_modified():
    model = tiny()
    kept = model.encode_text().clone()
    for _ in range(2):
        model.encode_text().mul_(2)
    assert torch.equal(model.encode_text(), kept)


@pytest.mark.graph
@torch.no_grad()
def test_a_compiled_model_follows_its_weights():
    model = tiny()
    video = clips(model)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for _ in range(2):
        torch.testing.assert_close(compiled(video), model(video))
        step(model)
        model.text_encoder.ln_final.weight.mul_(1.1)


def test_gradients_reach_the_contexts_in_eval_mode_too():
    model = tiny()
    with torch.no_grad():
        model(clips(model))
    model(clips(model)).sum().backward()
    assert model.prompt_learner.contexts.grad.abs().sum() > 0


# -- classes of one's own ------------------------------------------------------------------------------------------------


def test_published_labels_get_published_texts_in_any_order():
    model = tiny(labels=["fear", "contempt"])
    texts = PROMPTS["texts"]["class_descriptor"]
    assert model.prompts == (texts["fear"], texts["contempt"])
    assert tiny(num_classes=11).labels[-1] == "disappointment"
    assert tiny(text_type="class_names").prompts[0] == "happiness."


def test_your_own_labels_get_the_published_pattern_unless_prompts_are_given():
    assert tiny(labels=["calm", "fear"]).prompts == ("an expression of calm.", "an expression of fear.")
    model = dfer_zoo.create_model(
        "dfer_clip", labels=["calm", "tense"], prompts=["loose jaw.", "tight jaw."], **TINY_ARGS
    )
    assert model.labels == ("calm", "tense") and model.prompts == ("loose jaw.", "tight jaw.")
    model.reset_classifier(["a", "b", "c"], prompts=["one.", "two.", "three."])
    assert model.prompts == ("one.", "two.", "three.") and model(clips(model)).shape == (2, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 5}, "5 classes.*labels="),
        ({"num_classes": 3, "labels": ["a", "b"]}, "num_classes is 3 .*2 labels"),
        ({"labels": ["a", "b"], "prompts": ["one"]}, "1 prompts and 2 labels"),
        ({"labels": "abc"}, "labels is .*'abc'"),
        ({"labels": ["a", "a"]}, "not distinct"),
        ({"text_type": "class_name"}, "Did you mean class_names"),
        ({"labels": ["a", "b"], "prompts": {"a": "a smile.", "b": "a tear."}}, "prompts must be a list"),
        ({"num_heads": 3}, "3 heads"),
        ({"temporal_depth": -1}, "depth is -1"),
        ({"class_token_position": "behind"}, "end, middle, front"),
        ({"num_contexts": 80}, "77"),
        ({"num_contexts": -1}, "contexts is -1"),
        ({"clip_model": "ViT-B-32"}, "QuickGELU"),
    ],
)
def test_invalid_arguments_are_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        tiny(**arguments)
    with pytest.raises(InputError, match="5 classes"):
        tiny().reset_classifier(5)


@pytest.mark.parametrize("texts", ["tears", {"a": "a smile."}, {"a smile.", "tears"}, [], ["tears", 3], 3])
def test_texts_must_be_a_list_of_strings(texts):
    model = tiny()
    with pytest.raises(InputError, match="texts must be a list"):
        model.encode_text(texts)
    with pytest.raises(InputError, match="texts must be a list"):
        model.zero_shot(clips(model), texts)


@torch.no_grad()
def test_zero_shot_needs_a_frame():
    model = tiny()
    with pytest.raises(InputError, match="video has no frames"):
        model.zero_shot(clips(model)[:, :0])


@torch.no_grad()
def test_saving_keeps_prompts_and_options(tmp_path):
    model = tiny(
        labels=["x", "y"], prompts=["one.", "two two."], class_token_position="middle", class_specific_contexts=False
    )
    dfer_zoo.save_pretrained(model, tmp_path)
    again = dfer_zoo.create_model(f"local-dir:{tmp_path}")
    video = clips(model)
    assert again.prompts == model.prompts and again.labels == ("x", "y")
    assert torch.equal(again(video), model(video))


@torch.no_grad()
def test_other_classes_on_trained_weights_get_new_contexts(tmp_path):
    model = tiny()
    dfer_zoo.save_pretrained(model, tmp_path)
    load = lambda **arguments: dfer_zoo.create_model(f"local-dir:{tmp_path}", **arguments)  # noqa: E731

    other = load(labels=["calm", "tense"], prompts=["loose jaw.", "tight jaw."])
    assert other.prompts == ("loose jaw.", "tight jaw.") and other.labels == ("calm", "tense")
    state = other.state_dict()
    for name, tensor in model.state_dict().items():
        assert name == "prompt_learner.contexts" or torch.equal(state[name], tensor), name
    assert load(labels=["calm", "tense"]).prompts[0] == "an expression of calm."
    assert load(num_classes=11).num_classes == 11

    contexts = model.prompt_learner.contexts
    same = load(labels=model.labels, prompts=list(model.prompts))
    assert torch.equal(same.prompt_learner.contexts, contexts)
    reworded = load(prompts=[f"{text} indeed" for text in model.prompts])
    assert reworded.labels == model.labels and not torch.equal(reworded.prompt_learner.contexts, contexts)


@pytest.mark.parametrize("arch", ["dfer_clip", "dk_clip"])
@torch.no_grad()
def test_the_same_texts_can_be_given_to_other_labels(arch, tmp_path):
    model = dfer_zoo.create_model(arch, **TINY[arch])
    dfer_zoo.save_pretrained(model, tmp_path)
    texts = list(model.prompts)
    for labels in (["Freude", "Trauer", "nichts", "Wut", "Staunen", "Ekel", "Angst"], model.labels[::-1]):
        other = dfer_zoo.create_model(f"local-dir:{tmp_path}", labels=labels, prompts=texts)
        assert other.labels == tuple(labels) and other.prompts == model.prompts
    unchanged = dfer_zoo.create_model(f"local-dir:{tmp_path}", prompts=None)
    for name, tensor in model.state_dict().items():
        assert torch.equal(unchanged.state_dict()[name], tensor), name


def test_another_text_type_on_trained_weights_changes_the_texts(tmp_path):
    model = tiny(labels=["fear", "anger"], text_type="class_names")
    dfer_zoo.save_pretrained(model, tmp_path)
    load = lambda **arguments: dfer_zoo.create_model(f"local-dir:{tmp_path}", **arguments)  # noqa: E731

    for same in (load(), load(text_type="class_names")):
        assert same.text_type == "class_names"
        assert torch.equal(same.prompt_learner.contexts, model.prompt_learner.contexts)
    described = load(text_type="class_descriptor")
    assert described.labels == ("fear", "anger") and described.text_type == "class_descriptor"
    assert described.prompts == tiny(labels=["fear", "anger"]).prompts
    assert load(labels=["contempt", "fear"]).prompts == ("contempt.", "fear.")

    described.reset_classifier(7, prompts=["my own."] * 7)
    assert described.text_type is None
    dfer_zoo.save_pretrained(described, tmp_path)
    assert load().text_type is None and load().prompts == ("my own.",) * 7
    own = load(prompts=["my own."] * 7, text_type="class_descriptor")
    assert torch.equal(own.prompt_learner.contexts, described.prompt_learner.contexts)
    assert load(text_type="class_descriptor").prompts == tiny().prompts


def test_weights_do_not_load_into_a_model_with_other_texts(tmp_path):
    dfer_zoo.save_pretrained(tiny(), tmp_path)
    with pytest.raises(WeightsError, match="prompts="):
        dfer_zoo.load_weights(tiny(text_type="class_names"), tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="num_heads="):
        dfer_zoo.load_weights(tiny(num_heads=4), tmp_path / "model.safetensors")
    dfer_zoo.load_weights(tiny(seed=3), tmp_path / "model.safetensors")


# -- CLIP below ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_clip():
    torch.manual_seed(9)
    clip = build_clip(TINY_CLIP).eval()
    with torch.no_grad():
        for parameter in clip.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return clip


@torch.no_grad()
def test_the_backbone_fills_both_towers_only(tiny_clip, monkeypatch):
    asked = []
    monkeypatch.setattr(fetch, "backbone_state", lambda source, *_: asked.append(source) or tiny_clip.state_dict())
    torch.manual_seed(0)
    model = dfer_zoo.create_model("dfer_clip", "backbone", labels=["calm", "tense"], **TINY_ARGS)
    assert asked == ["open_clip:ViT-B-32-quickgelu/openai@ab5b8ef490e86faa07d3523926b842c765de1de5"]

    texts = ["a smiling mouth.", "tears"]
    torch.testing.assert_close(
        model.encode_text(texts), tiny_clip.encode_text(tokenize(texts)[0], normalize=True), rtol=1e-4, atol=1e-5
    )
    frames = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(
        model.encode_frames(frames[None])[0], tiny_clip.encode_image(frames), rtol=1e-4, atol=1e-5
    )
    report, names = model.load_report, set(model.state_dict())
    assert set(report.initialized) == {n for n in names if n.startswith(("prompt_learner.", "temporal_net."))}
    assert set(report.loaded) == names - set(report.initialized) and report.ignored == ()
    assert len(report.loaded) == len(tiny_clip.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("ln_final.bias"), r"DFERCLIP: 1 missing \([^;]*\)\."),
        (lambda s: s.update(extra=torch.zeros(1)), r"DFERCLIP: 1 unexpected \([^;]*\)\."),
        (lambda s: s.update({"visual.proj": torch.zeros(3, 3)}), r"1 of another shape \(image_encoder.proj"),
        (lambda s: s.update({"visual.prompt_learner": s.pop("visual.proj")}), r"1 missing \(.*\); 1 unexpected"),
    ],
)
def test_a_clip_that_does_not_fit_is_an_error_and_loads_nothing(tiny_clip, change, message):
    state, model = dict(tiny_clip.state_dict()), tiny()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    change(state)
    with pytest.raises(WeightsError, match=message):
        model.load_backbones(convert_parts("dfer_clip", {"clip": state}))
    with pytest.raises(InputError, match=r"backbones clip;.*face"):
        model.load_backbones({"face": state})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_backbone_record_names_the_quickgelu_variant():
    parts = dfer_zoo.get_weights("dfer_clip", "backbone").backbones
    assert sorted(parts) == ["clip"]
    name, _, tag = parts["clip"].removeprefix("open_clip:").partition("/")
    tag, _, revision = tag.partition("@")
    assert len(revision) == 40
    assert open_clip.get_model_config(name)["quick_gelu"] and open_clip.get_pretrained_cfg(name, tag)


@torch.no_grad()
def test_zero_shot_is_clip_on_the_mean_of_the_frames(tiny_clip):
    model = tiny()
    model.load_backbones(convert_parts("dfer_clip", {"clip": tiny_clip.state_dict()}))
    video, texts = clips(model, frames=6), ["a happy face", "a sad face", "a tree"]  # no position table: any length
    frames = tiny_clip.encode_image(video.flatten(0, 1)).unflatten(0, (2, 6))
    expected = (
        tiny_clip.logit_scale.exp()
        * l2_normalize(frames.mean(1))
        @ tiny_clip.encode_text(tokenize(texts)[0], normalize=True).T
    )
    torch.testing.assert_close(model.zero_shot(video, texts), expected, rtol=1e-4, atol=1e-4)
    assert model.zero_shot(video).shape == (2, 7)


# -- training ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", ["dfew", "mafw", "ferv39k"])
def test_the_recipes_have_the_published_freezing_and_learning_rates(dataset):
    path = Path(__file__).parent.parent / "dfer_zoo" / "recipes" / f"dfer_clip_{dataset}.toml"
    recipe = read_recipe(path)
    assert f"data.train=LISTS/{recipe.data.train} --set data.valid=LISTS/{recipe.data.valid}" in path.read_text()
    assert recipe.model.pretrained == "backbone" and recipe.model.freeze == ("published",)
    model = tiny()
    model.freeze()
    optimizer = create_optimizer(model, recipe)
    groups = optimizer.param_groups
    assert {(group["lr"], group["weight_decay"]) for group in groups} == {(1e-2, 1e-4), (1e-5, 1e-4), (1e-3, 1e-4)}
    assert optimizer.defaults["momentum"] == 0.9 and not optimizer.defaults["nesterov"]
    rates = [learning_rate(recipe.schedule, 1.0, epoch, 1, recipe.train.epochs) for epoch in range(recipe.train.epochs)]
    assert rates == pytest.approx([1.0] * 30 + [0.1] * 10 + [0.01] * 10)
    trained = {name for group in groups for name in group["names"]}
    frozen = {name for name, _ in model.named_parameters()} - trained
    assert frozen == {n for n, _ in model.named_parameters() if n.startswith("text_encoder.")} | {"logit_scale"}
    model.train()
    model(clips(model)).sum().backward()
    assert model.prompt_learner.contexts.grad is not None and model.text_encoder.text_projection.grad is None


def frames_of(count: int, height: int = 40, width: int = 50) -> Clip:
    return Clip.from_arrays(np.random.RandomState(0).randint(0, 256, (count, height, width, 3), np.uint8))


def test_short_clips_repeat_their_last_or_first_frame():
    clip, model = frames_of(3), tiny()
    now = dfer_zoo.create_transform(model, faces="none")(clip)["video"]
    once = dfer_zoo.create_transform(model, short_clip="repeat_first", faces="none")(clip)["video"]
    assert torch.equal(now[2], now[3]) and not torch.equal(now[1], now[2])
    assert all(torch.equal(frame, now[0]) for frame in once)
    with pytest.raises(InputError, match="short_clip is 'loop'"):
        dfer_zoo.create_transform(model, short_clip="loop", faces="none")(clip)


def test_values_are_between_zero_and_one_without_clips_own_normalisation():
    record = dfer_zoo.get_weights("dfer_clip", "dfew_fold1")
    assert (record.video.mean, record.video.std) == ((0, 0, 0), (1, 1, 1))
    clip = Clip.from_arrays(np.full((20, 8, 8, 3), 255, np.uint8))
    assert torch.equal(dfer_zoo.create_transform(record, faces="none")(clip)["video"], torch.ones(16, 3, 224, 224))


@pytest.mark.parametrize("dataset", ["dfew", "ferv39k", "mafw"])
def test_training_views_are_reproducible(dataset):
    import random

    def view(seed):
        transform = DFERCLIPTrainTransform(tiny().video_spec, dataset, random.Random(seed), np.random.RandomState(seed))
        return transform(frames_of(9))["video"]

    assert view(1).shape == (4, 3, 32, 32)
    assert torch.equal(view(1), view(1)) and not torch.equal(view(1), view(2))
    with pytest.raises(InputError, match="Did you mean dfew"):
        DFERCLIPTrainTransform(tiny().video_spec, "dfe")(frames_of(9))


# -- the authors' files --------------------------------------------------------------------------------------------------

THEIRS = (
    ("text_encoder.token_embedding.", "clip_model_.token_embedding."),
    ("logit_scale", "clip_model_.logit_scale"),
    ("prompt_learner.contexts", "prompt_learner.ctx"),
    ("temporal_net.class_token", "temporal_net.cls_token"),
    ("temporal_net.positions", "temporal_net.pos_embedding"),
    ("temporal_net.blocks.", "temporal_net.temporal_transformer.layers."),
    (".norm1.", ".0.fn.norm."),
    (".attn.qkv.", ".0.fn.fn.to_qkv."),
    (".attn.proj.", ".0.fn.fn.to_out.0."),
    (".norm2.", ".1.fn.norm."),
    (".mlp.fc1.", ".1.fn.fn.net.0."),
    (".mlp.fc2.", ".1.fn.fn.net.3."),
)


def their_name(name: str) -> str:
    for ours, theirs in THEIRS:
        name = name.replace(ours, theirs)
    return name


def their_state(model: DFERCLIP) -> dict[str, torch.Tensor]:
    state = {their_name(name): tensor for name, tensor in model.state_dict().items()}
    config = {"contexts_number": model.num_contexts, "texts": model.prompts}
    state = with_prompt_buffers(state, config)
    for name in list(state):
        if name.startswith("image_encoder."):
            state[name.replace("image_encoder.", "clip_model_.visual.")] = state[name]
        elif name.startswith("text_encoder."):
            state[name.replace("text_encoder.", "clip_model_.")] = state[name]
    return state


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"num_classes": 11, "text_type": "class_names_with_context", "num_contexts": 3, "temporal_depth": 2},
        {"labels": ["x", "y"], "prompts": ["one side, of its mouth!", "a TENSED forehead."], "num_frames": 6},
        {"class_specific_contexts": False, "num_contexts": 0},
    ],
)
@torch.no_grad()
def test_sizes_and_texts_are_read_from_a_state_dict(arguments):
    model = tiny(**arguments)
    converted = convert_state_dict("dfer_clip", their_state(model))
    sizes = {"labels": model.labels, "num_heads": 2, **converted.model_args}
    again = DFERCLIP(**sizes).eval()
    again.load_state_dict(converted.state)
    video = clips(model)
    assert torch.equal(again(video), model(video))
    assert again.prompt_learner.token_ids.tolist() == model.prompt_learner.token_ids.tolist()
    if not arguments.get("prompts"):
        assert (again.labels, again.prompts) == (model.labels, model.prompts)


@pytest.mark.parametrize("text_type", ["class_descriptor", "class_names"])
@pytest.mark.parametrize(
    "labels",
    [
        ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
        ("contempt", "fear", "anxiety"),
        PROMPTS["labels"]["11"][::-1],
    ],
)
def test_published_texts_identify_their_labels_in_any_order(labels, text_type):
    model = tiny(labels=labels, text_type=text_type)
    found = convert_state_dict("dfer_clip", their_state(model)).model_args
    assert (tuple(found["labels"]), tuple(found["prompts"])) == (model.labels, model.prompts)
    assert DFERCLIP(**{**TINY_ARGS, **found}).text_type == text_type


OWN_TEXTS = ["a resting face.", "half closed eyes, a resting chin.", "a raised brow.", "a jaw that hangs.", "tears."]


@torch.no_grad()
def test_convert_writes_a_checkpoint_of_your_own_classes_to_a_folder(tmp_path, capsys):
    model = tiny(labels=list("abcde"), prompts=OWN_TEXTS)
    torch.save(their_state(model), tmp_path / "own.pth")
    convert = ["convert", "dfer_clip", "own", str(tmp_path / "own.pth"), "--output", str(tmp_path / "own")]
    assert cli.main([*convert, "--labels", "calm,bored,curious,tired,moved"]) == 0
    again = dfer_zoo.create_model(f"local-dir:{tmp_path / 'own'}", num_heads=2)
    assert again.labels == ("calm", "bored", "curious", "tired", "moved")
    video = clips(model)
    assert torch.equal(again(video), model(video))

    capsys.readouterr()
    assert cli.main([*convert, "--labels", "calm,bored"]) == 2
    assert "own.pth has 5 classes" in capsys.readouterr().err


def test_your_own_prompts_get_no_published_labels(tmp_path):
    """Even if there are as many as published labels."""
    model = tiny(labels=list("abcdefg"), prompts=[*OWN_TEXTS, "a face.", "another face."])
    torch.save(their_state(model), tmp_path / "own.pth")
    with pytest.raises(InputError, match=r"7 class texts \('a resting face ?\.', .*labels="):
        convert_own("dfer_clip", tmp_path / "own.pth", tmp_path / "own")
    assert not (tmp_path / "own").exists()


def test_published_prompts_in_a_checkpoint_can_get_other_labels(tmp_path):
    torch.save(their_state(tiny()), tmp_path / "own.pth")
    names = ("Freude", "Trauer", "nichts", "Wut", "Staunen", "Ekel", "Angst")
    convert_own("dfer_clip", tmp_path / "own.pth", tmp_path / "own", labels=names)
    model = dfer_zoo.create_model(f"local-dir:{tmp_path / 'own'}")
    assert model.labels == names and model.prompts == tiny().prompts


def test_an_inconsistent_state_dict_is_an_error():
    def converted(change):
        state = their_state(tiny())
        change(state)
        return convert_state_dict("dfer_clip", state)

    different = "clip_model_.visual.proj' and 'image_encoder.proj'"
    with pytest.raises(WeightsError, match=different):
        converted(lambda s: s.update({"clip_model_.visual.proj": s["image_encoder.proj"] + 1}))
    with pytest.raises(WeightsError, match="token embedding"):
        converted(lambda s: s.update({"prompt_learner.token_suffix": s["prompt_learner.token_suffix"] + 1}))
    with pytest.raises(WeightsError, match=r"not a checkpoint of dfer_clip: 1 of .*77 entries"):
        converted(lambda s: s.update({"fc.weight": torch.zeros(1)}))
    with pytest.raises(WeightsError, match=r"not a checkpoint of dfer_clip.*image_encoder.proj"):
        converted(lambda s: s.pop("image_encoder.proj"))
    with pytest.raises(WeightsError, match=r"'text_encoder\.transformer\.resblocks\.0\."):
        converted(without("text_encoder.transformer."))
    for shape in ((64,), (1, 7, 2, 64)):
        with pytest.raises(WeightsError, match=r"contexts are \(.*\);"):
            converted(lambda s, shape=shape: s.update({"prompt_learner.ctx": torch.zeros(shape)}))
    with pytest.raises(WeightsError, match=r"7 classes .* 5"):
        converted(lambda s: s.update({n: s[n][:5] for n in s if n.startswith("prompt_learner.token_")}))
    with pytest.raises(WeightsError, match="7 classes"):
        converted(lambda s: s.update({"prompt_learner.token_suffix": s["prompt_learner.token_suffix"][:, 1:]}))


def without(part: str):
    """Remove the tensors of a module, under both of their names."""

    def change(state: dict[str, torch.Tensor]) -> None:
        for name in list(state):
            if name.replace("clip_model_.", "text_encoder.").startswith(part):
                del state[name]

    return change


def test_a_checkpoint_without_temporal_blocks_is_refused(tmp_path, monkeypatch, capsys):
    state = their_state(tiny(num_contexts=8))
    without("temporal_net.temporal_transformer.")(state)
    torch.save(state, tmp_path / "cut.pth")
    monkeypatch.setenv("DFER_ZOO_WEIGHTS", str(tmp_path / "store"))
    assert cli.main(["convert", "dfer_clip", "dfew_fold1", str(tmp_path / "cut.pth")]) == 2
    assert "temporal_depth=0" in capsys.readouterr().err


def write_released_file(path: Path, state: dict[str, torch.Tensor], monkeypatch) -> None:
    """Write the five entries of the training script, including an object of a class in __main__."""
    meter_class = type("RecorderMeter", (), {"__module__": "__main__"})
    meter = meter_class()
    meter.total_epoch, meter.current_epoch = 50, 1
    meter.epoch_losses = meter.epoch_accuracy = np.zeros((50, 2), np.float32)
    parameter = torch.nn.Parameter(torch.zeros(3))
    parameter.grad = torch.ones(3)
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    optimizer.step()
    content = {
        "epoch": 1,
        "state_dict": {f"module.{name}": tensor for name, tensor in state.items()},
        "best_acc": torch.tensor(71.25),
        "optimizer": optimizer.state_dict(),
        "recorder": meter,
    }
    with monkeypatch.context() as there:
        there.setattr(sys.modules["__main__"], "RecorderMeter", meter_class, raising=False)
        torch.save(content, path)


@pytest.mark.slow
@torch.no_grad()
def test_a_released_checkpoint_gives_the_published_logits(tmp_path, monkeypatch):
    """All 618 entries with their prefix, in a file of the published format and size."""
    keys, case = (
        read_case(CASES / "checkpoint_keys.json"),
        read_case(CASES / "dfew_descriptor_ctx8_end_specific_depth1.json"),
    )
    state = with_prompt_buffers(seeded_state(case["state_dict"], case["weight_seed"]), case["config"])
    for name, _, *note in keys["entries"]:
        if name not in state:
            state[name] = state[note[0].removeprefix("same tensor as ")]
    path = tmp_path / "DFEW-fold1.pth"
    write_released_file(path, state, monkeypatch)
    del state

    monkeypatch.setenv("DFER_ZOO_WEIGHTS", str(tmp_path / "store"))
    convert_checkpoint("dfer_clip", "dfew_fold1", path)
    with pytest.raises(WeightsError, match="labels="):
        convert_checkpoint("dfer_clip", "mafw_fold1", path)
    path.unlink()

    model = dfer_zoo.create_model("dfer_clip", "dfew_fold1")
    assert model.labels == model.weights.labels == tuple(PROMPTS["labels"]["7"])
    logits = model(seeded_video(case["inputs"]["video"]))
    found = compare.close("logits", logits, case["outputs"]["logits"]["values"], case["tolerance"]["logits"])
    assert found.ok, found


def test_a_checkpoint_trained_with_other_prompts_is_refused(tmp_path, monkeypatch):
    model = tiny(text_type="class_names", num_contexts=8)
    path = tmp_path / "other.pth"
    write_released_file(path, their_state(model), monkeypatch)
    monkeypatch.setenv("DFER_ZOO_WEIGHTS", str(tmp_path / "store"))
    with pytest.raises(WeightsError, match=r"prompts=\['happiness\.'"):
        convert_checkpoint("dfer_clip", "dfew_fold1", path)
