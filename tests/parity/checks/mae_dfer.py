"""The checks of mae_dfer, video_mae and mae_dfer_pretrain; see README.md next to the cases for the entries."""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from dfer_zoo.convert import Conversion, convert_state_dict
from dfer_zoo.convert.mae_dfer import names
from dfer_zoo.factory import load_strictly
from dfer_zoo.inference import metrics
from dfer_zoo.media.faces.crops import Box
from dfer_zoo.models.base import skip_init
from dfer_zoo.models.mae_dfer import MAEDFER, LGIBlock
from dfer_zoo.models.mae_dfer_pretrain import MAEDFERPretrain
from dfer_zoo.models.video_mae import VIDEO, VideoMAE, sinusoidal_table
from dfer_zoo.training.mixing import MIXES, draw_mix, mix_targets, soft_targets
from dfer_zoo.training.optim import parameter_groups, warmup_then_cosine
from dfer_zoo.transforms import images, sampling
from dfer_zoo.transforms.augment import THIRTEEN_PLACES, crop_sizes, draw_fixed_box, fixed_places, snap
from dfer_zoo.transforms.train import mae_dfer as train
from dfer_zoo.weights.record import VideoSpec

from .. import compare, seeded
from ..compare import Comparison, close, same, within
from ..making import seeded_input, seeded_state
from ..masking import tube_mask, window_mask
from ..published import soft_target_cross_entropy, spatial_views
from ..rates import View, f1, merge_views, top_k
from ..runner import Case
from ..taps import Taps

# the summaries of this system's cases are relative to the standard deviation
summary, recorded = partial(compare.summary, spread="std"), partial(compare.recorded, spread="std")


def seeded_frames(entry: Mapping) -> np.ndarray:
    return np.floor(seeded.uniform(entry["name"], entry["shape"], entry["seed"]) * 256).astype(np.uint8)


# -- the authors' options -> our arguments -------------------------------------------------------------------------------

OPTIONS = {
    "img_size": "img_size",
    "in_chans": "channels",
    "all_frames": "num_frames",
    "tubelet_size": "tubelet",
    "embed_dim": "width",
    "encoder_embed_dim": "width",
    "num_heads": "num_heads",
    "encoder_num_heads": "num_heads",
    "encoder_depth": "depth",
    "decoder_embed_dim": "decoder_width",
    "decoder_num_heads": "decoder_heads",
    "drop_rate": "drop_rate",
    "attn_drop_rate": "attn_drop_rate",
    "drop_path_rate": "drop_path_rate",
    "init_scale": "head_scale",
    "init_values": "layer_scale",
    "use_mean_pooling": "mean_pooling",
    "use_learnable_pos_emb": "learned_position",
    "keep_temporal_dim": "per_frame",
    "head_activation_func": "head_activation",
    "lg_region_size": "region",
    "lg_first_attn_type": "local_attention",
    "lg_third_attn_type": "interaction",
    "lg_classify_token_type": "pooled_tokens",
    **{name: name for name in ("patch_size", "num_classes", "depth", "mlp_ratio", "qkv_bias", "decoder_depth")},
}
HANDLED = {
    "variant",
    "attn_type",
    "lg_no_second",
    "lg_no_third",
    "lg_attn_param_sharing_first_third",
    "lg_attn_param_sharing_all",
    "decoder_num_classes",  # follows from the tubelet
    "encoder_num_classes",
}
# defaults of the authors' classes, for the variant "free"; a config without a variant is a published one
FREE_DEFAULTS = {"lg_region_size": [2, 2, 10], "lg_classify_token_type": "org"}
LGI_ONLY = ("region", "local_attention", "interaction", "pooled_tokens")


def our_arguments(config: Mapping, joint: bool) -> dict[str, Any]:
    if unknown := set(config) - OPTIONS.keys() - HANDLED:
        raise KeyError(f"options that this check does not know: {sorted(unknown)}")
    if config.get("variant") == "free":
        config = {**FREE_DEFAULTS, **config}
    arguments = {OPTIONS[name]: value for name, value in config.items() if name in OPTIONS}
    arguments = {name: value for name, value in arguments.items() if value is not None}
    if arguments.get("pooled_tokens") == "org":
        arguments["pooled_tokens"] = "local"
    if not arguments.get("mean_pooling", True):
        arguments.pop("per_frame", None)  # the authors look at it in mean pooling only
    if joint:
        return {name: value for name, value in arguments.items() if name not in LGI_ONLY}
    if not arguments.pop("layer_scale", 0.0) == 0:
        raise ValueError("layer scale exists with joint attention only")
    if config.get("lg_no_second"):
        arguments["global_attention"] = False
    if config.get("lg_no_third"):
        arguments["interaction"] = "none"
    if config.get("lg_attn_param_sharing_all"):
        arguments["share_attention"] = "all"
    elif config.get("lg_attn_param_sharing_first_third"):
        arguments["share_attention"] = "local"
    return arguments


def is_joint(config: Mapping) -> bool:
    return config.get("attn_type", "local_global") == "joint"


def build(kind: type, arguments: Mapping, conversion: Conversion) -> nn.Module:
    """Build with the options of the case; others are read from shapes. `concluded` compares both."""
    with skip_init():
        model = kind(**{**conversion.model_args, **arguments})
    load_strictly(model, conversion.state, "the seeded checkpoint")
    return model.eval()


NOT_IN_THE_SHAPES = {
    *(
        "img_size",
        "num_frames",
        "num_heads",
        "decoder_heads",
        "region",
        "pooled_tokens",
        "per_frame",
        "head_activation",
    ),
    *("head_scale", "drop_rate", "attn_drop_rate", "drop_path_rate", "layer_scale"),
}


def concluded(conversion: Conversion, arguments: Mapping, model: nn.Module) -> Iterator[Comparison]:
    """Constructor arguments, as the converter reads them from names and shapes."""
    defaults = {name: p.default for name, p in inspect.signature(type(model)).parameters.items()}
    told = [name for name in defaults if name not in NOT_IN_THE_SHAPES]
    if not arguments.get("global_attention", True) or arguments.get("interaction") == "none":
        told.remove("share_attention")  # what is left out shares nothing, and "local" and "all" may come to the same
    ours = {name: conversion.model_args.get(name, defaults[name]) for name in told}
    theirs = {name: arguments.get(name, ours[name]) for name in told}
    pretraining = {"decoder_positions", "mask_ratio", "normalize_target", "difference_group", "motion_weight"}
    yield same(
        "arguments concluded from the checkpoint",
        {name: value for name, value in ours.items() if name not in pretraining},
        {name: value for name, value in theirs.items() if name not in pretraining},
    )
    scaled = conversion.model_args.get("layer_scale", 0.0) > 0
    yield same("layer scale concluded", scaled, arguments.get("layer_scale", 0.0) > 0)


def compare_all(outputs: Mapping, ours: Mapping[str, Tensor], tolerance: float) -> Iterator[Comparison]:
    """In the order of the data flow; a missing output is a failure."""
    for name in sorted(outputs):
        if name not in ours:
            yield Comparison("", f"{name}: nothing was recorded", float("inf"), 0.0)
        else:
            yield from recorded(name, ours[name], outputs[name], tolerance)


# -- fine-tuning ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def check_finetune_forward(case: Case) -> Iterator[Comparison]:
    config, tolerance = case["config"], case["tolerance"]
    joint = is_joint(config) or config.get("variant") == "vit_base"
    state = seeded_state(case["state_dict"], case["weights"])
    conversion = convert_state_dict("video_mae" if joint else "mae_dfer", state)
    arguments = our_arguments(config, joint)
    model = build(VideoMAE if joint else MAEDFER, arguments, conversion)
    if "parameters" in case:
        yield same("parameters", sum(p.numel() for p in model.parameters()), case["parameters"])
    yield from concluded(conversion, arguments, model)

    taps, encoder = Taps(), model.encoder
    taps.output("01_patch_embed_tokens", encoder.patch_embed)
    taps.output("02_tokens_plus_position", encoder.position_drop)
    taps.input("03_input_of_block_0", encoder.blocks[0])
    tap_attention(taps, encoder.blocks[0], "04_block_0_{}_output_before_residual")
    taps.output("05_block_0_mlp_output_before_residual", encoder.blocks[0].mlp)
    for number, block in enumerate(encoder.blocks):
        taps.output(f"06_output_of_block_{number:02d}", block)
    taps.output("07_tokens_to_pool_after_norm", model.token_norm)
    if model.mean_pooling:
        taps.output("08_pooled_feature_after_fc_norm", model.feature_norm)
    video = seeded_input(case["inputs"]["video"]).transpose(1, 2)
    feature = model.forward_features(video)
    taps.remove()
    outputs = {"09_feature": model.forward_head(feature, pre_logits=True), "10_logits": model.forward_head(feature)}
    yield from compare_all(case["outputs"], {**taps.first, **outputs}, tolerance)
    # without hooks, the last block may take its shortcut
    yield from recorded("10_logits, unwatched", model(video), case["outputs"]["10_logits"], tolerance)


def tap_attention(taps: Taps, block: nn.Module, name: str) -> None:
    """The authors number the attentions; shared ones are a single module, called several times."""
    if not isinstance(block, LGIBlock):
        taps.output(name.format("attn"), block.attn)
        return
    taps.output(name.format("first_attn"), block.local_attn)
    if block.has_global and not block.shares_global:
        taps.output(name.format("second_attn"), block.global_attn)
    if block.interaction_kind != "none" and not block.shares_interaction:
        taps.output(name.format("third_attn"), block.interaction)


BLOCK_OPTIONS = {
    "dim": "width",
    "num_heads": "num_heads",
    "mlp_ratio": "mlp_ratio",
    "qkv_bias": "qkv_bias",
    "first_attn_type": "local_attention",
    "third_attn_type": "interaction",
}


@torch.no_grad()
def check_lgi_block(case: Case) -> Iterator[Comparison]:
    config, tolerance = case["config"], case["tolerance"]
    known = {"batch", "regions_per_clip", "tokens_per_region_with_region_token", "norm_eps", *BLOCK_OPTIONS}
    yield same("options", sorted(config.keys() - known - {"no_second", "no_third"}), [])
    arguments = {ours: config[theirs] for theirs, ours in BLOCK_OPTIONS.items() if theirs in config}
    if config.get("no_second"):
        arguments["global_attention"] = False
    if config.get("no_third"):
        arguments["interaction"] = "none"
    block = LGIBlock(**arguments).eval()
    state = seeded_state(case["state_dict"], case["weights"])
    ours = names("mae_dfer", {f"blocks.0.{name}": value for name, value in state.items()})
    own = {ours[f"blocks.0.{n}"].removeprefix("encoder.blocks.0."): value for n, value in state.items()}
    load_strictly(block, own, "the seeded block")
    yield same(
        "epsilon of the norms",
        {m.eps for m in block.modules() if isinstance(m, nn.LayerNorm)},
        {config.get("norm_eps", 1e-6)},
    )

    taps = Taps()
    tap_attention(taps, block, "{}_output_before_residual")
    taps.input("tokens_before_ffn_norm", block.mlp_norm)
    taps.output("mlp_output_before_residual", block.mlp)
    taps.output("block_output", block)
    tokens = seeded_input(case["inputs"]["tokens"])
    block(tokens, config["regions_per_clip"])
    taps.remove()
    outputs = taps.first
    yield from compare_all(case["outputs"], outputs, tolerance)
    if block.interaction_kind != "self":
        short = block.forward_region_tokens(tokens, config["regions_per_clip"])
        yield close("region tokens alone", short, outputs["block_output"][:, :1], tolerance)


def check_position_table(case: Case) -> Iterator[Comparison]:
    """ "800x512": a summary; "6x8_full": all values; "800x512_row_799_first_16" and "..._last_4": a part of a row."""
    for name, reference in case["outputs"].items():
        size = re.match(r"(\d+)x(\d+)", name)
        table = sinusoidal_table(int(size[1]), int(size[2]))[0]
        if part := re.search(r"row_(\d+)_(first|last)_(\d+)", name):
            row, count = table[int(part[1])], int(part[3])
            yield within(name, row[:count] if part[2] == "first" else row[-count:], reference, case["tolerance"])
        elif "values" in reference:
            yield within(name, table.flatten(), reference["values"], case["tolerance"])
        else:
            yield from summary(name, table, reference, case["tolerance"])


# -- pre-training --------------------------------------------------------------------------------------------------------


def pretrain_arguments(config: Mapping) -> dict[str, Any]:
    arguments = our_arguments(config, is_joint(config))
    if is_joint(config):
        arguments = {"width": 768, "depth": 12, "num_heads": 12, **arguments, "attention": "joint"}
    return arguments


def explicit_mask(entry: Mapping) -> Tensor:
    masks = torch.ones(
        len(entry["visible_raster_positions_per_item"]), entry["positions_per_token_frame"], dtype=torch.bool
    )
    for mask, visible in zip(masks, entry["visible_raster_positions_per_item"]):
        mask[visible] = False
    return masks.repeat(1, entry["token_frames"])


@torch.no_grad()
def check_pretrain_forward_and_loss(case: Case) -> Iterator[Comparison]:
    config, tolerance = case["config"], case["tolerance"]
    conversion = convert_state_dict("mae_dfer_pretrain", seeded_state(case["state_dict"], case["weights"]))
    arguments = pretrain_arguments(config)
    model = build(MAEDFERPretrain, arguments, conversion)
    if "parameters" in case:
        yield same("parameters", sum(p.numel() for p in model.parameters()), case["parameters"])
    yield from concluded(conversion, arguments, model)

    taps = Taps()
    taps.output("01_encoder_patch_embed_tokens", model.encoder.patch_embed)
    taps.input("02_input_of_encoder_block_0", model.encoder.blocks[0])
    for number, block in enumerate(model.encoder.blocks):
        taps.output(f"03_output_of_encoder_block_{number:02d}", block)
    taps.output("04_encoder_output_visible_tokens", model.encoder_norm)
    taps.output("05_encoder_to_decoder", model.to_decoder)
    taps.input("06_input_of_decoder_block_0", model.decoder.blocks[0])
    for number, block in enumerate(model.decoder.blocks):
        taps.output(f"07_output_of_decoder_block_{number:02d}", block)
    taps.output("08_decoder_norm_of_masked_tokens", model.decoder.norm)
    video = seeded_input(case["inputs"]["video"]).transpose(1, 2)
    mask = explicit_mask(case["inputs"]["mask"])
    prediction = model(video, mask)
    taps.remove()
    yield from compare_all(case["outputs"], {**taps.first, "09_prediction": prediction}, tolerance)
    for key, reference in case["outputs"].get("09_prediction", {}).items():
        if item := re.search(r"of_item_(\d+)", key):
            corner = prediction[int(item[1])][: len(reference), : len(reference[0])]
            yield close(f"09_prediction {key}", corner, reference, tolerance)

    prediction = model(video, mask)  # with shortcuts
    if reference := case["outputs"].get("09_prediction"):
        yield from recorded("09_prediction, with shortcuts", prediction, reference, tolerance)
    for name, loss in case.get("losses", {}).items():
        yield from check_loss(f"loss {name}", model, video, mask, prediction, loss, tolerance)


def check_loss(
    name: str, model: nn.Module, video: Tensor, mask: Tensor, prediction: Tensor, loss: Mapping, tolerance: float
) -> Iterator[Comparison]:
    options = loss.get("arguments", {})
    model.normalize_target = options.get("normlize_target", True)
    uses_differences = options.get("use_frame_diff_as_target", True)
    model.difference_group = options.get("frame_diff_group_size", 2) if uses_differences else 0
    model.motion_weight = options.get("target_diff_weight")
    total, _ = model.training_loss({"video": video, "mask": mask})
    yield close(name, [total.item()], [loss["loss"]], tolerance)
    target = model.targets(video)[mask].view(*prediction.shape)
    errors = model.errors(prediction, video, mask)
    halves = zip(target.chunk(len(loss["terms"]), -1), errors.chunk(len(loss["terms"]), -1))
    for number, ((part, error), term) in enumerate(zip(halves, loss["terms"])):
        yield same(f"{name}, term {number}: shape", list(error.shape), term["prediction_shape"])
        yield from summary(f"{name}, term {number}: target", part, term["target_summary"], tolerance)
        yield close(f"{name}, term {number}", [error.mean().item()], [term["mse"]], tolerance)


def check_mask_generators(case: Case) -> Iterator[Comparison]:
    for kind in ("tube", "part_window"):
        for entry in case.get(kind, []):
            grid, ratio, rng = entry["input_size"], entry["mask_ratio"], np.random.RandomState(entry["seed"])
            if kind == "tube":
                mask, label = tube_mask(grid, ratio, rng=rng), f"tube {grid} {ratio} seed {entry['seed']}"
            else:
                window, symmetry = entry["window"], entry["symmetry"]
                mask = window_mask(grid, ratio, window, symmetry=symmetry, rng=rng)
                label = f"part_window {grid} {ratio} {window} {symmetry} seed {entry['seed']}"
            frames = mask.reshape(grid[0], -1)
            yield same(f"{label}: masked", int(mask.sum()), entry["masked_total"])
            yield same(f"{label}: length", len(mask), entry.get("length", len(mask)))
            yield same(f"{label}: all frames alike", bool((frames == frames[0]).all()), True)
            yield same(f"{label}: visible", np.flatnonzero(~frames[0]).tolist(), entry["visible_raster_positions"])


@torch.no_grad()
def check_pretrain_to_finetune(case: Case) -> Iterator[Comparison]:
    outputs, tolerance, config = case["outputs"], case["tolerance"], case["config"]
    joint = is_joint(config["finetune"])
    arch = "video_mae" if joint else "mae_dfer"
    pretrained = seeded_state(case["state_dict_pretrain"], case["weights"])
    finetuned = seeded_state(case["state_dict_finetune"], case["weights"])
    arguments = our_arguments(config["finetune"], joint)
    model = build(VideoMAE if joint else MAEDFER, arguments, convert_state_dict(arch, finetuned))
    report = model.load_backbones({"encoder": convert_state_dict("mae_dfer_pretrain", pretrained).state})

    theirs = {ours: name for name, ours in names(arch, finetuned).items()}
    stripped = {ours: name.removeprefix("encoder.") for name, ours in names("mae_dfer_pretrain", pretrained).items()}
    left = outputs["fine_tuning_entries_left_as_they_were"]
    unused = [stripped[name] for name in report.ignored]
    outside = [name for name in unused if not name.startswith("decoder.")]
    expected = outputs["checkpoint_entries_not_used_outside_decoder"]
    yield same("entries taken", len(report.loaded), outputs["fine_tuning_entries_taken_from_the_checkpoint"])
    yield same("entries left", sorted(theirs[name] for name in report.initialized), sorted(left))
    yield same("entries not used", len(unused), outputs["checkpoint_entries_not_used_count"])
    yield same("entries not used outside the decoder", sorted(outside), sorted(expected))
    feature = model.forward_features(seeded_input(case["inputs"]["video"]).transpose(1, 2))
    got = {"feature": feature, "logits": model.forward_head(feature)}
    yield from compare_all(
        {name: value for name, value in outputs.items() if isinstance(value, dict)},
        got,
        tolerance,
    )


# -- inputs --------------------------------------------------------------------------------------------------------------


def check_frame_indices(case: Case) -> Iterator[Comparison]:
    length = case["config"]["clip_len"]
    for entry in case["outputs"].get("test", []):
        count, rate, segments = entry["frames_in_clip"], entry["sampling_rate"], entry["segments"]
        label = f"test, {count} frames, rate {rate}, {segments} segments"
        spec = VideoSpec(num_frames=length, img_size=8, sampling="strided", rate=rate, segments=segments)
        everything = sampling.strided(count, max(length, -(-count // rate)), rate, segment=0, segments=2)
        yield same(f"{label}: sampled", everything, entry["sampled"])
        for view in entry["views"]:
            ours = sampling.indices(count, None, spec, view["segment"])
            yield same(f"{label}: segment {view['segment']}", ours, view["frames"])
        if "crop_1_has_the_same_frames_as_crop_0" in entry:  # crops are cut from the same frames, and from squares
            crops = spatial_views(torch.rand(1, 3, 8, 8), 8, entry["crops"])
            alike = all(torch.equal(crop, crops[0]) for crop in crops)
            yield same(f"{label}: crops", alike, entry["crop_1_has_the_same_frames_as_crop_0"])
    for entry in case["outputs"].get("train_and_validation", []):
        count, rate = entry["frames_in_clip"], entry["sampling_rate"]
        rng = np.random.RandomState(entry.get("numpy_seed", 0))
        ours = sampling.strided_random(count, length, rate, rng)
        label = f"train, {count} frames, rate {rate}, seed {entry.get('numpy_seed')}"
        yield same(label, ours, entry["frames"])
        if "start" in entry:
            yield same(f"{label}: window", [ours[0], ours[0] + rate * length], [entry["start"], entry["end"]])


def check_pretrain_frame_indices(case: Case) -> Iterator[Comparison]:
    length, step = case["config"]["new_length"], case["config"]["new_step"]
    for entry in case["outputs"]:
        windows, rng = entry.get("num_segments", 1), np.random.RandomState(entry["numpy_seed"])
        indices, starts = sampling.random_windows(entry["frames_in_video"], length, step, windows, rng)
        label = f"{entry['frames_in_video']} frames, {windows} windows, seed {entry['numpy_seed']}"
        offset = entry["offset_plus_one"]
        yield same(
            f"{label}: starts", [start + 1 for start in starts], offset if isinstance(offset, list) else [offset]
        )
        yield same(f"{label}: frames", indices, entry["frames"])


def spec_of(config: Mapping) -> VideoSpec:
    return VideoSpec(
        num_frames=16,
        img_size=config["size"],
        sampling="strided",
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        resize=VIDEO.resize,
    )


def check_image_transform(case: Case) -> Iterator[Comparison]:
    spec, tolerance = spec_of(case["config"]), case["tolerance"]
    for entry in case["outputs"]:
        frames = seeded_frames(entry["input"])
        label = "x".join(map(str, frames.shape[1:3]))
        resized = np.stack([images.to_square(frame, spec) for frame in frames])
        yield from summary(f"{label}: resized", resized, entry["resized_uint8_summary"], tolerance)
        row = entry["resized_first_row_first_8_pixels_of_frame_0"]
        yield same(f"{label}: first pixels", resized[0, 0, : len(row)].tolist(), row)
        output = images.prepare_video(list(frames), spec).transpose(0, 1)
        yield from summary(f"{label}: output", output, entry["output_summary"], tolerance)
        corner = np.asarray(entry["output_corner"])
        ours = output[:, 0, : corner.shape[1], : corner.shape[2]]
        yield close(f"{label}: corner", ours, corner, tolerance)


def check_pretrain_transform(case: Case) -> Iterator[Comparison]:
    frames, tolerance = seeded_frames(case["inputs"]), case["tolerance"]
    size = case["outputs"][0]["output_shape"][-1]
    faces = list(frames)
    if cut := re.search(r"rows (\d+)\.\.(\d+), columns (\d+)\.\.(\d+)", case["inputs"].get("then", "")):
        top, bottom, left, right = map(int, cut.groups())
        faces = train.voxceleb2_face(faces, size)
        alike = all(np.array_equal(face, frame[top:bottom, left:right]) for face, frame in zip(faces, frames))
        yield same("VoxCeleb2 crop", alike, True)
    height, width = faces[0].shape[:2]
    sizes = [[snap(side, size) for side in pair] for pair in crop_sizes(width, height)]
    yield same("crop sizes", sizes, case["candidate_crop_sizes_width_height"])
    places = [list(place) for place in fixed_places(width, height, *sizes[0], THIRTEEN_PLACES)]
    yield same("places of the first size", places, case["offsets_for_first_pair"])
    spec = spec_of({"size": size, "mean": VIDEO.mean, "std": VIDEO.std})
    for entry in case["outputs"]:
        label, seed = f"seed {entry['python_random_seed']}", entry["python_random_seed"]
        box = draw_fixed_box(width, height, size, THIRTEEN_PLACES, rng=random.Random(seed))
        drawn = Box(entry["offset_x"], entry["offset_y"], entry["crop_width"], entry["crop_height"])
        yield same(f"{label}: box", box, drawn)
        cropped = train.multi_scale_crop(faces, size, rng=random.Random(seed))
        output = images.to_tensor(np.stack(cropped), spec).transpose(0, 1)
        yield same(f"{label}: shape", list(output.shape), entry["output_shape"])
        yield from summary(f"{label}: output", output, entry["output_summary"], tolerance)


def augmentation_picture(rule: str) -> np.ndarray:
    """The image that the case describes, with its shape, noise and seed."""
    noise = re.search(r"seeded\.uniform\('(\w+)',\s*\((\d+),\s*(\d+),\s*3\),\s*(\d+)\)", rule)
    name, (height, width, seed) = noise[1], map(int, noise.groups()[1:])
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    smooth = np.stack(
        [120 + 90 * np.sin(x / 17) + 30 * np.cos(y / 9), 110 + 80 * np.cos(x / 23 + y / 31), 60 + x / 2 + y / 2], -1
    )
    noisy = np.floor(smooth + 20 * seeded.uniform(name, (height, width, 3), seed))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def check_train_augmentation(case: Case) -> Iterator[Comparison]:
    tolerance, outputs, config = case["tolerance"], case["outputs"], case["config"]
    picture = augmentation_picture(case["inputs"]["picture"])
    if "picture_summary" in case["inputs"]:
        yield from summary("picture", picture, case["inputs"]["picture_summary"], tolerance)
    yield same("fill", list(train.GRAY), config.get("fill", list(train.GRAY)))
    policy = train.policy(config["policy"])
    operations = {op.name: op for op in policy.ops}
    yield same("interpolation", {op.kwargs["resample"].name.lower() for op in policy.ops}, {config["interpolation"]})
    clip = seeded_input(case["inputs"]["clip"])  # (3, T, H, W)
    for name, entries in outputs.items():
        if magnitude := re.fullmatch(r"randaugment_ops_at_magnitude_([\d.]+)", name):
            yield same("operations", sorted(operations), sorted({entry["op"] for entry in entries}))
            for entry in entries:
                yield from check_operation(operations[entry["op"]], float(magnitude[1]), picture, entry, tolerance)
        elif name == "crop_resize_with_given_box":
            yield from check_given_crops(clip, entries, tolerance)
        elif sides := re.fullmatch(r"crop_boxes_drawn_from_(\d+)x(\d+)", name):
            for entry in entries:
                box = train.draw_crop(int(sides[1]), int(sides[2]), rng=random.Random(entry["python_seed"]))
                ours = [box.top, box.left, box.height, box.width]
                yield same(f"drawn crop, seed {entry['python_seed']}", ours, entry["top_left_height_width"])
        elif name == "random_erasing":
            for entry in entries:
                yield from check_erasing(clip.transpose(0, 1), entry)
        else:
            yield Comparison("", f"{name}: no comparison for this entry", float("inf"), 0.0)


def check_operation(
    operation: Any, magnitude: float, picture: np.ndarray, entry: Mapping, tolerance: float
) -> Iterator[Comparison]:
    """Compare the level of a magnitude, with both signs, and its effect on the image."""
    argument, label = entry["argument"], f"{entry['op']} {entry['argument']}"
    levels = set(both_signs(operation, magnitude))
    fitting = [level for level in levels if np.allclose(level[: len(argument)], argument)]
    yield same(f"{label}: argument of magnitude {magnitude:g}", bool(fitting), True)
    level = fitting[0] if fitting else tuple(argument)
    ours = operation.aug_fn(Image.fromarray(picture), *level, **operation.kwargs)
    yield from summary(label, np.asarray(ours), entry["output_uint8_summary"], tolerance)


def both_signs(operation: Any, magnitude: float) -> Iterator[tuple]:
    """The arguments of an operation, for many draws of the sign."""
    for seed in range(20):
        random.seed(seed)
        yield operation.level_fn(magnitude, operation.hparams) if operation.level_fn else ()


def check_given_crops(clip: Tensor, entries: list, tolerance: float) -> Iterator[Comparison]:
    for entry in entries:
        box = Box(entry["left"], entry["top"], entry["width"], entry["height"])
        size = entry["output_summary"]["shape"][-1]
        ours = train.resize_crop(clip.transpose(0, 1), box, size).transpose(0, 1)
        yield from summary(f"crop {tuple(box)}", ours, entry["output_summary"], tolerance)


def check_erasing(video: Tensor, entry: Mapping) -> Iterator[Comparison]:
    """(T, 3, H, W)"""
    random.seed(entry["python_seed"])
    torch.manual_seed(entry["python_seed"])
    erased = train.erase(video)
    changed = (erased != video).all(1)  # (T, H, W)
    label, box = f"erasing, seed {entry['python_seed']}", bounding_box(changed[0])
    yield same(f"{label}: box", box, entry["erased_box_top_left_bottom_right"])
    alike = all(torch.equal(frame, changed[0]) for frame in changed)
    yield same(f"{label}: same box in all frames", alike, entry["same_box_in_all_frames"])
    if entry.get("noise_differs_between_frames") is not None and box is not None:
        noise = erased[..., box[0] : box[2], box[1] : box[3]]
        differs = not torch.equal(noise[0], noise[1])
        yield same(f"{label}: noise differs", differs, entry["noise_differs_between_frames"])


def bounding_box(mask: Tensor) -> list[int] | None:
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    if not len(rows):
        return None
    return [int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1]


# -- training and evaluation ---------------------------------------------------------------------------------------------


def check_mixup_and_loss(case: Case) -> Iterator[Comparison]:
    config, outputs, tolerance = case["config"], case["outputs"], case["tolerance"]
    yield same("mode", config.get("mode", "batch"), "batch")
    options = {name: config[name] for name in ("mixup_alpha", "cutmix_alpha", "prob", "switch_prob")}
    labels = torch.tensor(case["inputs"]["labels"])
    logits, clips = seeded_input(case["inputs"]["logits"]), seeded_input(case["inputs"]["clips"])
    soft = soft_targets(labels, config["classes"], config["smoothing"])
    for entry in outputs.get("targets_for_given_lam", ()):
        targets = mix_targets(soft, entry["lam"])
        yield within(f"targets, share {entry['lam']}", targets, entry["targets"], tolerance)
        loss = soft_target_cross_entropy(logits, targets)
        yield close(f"loss, share {entry['lam']}", [loss.item()], [entry["loss"]], tolerance)
    for name, value in outputs.items():
        if smoothing := re.fullmatch(r"label_smoothing_cross_entropy_([\d.]+)", name):
            smoothed = soft_targets(labels, config["classes"], float(smoothing[1]))
            yield close(name, [soft_target_cross_entropy(logits, smoothed).item()], [value], tolerance)
    for entry in outputs.get("mixup_calls", ()):
        label = f"{entry['kind']}, seed {entry['numpy_seed']}"
        draw = draw_mix(*clips.shape[-2:], **options, rng=np.random.RandomState(entry["numpy_seed"]))
        yield same(f"{label}: kind", "mixup" if draw.box is None else "cutmix", entry["kind"])
        np.random.seed(entry["numpy_seed"])
        soften = partial(soft_targets, num_classes=config["classes"], smoothing=config["smoothing"])
        mixed, targets = MIXES["mixup_cutmix"]({"video": clips.transpose(1, 2)}, labels, soften, **options)
        video = mixed["video"]
        yield from summary(f"{label}: clips", video.transpose(1, 2), entry["clips_summary"], tolerance)
        yield within(f"{label}: targets", targets, entry["targets"], tolerance)
    rates = outputs.get("drop_path_rate_per_block")
    if rates is None:
        return
    sizes = {"img_size": 32, "num_frames": 2, "width": 8, "num_heads": 1, "region": (1, 1, 2), "mlp_ratio": 1.0}
    model = MAEDFER(depth=len(rates), drop_path_rate=round(rates[-1], 6), **sizes)
    ours = [block.drop_path.drop_prob for block in model.encoder.blocks]
    yield within("drop path rates", ours, rates, tolerance)


def check_test_time_merge(case: Case) -> Iterator[Comparison]:
    outputs, tolerance, classes = case["outputs"], case["tolerance"], case["config"]["classes"]
    entries = sorted(case["inputs"], key=lambda entry: entry["rank"])  # process by process, each in its own order
    fields = View._fields
    clips, probabilities, labels = merge_views(View(*(e[f] for f in fields)) for e in entries)
    predictions = probabilities.argmax(1).tolist()
    yield same("order", clips, outputs["order"])
    yield same("predictions", predictions, outputs["predictions"])
    yield same("labels", labels, outputs["labels"])
    table = metrics.confusion(labels, predictions, classes)
    yield same("confusion", table.tolist(), outputs["confusion_rows_true"])
    yield within("top 1", [top_k(probabilities, labels, 1)], [outputs["top1_percent"]], 100 * tolerance)
    yield within("top 5", [top_k(probabilities, labels, 5)], [outputs["top5_percent"]], 100 * tolerance)
    ours = {"uar": metrics.uar(table), "war": metrics.war(table), **f1(table)}
    for name, value in ours.items():
        yield within(name, [value / 100], [outputs[name]], tolerance)


def check_optimizer(case: Case) -> Iterator[Comparison]:
    tolerance = case["tolerance"]
    for name, reference in case["outputs"].items():
        if groups := re.fullmatch(r"finetune_depth_(\d+)_layer_decay_([\d.]+)_weight_decay_([\d.]+)", name):
            yield from check_layer_decay(name, int(groups[1]), float(groups[2]), float(groups[3]), reference, tolerance)
        elif groups := re.fullmatch(r"pretrain_depth_(\d+)_decoder_(\d+)_weight_decay_([\d.]+)", name):
            yield from check_pretrain_groups(
                name, int(groups[1]), int(groups[2]), float(groups[3]), reference, tolerance
            )
        elif "schedule" in name:
            yield from check_schedule(name, reference, tolerance)
        else:
            yield Comparison("", f"{name}: no comparison for this entry", float("inf"), 0.0)


def small_model(kind: Callable, **sizes: Any) -> nn.Module:
    """A small model with the names and numbers of dimensions of the published ones."""
    if kind is not VideoMAE:
        sizes["region"] = (1, 1, 2)
    return kind(img_size=32, num_frames=2, width=8, num_heads=1, mlp_ratio=1.0, **sizes)


def names_regions(reference: list) -> bool:
    return any(name.endswith("lg_region_tokens") for group in reference for name in group["params"])


def check_layer_decay(
    name: str, depth: int, layer_decay: float, weight_decay: float, reference: list, tolerance: float
) -> Iterator[Comparison]:
    kind, arch = (MAEDFER, "mae_dfer") if names_regions(reference) else (VideoMAE, "video_mae")
    model = small_model(kind, depth=depth)
    groups = param_groups_layer_decay(model, weight_decay, model.no_weight_decay(), layer_decay=layer_decay)
    owners = {id(parameter): name for name, parameter in model.named_parameters()}
    ours = {
        owners[id(parameter)]: (group["lr_scale"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }
    yield from compare_groups(name, ours, names(arch, parameters_of(reference)), reference, tolerance)


def check_pretrain_groups(
    name: str, depth: int, decoder_depth: int, weight_decay: float, reference: list, tolerance: float
) -> Iterator[Comparison]:
    attention = "local_global" if names_regions(reference) else "joint"
    model = small_model(MAEDFERPretrain, depth=depth, decoder_depth=decoder_depth, mask_ratio=0.5, attention=attention)
    groups = parameter_groups(model, lr=1.0, weight_decay=weight_decay)
    ours = {owner: (group["lr"], group["weight_decay"]) for group in groups for owner in group["names"]}
    yield from compare_groups(name, ours, names("mae_dfer_pretrain", parameters_of(reference)), reference, tolerance)


def parameters_of(reference: list) -> dict[str, None]:
    """The authors' names in all groups."""
    return dict.fromkeys(entry for group in reference for entry in group["params"])


def compare_groups(
    name: str, ours: Mapping[str, tuple], renamed: Mapping[str, str], reference: list, tolerance: float
) -> Iterator[Comparison]:
    """{our name: (rate, decay)} with the authors' groups: every parameter is in exactly one group of the right kind."""
    yield same(f"{name}: each name once", sum(len(group["params"]) for group in reference), len(renamed))
    yield same(f"{name}: names", sorted(renamed.values()), sorted(ours))
    yield same(f"{name}: number of groups", len(set(ours.values())), len(reference))
    for number, group in enumerate(reference):
        for key, place in (("lr_scale", 0), ("weight_decay", 1)):
            values = [ours[renamed[entry]][place] for entry in group["params"] if renamed[entry] in ours]
            yield within(f"{name}: group {number} {key}", values, [group[key]] * len(values), tolerance)


def check_schedule(name: str, reference: Mapping, tolerance: float) -> Iterator[Comparison]:
    per_epoch = reference["steps_per_epoch"]
    steps, warmup = reference["epochs"] * per_epoch, reference["warmup_epochs"] * per_epoch
    options = {"lr": reference["base"], "floor": reference["final"], "steps": steps, "warmup": warmup}
    values = [warmup_then_cosine(step, **options) for step in range(steps)]
    chosen = [values[step] for step in reference["at"]] if "at" in reference else values
    yield close(name, chosen, reference["values"], tolerance)


CHECKS = {
    "finetune_forward": check_finetune_forward,
    "lgi_block": check_lgi_block,
    "position_table": check_position_table,
    "pretrain_forward_and_loss": check_pretrain_forward_and_loss,
    "mask_generators": check_mask_generators,
    "pretrain_to_finetune": check_pretrain_to_finetune,
    "frame_indices": check_frame_indices,
    "pretrain_frame_indices": check_pretrain_frame_indices,
    "image_transform": check_image_transform,
    "pretrain_transform": check_pretrain_transform,
    "train_augmentation": check_train_augmentation,
    "mixup_and_loss": check_mixup_and_loss,
    "test_time_merge": check_test_time_merge,
    "optimizer": check_optimizer,
}
