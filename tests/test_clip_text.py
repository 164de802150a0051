"""CLIP's prompts and towers, and the cache of features that depend on the weights only."""

import copy

import open_clip
import pytest
import torch
from torch import nn

from dfer_zoo.errors import InputError
from dfer_zoo.models.clip_towers import (
    FeatureCache,
    PromptLearner,
    TextTower,
    block_at,
    build_clip,
    class_texts,
    read_prompts,
    tokenize,
)

SMALL = {
    "embed_dim": 64,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 64, "layers": 2},
    "text_cfg": {"width": 128, "heads": 2, "layers": 3},
}


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    model = build_clip(SMALL).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms must matter
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@torch.no_grad()
def test_text_features_match_open_clip(clip):
    ids, ends = tokenize(["a smiling mouth.", "tears, and a wrinkled forehead.", "fear"])
    for mode in (True, False):  # torch has other kernels in eval mode
        ours = TextTower(clip).train(mode).encode_ids(ids, ends)
        torch.testing.assert_close(ours, clip.train(mode).encode_text(ids), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_tokens_after_the_last_end_mark_have_no_effect(clip, position):
    tower = TextTower(clip)
    prompts = PromptLearner(["a smile.", "one eyebrow lower."], tower.width, 5, class_token_position=position)
    cut = tower(prompts(tower.token_embedding), prompts.ends)
    whole = tower(prompts(tower.token_embedding, 77), prompts.ends)
    assert prompts(tower.token_embedding).shape[1] == prompts.ends.max() + 1 < 77
    torch.testing.assert_close(cut, whole, rtol=1e-5, atol=1e-5)


def test_a_block_at_some_positions_matches_the_full_block(clip):
    block, tokens = clip.visual.transformer.resblocks[0], torch.randn(3, 5, 64)
    torch.testing.assert_close(block_at(block, tokens, tokens[:, 1:3]), block(tokens)[:, 1:3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ("end", ["<", "c0", "c1", "c2", "c3", "c4", "happiness", ".", ">"]),
        ("middle", ["<", "c0", "c1", "happiness", ".", "c2", "c3", "c4", ">"]),
        ("front", ["<", "happiness", ".", "c0", "c1", "c2", "c3", "c4", ">"]),
    ],
)
@pytest.mark.parametrize("class_specific", [True, False])
def test_contexts_are_at_the_requested_positions(position, expected, class_specific):
    prompts = PromptLearner(
        ["sadness and tears.", "happiness."], 4, 5, class_token_position=position, class_specific=class_specific
    )
    embedding = nn.Embedding(49408, 4)
    context = prompts.contexts[1] if class_specific else prompts.contexts
    words = {"<": 49406, ">": 49407, "happiness": 5096, ".": 269}
    rows = [context[int(word[1:])] if word[0] == "c" else embedding.weight[words[word]] for word in expected]
    assert torch.equal(prompts(embedding)[1, : len(expected)], torch.stack(rows))


def test_a_prompt_may_have_no_contexts():
    prompts, embedding = PromptLearner(["fear"], 4, 0), nn.Embedding(49408, 4)
    assert torch.equal(prompts(embedding)[0], embedding.weight[[49406, 5402, 49407]])


def test_a_text_that_is_too_long_is_an_error():
    with pytest.raises(InputError, match=r"77 tokens.* 76"):
        tokenize(["word " * 75], context_length=76)
    assert tokenize(["word " * 75])[1].tolist() == [76]
    with pytest.raises(InputError, match="does not fit"):
        PromptLearner(["word " * 75], 4, 1)


def test_published_prompts_are_used_only_if_every_class_has_one():
    published = read_prompts("dfer_clip")["texts"]["class_descriptor"]
    assert class_texts(("fear", "anger"), None, published)[0].startswith("raised eyebrows")
    assert class_texts(("fear", "boredom"), None, published, "a face of {}.") == (
        "a face of fear.",
        "a face of boredom.",
    )
    assert class_texts(("fear",), ["my own"], published) == ("my own",)
    with pytest.raises(InputError, match="1 prompts and 2 labels"):
        class_texts(("fear", "anger"), ["my own"], published)
    for wrong in ("my", {"f": "my own", "a": "my other"}, {"my own", "my other"}):
        with pytest.raises(InputError, match="prompts must be a list"):
            class_texts(("f", "a"), wrong, published)


@pytest.mark.parametrize(
    "name", ["ViT-B-32", "ViT-B-16", {**SMALL, "quick_gelu": False}, {**SMALL, "quick_gelu": None}]
)
def test_clip_without_quickgelu_cannot_be_built(name):
    with pytest.raises(InputError, match="QuickGELU"):
        build_clip(name)


def test_unknown_and_unsupported_clip_models_are_errors():
    for name, message in [
        ("ViT-B-33-quickgelu", "Did you mean ViT-B-32-quickgelu"),
        ("hf-hub:someone/something", "no model"),
        ("RN50-quickgelu", "expected CLIP's ViT"),
        ({"embed_dim": 4, "quick_gelu": True}, "lacks text_cfg, vision_cfg"),
    ]:
        with pytest.raises(InputError, match=message):
            build_clip(name)
    assert open_clip.get_model_config("ViT-B-32-quickgelu")["quick_gelu"]


# -- the cache -----------------------------------------------------------------------------------------------------------


class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.kept = FeatureCache()
        self.count = 0

    def compute(self):
        self.count += 1
        return self.layer.weight.sum(0)

    def forward(self):
        return self.kept(self.parameters(), self.compute)


def recomputed(module: Counted) -> bool:
    """Call the module. Returns whether it computed again; the result must be correct either way."""
    before = module.count
    with torch.no_grad():
        assert torch.equal(module(), module.layer.weight.sum(0))
    return module.count > before


def test_features_are_cached_while_the_weights_stay_the_same():
    module = Counted().eval()
    assert recomputed(module)
    assert not recomputed(module)
    with torch.inference_mode():
        module()
    assert not recomputed(module)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.layer.weight.add_(1),
        lambda m: m.layer.weight.data.mul_(1.001),  # torch's version counters do not see this
        lambda m: m.layer.weight.data.copy_(m.layer.weight.data.flip(0)),
        lambda m: m.layer.weight.detach().numpy().__imul__(2),
        lambda m: m.load_state_dict(Counted().state_dict()),
        lambda m: m.layer.load_state_dict(Counted().layer.state_dict(), assign=True),
        lambda m: [m.layer.load_state_dict(Counted().layer.state_dict(), assign=True) for _ in range(3)],
        lambda m: m.double(),
        lambda m: m.half().float(),
        lambda m: m.layer.bfloat16().float(),
        lambda m: setattr(m, "layer", nn.Linear(3, 3)),
        lambda m: setattr(m.layer.weight, "data", torch.randn(3, 3)),
        lambda m: torch.optim.SGD(m.parameters(), lr=1.0).step(lambda: m.layer.weight.grad.fill_(1.0).sum()),
        lambda m: torch.optim.AdamW(m.parameters(), foreach=True).step(lambda: m.layer.weight.grad.fill_(1.0).sum()),
    ],
)
@torch.no_grad()
def test_features_are_computed_again_when_the_weights_change(change):
    module = Counted().eval()
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    assert recomputed(module) and not recomputed(module)
    change(module)
    assert recomputed(module) and not recomputed(module)


def test_features_are_computed_again_under_another_autocast():
    module = Counted().eval()
    assert recomputed(module)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert recomputed(module)
    assert recomputed(module)


def test_cached_features_work_in_a_backward_pass():
    module = Counted().eval().requires_grad_(False)
    with torch.inference_mode():
        module()
    x = torch.ones(3, requires_grad=True)
    (x * module()).sum().backward()
    assert module.count == 1 and torch.equal(x.grad, module.layer.weight.sum(0))


def test_the_cache_is_not_used_when_gradients_are_required():
    module = Counted().eval()
    assert recomputed(module)
    module().sum().backward()
    assert torch.equal(module.layer.weight.grad, torch.ones(3, 3))


@torch.no_grad()
def test_writing_to_features_does_not_change_the_cache():
    module = Counted().eval()
    for _ in range(2):
        module().zero_()
    assert not recomputed(module)


def test_copies_start_with_an_empty_cache():
    module = Counted().eval()
    assert recomputed(module)
    assert recomputed(copy.deepcopy(module))
    module.kept.drop()
    assert recomputed(module)


def test_transforms_of_torch_func_bypass_the_cache():
    module = Counted().eval()
    assert recomputed(module)
    total = torch.func.grad(lambda p: torch.func.functional_call(module, p, ()).sum())(dict(module.named_parameters()))
    assert torch.equal(total["layer.weight"], torch.ones(3, 3))
    assert not recomputed(module)


def test_fake_tensors_do_not_enter_the_cache():
    from torch._subclasses.fake_tensor import FakeTensorMode

    module = Counted().eval()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        assert module().shape == (3,)
    assert recomputed(module)
    with torch.no_grad():
        assert module.to("meta")().device.type == "meta"
