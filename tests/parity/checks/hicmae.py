"""The checks of hicmae and hicmae_pretrain; see README.md next to the cases for the entries."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from timm.optim import param_groups_layer_decay
from torch import Tensor

from dfer_zoo.convert import Conversion, convert_state_dict
from dfer_zoo.convert.hicmae import names
from dfer_zoo.errors import MediaError
from dfer_zoo.factory import load_strictly
from dfer_zoo.inference import metrics
from dfer_zoo.models.base import DferModel
from dfer_zoo.models.hicmae import AUDIO, PRESETS, CrossBlock, HiCMAE
from dfer_zoo.models.hicmae_pretrain import DECODER_WIDTHS, Guess, HiCMAEPretrain, flat
from dfer_zoo.models.masked_video import masked_numbers, pick
from dfer_zoo.training.mixing import MIXES, draw_mix, soft_targets
from dfer_zoo.training.optim import parameter_groups
from dfer_zoo.transforms import audio, sampling
from dfer_zoo.transforms.train.hicmae import train_span
from dfer_zoo.weights.record import AudioSpec, VideoSpec

from ..compare import Comparison, close, same, within
from ..making import seeded_input, seeded_state
from ..masking import random_mask, tube_mask
from ..published import soft_target_cross_entropy
from ..rates import View, f1, merge_views, top_k
from ..regression import REGRESSION, regression_metrics
from ..runner import Case
from ..taps import Taps
from .mae_dfer import (
    build,
    check_image_transform,
    check_schedule,
    compare_all,
    compare_groups,
    explicit_mask,
    parameters_of,
    recorded,
    summary,
)
from .mma_dfer import waveform_of

# -- the authors' options -> our arguments -------------------------------------------------------------------------------

OPTIONS = {
    "img_size": "img_size",
    "patch_size": "patch_size",
    "all_frames": "num_frames",
    "tubelet_size": "tubelet",
    "num_classes": "num_classes",
    "mlp_ratio": "mlp_ratio",
    "qkv_bias": "qkv_bias",
    "init_values": "layer_scale",
    "drop_rate": "drop_rate",
    "attn_drop_rate": "attn_drop_rate",
    "drop_path_rate": "drop_path_rate",
    "img_size_audio": "audio_size",
    "patch_size_audio": "audio_patch_size",
    # fine-tuning
    "embed_dim": "width",
    "depth": "depth",
    "num_heads": "num_heads",
    "embed_dim_audio": "audio_width",
    "depth_audio": "audio_depth",
    "num_heads_audio": "audio_heads",
    "fusion_depth": "fusion_depth",
    "fusion_num_heads": "fusion_heads",
    "head_activation_func": "head_activation",
    # pre-training
    "encoder_embed_dim": "width",
    "encoder_depth": "depth",
    "encoder_num_heads": "num_heads",
    "encoder_embed_dim_audio": "audio_width",
    "encoder_depth_audio": "audio_depth",
    "encoder_num_heads_audio": "audio_heads",
    "encoder_fusion_depth": "fusion_depth",
    "encoder_fusion_num_heads": "fusion_heads",
    "decoder_embed_dim": "decoder_width",
    "decoder_num_heads": "decoder_heads",
    "decoder_embed_dim_audio": "audio_decoder_width",
    "decoder_num_heads_audio": "audio_decoder_heads",
    "inter_contrastive_temperature": "temperature",
    "return_intermediate_features": "levels",
}
# these follow from others, have no effect in the authors' classes, or have only one possible value
IMPLIED = {
    "variant",
    "decoder_depth",
    "decoder_depth_audio",
    "decoder_num_classes",
    "decoder_num_classes_audio",
    "encoder_num_classes",
    "in_chans",
    "in_chans_audio",
    "encoder_in_chans",
    "encoder_in_chans_audio",
    "init_scale",
    "use_mean_pooling",
    "keep_temporal_dim",
    "use_learnable_pos_emb",
}


def our_arguments(config: Mapping) -> dict[str, Any]:
    if unknown := set(config) - OPTIONS.keys() - IMPLIED:
        raise KeyError(f"options that this check does not know: {sorted(unknown)}")
    arguments = {OPTIONS[name]: value for name, value in config.items() if name in OPTIONS and value is not None}
    if config["variant"] != "free":
        arguments["preset"] = config["variant"]
    for name in config.keys() & {"decoder_depth", "decoder_depth_audio"}:
        if config[name] != len(config["return_intermediate_features"]) + 1:
            raise ValueError(f"{name} is {config[name]}, which is not one more than there are levels")
    return arguments


NOT_IN_THE_SHAPES = {
    *("preset", "img_size", "num_frames", "audio_size", "num_heads", "audio_heads", "fusion_heads", "head_activation"),
    *("decoder_heads", "audio_decoder_heads", "temperature", "levels", "layer_scale"),
    *("drop_rate", "attn_drop_rate", "drop_path_rate", "mask_ratio", "audio_mask_ratio", "normalize_target"),
    *("normalize_audio_target", "difference_group", "motion_weight", "contrast_weight"),
}


def concluded(conversion: Conversion, arguments: Mapping, model: DferModel) -> Iterator[Comparison]:
    """Constructor arguments, as the converter reads them from names and shapes."""
    defaults = {name: p.default for name, p in inspect.signature(type(model)).parameters.items()}

    def told(given: Mapping) -> dict[str, Any]:
        full = {**defaults, **given}
        full["width"] = full["width"] or PRESETS[full["preset"]]
        full["audio_width"] = full["audio_width"] or full["width"]
        if "decoder_width" in full:
            full["decoder_width"] = full["decoder_width"] or DECODER_WIDTHS[full["preset"]]
            full["audio_decoder_width"] = full["audio_decoder_width"] or full["decoder_width"]
        return {name: value for name, value in full.items() if name not in NOT_IN_THE_SHAPES}

    yield same("arguments concluded from the checkpoint", told(conversion.model_args), told(arguments))
    scaled = conversion.model_args.get("layer_scale", 0.0) > 0
    yield same("layer scale concluded", scaled, arguments.get("layer_scale", 0.0) > 0)


def restored(case: Case, table: str = "state_dict", **changes: Any) -> tuple[DferModel, Conversion, dict[str, Any]]:
    """The model of the case, filled through the converter."""
    config = case["config"]
    kind, arch = (HiCMAEPretrain, "hicmae_pretrain") if "encoder_depth" in config else (HiCMAE, "hicmae")
    conversion = convert_state_dict(arch, seeded_state(case[table], case["weights"]))
    arguments = {**our_arguments(config), **changes}
    return build(kind, arguments, conversion), conversion, arguments


def inputs_of(entry: Mapping) -> dict[str, Tensor]:
    return {"video": seeded_input(entry["video"]).transpose(1, 2), "audio": seeded_input(entry["audio"])}


def masks_of(entry: Mapping) -> dict[str, Tensor]:
    sound = {
        "visible_raster_positions_per_item": entry["audio"]["visible_tokens_per_item"],
        "positions_per_token_frame": entry["audio"]["tokens"],
        "token_frames": 1,
    }
    return {"video_mask": explicit_mask(entry["video"]), "audio_mask": explicit_mask(sound)}


# -- models --------------------------------------------------------------------------------------------------------------


def tap_cross_block(taps: Taps, block: CrossBlock, name: str) -> None:
    for part, module in (("cross", block.cross_attn), ("self", block.attn), ("mlp", block.mlp)):
        taps.output(name.format(part), module)


@torch.no_grad()
def check_cross_block(case: Case) -> Iterator[Comparison]:
    config = dict(case["config"])
    state = seeded_state(case["state_dict"], case["weights"])
    block = CrossBlock(
        config.pop("dim"),
        config.pop("num_heads"),
        context_width=config.pop("context_dim"),
        cross_heads=config.pop("num_cross_heads"),
        layer_scale=config.pop("init_values", 0.0) or 0.0,
        mlp_ratio=config.pop("mlp_ratio", 4.0),
        qkv_bias=config.pop("qkv_bias", False),
    ).eval()
    yield same("options", sorted(config), [])
    theirs = {f"encoder_fusion.blocks.0.{name}": value for name, value in state.items()}
    ours = names("hicmae", theirs)
    own = {ours[name].removeprefix("fusion.video_blocks.0."): value for name, value in theirs.items()}
    load_strictly(block, own, "the seeded block")
    taps = Taps()
    for number, part in enumerate(("cross_attn", "attn", "mlp"), 1):
        label = {"cross_attn": "cross", "attn": "self", "mlp": "mlp"}[part]
        taps.output(f"{number}_{label}_before_residual", block.get_submodule(part))
    taps.output("4_block_output", block)
    block(seeded_input(case["inputs"]["tokens"]), seeded_input(case["inputs"]["context"]))
    taps.remove()
    yield from compare_all(case["outputs"], taps.first, case["tolerance"])


@torch.no_grad()
def check_finetune_forward(case: Case) -> Iterator[Comparison]:
    model, conversion, arguments = restored(case)
    yield same("parameters", sum(p.numel() for p in model.parameters()), case["parameters"])
    yield from concluded(conversion, arguments, model)
    taps = Taps()
    for digit, kind in ((1, "video"), (2, "audio")):
        encoder = model.get_submodule(f"{kind}_encoder")
        taps.output(f"{digit}1_{kind}_patch_tokens", encoder.patch_embed)
        taps.output(f"{digit}2_{kind}_tokens_plus_position", encoder.position_drop)
        for number, block in enumerate(encoder.blocks):
            for part in ("attn", "mlp"):
                name = f"{digit}3_{kind}_block_{number:02d}_{part}_before_residual"
                taps.output(name, block.get_submodule(part))
            taps.output(f"{digit}4_{kind}_block_{number:02d}", block)
        taps.output(f"{kind}_norm", encoder.norm)
        for number, block in enumerate(model.get_submodule(f"fusion.{kind}_blocks")):
            tap_cross_block(taps, block, f"31_fusion_{number}_{kind}_{{}}_before_residual")
            taps.output(f"32_fusion_{number}_{kind}_block", block)
        taps.output(f"33_fusion_{kind}_normed", model.get_submodule(f"fusion.{kind}_norm"))
    taps.input("features", model.feature_norm)
    inputs = inputs_of(case["inputs"])
    feature = model.forward_features(**inputs)
    taps.remove()
    outputs = taps.first
    widths = [len(model.get_submodule(f"{kind}_encoder.norm").weight) for kind in ("video", "audio")]
    parts = outputs["features"].split([*widths, *widths], dim=1)
    outputs |= {
        f"{digit}_normed_layer_means": torch.stack([tokens.mean(1) for tokens in taps.calls[f"{kind}_norm"]], 1)
        for digit, kind in (("15_video", "video"), ("25_audio", "audio"))
    }
    outputs |= {
        "16_video_feature": parts[0],
        "26_audio_feature": parts[1],
        "34_fusion_video_feature": parts[2],
        "34_fusion_audio_feature": parts[3],
        "42_feature": model.forward_head(feature, pre_logits=True),
        "43_output": model.forward_head(feature),
    }
    yield from compare_all(case["outputs"], outputs, case["tolerance"])
    yield from recorded("43_output, from the inputs", model(**inputs), case["outputs"]["43_output"], case["tolerance"])


@torch.no_grad()
def check_pretrain_forward_and_loss(case: Case) -> Iterator[Comparison]:
    tolerance = case["tolerance"]
    model, conversion, arguments = restored(case)
    yield same("parameters", sum(p.numel() for p in model.parameters()), case["parameters"])
    yield from concluded(conversion, arguments, model)
    taps = Taps()
    for digit, kind in ((1, "video"), (2, "audio")):
        encoder, decoder = model.get_submodule(f"{kind}_encoder"), model.get_submodule(f"{kind}_decoder")
        taps.output(f"{digit}1_{kind}_patch_tokens", encoder.patch_embed)
        taps.input(f"{digit}2_{kind}_visible_tokens", encoder.blocks[0])
        for number, block in enumerate(encoder.blocks):
            taps.output(f"{digit}3_{kind}_block_{number:02d}", block)
        taps.output(f"{kind}_norm", encoder.norm)
        for number, block in enumerate(model.get_submodule(f"fusion.{kind}_blocks")):
            taps.output(f"41_fusion_{number}_{kind}_block", block)
        taps.output(f"42_fusion_{kind}_normed", model.get_submodule(f"fusion.{kind}_norm"))
        taps.input(f"{digit + 4}1_{kind}_decoder_input", decoder.blocks[0])
        for number, block in enumerate(decoder.blocks):
            taps.output(f"{digit + 4}2_{kind}_decoder_block_{number}", block)
            if number:
                taps.input(f"{digit + 4}2_{kind}_decoder_block_{number}_context", block, place=1)
    inputs, masks = inputs_of(case["inputs"]), masks_of(case["inputs"]["masks"])
    guess = model.guess(**inputs, **masks)
    taps.remove()
    outputs = taps.first
    for digit, kind in ((1, "video"), (2, "audio")):
        for number, tokens in enumerate(taps.calls[f"{kind}_norm"][:-1]):
            outputs[f"{digit}4_{kind}_level_{number}"] = tokens
    encoded = model.forward_features(**inputs, **masks)
    outputs["31_similarities_video_by_audio"] = model.similarities(encoded)
    outputs |= {"53_video_prediction": guess.video, "63_audio_prediction": guess.audio}
    yield from compare_all(case["outputs"], outputs, tolerance)
    for name, values in (("53_video_prediction", guess.video), ("63_audio_prediction", guess.audio)):
        for key, reference in case["outputs"][name].items():
            if item := re.search(r"of_item_(\d+)", key):
                corner = values[int(item[1])][: len(reference), : len(reference[0])]
                yield close(f"{name} {key}", corner, reference, tolerance)
    guess = model.guess(**inputs, **masks)  # with shortcuts
    for name, values in (("53_video_prediction", guess.video), ("63_audio_prediction", guess.audio)):
        yield from recorded(f"{name}, with shortcuts", values, case["outputs"][name], tolerance)
    yield same("forward is the guess", torch.equal(model(**inputs, **masks), flat(guess)), True)
    for name, loss in case["losses"].items():
        yield from check_loss(f"loss {name}", model, {**inputs, **masks}, guess, loss, tolerance)


def set_loss(model: HiCMAEPretrain, options: Mapping) -> None:
    """The defaults of the authors' loop are normalised targets and no frame differences."""
    known = {"normlize_target", "normlize_target_audio", "use_frame_diff_as_target", "frame_diff_group_size"}
    if unknown := options.keys() - known - {"target_diff_weight", "loss_weight"}:
        raise KeyError(f"options of the loss that this check does not know: {sorted(unknown)}")
    model.normalize_target = options.get("normlize_target", True)
    model.normalize_audio_target = options.get("normlize_target_audio", True)
    different = options.get("use_frame_diff_as_target", False)
    model.difference_group = options.get("frame_diff_group_size", 2) if different else 0
    model.motion_weight = options.get("target_diff_weight")
    model.contrast_weight = options.get("loss_weight", 0.1)


def check_loss(
    name: str, model: HiCMAEPretrain, inputs: Mapping, guess: Guess, loss: Mapping, tolerance: float
) -> Iterator[Comparison]:
    set_loss(model, loss["arguments"])
    total, prediction = model.training_loss(inputs)
    yield same(f"{name}: guess", torch.equal(prediction, flat(guess)), True)
    yield close(name, [total.item()], [loss["loss"]], tolerance)
    encoded = model.forward_features(**inputs)
    entropies = loss["cross_entropies"]
    yield close(f"{name}, cross entropies", model.contrast(encoded).flatten(), np.ravel(entropies), tolerance)
    masks = model._masks(inputs["video_mask"], inputs["audio_mask"], len(inputs["video"]))
    errors = model.errors(guess, inputs["video"], inputs["audio"], masks)
    target = pick(model.targets(inputs["video"]), masked_numbers(masks.video, masks.video_visible))
    halves = len(loss["mse_terms"]) - 1
    terms = [*zip(target.chunk(halves, -1), errors.video.chunk(halves, -1))]
    sound = pick(model.audio_targets(inputs["audio"]), masked_numbers(masks.audio, masks.audio_visible))
    terms.append((sound, errors.audio))
    for number, ((part, error), term) in enumerate(zip(terms, loss["mse_terms"], strict=True)):
        yield same(f"{name}, term {number}: shape", list(error.shape), term["prediction_shape"])
        yield from summary(f"{name}, term {number}: target", part, term["target"], tolerance)
        yield close(f"{name}, term {number}", [error.mean().item()], [term["mse"]], tolerance)


@torch.no_grad()
def check_pretrain_to_finetune(case: Case) -> Iterator[Comparison]:
    outputs, config = case["outputs"], case["config"]
    pretrained = seeded_state(case["state_dict_pretrain"], case["weights"])
    finetuned = seeded_state(case["state_dict_finetune"], case["weights"])
    model = build(HiCMAE, our_arguments(config["finetune"]), convert_state_dict("hicmae", finetuned))
    conversion = convert_state_dict("hicmae_pretrain", pretrained)
    source = build(HiCMAEPretrain, our_arguments(config["pretrain"]), conversion)
    report = model.load_backbones({"encoders": source.state_dict()})
    theirs = {ours: name for name, ours in names("hicmae", finetuned).items()}
    theirs |= {ours: name for name, ours in names("hicmae_pretrain", pretrained).items()}
    left, unused = ([theirs[name] for name in entries] for entries in (report.initialized, report.ignored))
    outside = [name for name in unused if not name.startswith(("decoder.", "decoder_audio."))]
    yield same("entries taken", len(report.loaded), outputs["fine_tuning_entries_taken_from_the_checkpoint"])
    yield same("entries left", sorted(left), sorted(outputs["fine_tuning_entries_left_as_they_were"]))
    yield same("entries not used", len(unused), outputs["checkpoint_entries_not_used_count"])
    expected = outputs["checkpoint_entries_not_used_outside_the_decoders"]
    yield same("entries not used outside the decoders", sorted(outside), sorted(expected))
    feature = model.forward_features(**inputs_of(case["inputs"]))
    yield from compare_all(
        {name: value for name, value in outputs.items() if isinstance(value, dict)},
        {"feature": feature, "output": model.forward_head(feature)},
        case["tolerance"],
    )


# -- training ------------------------------------------------------------------------------------------------------------


def optimizer_of(model: DferModel, options: Mapping) -> torch.optim.Optimizer:
    """The published optimizer, with layer decay if the case has it."""
    decay, no_decay = options["weight_decay"], model.no_weight_decay()
    if "layer_decay" in options:
        groups = param_groups_layer_decay(model, decay, no_decay, layer_decay=options["layer_decay"])
    else:
        groups = parameter_groups(model, lr=1.0, weight_decay=decay)
    if options["name"] != "adamw":
        raise KeyError(f"an optimiser that this check does not know: {options['name']}")
    return torch.optim.AdamW(groups, lr=1.0, betas=tuple(options["betas"]), eps=options["eps"])


def check_step(
    case: Case,
    label: str,
    model: DferModel,
    optimizer: torch.optim.Optimizer,
    loss: Tensor,
    rate: float,
    reference: Mapping,
) -> Iterator[Comparison]:
    """One update: the loss, the norm of every gradient, and the norm of every update."""
    arch = "hicmae_pretrain" if isinstance(model, HiCMAEPretrain) else "hicmae"
    theirs = {ours: name for name, ours in names(arch, case["state_dict"]).items()}
    parameters = {theirs[name]: parameter for name, parameter in model.named_parameters()}
    yield close(f"{label}: loss", [loss.item()], [reference["loss"]], case["tolerance"])
    optimizer.zero_grad()
    loss.backward()
    gradients = {name: parameter.grad.norm().item() for name, parameter in parameters.items()}
    whole = [np.linalg.norm(list(gradients.values()))]
    yield close(f"{label}: gradient", whole, [reference["grad_norm"]], case["tolerance_grad_l2"])
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
    optimizer.step()
    updates = {name: (parameter.detach() - before[name]).norm().item() for name, parameter in parameters.items()}
    for what, ours in (("grad_l2", gradients), ("update_l2", updates)):
        expected = reference[what]
        yield same(f"{label}: names of {what}", sorted(ours), sorted(expected))
        for name in expected.keys() & ours.keys():
            yield close(f"{label}: {what} {name}", [ours[name]], [expected[name]], case[f"tolerance_{what}"])


def check_finetune_train_steps(case: Case) -> Iterator[Comparison]:
    mixing = dict(case["mixing"])
    yield same("mode", mixing["mode"], "batch")
    model, _, _ = restored(case, drop_path_rate=0.0)
    model.train()
    optimizer = optimizer_of(model, case["optimizer"])
    options = {name: mixing[name] for name in ("mixup_alpha", "cutmix_alpha", "prob", "switch_prob")}
    soften = partial(soft_targets, num_classes=model.num_classes, smoothing=mixing["label_smoothing"])
    steps = zip(
        case["inputs"]["steps"],
        mixing["numpy_seed_per_step"],
        case["optimizer"]["lr_per_step"],
        case["outputs"]["steps"],
        strict=True,
    )
    for number, (entry, seed, rate, reference) in enumerate(steps):
        inputs, label = inputs_of(entry), f"step {number}"
        draw = draw_mix(*inputs["video"].shape[-2:], **options, rng=np.random.RandomState(seed))
        yield same(f"{label}: mixing", "mixup" if draw.box is None else "cutmix", reference["mixing"])
        np.random.seed(seed)
        mixed, targets = MIXES["mixup_cutmix"](inputs, torch.tensor(entry["labels"]), soften, **options)
        yield within(f"{label}: targets", targets, reference["targets"], case["tolerance"])
        video = mixed["video"].transpose(1, 2)
        yield from summary(f"{label}: mixed video", video, reference["mixed_video"], case["tolerance"])
        yield same(f"{label}: sound", torch.equal(mixed["audio"], inputs["audio"]), True)
        loss, _ = model.training_loss(mixed, targets, soft_target_cross_entropy)
        yield from check_step(case, label, model, optimizer, loss, rate, reference)
    first = inputs_of(case["inputs"]["steps"][0])
    for name, reference in case["outputs"].items():
        if name != "steps":
            with torch.no_grad():
                yield from recorded(name, model(**first), reference, case["tolerance_afterwards"])


def check_pretrain_train_steps(case: Case) -> Iterator[Comparison]:
    model, _, _ = restored(case)
    set_loss(model, case["loss"])
    model.train()
    optimizer = optimizer_of(model, case["optimizer"])
    entries, rates = case["inputs"]["steps"], case["optimizer"]["lr_per_step"]
    batches = [{**inputs_of(entry), **masks_of(entry["masks"])} for entry in entries]
    for number, (batch, rate, reference) in enumerate(zip(batches, rates, case["outputs"]["steps"], strict=True)):
        loss, _ = model.training_loss(batch)
        yield from check_step(case, f"step {number}", model, optimizer, loss, rate, reference)
    with torch.no_grad():
        guess = model.guess(**batches[0])
    afterwards = {"video_prediction": [guess.video], "audio_prediction": [guess.audio]}
    with torch.no_grad():
        loss, _ = model.training_loss(batches[0])
    for name, reference in case["outputs"]["first_batch_afterwards"].items():
        label, tolerance = f"afterwards: {name}", case["tolerance_afterwards"]
        if isinstance(reference, dict):
            yield from recorded(label, afterwards[name][0], reference, tolerance)
        else:
            yield close(label, [{"loss": loss.item()}[name]], [reference], tolerance)


def check_optimizer(case: Case) -> Iterator[Comparison]:
    tolerance = case["tolerance"]
    for name, reference in case["outputs"].items():
        if found := re.fullmatch(r"finetune_depths_(\d+)_(\d+)_(\d+)_layer_decay_([\d.]+)_weight_decay_([\d.]+)", name):
            depths = dict(zip(("depth", "audio_depth", "fusion_depth"), map(int, found.groups()[:3])))
            options = {"layer_decay": float(found[4]), "weight_decay": float(found[5])}
            yield from check_groups(name, small(HiCMAE, num_classes=5, **depths), options, reference, tolerance)
        elif found := re.fullmatch(r"pretrain_toy_weight_decay_([\d.]+)", name):
            model = small(HiCMAEPretrain, depth=2, audio_depth=2, fusion_depth=1, levels=(1,), decoder_width=8)
            yield from check_groups(name, model, {"weight_decay": float(found[1])}, reference, tolerance)
        elif name == "lr_schedules":
            for schedule, values in reference.items():
                yield same(f"{schedule}: steps", values["epochs"] * values["steps_per_epoch"], values["length"])
                yield from check_schedule(schedule, values, tolerance)
        elif name == "drop_path_rates":
            yield from check_drop_path(reference, tolerance)
        else:
            yield Comparison("", f"{name}: no comparison for this entry", float("inf"), 0.0)


def small(kind: type[DferModel], **sizes: Any) -> DferModel:
    """A small model with the names and numbers of dimensions of the published ones."""
    return kind(img_size=32, num_frames=2, width=8, num_heads=1, audio_size=(32, 32), mlp_ratio=1.0, **sizes)


def check_groups(
    name: str, model: DferModel, options: Mapping, reference: list, tolerance: float
) -> Iterator[Comparison]:
    optimizer = optimizer_of(model, {"name": "adamw", "betas": (0.9, 0.999), "eps": 1e-8, **options})
    owners = {id(parameter): owner for owner, parameter in model.named_parameters()}
    ours = {
        owners[id(parameter)]: (group.get("lr_scale", 1.0), group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    arch = "hicmae_pretrain" if isinstance(model, HiCMAEPretrain) else "hicmae"
    yield from compare_groups(name, ours, names(arch, parameters_of(reference)), reference, tolerance)


def check_drop_path(reference: list, tolerance: float) -> Iterator[Comparison]:
    for entry in reference:
        depth, rate = entry["depth"], entry["drop_path"]
        model = small(HiCMAE, depth=depth, audio_depth=depth, fusion_depth=depth, drop_path_rate=rate)
        for part in ("video_encoder.blocks", "audio_encoder.blocks", "fusion.video_blocks", "fusion.audio_blocks"):
            rates = [block.drop_path.drop_prob for block in model.get_submodule(part)]
            yield within(f"drop path of {depth} {part}", rates, entry["rates"], tolerance)


# -- inputs --------------------------------------------------------------------------------------------------------------


def check_clip_windows(case: Case) -> Iterator[Comparison]:
    config = case["config"]
    length, hop = config["clip_len"], config["audio_sample_rate"] // 100
    wanted = config["target_length"] * hop
    yield same("shortest window", audio.SHORTEST_WINDOW, config["min_audio_length"])

    def window(entry: Mapping, span: tuple[float, float]) -> list[int] | None:
        try:
            return list(audio.sound_window(entry["audio_samples"], span, wanted))
        except MediaError:
            return None

    for entry in case["outputs"].get("test", []):
        count, rate, segments = entry["frames_in_clip"], entry["sampling_rate"], entry["segments"]
        spec = VideoSpec(num_frames=length, img_size=8, sampling="strided", rate=rate, segments=segments)
        for view in entry["views"]:
            label = f"test, {count} frames, {entry['audio_samples']} samples, rate {rate}, segment {view['segment']}"
            frames = sampling.indices(count, None, spec, view["segment"])
            yield same(f"{label}: frames", frames, view.get("frames", frames))
            span = sampling.span(frames[0], frames[-1] + rate, count)
            yield same(f"{label}: sound", window(entry, span), view["audio"])
    for entry in case["outputs"].get("train_and_validation", []):
        count, rate = entry["frames_in_clip"], entry["sampling_rate"]
        label = f"train, {count} frames, {entry['audio_samples']} samples, rate {rate}, seed {entry['numpy_seed']}"
        frames = sampling.strided_random(count, length, rate, np.random.RandomState(entry["numpy_seed"]))
        yield same(f"{label}: frames", frames, entry.get("frames", frames))
        spec = VideoSpec(num_frames=length, img_size=8, sampling="strided", rate=rate)
        yield same(f"{label}: sound", window(entry, train_span(frames, count, spec)), entry["audio"])


def check_audio_fbank(case: Case) -> Iterator[Comparison]:
    config, tolerance = case["config"], case["tolerance"]
    yield same("mean and deviation", [audio.AUDIOSET_MEAN, audio.AUDIOSET_STD], [config["mean"], config["std"]])
    yield within("padding", AUDIO.silence_value, case["padding_value_after_normalisation"], 1e-8)
    for number, item in enumerate(case["outputs"]):
        rule, reference = item["waveform"], item["model_input"]
        waveform = torch.from_numpy(waveform_of(rule))
        yield within(f"{number} first samples", waveform[0, : len(rule["first8"])], rule["first8"], 1e-9)
        gain = item["gain"]
        if item["numpy_seed"] is not None:
            gain = audio.draw_gain(len(waveform), np.random.RandomState(item["numpy_seed"]))
            yield within(f"{number} gain", gain, item["gain"], 1e-8)
        bands = config["num_mel_bins"]
        raw = audio.kaldi_log_mel(waveform[:1], rule["sample_rate"], bands)[0]
        yield same(f"{number} frames", len(raw), item["num_frames_before_padding"])
        spec = AudioSpec(AUDIO.front_end, (1, item["target_length"], bands), config["sample_rate"])
        ours = {"": audio.kaldi_front_end(waveform, rule["sample_rate"], spec, gain)}
        if len(waveform) == 1:  # several channels are made one before, in the authors' files and in ours
            ours[" as prepared"] = audio.prepare_audio(waveform, rule["sample_rate"], spec, gain=gain)
        for path, prepared in ours.items():
            yield same(f"{number} shape{path}", list(prepared.shape), reference["shape"])
            yield from summary(f"{number} input{path}", prepared, reference["summary"], tolerance)
            for key, values in reference.items():
                if row := re.fullmatch(r"(?:frame_(\d+)|last_frame)(?:_first_(\d+))?", key):
                    frame = prepared[0, int(row[1]) if row[1] else -1]
                    yield close(f"{number} {key}{path}", frame[: len(values)], values, tolerance)


def check_mask_generators(case: Case) -> Iterator[Comparison]:
    for entry in case.get("tube", []):
        grid, label = entry["input_size"], f"tube {entry['input_size']} {entry['mask_ratio']} seed {entry['seed']}"
        mask = tube_mask(grid, entry["mask_ratio"], rng=np.random.RandomState(entry["seed"]))
        frames = mask.reshape(grid[0], -1)
        yield same(f"{label}: masked", int(mask.sum()), entry["masked_total"])
        yield same(f"{label}: all frames alike", bool((frames == frames[0]).all()), True)
        yield same(f"{label}: visible", np.flatnonzero(~frames[0]).tolist(), entry["visible_raster_positions"])
    for entry in case.get("random", []):
        label = f"random {entry['input_size']} {entry['mask_ratio']} seed {entry['seed']}"
        tokens = int(np.prod(entry["input_size"]))
        mask = random_mask(tokens, entry["mask_ratio"], rng=np.random.RandomState(entry["seed"]))
        yield same(f"{label}: masked", int(mask.sum()), entry["masked_total"])
        yield same(f"{label}: visible", np.flatnonzero(~mask).tolist(), entry["visible_tokens"])


# -- evaluation ----------------------------------------------------------------------------------------------------------


def task_of(clip: str) -> str:
    """AVCAffe's clips are parts of a task; the first three parts of the file's name are the task's."""
    return "_".join(clip.rsplit("/", 1)[-1].split("_")[:3])


def views_of(case: Case, field: str) -> list[View]:
    """Process by process, each in its own order."""
    entries = sorted(case["inputs"], key=lambda entry: entry["rank"])
    return [View(e["clip"], e[field], e["label"], e["segment"], e["crop"]) for e in entries]


def check_test_time_merge(case: Case) -> Iterator[Comparison]:
    outputs, tolerance, classes = case["outputs"], case["tolerance"], case["config"]["classes"]
    group = task_of if case["config"].get("data_set", "").upper() == "AVCAFFE" else str
    clips, probabilities, labels = merge_views(views_of(case, "logits"), group)
    predictions = probabilities.argmax(1).tolist()
    yield same("order", clips, outputs["order"])
    yield same("predictions", predictions, outputs["predictions"])
    yield same("labels", labels, outputs["labels"])
    table = metrics.confusion(labels, predictions, classes)
    occur = sorted({*labels, *predictions})  # the others have no row in the authors' table
    yield same("confusion", table[np.ix_(occur, occur)].tolist(), outputs["confusion_rows_true"])
    yield within("top 1", [top_k(probabilities, labels, 1)], [outputs["top1_percent"]], 100 * tolerance)
    yield within("top 5", [top_k(probabilities, labels, 5)], [outputs["top5_percent"]], 100 * tolerance)
    for name, value in {"uar": metrics.uar(table), "war": metrics.war(table), **f1(table)}.items():
        yield within(name, [value / 100], [outputs[name]], tolerance)


def check_regression(case: Case) -> Iterator[Comparison]:
    outputs, tolerance = case["outputs"], case["tolerance"]
    clips, predictions, labels = merge_views(views_of(case, "outputs"), answer=lambda values: values)
    yield same("order", clips, outputs["order"])
    yield within("predictions", predictions, outputs["predictions"], tolerance)
    yield within("labels", labels, outputs["labels"], tolerance)
    yield same("dimensions", predictions.shape[1], case["config"]["dimensions"])
    ours = regression_metrics(predictions, np.asarray(labels, dtype=np.float64))
    yield same("metrics", sorted(ours), sorted(outputs["metrics"]))
    for name, reference in outputs["metrics"].items():
        yield within(f"{name} per dimension", ours[name], reference["per_dimension"], tolerance)
        yield within(name, ours[name].mean(), reference["mean"], tolerance)
    yield same("losses", sorted(REGRESSION), sorted(outputs["losses"]))
    tensors = torch.tensor(predictions), torch.tensor(np.asarray(labels, dtype=np.float64))
    for name, reference in outputs["losses"].items():
        yield within(f"loss {name}", REGRESSION[name](*tensors), reference, tolerance)


CHECKS = {
    "cross_block": check_cross_block,
    "finetune_forward": check_finetune_forward,
    "pretrain_forward_and_loss": check_pretrain_forward_and_loss,
    "pretrain_to_finetune": check_pretrain_to_finetune,
    "finetune_train_steps": check_finetune_train_steps,
    "pretrain_train_steps": check_pretrain_train_steps,
    "clip_windows": check_clip_windows,
    "audio_fbank": check_audio_fbank,
    "image_transform": check_image_transform,
    "mask_generators": check_mask_generators,
    "optimizer": check_optimizer,
    "test_time_merge": check_test_time_merge,
    "regression": check_regression,
}
