"""MAE-DFER, VideoMAE and their pre-training beyond the parity cases: files, shortcuts, masks, inputs."""

import argparse
import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import dfer_zoo
from dfer_zoo.checkpoints import convert_checkpoint
from dfer_zoo.convert import convert_state_dict
from dfer_zoo.errors import InputError, WeightsError
from dfer_zoo.media.clip import Clip
from dfer_zoo.models.base import skip_init
from dfer_zoo.models.mae_dfer import MAEDFER, LGIBlock
from dfer_zoo.models.mae_dfer_pretrain import MAEDFERPretrain
from dfer_zoo.models.video_mae import VideoMAE, attend
from dfer_zoo.registry import get_weights, list_pretrained, manifest
from dfer_zoo.training.mixing import MIXES, MixDraw, draw_mix, mix_in_pairs, soft_targets
from dfer_zoo.transforms import create_transform, sampling
from dfer_zoo.transforms.train import augmentation
from dfer_zoo.transforms.train import mae_dfer as train
from tests.parity.checks.mae_dfer import our_arguments
from tests.parity.compare import relative_l2
from tests.parity.making import seeded_input, seeded_state
from tests.parity.masking import tube_mask, window_mask
from tests.parity.published import spatial_views
from tests.parity.runner import read_case
from tests.tiny import TINY

CASES = Path(__file__).parent / "parity" / "mae_dfer"


def tiny(kind=MAEDFER, seed=0, **changes):
    """A model whose output depends on every parameter. A new head is close to zero and would hide errors."""
    torch.manual_seed(seed)
    name = {MAEDFER: "mae_dfer", VideoMAE: "video_mae", MAEDFERPretrain: "mae_dfer_pretrain"}[kind]
    model = kind(**{**TINY[name], **changes}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def a_clip(frames=100, height=48, width=64):
    pictures = np.random.RandomState(0).randint(0, 256, (frames, height, width, 3), dtype=np.uint8)
    return Clip.from_arrays(pictures, fps=25)


# -- sizes and records -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "changes", "parameters"),
    [
        (MAEDFER, {"num_classes": 7}, 84_878_343),
        (MAEDFER, {"num_classes": 6}, 84_877_830),
        (MAEDFER, {"num_classes": 8}, 84_878_856),
        (MAEDFER, {"num_classes": 11}, 84_880_395),
        (VideoMAE, {"num_classes": 7}, 86_232_583),
        (MAEDFERPretrain, {}, 92_760_192),
        (MAEDFERPretrain, {"attention": "joint", "width": 768, "depth": 12, "num_heads": 12}, 94_210_944),
    ],
)
def test_the_published_models_have_the_published_numbers_of_parameters(kind, changes, parameters):
    with skip_init():
        model = kind(**changes)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_every_record_fits_its_model():
    for arch, tag in [*list_pretrained("mae_dfer"), *list_pretrained("mae_dfer_pretrain")]:
        record = get_weights(arch, tag)
        with skip_init():
            model = dfer_zoo.registry.model_class(arch)(**record.model_args)
        assert sum(p.numel() for p in model.parameters()) == record.params
        assert len(record.labels) == model.num_classes and record.video.img_size == model.video_spec.img_size


def test_the_folds_have_the_published_means():
    for dataset, uar, war in (("dfew", 63.41, 74.43), ("mafw", 42.36, 55.03)):
        records = [get_weights("mae_dfer", f"{dataset}_fold{k}") for k in range(1, 6)]
        means = {n: np.mean([m.value for r in records for m in r.metrics if m.name == n]) for n in ("uar", "war")}
        assert means["uar"] == pytest.approx(uar, abs=0.006) and means["war"] == pytest.approx(war, abs=0.006)


def test_each_data_set_has_its_own_label_order():
    assert get_weights("mae_dfer.mafw_fold1").labels[:2] == ("anger", "disgust")
    assert get_weights("mae_dfer.dfew_fold1").labels[:2] == ("happy", "sad")
    assert get_weights("mae_dfer.ferv39k").video.rate == 1 and get_weights("mae_dfer.dfew_fold1").video.rate == 4


# -- files -------------------------------------------------------------------------------------------------------------


def authors_file(path, state):
    """Write a checkpoint in the format of the training script: Namespace, DataParallel prefix, optimizer, scaler."""
    content = {
        "model": {f"module.{name}": value for name, value in state.items()},
        "optimizer": {"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": [{"lr": 1e-3}]},
        "epoch": "best",
        "scaler": {"scale": 65536.0},
        "args": argparse.Namespace(model="vit_base_dim512_no_depth_patch16_160", lr=1e-3, output_dir=Path("saved")),
    }
    torch.save(content, path)
    return path


def record_of(case, arch, tag, monkeypatch, arguments):
    """Change the published record to the sizes of a case."""
    published = get_weights(arch, tag)
    size, frames = arguments["img_size"], arguments.get("num_frames", 16)
    small = dataclasses.replace(
        published,
        params=case["parameters"],
        model_args={**published.model_args, **arguments},
        video=dataclasses.replace(published.video, img_size=size, num_frames=frames),
    )
    monkeypatch.setitem(manifest(), (arch, tag), small)


def test_a_fine_tuned_file_is_converted_once_and_gives_the_published_logits(tmp_path, monkeypatch):
    monkeypatch.setenv("DFER_ZOO_WEIGHTS", str(tmp_path / "store"))
    case = read_case(CASES / "finetune_small_base.json")
    record_of(case, "mae_dfer", "dfew_fold1", monkeypatch, our_arguments(case["config"], joint=False))
    state = seeded_state(case["state_dict"], case["weights"])
    convert_checkpoint("mae_dfer", "dfew_fold1", authors_file(tmp_path / "checkpoint-99.pth", state))

    model = dfer_zoo.create_model("mae_dfer.dfew_fold1")
    assert model.labels[6] == "fear" and model.weights.tag == "dfew_fold1"
    with torch.no_grad():
        logits = model(seeded_input(case["inputs"]["video"]).transpose(1, 2))
    assert relative_l2(logits.flatten(), case["outputs"]["10_logits"]["full"]["values"]) <= case["tolerance"]


def test_a_pre_trained_file_becomes_the_backbone_of_the_fine_tuning(tmp_path, monkeypatch):
    monkeypatch.setenv("DFER_ZOO_WEIGHTS", str(tmp_path / "store"))
    case = read_case(CASES / "pretrain_small_lgi.json")
    arguments = our_arguments(case["config"], joint=False)
    record_of(case, "mae_dfer_pretrain", "voxceleb2", monkeypatch, {**arguments, "mask_ratio": 0.75})
    state = seeded_state(case["state_dict"], case["weights"])
    convert_checkpoint("mae_dfer_pretrain", "voxceleb2", authors_file(tmp_path / "checkpoint-49.pth", state))

    pretrained = dfer_zoo.create_model("mae_dfer_pretrain.voxceleb2")
    shared = {name: arguments[name] for name in ("img_size", "width", "depth", "num_heads", "region")}
    model = dfer_zoo.create_model("mae_dfer", pretrained="backbone", labels=("calm", "excited"), **shared)
    own, source = model.state_dict(), pretrained.state_dict()
    report = model.load_report
    assert set(report.initialized) == {
        f"{part}.{n}" for part in ("feature_norm", "classifier") for n in ("weight", "bias")
    }
    assert {name for name in report.ignored if not name.startswith("decoder.")} == {
        *("encoder_norm.weight", "encoder_norm.bias", "to_decoder.weight", "mask_token"),
    }
    assert all(torch.equal(own[name], source[name]) for name in report.loaded)
    assert set(report.loaded) | set(report.initialized) == set(own)


def test_a_backbone_of_another_size_is_an_error_and_loads_nothing():
    model, other = tiny(), tiny(MAEDFERPretrain, width=24, decoder_width=12)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match="of another shape"):
        model.load_backbones({"encoder": other.state_dict()})
    with pytest.raises(WeightsError, match=r"\d+ missing \(encoder\."):
        model.load_backbones({"encoder": {}})
    with pytest.raises(InputError, match=r"backbones encoder;.*face"):
        model.load_backbones({"face": {}})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_learned_position_keeps_its_values_if_the_backbone_has_none():
    model, backbone = tiny(learned_position=True), tiny(MAEDFERPretrain, seed=1)
    drawn = model.encoder.position.detach().clone()
    report = model.load_backbones({"encoder": backbone.state_dict()})
    assert torch.equal(model.encoder.position, drawn) and "encoder.position" in report.initialized
    assert torch.equal(model.encoder.region_tokens, backbone.encoder.region_tokens)
    other = tiny(learned_position=True, seed=2)
    report = model.load_backbones({"encoder": other.state_dict()})
    assert torch.equal(model.encoder.position, other.encoder.position) and "encoder.position" in report.loaded


def names_of(case):
    return seeded_state(read_case(CASES / f"{case}.json")["state_dict"], {"seed": 0})


@pytest.mark.parametrize(
    ("arch", "case", "name", "axes"),
    [
        ("mae_dfer", "finetune_small_base", "blocks.0.first_attn.q.weight", None),
        ("mae_dfer_pretrain", "pretrain_small_lgi", "encoder.blocks.1.first_attn.kv.weight", None),
        ("mae_dfer_pretrain", "pretrain_small_lgi", "encoder_to_decoder.weight", None),
        ("mae_dfer", "finetune_small_base", "patch_embed.proj.weight", 2),
        ("mae_dfer", "finetune_small_base", "head.weight", 0),
        ("video_mae", "finetune_small_joint", "blocks.0.mlp.fc1.weight", 1),
        ("mae_dfer_pretrain", "pretrain_small_lgi", "encoder_to_decoder.weight", 1),
    ],
)
def test_errors_about_damaged_files_name_their_entries(arch, case, name, axes):
    state = names_of(case)
    if axes is None:
        del state[name]
        sentence = f".*'{name}'"
    else:
        state[name] = torch.zeros((3,) * axes)
        sentence = f".*'{name}' .*shape.* axes"
    with pytest.raises(WeightsError, match=f"not a checkpoint of {arch}: {sentence}"):
        convert_state_dict(arch, state)


def test_shared_matrices_are_dropped_from_the_file():
    case = read_case(CASES / "finetune_small_share_all.json")
    conversion = convert_state_dict("mae_dfer", seeded_state(case["state_dict"], case["weights"]))
    repeated = {n for n in case["state_dict"] if ".second_attn." in n or ".third_attn." in n}
    assert set(conversion.dropped) == repeated and conversion.model_args["share_attention"] == "all"


def test_the_error_names_the_kind_of_a_wrong_file():
    lgi, joint, pretrained = map(names_of, ("finetune_small_base", "finetune_small_joint", "pretrain_small_lgi"))
    with pytest.raises(WeightsError, match="not a checkpoint of mae_dfer but of mae_dfer_pretrain"):
        convert_state_dict("mae_dfer", pretrained)
    with pytest.raises(WeightsError, match="not a checkpoint of mae_dfer but of video_mae"):
        convert_state_dict("mae_dfer", joint)
    with pytest.raises(WeightsError, match="not a checkpoint of video_mae but of mae_dfer: "):
        convert_state_dict("video_mae", lgi)
    with pytest.raises(WeightsError, match="not a checkpoint of mae_dfer_pretrain but of mae_dfer"):
        convert_state_dict("mae_dfer_pretrain", lgi)
    with pytest.raises(WeightsError, match=r"1 of .*72 entries.*blocks.0.extra"):
        convert_state_dict("mae_dfer", {**lgi, "blocks.0.extra": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"'patch_embed\.proj\.weight'"):
        convert_state_dict("mae_dfer", {"lg_region_tokens": torch.zeros(8, 512)})


# -- what is computed --------------------------------------------------------------------------------------------------


def test_attention_is_the_softmax_of_the_scaled_products():
    q, k, v = torch.randn(3, 2, 5, 12)
    heads = [t.view(2, 5, 3, 4).transpose(1, 2) for t in (q, k, v)]
    weights = (heads[0] * 4**-0.5 @ heads[1].transpose(-2, -1)).softmax(-1)
    plain = (weights @ heads[2]).transpose(1, 2).reshape(2, 5, 12)
    torch.testing.assert_close(attend(q, k, v, num_heads=3, dropout=0.0), plain)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"local_attention": "cross"},
        {"interaction": "none"},
        {"interaction": "self"},
        {"global_attention": False},
        {"share_attention": "all"},
        {"mean_pooling": False},
    ],
    ids=str,
)
def test_the_shortcut_in_the_last_block_is_exact(changes, monkeypatch):
    model = tiny(**changes)
    last, calls = model.encoder.blocks[-1], []
    forward = LGIBlock.forward
    monkeypatch.setattr(LGIBlock, "forward", lambda self, *a: calls.append(self) or forward(self, *a))
    video = model.example_inputs(2)["video"]
    with torch.no_grad():
        short = model(video)
        assert (last in calls) == (changes.get("interaction") == "self")  # there the last step still reads all
        hook = last.mlp.register_forward_hook(lambda *_: None)
        watched = model(video)
        assert last in calls
        hook.remove()
    calls.clear()
    with_gradient = model(video)
    assert last in calls
    torch.testing.assert_close(short, watched, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(short, with_gradient.detach(), rtol=1e-5, atol=1e-6)


def test_pooling_other_tokens_needs_the_whole_last_block():
    torch.manual_seed(0)
    for tokens in ("local", "all"):
        model = tiny(pooled_tokens=tokens)
        video = model.example_inputs(2)["video"]
        with torch.no_grad():
            plain = model(video)
        torch.testing.assert_close(plain, model(video).detach(), rtol=1e-5, atol=1e-6)


def test_a_learned_position_is_trained():
    """The published code detaches it, so it keeps its initial values."""
    model = tiny(learned_position=True).train()
    model(model.example_inputs(2)["video"]).square().sum().backward()
    assert model.encoder.position.grad.abs().sum() > 0


def test_drop_path_rates_rise_with_depth():
    rates = [block.drop_path.drop_prob for block in tiny(depth=3, drop_path_rate=0.2).encoder.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2])


def test_a_new_head_starts_near_zero_as_published():
    model = MAEDFER(**TINY["mae_dfer"])
    model.reset_classifier(4)
    assert 0 < model.classifier.weight.abs().max() < 1e-4 and not model.classifier.bias.any()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"region": (2, 3, 4)}, r"region is \(2, 3, 4\);.*\(4, 4, 4\) tokens"),
        ({"region": 2}, "region is 2;"),
        ({"region": (2, 2)}, r"region is \(2, 2\);"),
        ({"img_size": 60}, "8 frames of 60x60 .*2 frames and 16x16"),
        ({"interaction": "cros"}, "interaction is 'cros';.*cross, self, none"),
        ({"pooled_tokens": "org"}, "pooled_tokens is 'org';.*region, local, all"),
        ({"per_frame": True}, "pooled_tokens='local'"),
        ({"per_frame": True, "pooled_tokens": "local", "mean_pooling": False}, "mean_pooling=True"),
        ({"head_activation": "softmax"}, "head_activation is 'softmax'"),
    ],
)
def test_a_wrong_option_is_an_error(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        tiny(**changes)


@pytest.mark.parametrize("kind", [MAEDFER, VideoMAE, MAEDFERPretrain])
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_heads": 5}, "width is 48;.*5 heads"),
        ({"width": 50}, "width is 50;.*4 heads"),
        ({"img_size": "160"}, "img_size is '160';"),
        ({"img_size": (32,)}, r"img_size is \(32,\);"),
        ({"img_size": 0}, "img_size is 0;"),
        *(
            ({name: 0}, f"{name} is 0;")
            for name in ("num_heads", "width", "depth", "num_frames", "tubelet", "patch_size")
        ),
    ],
)
def test_a_wrong_size_is_an_error(kind, changes, sentence):
    with pytest.raises(InputError, match=sentence):
        tiny(kind, **changes)


def test_rectangular_images_are_supported():
    model = tiny(img_size=(64, 32), region=(2, 2, 2))
    assert model(**model.example_inputs(1)).shape == (1, 7)


# -- pre-training ------------------------------------------------------------------------------------------------------


def test_masks_are_new_in_training_and_the_same_in_evaluation():
    model = tiny(MAEDFERPretrain)
    inputs = model.example_inputs(2)
    with torch.no_grad():
        assert torch.equal(model(**inputs), model(**inputs))
        model.train()
        torch.manual_seed(0)
        first, second = model(**inputs), model(**inputs)
        torch.manual_seed(0)
        again = model(**inputs)
    assert torch.equal(first, again) and not torch.equal(first, second)
    with pytest.raises(InputError, match="forward_head"):
        model.forward_head(model.forward_features(**inputs))


def test_a_mask_has_the_same_number_in_every_window_and_the_same_tokens_in_all_frames():
    model = tiny(MAEDFERPretrain)
    mask = model.draw_mask(50, torch.Generator().manual_seed(3)).view(50, 4, 4, 4)  # clips, frames, rows, columns
    assert (mask == mask[:, :1]).all()
    assert (mask[:, 0].view(50, 2, 2 * 4).sum(-1) == 6).all()  # two windows of 2 x 4, 0.75 of them masked
    assert ((~mask[:, 0]).float().mean(0) > 0.08).all()  # every place is seen at times


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (torch.zeros(2, 63, dtype=torch.bool), r"mask .*\(2, 64\).*\(2, 63\)"),
        (torch.zeros(2, 64), "mask must be boolean"),
        (torch.tensor([[False], [True]]).expand(2, 64), "same number"),
        (torch.eye(64, dtype=torch.bool)[:2], "regions"),
    ],
    ids=["shape", "dtype", "unequal", "uneven"],
)
def test_a_mask_that_does_not_fit_is_an_error(mask, sentence):
    model = tiny(MAEDFERPretrain)
    with pytest.raises(InputError, match=sentence):
        model(model.example_inputs(2)["video"], mask)


@torch.no_grad()
def test_matched_positions_need_as_many_visible_tokens_in_each_frame_of_a_region():
    """The same number per region is not enough: tokens are read frame by frame and would move into other regions."""
    model = tiny(MAEDFERPretrain, decoder_positions="matched")
    video = model.example_inputs(1)["video"]
    visible = torch.zeros(1, 4, 2, 8, dtype=torch.bool)  # token frames, regions of a frame, places of a region
    visible[:, :, :, :2] = True
    model(video, ~visible.flatten(1))
    visible[:, 0::2, 0, 2] = visible[:, 1::2, 1, 2] = True  # 3 + 1 in the upper regions, 1 + 3 in the lower ones
    visible[:, 1::2, 0, 1] = visible[:, 0::2, 1, 1] = False
    assert (model.encoder.into_regions(visible.flatten(1)).sum(2) == 4).all()
    with pytest.raises(InputError, match=r"every region .*frames"):
        model(video, ~visible.flatten(1))


@pytest.mark.graph
def test_the_compiled_pre_training_takes_masks_of_its_own_ratio():
    model = tiny(MAEDFERPretrain, depth=1, decoder_depth=1, decoder_positions="matched").train()
    video, mask = model.example_inputs(2)["video"], model.draw_mask(2)
    torch._dynamo.reset()
    compiled = torch.compile(model.training_loss, fullgraph=True, backend="eager")
    loss, prediction = compiled({"video": video, "mask": mask})
    torch.testing.assert_close(prediction, model(video, mask))
    torch.testing.assert_close(loss, model.loss(prediction, video, mask))
    for other in (torch.zeros_like(mask), mask[:, torch.randperm(64)]):  # of another ratio, of uneven regions
        with pytest.raises(RuntimeError, match="mask_ratio"):
            compiled({"video": video, "mask": other})


@pytest.mark.parametrize(("ratio", "rows", "hidden"), [(0.94, 10, 94), (0.95, 12, 114), (0.7, 12, 84), (0.9, 10, 90)])
def test_mask_sizes_are_rounded_as_published(ratio, rows, hidden):
    """`ratio * rows * columns` rounds twice and would mask one token less."""
    assert tube_mask((1, rows, 10), ratio).sum() == hidden
    half = (rows // 2, 10)
    model = tiny(MAEDFERPretrain, img_size=(16 * rows, 160), region=(2, *half), mask_ratio=ratio)
    for symmetry in (None, "global", "local"):
        assert window_mask((1, rows, 10), ratio, half, symmetry=symmetry).sum() == 2 * model.masked_per_window


@pytest.mark.parametrize(
    ("draw", "sentence"),
    [
        (lambda: tube_mask((1, 10, 10), 1.2), "mask ratio is 1.2;"),
        (lambda: tube_mask((1, 10, 10), -0.2), "mask ratio is -0.2;"),
        (lambda: window_mask((1, 10, 10), 1.2, (5, 10)), "mask ratio is 1.2;"),
        (lambda: window_mask((1, 10, 10), 0.9, (0, 10)), r"\(0, 10\)"),
    ],
)
def test_a_mask_that_cannot_be_drawn_is_an_error(draw, sentence):
    with pytest.raises(InputError, match=sentence):
        draw()


@pytest.mark.parametrize("region", [(2, 2, 4), (2, 2, 2)], ids=["regions as wide as the frame", "narrower regions"])
@pytest.mark.parametrize("order", ["published", "matched"])
@torch.no_grad()
def test_matched_positions_belong_to_their_tokens(order, region):
    """Tokens are identified by their pixels, before the encoder's blocks."""
    model = tiny(MAEDFERPretrain, region=region, decoder_positions=order)
    video = model.example_inputs(2)["video"]
    seen = {}
    model.encoder.blocks[0].register_forward_pre_hook(lambda _, args: seen.update(regions=args[0]))
    model.to_decoder.register_forward_hook(lambda _, __, out: seen.update(content=out))
    model.decoder.blocks[0].register_forward_pre_hook(lambda _, args: seen.update(tokens=args[0]))
    mask = model.draw_mask(2)
    model(video, mask)

    embedded = model.encoder.embed(video)  # (2, N, D)
    n = model.encoder.region_grid.tokens
    entered = seen["regions"].view(2, n, -1, embedded.shape[-1])[:, :, 1:].flatten(1, 2)
    places = torch.cdist(entered, embedded).argmin(-1)  # (2, visible): where each token is from
    added = seen["tokens"][:, : places.shape[1]] - seen["content"]
    given = torch.cdist(added, model.decoder.position.expand(2, -1, -1)).argmin(-1)
    assert (places.sort().values == given.sort().values).all()
    assert torch.equal(places, given) == (order == "matched")
    if order == "matched":  # and every token is in its region
        own = model.encoder.into_regions(torch.arange(model.grid.tokens).expand(2, -1))
        visible = model.encoder.into_regions(~mask)
        for clip in range(2):
            for number in range(n):
                share = places[clip].view(n, -1)[number]
                assert set(share.tolist()) == set(own[clip, number][visible[clip, number]].tolist())


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("group", [0, 2, 4])
def test_a_perfect_prediction_reconstructs_the_clip(normalize, group, monkeypatch):
    model = tiny(MAEDFERPretrain, normalize_target=normalize, difference_group=group)
    video = torch.randn(2, *model.encoder.input_shape)
    mask = model.draw_mask(2, torch.Generator().manual_seed(1))
    target = model.targets(video)[mask].view(2, -1, 1536)
    assert model.loss(target, video, mask) == 0
    monkeypatch.setattr(model, "_decode", lambda *_: target)
    picture = model.reconstruct(video, mask)
    torch.testing.assert_close(picture.frames, model.pixels(video), rtol=1e-4, atol=1e-5)
    each = group or 2
    torch.testing.assert_close(
        picture.differences[:, 1], picture.frames[:, 1] - picture.frames[:, 0], rtol=1e-4, atol=1e-5
    )
    assert not picture.differences[:, ::each].any()
    share = (picture.masked == 0.5).float().mean()
    assert share == pytest.approx(0.75, abs=0.01)


def test_a_wrong_prediction_changes_masked_tokens_only():
    model = tiny(MAEDFERPretrain)
    video = torch.randn(1, *model.encoder.input_shape)
    picture = model.reconstruct(video)
    hidden = model.from_tubelets(picture.mask[..., None].expand(-1, -1, 1536).float()).bool()
    torch.testing.assert_close(picture.frames[~hidden], model.pixels(video)[~hidden], rtol=1e-4, atol=1e-5)
    assert (picture.frames[hidden] - model.pixels(video)[hidden]).abs().mean() > 0.05


def test_pre_training_learns_from_clips_without_labels():
    torch.manual_seed(0)
    model = MAEDFERPretrain(**TINY["mae_dfer_pretrain"]).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rows = torch.linspace(0, 6, 64)
    video = torch.stack([(rows[:, None] + rows + t / 3).sin().expand(3, -1, -1) for t in range(8)]).expand(
        4, -1, -1, -1, -1
    )
    losses = []
    for _ in range(40):
        loss, prediction = model.training_loss({"video": video})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert prediction.shape == (4, 48, 1536) and losses[-1] < 0.7 * losses[0]


def test_the_loss_is_float32_under_autocast():
    model = tiny(MAEDFERPretrain).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, prediction = model.training_loss(model.example_inputs(2))
    assert loss.dtype == torch.float32 and prediction.dtype == torch.bfloat16


def test_a_mask_of_zeros_returns_all_tokens():
    model = tiny(MAEDFERPretrain)
    video = model.example_inputs(2)["video"]
    features = model.forward_features(video, torch.zeros(2, 64, dtype=torch.bool))
    assert features.shape == (2, 64, 48)
    assert model.forward_head(features, mask=torch.zeros(2, 64, dtype=torch.bool)).shape == (2, 0, 1536)


def test_motion_weight_needs_tubelets_of_two_frames():
    with pytest.raises(InputError, match="tubelet=2 and difference_group=2"):
        tiny(MAEDFERPretrain, motion_weight=0.5, difference_group=4)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"mask_ratio": 1.0}, "mask_ratio 1.0 .*8 of the 8"),
        ({"mask_ratio": 0}, "mask_ratio 0 .*0 of the 8"),
        ({"mask_ratio": -0.5}, "mask_ratio -0.5 .*-4 of the 8"),
        ({"difference_group": 3}, "difference_group is 3;.*8 frames"),
        ({"difference_group": 100}, "difference_group is 100;.*8 frames"),
        ({"decoder_width": 0}, "decoder_width is 0;"),
        ({"decoder_heads": 5}, "width is 36;.*5 heads"),
        ({"layer_scale": 0.1}, "layer_scale is 0.1;"),
    ],
)
def test_a_wrong_option_of_the_pre_training_is_an_error(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        tiny(MAEDFERPretrain, **changes)


def test_a_loss_needs_masked_tokens():
    model = tiny(MAEDFERPretrain)
    with pytest.raises(InputError, match="no token"):
        model.training_loss({**model.example_inputs(1), "mask": torch.zeros(1, 64, dtype=torch.bool)})


# -- inputs ------------------------------------------------------------------------------------------------------------


def test_the_views_are_the_first_and_the_last_frames_and_one_view_is_in_the_middle():
    model = tiny()
    clip = Clip.from_arrays(np.arange(100, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8))
    numbers = create_transform(model, mean=(0.0,) * 3, std=(1.0,) * 3, img_size=1, faces="none")
    first, last = ((view["video"][:, 0, 0, 0] * 255).round().int().tolist() for view in numbers.views(clip))
    assert first == [*range(0, 32, 4)] and last == [*range(68, 100, 4)]
    middle = (numbers(clip)["video"][:, 0, 0, 0] * 255).round().int().tolist()
    assert middle == [*range(32, 64, 4)]
    once = create_transform(model, mean=(0.0,) * 3, std=(1.0,) * 3, img_size=1, segments=1, faces="none").views(clip)
    assert [(view["video"][:, 0, 0, 0] * 255).round().int().tolist() for view in once] == [middle]


@pytest.mark.parametrize("name", ["num_frames", "img_size", "rate", "segments"])
def test_a_transform_without_frames_pixels_or_views_is_an_error(name):
    with pytest.raises(InputError, match=f"{name} is 0;"):
        create_transform(tiny(), **{name: 0}, faces="none")


@pytest.mark.parametrize("frames", [1, 3, 17, 63, 64, 65, 400])
@pytest.mark.parametrize("rate", [1, 4])
def test_sampling_rules_return_existing_frames(frames, rate):
    rng = np.random.RandomState(0)
    for segment in (None, 0, 1, 2):
        chosen = sampling.strided(frames, 16, rate, segment, 3)
        assert len(chosen) == 16 and chosen == sorted(chosen) and chosen[0] >= 0 and chosen[-1] < frames
    for chosen in (
        sampling.strided_random(frames, 16, rate, rng),
        sampling.random_windows(frames, 16, rate, 1, rng)[0],
    ):
        assert len(chosen) == 16 and chosen == sorted(chosen) and chosen[0] >= 0 and chosen[-1] < frames


def test_one_crop_and_two_crops_of_a_square_are_the_same():
    video = torch.rand(2, 3, 8, 8)
    assert all(torch.equal(view, video) for count in (1, 2) for view in spatial_views(video, 8, count))
    left, right = spatial_views(torch.arange(12.0).expand(1, 1, 8, 12), 8, 2)
    assert left[0, 0, 0].tolist() == [*range(8)] and right[0, 0, 0].tolist() == [*range(4, 12)]
    (middle,) = spatial_views(torch.arange(12.0).expand(1, 1, 8, 12), 8, 1)
    assert middle[0, 0, 0].tolist() == [*range(2, 10)]


def test_all_frames_of_a_clip_get_the_same_operations():
    frame = np.random.RandomState(0).randint(0, 256, (32, 32, 3), dtype=np.uint8)
    changed = 0
    for seed in range(10):
        random.seed(seed)
        np.random.seed(seed)
        first, second, third = train.rand_augment([frame] * 3)
        assert np.array_equal(first, second) and np.array_equal(first, third)
        changed += not np.array_equal(first, frame)
    assert changed > 5
    assert not np.array_equal(train.rand_augment([frame])[0], train.rand_augment([frame])[0])  # drawn anew each time


def test_an_erased_box_is_the_same_in_all_frames_with_a_noise_of_its_own():
    video = torch.zeros(4, 3, 16, 16)
    random.seed(1)
    erased = train.erase(video, probability=1.0)
    hit = erased != 0
    assert hit.any() and (hit == hit[:1, :1]).all() and not video.any()
    assert not torch.equal(erased[0], erased[1])


@pytest.mark.parametrize("name", ["mae_dfer", "mae_dfer_pretrain"])
def test_training_inputs_are_reproducible(name):
    model = tiny()
    draw = augmentation(name, create_transform(model, faces="none"))

    def drawn(seed):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        return draw(a_clip())["video"]

    assert drawn(0).shape == (8, 3, 64, 64) and drawn(0).isfinite().all()
    assert torch.equal(drawn(0), drawn(0)) and not torch.equal(drawn(0), drawn(1))


def test_faces_of_voxceleb2_are_cropped():
    frame = np.zeros((224, 224, 3), np.uint8)
    frame[:160, 32:192] = 255
    frame[160:192] = 7
    (cut,) = train.voxceleb2_face([frame], 160)
    assert cut.shape == (160, 160, 3) and (cut == 255).all()
    (wider,) = train.voxceleb2_face([frame], 192)
    assert wider.shape == (192, 192, 3) and (wider[160:] == 7).all()


def test_cutmix_pastes_the_same_box_in_all_frames():
    draw = draw_mix(16, 16, rng=np.random.RandomState(2))
    assert draw.box == (3, 13, 2, 12) and draw.share == pytest.approx(1 - 100 / 256)
    video = torch.arange(4.0).view(4, 1, 1, 1, 1).expand(4, 2, 3, 16, 16)
    mixed = mix_in_pairs(video, draw)
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[3:13, 2:12] = True
    for number, clip in enumerate(mixed):
        assert (clip[..., inside] == 3 - number).all() and (clip[..., ~inside] == number).all()


def test_clips_are_mixed_in_pairs():
    with pytest.raises(InputError, match=r"batch size .*even.* 3"):
        mix_in_pairs(torch.zeros(3, 2, 3, 4, 4), MixDraw(0.5, None))
    video = torch.randn(2, 2, 3, 4, 4)
    np.random.seed(0)
    inputs, targets = MIXES["mixup_cutmix"]({"video": video}, torch.tensor([0, 2]), lambda t: soft_targets(t, 3, 0.1))
    assert inputs["video"].shape == video.shape
    torch.testing.assert_close(targets.sum(1), torch.ones(2))
    with pytest.raises(InputError, match="above 0"):
        draw_mix(4, 4, mixup_alpha=0, cutmix_alpha=0)
    untouched = draw_mix(4, 4, prob=0.0)
    assert untouched == MixDraw(1.0, None) and torch.equal(mix_in_pairs(video, untouched), video)


def test_region_tokens_have_no_layer_decay():
    from timm.optim import param_groups_layer_decay

    model = tiny()
    groups = param_groups_layer_decay(model, 0.05, model.no_weight_decay(), layer_decay=0.75)
    scales = {id(p): (g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert scales[id(model.encoder.region_tokens)] == (1.0, 0.0)
    assert scales[id(model.classifier.weight)] == (1.0, 0.05)
    assert scales[id(model.encoder.patch_embed.weight)] == (0.75**3, 0.05)
    assert isinstance(model.encoder.patch_embed, nn.Conv3d)
