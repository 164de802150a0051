"""Inference shortcuts match the plain computation, and are off for training, gradients and hooks."""

import pytest
import torch
from torch import nn

from dfer_zoo.models import shortcuts
from dfer_zoo.models.shortcuts import Mlp, QuickGELU, in_chunks, plain, quick_gelu
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
