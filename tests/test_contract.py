"""The contract of all architectures. Every registered architecture is tested."""

import fnmatch
import warnings
from inspect import Parameter, signature

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from timm.layers import trunc_normal_
from torch import nn

import dfer_zoo
from dfer_zoo.errors import InputError
from dfer_zoo.models.base import DferModel, skip_init
from dfer_zoo.models.shortcuts import plain
from dfer_zoo.registry import MODELS, model_class
from tests.tiny import TINY

every_model = pytest.mark.parametrize("arch", sorted(MODELS))


def build(arch: str, seed: int = 0) -> DferModel:
    """A tiny model whose output depends on every parameter. Zero-initialised gates and heads would hide errors."""
    torch.manual_seed(seed)
    model = dfer_zoo.create_model(arch, **TINY[arch])
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return model


def inputs_of(model: DferModel, batch: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return model.example_inputs(batch)


@every_model
def test_there_is_a_tiny_configuration(arch):
    assert arch in TINY


@every_model
def test_the_constructor_takes_keywords_and_rejects_unknown_ones(arch):
    kinds = {p.kind for p in signature(model_class(arch)).parameters.values()}
    assert kinds <= {Parameter.KEYWORD_ONLY}
    with pytest.raises(InputError, match="'frobnicate'"):
        dfer_zoo.create_model(arch, frobnicate=1)


@every_model
def test_a_new_model_is_in_eval_mode_and_has_labels(arch):
    model = build(arch)
    assert not any(module.training for module in model.modules())
    assert len(model.labels) == model.num_classes
    assert model.weights is None


@every_model
@torch.no_grad()
def test_forward_is_features_then_head(arch):
    model = build(arch)
    inputs = inputs_of(model)
    logits = model(**inputs)
    features = model.forward_features(**inputs)
    if model.has_classifier:
        assert logits.shape == (2, model.num_classes)
    else:
        assert model.num_classes == 0 and model.labels == () and len(logits) == 2
    assert torch.equal(logits, model.forward_head(features))
    assert model.forward_head(features, pre_logits=True).shape == (2, model.num_features)


@every_model
@torch.no_grad()
def test_clips_of_a_batch_are_independent(arch):
    model = build(arch)
    inputs = inputs_of(model, batch=3)
    together = model(**inputs)
    alone = torch.cat([model(**{k: v[i : i + 1] for k, v in inputs.items()}) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@every_model
@torch.no_grad()
def test_every_input_matters(arch):
    model = build(arch)
    inputs = inputs_of(model)
    logits = model(**inputs)
    for name in inputs:
        changed = {**inputs, name: inputs[name].flip(0)}
        assert not torch.allclose(model(**changed), logits, rtol=0, atol=1e-7), name


@pytest.mark.parametrize("arch", [arch for arch in sorted(MODELS) if model_class(arch).optional_inputs])
@torch.no_grad()
def test_a_missing_modality_is_a_valid_input(arch):
    model = build(arch)
    inputs = inputs_of(model)
    for name in model.optional_inputs:
        assert model(**{**inputs, name: None}).isfinite().all()


@every_model
def test_a_new_head_keeps_device_dtype_and_other_layers(arch):
    model = build(arch).to(torch.bfloat16)
    if not model.has_classifier:
        with pytest.raises(InputError, match="has no classifier"):
            model.reset_classifier(("yes", "no", "maybe"))
        with pytest.raises(InputError, match="has no classifier"):
            dfer_zoo.create_model(arch, num_classes=3)
        return
    body = {k: v.clone() for k, v in model.state_dict().items() if not k.startswith(model.head_prefixes)}
    model.reset_classifier(("yes", "no", "maybe"))
    assert model.num_classes == 3 and model.labels == ("yes", "no", "maybe")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    after = model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in body.items())
    model = model.float()
    assert model(**inputs_of(model)).shape == (2, 3)
    with pytest.raises(InputError, match="not distinct"):
        model.reset_classifier(("yes", "yes"))
    elsewhere = build(arch).to("meta")
    elsewhere.reset_classifier(("yes", "no", "maybe"))
    assert {tensor.device.type for tensor in (*elsewhere.parameters(), *elsewhere.buffers())} == {"meta"}
    for nonsense in ("ab", -1, 2.0, True):
        with pytest.raises(InputError, match=r"number of classes.*list of labels"):
            model.reset_classifier(nonsense)
    model.reset_classifier(np.int64(7))  # what numpy counts in
    assert model.num_classes == len(model.labels) == 7


@every_model
def test_a_gradient_reaches_every_parameter_that_is_used(arch):
    model = build(arch).train()
    model(**inputs_of(model)).square().sum().backward()
    silent = {
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.abs().sum() > 0)
    }
    assert {name for name in silent if not matches(name, model.unused_parameters)} == set()


def matches(name, patterns):
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


@every_model
def test_freezing_survives_train(arch):
    model = build(arch)
    model.freeze()
    model.train()
    trainable = [n for n, p in model.named_parameters() if p.requires_grad]
    assert 0 < len(trainable) < len(list(model.parameters()))
    for module in model.modules():
        own = list(module.parameters())
        if own and not any(p.requires_grad for p in own):
            assert not module.training
    buffers = {k: v.clone() for k, v in model.named_buffers()}
    model.freeze("*")
    model.train()
    with torch.no_grad():
        model(**inputs_of(model))
    assert all(torch.equal(v, buffers[k]) for k, v in model.named_buffers())


@every_model
def test_gradient_checkpointing_changes_nothing(arch):
    model = build(arch)
    inputs = inputs_of(model)

    def gradients():
        model.zero_grad()
        loss = model(**inputs).square().sum()
        loss.backward()
        return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    plain_loss, plain = gradients()
    model.set_grad_checkpointing()
    loss, again = gradients()
    torch.testing.assert_close(loss, plain_loss)
    assert plain.keys() == again.keys()
    for name in plain:
        torch.testing.assert_close(again[name], plain[name], msg=name)


@every_model
@torch.no_grad()
def test_bf16_autocast_is_finite(arch):
    model = build(arch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(**inputs_of(model)).isfinite().all()


@pytest.mark.graph
@every_model
@torch.no_grad()
def test_the_model_compiles_as_one_graph(arch):
    model = build(arch)
    inputs = inputs_of(model)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with plain():  # a compiled model takes no shortcuts
        expected = model(**inputs)
    torch.testing.assert_close(compiled(**inputs), expected)


@pytest.mark.graph
@every_model
@torch.no_grad()
def test_the_model_exports_for_any_batch_size(arch):
    model = build(arch)
    inputs = inputs_of(model)
    batch = torch.export.Dim("batch", min=1, max=64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            model, args=(), kwargs=inputs, dynamic_shapes={name: {0: batch} for name in inputs}
        )
    for size in (1, 3):
        inputs = inputs_of(model, batch=size)
        torch.testing.assert_close(program.module()(**inputs), model(**inputs), rtol=1e-4, atol=1e-5)


@every_model
@torch.no_grad()
def test_safetensors_keep_the_state_dict(arch):
    model, other = build(arch, seed=0), build(arch, seed=1)
    state = model.state_dict()
    other.load_state_dict(load(save({k: v.contiguous() for k, v in state.items()})), strict=True)
    inputs = inputs_of(model)
    assert torch.equal(other(**inputs), model(**inputs))


@every_model
@torch.no_grad()
def test_a_saved_model_gives_the_same_outputs(arch, tmp_path):
    model = build(arch)
    labels = ("a", "b", "c") if model.has_classifier else ()
    if model.has_classifier:
        model.reset_classifier(labels)
    dfer_zoo.save_pretrained(model, tmp_path)
    again = dfer_zoo.create_model(f"local-dir:{tmp_path}")
    inputs = inputs_of(model)
    assert again.labels == labels
    assert torch.equal(again(**inputs), model(**inputs))


@every_model
@torch.no_grad()
def test_skipping_the_initialisation_keeps_computed_values(arch):
    """Values that no file stores (position tables, masks) are computed although random initialisation is skipped."""
    model = build(arch)
    with skip_init():
        bare = model_class(arch)(**model.config())
    bare.load_state_dict(model.state_dict())
    inputs = inputs_of(model)
    assert torch.equal(bare.eval()(**inputs), model(**inputs))


def test_skip_init_draws_no_random_numbers():
    with skip_init():
        tensors = [torch.full((40, 40), 1e9) for _ in range(6)]
        for fill, tensor in zip((trunc_normal_, nn.init.xavier_uniform_, nn.init.orthogonal_), tensors):
            fill(tensor)
        nn.init.trunc_normal_(tensors[3], std=0.02)
        before = torch.get_rng_state()
        layer = nn.MultiheadAttention(16, 2)
        nn.init.trunc_normal_(layer.in_proj_weight, std=0.02, a=-0.02, b=0.02)
    assert torch.equal(torch.get_rng_state(), before)


@every_model
def test_no_two_state_dict_entries_share_storage(arch):
    state = build(arch).state_dict()
    assert len({tensor.data_ptr() for tensor in state.values() if tensor.numel()}) == sum(
        t.numel() > 0 for t in state.values()
    )


@every_model
@torch.no_grad()
def test_a_wrong_shape_is_an_error(arch):
    model = build(arch)
    inputs = inputs_of(model)
    for name, tensor in inputs.items():
        with pytest.raises(InputError, match=rf"{name} must be .*got \({tensor.shape[0]}, "):
            model(**{**inputs, name: tensor[..., :-1]})
        with pytest.raises(InputError, match=f"{name} must be "):
            model(**{**inputs, name: tensor[0]})


@every_model
@torch.no_grad()
def test_integer_pixels_are_an_error(arch):
    model = build(arch)
    inputs = inputs_of(model)
    for name, tensor in inputs.items():
        with pytest.raises(InputError, match=rf"{name} must be .*torch\.uint8"):
            model(**{**inputs, name: tensor.to(torch.uint8)})


def arguments(*names):
    """(architecture, argument) pairs, for the architectures that take the argument."""
    return [
        (arch, name) for arch in sorted(MODELS) for name in names if name in signature(model_class(arch)).parameters
    ]


@pytest.mark.parametrize("arch, name", arguments("num_classes", "img_size", "num_frames"))
def test_constructors_check_whole_numbers(arch, name):
    with pytest.raises(InputError, match=rf"{name} is 48\.0;"):
        model_class(arch)(**{name: 48.0})


@pytest.mark.parametrize("arch, name", arguments("drop_path_rate"))
@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5])
def test_constructors_check_rates(arch, name, rate):
    with pytest.raises(InputError, match=f"{name} is {rate};"):
        model_class(arch)(**{name: rate})


def test_an_empty_batch_is_an_error():
    with pytest.raises(InputError, match="no clips"):
        dfer_zoo.create_transform(build("av_fusion"), faces="none").batch([])


@every_model
def test_layer_decay_groups_come_from_timm(arch):
    from timm.optim import param_groups_layer_decay

    model = build(arch)
    groups = param_groups_layer_decay(
        model, weight_decay=0.05, layer_decay=0.5, no_weight_decay_list=model.no_weight_decay()
    )
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    head = {id(p) for p in model.get_classifier().parameters()}
    assert all(group["lr_scale"] == 1.0 for group in groups if head & {id(p) for p in group["params"]})
    assert len({group["lr_scale"] for group in groups}) > 1
