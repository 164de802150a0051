"""Inference shortcuts match the plain computation, and are off for training, gradients and hooks."""

import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dfer_zoo.models import shortcuts
from dfer_zoo.models.clip_towers import block_at, build_clip
from dfer_zoo.models.efficient_face import EfficientFace, FaceEncoder
from dfer_zoo.models.layers import Block
from dfer_zoo.models.packed import interleaved, relu_max_pool
from dfer_zoo.models.packed_face import AT_ONCE, PackedFace
from dfer_zoo.models.shortcuts import Mlp, QuickGELU, in_chunks, linear, plain, quick_gelu
from dfer_zoo.models.video_mae import Attention
from dfer_zoo.registry import MODELS, model_class
from tests.tiny import TINY


def relative(ours, expected):
    return ((ours - expected).norm() / expected.norm()).item()


def perturbed(model):
    """Perturb all values, so that norms and batch statistics matter."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            noise = 0.1 * torch.randn(tensor.shape, generator=generator)
            tensor.add_(noise.abs() if name.endswith("running_var") else noise)
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(MODELS.keys() & TINY.keys()))
def test_shortcuts_match_the_plain_computation(name):
    torch.manual_seed(0)
    model = perturbed(model_class(name)(**TINY[name]))
    inputs = model.example_inputs(batch=2)
    with plain():
        expected = model(**inputs)
    assert relative(model(**inputs), expected) < 2e-6


@torch.no_grad()
def test_attention_to_few_keys_uses_folded_matrices():
    attention = perturbed(Attention(16, 2)).double()
    queries, context = torch.randn(2, 40, 16).double(), torch.randn(2, 3, 16).double()
    assert attention.is_cheaper_folded(queries, context)
    with plain():
        expected = attention(queries, context)
    torch.testing.assert_close(attention(queries, context), expected, rtol=1e-12, atol=1e-12)
    assert not attention.is_cheaper_folded(queries, torch.zeros(2, 8, 16))  # as many columns as before


@torch.no_grad()
@pytest.mark.parametrize("activation", [nn.GELU, QuickGELU])
def test_a_hook_inside_an_mlp_sees_what_the_plain_path_computes(activation):
    mlp = Mlp(4, 8, act_layer=activation).eval()
    x, seen = torch.randn(3, 4), []
    expected = mlp.fc1(x)
    mlp.fc1.register_forward_hook(lambda module, inputs, output: seen.append(output))
    mlp(x)
    assert torch.equal(seen[0], expected)


def test_training_and_gradients_take_the_plain_path():
    mlp = Mlp(4, 8)
    x = torch.randn(3, 4)
    assert not shortcuts.applies(mlp.eval(), x)  # gradients are on
    with torch.no_grad():
        assert shortcuts.applies(mlp, x)
        assert not shortcuts.applies(mlp.train(), x)
        with plain():
            assert not shortcuts.applies(mlp.eval(), x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not shortcuts.applies(mlp, x)
        assert not shortcuts.applies(mlp, x.half())


@torch.no_grad()
def test_an_adapter_in_place_of_a_linear_layer_is_called():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    mlp = Mlp(4, 8, act_layer=QuickGELU).eval()
    before = mlp(torch.ones(1, 4))
    mlp.fc1.__class__ = Doubled
    assert not torch.allclose(mlp(torch.ones(1, 4)), before)


@torch.no_grad()
def test_chunks_of_a_batch_are_put_together_in_order():
    block = nn.Linear(3, 3).eval()
    tokens = torch.randn(10, 2, 3)
    torch.testing.assert_close(in_chunks(lambda b, t: b(t), block, tokens, size=4), block(tokens))


def test_quick_gelu_keeps_less_for_the_gradient_and_gives_the_same_one():
    def plain(x):
        return x * torch.sigmoid(1.702 * x)

    def kept(function):
        sizes = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.update({t.data_ptr(): t.numel()}) or t, lambda t: t
        ):
            hidden = weight @ x  # an activation, as between the layers of an MLP
            (weight @ function(hidden)).sum().backward()
        return sum(sizes.values()), x.grad

    torch.manual_seed(0)
    weight = torch.randn(64, 64, dtype=torch.float64)
    found = []
    for function in (plain, quick_gelu):
        x = torch.randn(64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
        found.append(kept(function))
    (before, expected), (after, gradient) = found
    assert after < before
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)


# -- matrix products ---------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("act", ["none", "gelu", "silu"])
def test_products_with_onednn_match_torch(act):
    x, weight, bias = torch.randn(2, 5, 16), torch.randn(24, 16), torch.randn(24)
    with plain():
        expected = linear(x, weight, bias, act)
    assert relative(linear(x, weight, bias, act), expected) < 1e-6
    assert linear(x[:0], weight, bias, act).shape == (0, 5, 24)
    assert relative(linear(x.double(), weight.double(), bias.double(), act), expected.double()) < 1e-6


@torch.no_grad()
def test_products_take_tensors_that_are_not_contiguous():
    tensors = torch.randn(4, 7, 32), torch.randn(7, 4, 32).transpose(0, 1), torch.randn(4, 7, 64)[..., ::2]
    weights = torch.randn(8, 32), torch.randn(32, 8).t(), torch.randn(8, 64)[:, ::2]
    for x in (
        *tensors,
        tensors[0][:, :1],
        tensors[0][:, 2:5],
        tensors[0][0, 0],
        torch.randn(32, 4, 2).permute(2, 1, 0),
    ):
        for weight in weights:
            for bias in (None, torch.randn(8), torch.randn(16)[::2]):
                assert relative(linear(x, weight, bias), nn.functional.linear(x, weight, bias)) < 1e-6


def test_products_record_gradients():
    x, weight = torch.randn(2, 3), torch.randn(4, 3, requires_grad=True)
    linear(x, weight, act="gelu").sum().backward()
    assert weight.grad is not None


@torch.no_grad()
def test_products_have_forward_derivatives():
    x, weight = torch.randn(2, 3), torch.randn(4, 3)
    _, tangent = torch.func.jvp(lambda x: linear(x, weight), (x,), (x,))
    torch.testing.assert_close(tangent, x @ weight.T)


def test_products_are_counted_and_exported_as_usual():
    block = Block(64, 2).eval()
    x = torch.randn(1, 3, 64)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        block(x)
    assert counter.get_total_flops() > 2 * 3 * 64 * 64 * 12 - 1
    with torch.no_grad():
        exported = torch.export.export(block, (x,))
    assert "mkldnn" not in str(exported.graph)
    torch.testing.assert_close(exported.module()(x), block(x))


# -- attention ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("tokens", [1, 2, 7])
def test_clips_attention_matches_torch(tokens):
    text = {"context_length": 8, "vocab_size": 50, "width": 64, "heads": 2, "layers": 1}
    vision = {"image_size": 8, "patch_size": 8, "width": 64, "layers": 1, "head_width": 32}
    clip = build_clip({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text, "quick_gelu": True})
    block = perturbed(clip.transformer.resblocks[0])
    x = torch.randn(3, tokens, 64)
    causal = torch.full((tokens, tokens), float("-inf")).triu_(1)
    for run in (block, lambda x: block(x, attn_mask=causal), lambda x: block_at(block, x, x[:, :1])):
        with plain():
            expected = run(x)
        assert relative(run(x), expected) < 1e-6


@torch.no_grad()
@pytest.mark.parametrize("bias", [False, True])
def test_attention_of_one_query_does_not_compute_keys(bias):
    attention = perturbed(Attention(16, 2, qkv_bias=bias)).double()
    query, context = torch.randn(4, 1, 16).double(), torch.randn(4, 7, 16).double()
    with plain():
        expected = attention(query, context)
    torch.testing.assert_close(attention(query, context), expected, rtol=1e-12, atol=1e-12)


# -- convolutions ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_pooling_and_shuffling_give_the_same_values():
    for side in (2, 6, 28):
        x = torch.rand(2, 5, side, side).contiguous(memory_format=torch.channels_last)
        assert torch.equal(relu_max_pool(x), nn.functional.max_pool2d(x, 3, 2, 1))
    left, right = torch.rand(2, 2, 3, 4, 4)
    assert torch.equal(interleaved(left, right), torch.stack([left, right], dim=-1).flatten(3))


def encoder_and_images():
    torch.manual_seed(0)
    return perturbed(FaceEncoder()), torch.rand(2, 3, 64, 64)


def check_encoder(encoder, images):
    with plain():
        expected = encoder(images)
    assert relative(encoder(images), expected) < 1e-6


CHANGES = {
    "in place": lambda encoder: encoder.expand.conv.weight.mul_(1.5),
    "data": lambda encoder: encoder.expand.conv.weight.data.mul_(1.5),
    "one value of data": lambda encoder: encoder.expand.conv.weight.data[5, 3].add_(9),
    "new data": lambda encoder: setattr(encoder.expand.conv.weight, "data", encoder.expand.conv.weight * 2),
    "norm": lambda encoder: encoder.stem.norm.running_mean.data.add_(1),
    "new parameter": lambda encoder: setattr(encoder.stem.norm, "bias", nn.Parameter(torch.ones(29))),
    "new norm": lambda encoder: setattr(encoder.stem, "norm", nn.BatchNorm2d(29).eval()),
    "new part": lambda encoder: setattr(encoder, "stage3", perturbed(copy.deepcopy(encoder.stage3))),
    "state dict": lambda encoder: encoder.load_state_dict(FaceEncoder().state_dict()),
    "assigned": lambda encoder: encoder.load_state_dict(FaceEncoder().state_dict(), assign=True),
}


@torch.no_grad()
@pytest.mark.parametrize("change", CHANGES)
def test_packed_convolutions_follow_changes(change):
    encoder, images = encoder_and_images()
    before = encoder(images)
    CHANGES[change](encoder)
    check_encoder(encoder, images)
    assert relative(encoder(images), before) > 1e-5


@torch.no_grad()
@pytest.mark.parametrize("change", CHANGES)
def test_packed_convolutions_follow_changes_of_weights_in_channels_last(change):
    encoder, images = encoder_and_images()
    encoder.to(memory_format=torch.channels_last)
    before = encoder(images)
    CHANGES[change](encoder)
    check_encoder(encoder, images)
    assert relative(encoder(images), before) > 1e-5


@torch.no_grad()
def test_packed_convolutions_are_reused():
    encoder, images = encoder_and_images()
    encoder(images)
    program = encoder.packed.program(encoder, images)
    check_encoder(encoder, images[:1])  # another batch size
    check_encoder(encoder, torch.rand(1, 3, 96, 96))
    assert isinstance(program, PackedFace) and encoder.packed.program(encoder, images) is program


@torch.no_grad()
def test_a_large_batch_is_encoded_in_parts():
    encoder, _ = encoder_and_images()
    images = torch.rand(2 * AT_ONCE + 1, 3, 32, 32)
    check_encoder(encoder, images)
    assert torch.equal(encoder(images)[AT_ONCE:-1], encoder(images[AT_ONCE:-1]))


class TensorOfOthers(torch.Tensor):
    """As quantization and sharding use."""


OTHER_PARTS = {
    "weights with gaps": lambda encoder: setattr(
        encoder.expand.conv.weight, "data", torch.rand(1024, 928, 1, 1)[:, ::2]
    ),
    "a stage without its first unit": lambda encoder: setattr(encoder, "stage4", nn.Sequential(nn.Identity())),
    "a tensor of another class": lambda encoder: setattr(
        encoder.stem.conv, "weight", nn.Parameter(TensorOfOthers(encoder.stem.conv.weight))
    ),
    "a part in training mode": lambda encoder: encoder.stem.norm.train(),
    "a norm without values": lambda encoder: setattr(encoder.expand, "norm", nn.BatchNorm2d(1024, affine=False).eval()),
    "a norm without statistics": lambda encoder: setattr(
        encoder.expand, "norm", nn.BatchNorm2d(1024, track_running_stats=False).eval()
    ),
    "a gate without values": lambda encoder: encoder.modulator.channel_gate.__setitem__(
        1, nn.BatchNorm1d(7, affine=False).eval()
    ),
    "another padding": lambda encoder: setattr(
        encoder.stem, "conv", nn.Conv2d(3, 29, 3, 2, 1, bias=False, padding_mode="reflect")
    ),
    "another activation": lambda encoder: setattr(encoder.expand, "relu", nn.GELU()),
}


@torch.no_grad()
@pytest.mark.parametrize("part", OTHER_PARTS)
def test_other_parts_are_not_packed(part):
    encoder, images = encoder_and_images()
    encoder(images)
    OTHER_PARTS[part](encoder)
    if part == "a stage without its first unit":
        encoder.expand.conv = nn.Conv2d(232, 1024, 1, bias=False)
    assert encoder.packed.program(encoder, images) is None
    statistics = copy.deepcopy(encoder.stem.norm.state_dict())
    with plain():
        expected = encoder(images)
    encoder.stem.norm.load_state_dict(statistics)
    assert relative(encoder(images), expected) < 1e-5


def test_packed_convolutions_follow_training():
    encoder, images = encoder_and_images()
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    with torch.no_grad():
        before = encoder(images)
    encoder.train()(images).square().mean().backward()
    optimizer.step()
    encoder.eval()
    with torch.no_grad():
        check_encoder(encoder, images)
        assert relative(encoder(images), before) > 1e-5
        encoder.double()
        check_encoder(encoder, images.double())
        encoder.float()
        check_encoder(encoder, images)


@torch.no_grad()
def test_copies_of_an_encoder_have_their_own_packed_convolutions():
    encoder, images = encoder_and_images()
    encoder(images)
    other = copy.deepcopy(encoder)
    other.expand.conv.weight.mul_(2)
    check_encoder(other, images)
    check_encoder(encoder, images)
    assert not encoder.state_dict().keys() ^ FaceEncoder().state_dict().keys()


def test_an_encoder_that_was_packed_in_inference_mode_still_trains_and_compares():
    encoder, images = encoder_and_images()
    with torch.inference_mode():
        encoder(images)
    with torch.no_grad():
        check_encoder(encoder, images)
    with torch.inference_mode():
        check_encoder(EfficientFace(img_size=64).eval(), images)  # parameters without version counters
    encoder(images).sum().backward()
    assert encoder.expand.conv.weight.grad is not None


@torch.no_grad()
def test_hooks_and_adapters_inside_an_encoder_are_called():
    encoder, images = encoder_and_images()
    expected = encoder(images)
    seen = []
    handle = encoder.stage2[0].right[0].norm.register_forward_hook(lambda *_: seen.append(1))
    assert relative(encoder(images), expected) < 1e-6 and seen
    handle.remove()
    encoder.expand.conv._forward_hooks = OrderedDict()  # some code removes hooks like this
    encoder(images)
    encoder.expand.conv.register_forward_hook(lambda *_: seen.append(2))
    assert relative(encoder(images), expected) < 1e-6 and seen[-1] == 2
    encoder.expand.conv._forward_hooks.clear()
    encoder.expand.conv._forward_hooks[0] = lambda *_: seen.append(3)  # past the interface
    assert relative(encoder(images), expected) < 1e-6 and seen[-1] == 3
    encoder.expand.conv._forward_hooks.clear()

    class Doubled(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    encoder.expand.conv.__class__ = Doubled
    assert relative(encoder(images), expected) > 1e-3
    check_encoder(encoder, images)
