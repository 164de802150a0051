"""The checks of s2d, its image model and mobile_face_net; README.md beside the cases says what each entry is."""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from dfer_zoo.checkpoints import read_checkpoint
from dfer_zoo.convert import Conversion, convert_state_dict
from dfer_zoo.convert.mobile_face_net import own_name
from dfer_zoo.convert.s2d import names
from dfer_zoo.data.annotations import read_rows
from dfer_zoo.factory import load_strictly
from dfer_zoo.models.anchors import EmotionAnchors, distillation_weight
from dfer_zoo.models.base import skip_init
from dfer_zoo.models.mobile_face_net import LandmarkFeatures, MobileFaceNet, resize_for_landmarks
from dfer_zoo.models.s2d import S2D, PromptBlock
from dfer_zoo.registry import get_weights
from dfer_zoo.training.batches import balanced_weights
from dfer_zoo.training.optim import parameter_groups, warmup_then_cosine

from .. import seeded
from ..compare import Comparison, close, recorded, same, within
from ..making import seeded_input, seeded_state
from ..published import soft_target_cross_entropy
from ..runner import Case
from ..taps import Taps
from .mae_dfer import check_frame_indices, check_image_transform, check_test_time_merge

# -- weights and inputs --------------------------------------------------------------------------------------------------


def video_input(case: Case) -> Tensor:
    """(B, 3, T, H, W) -> ours, (B, T, 3, H, W)"""
    return seeded_input(case["inputs"]["video"]).transpose(1, 2).contiguous()


# -- the authors' options -> our arguments -------------------------------------------------------------------------------

OPTIONS = {
    "img_size": "img_size",
    "embed_dim": "width",
    "hidden_dim": "hidden",
    "head_dropout_ratio": "head_drop",
    "prompt_type": "prompts",
    "global_pool": "pooling",
    **{name: name for name in ("patch_size", "num_frames", "num_classes", "depth", "num_heads", "mlp_ratio")},
    **{name: name for name in ("qkv_bias", "adapter_scale")},
}
TRAINING = {"epochs", "samples", "total_batch", "lr", "min_lr", "warmup_epochs", "weight_decay"}
LANDMARK_CHANNELS = {"in_chans_l"}
NOT_IN_THE_SHAPES = {"num_heads", "head_drop", "anchors", "update_anchors"}


def our_arguments(config: Mapping) -> dict[str, Any]:
    if unknown := config.keys() - OPTIONS.keys() - TRAINING - LANDMARK_CHANNELS:
        raise KeyError(f"options that this check does not know: {sorted(unknown)}")
    if config.get("in_chans_l", LandmarkFeatures.num_features) != LandmarkFeatures.num_features:
        raise ValueError(f"MobileFaceNet has {LandmarkFeatures.num_features} channels, not {config['in_chans_l']}")
    arguments = {OPTIONS[name]: value for name, value in config.items() if name in OPTIONS}
    if "prompts" in arguments and arguments["prompts"] not in ("deep", "shallow"):
        arguments["prompts"] = "none"  # whatever else it is called
    if "pooling" in arguments:
        arguments["pooling"] = {"token": "token", "avg": "average"}[arguments["pooling"]]
    return arguments


def build(config: Mapping, conversion: Conversion, landmarks: Mapping[str, Tensor]) -> S2D:
    """With the case's options, strictly loaded from both of the authors' files."""
    with skip_init():
        model = S2D(**{**conversion.model_args, **our_arguments(config)})
    load_strictly(model, {**conversion.state, **landmarks}, "the seeded checkpoint")
    return model.eval()


def landmark_entries(case: Case) -> dict[str, Tensor]:
    """The landmark network's part of the model, by way of its own converter."""
    state = seeded_state(case["landmark_state_dict"], case["weights"]["landmark"])
    return S2D.entries_of_backbone("landmarks", convert_state_dict("mobile_face_net", state).state)


def model_of(case: Case) -> tuple[S2D, Conversion]:
    state = seeded_state(case["state_dict"], case["weights"]["model"])
    conversion = convert_state_dict("s2d", state)
    return build(case["config"], conversion, landmark_entries(case)), conversion


def concluded(config: Mapping, conversion: Conversion) -> Iterator[Comparison]:
    """The constructor's arguments as the converter reads them off the names and shapes."""
    defaults = {name: p.default for name, p in inspect.signature(S2D).parameters.items()}
    theirs = {**defaults, **our_arguments(config)}
    ours = {**defaults, **conversion.model_args}
    told = defaults.keys() - NOT_IN_THE_SHAPES
    if theirs["prompts"] == "none":
        told -= {"hidden", "adapter_scale"}
    if theirs["depth"] == 1 and theirs["prompts"] == "shallow":
        told -= {"prompts"}  # one block of one: "deep" is the same network
    if int(theirs["width"] * theirs["adapter_scale"]) == int(theirs["width"] * ours["adapter_scale"]):
        told -= {"adapter_scale"}  # the shapes tell the product
    alike = {name: (ours[name], theirs[name]) for name in told if ours[name] != theirs[name]}
    yield same(f"arguments concluded from the checkpoint{alike or ''}", alike, {})


def own_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Without the landmark network, which the authors do not count."""
    return {name: p for name, p in model.named_parameters() if not name.startswith("landmarks.")}


# -- forward -------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def check_model_forward(case: Case) -> Iterator[Comparison]:
    model, conversion = model_of(case)
    yield same("parameters", sum(p.numel() for p in own_parameters(model).values()), case["parameters"])
    landmark_net = sum(p.numel() for p in MobileFaceNet().parameters())
    yield same("landmark parameters", landmark_net, case.get("landmark_parameters", landmark_net))
    yield from concluded(case["config"], conversion)

    taps = Taps()
    taps.input("01_landmark_net_input", model.landmarks)
    taps.output("02_landmark_features", model.landmarks)
    taps.output("03_patch_tokens", model.encoder.patch_embed)
    taps.output("04_landmark_tokens", model.landmark_embed)
    taps.input("05_tokens_before_blocks", model.encoder.blocks[0])
    for i, block in enumerate(model.encoder.blocks):
        taps.input(f"06_block_{i:02d}_3_input", block)
        taps.output(f"06_block_{i:02d}_4_output", block)
    for i, block in enumerate(model.prompt_blocks):
        taps.output(f"06_block_{i:02d}_1_prompt", block.prompter)
        taps.output(f"06_block_{i:02d}_2_temporal", block.adapter)
    video = video_input(case)
    frames = model.encode_clip(video)
    taps.remove()
    outputs = taps.first
    outputs["03_patch_tokens"] = outputs["03_patch_tokens"].flatten(2).transpose(1, 2)
    outputs["07_frame_features"] = frames
    outputs["08_feature"] = model.forward_features(video)
    outputs["09_logits"] = model.forward_head(outputs["08_feature"])
    for name in sorted(case["outputs"]):
        kind = "feature_and_logits" if name.startswith(("08", "09")) else "other_outputs"
        if name in outputs:
            yield from recorded(name, outputs[name], case["outputs"][name], case["tolerance"][kind])
        else:
            yield Comparison("", f"{name}: nothing was recorded", float("inf"), 0.0)


AUTHORS_MODULES = {
    "conv1": "features.stem",
    "conv2_dw": "features.stem_depthwise",
    "conv_23": "features.down1",
    "conv_3": "features.stage1",
    "conv_34": "features.down2",
    "conv_4_features": "features.stage2",
    "conv_45": "down3",
    "conv_5": "stage3",
    "conv_6_sep": "expand",
}


@torch.no_grad()
def check_landmark_forward(case: Case) -> Iterator[Comparison]:
    tolerance = case["tolerance"]
    state = seeded_state(case["landmark_state_dict"], case["weights"]["landmark"])
    model = MobileFaceNet().eval()
    load_strictly(model, convert_state_dict("mobile_face_net", state).state, "the seeded checkpoint")
    yield same("parameters", sum(p.numel() for p in model.parameters()), case["parameters"])
    taps = Taps()
    for theirs, ours in AUTHORS_MODULES.items():
        taps.output(theirs, model.get_submodule(ours))
    images = resize_for_landmarks(rearrange(video_input(case), "b t c h w -> (b t) c h w"))
    landmarks = model(images)
    yield same("size", list(images.shape[-2:]), [case["config"]["size"]] * 2)
    taps.remove()
    outputs = taps.first
    outputs |= {"resized": images, "landmarks": landmarks.flatten(1)}
    for name, reference in sorted(case["outputs"].items()):
        yield from recorded(name, outputs[name.partition("_")[2]], reference, tolerance)


@torch.no_grad()
def check_prompt_block(case: Case) -> Iterator[Comparison]:
    config, tolerance = case["config"], case["tolerance"]
    yield same("options", sorted(config), ["adapter_scale", "hidden_dim", "num_frames", "width"])
    width = config["width"]
    adapter_hidden = int(width * config["adapter_scale"])
    block = PromptBlock(width, config["hidden_dim"], adapter_hidden, config["num_frames"]).eval()
    state = seeded_state(case["state_dict"], case["weights"]["model"])
    load_strictly(block, converted_block(state), "the seeded block")

    taps = Taps()
    taps.output("01_temporal_adapter_rows", block.adapter.temporal)
    taps.input("02_fovea_input", block.prompter.fovea)
    taps.output("03_fovea_output", block.prompter.fovea)
    taps.output("04_prompt_squeezed", block.prompter.prompt_down)
    maps = [seeded_input(case["inputs"][name]) for name in ("image_map", "prompt_map")]
    prompt, temporal = block(*(rearrange(x, "n d h w -> n (h w) d") for x in maps))
    taps.remove()
    outputs = taps.first
    outputs |= {"05_prompt": prompt, "06_temporal": temporal}
    height = maps[0].shape[2]
    for name, reference in sorted(case["outputs"].items()):
        ours = outputs[name]
        if name[:2] in ("02", "03", "04", "05"):  # theirs are maps
            ours = rearrange(ours, "n (h w) d -> n d h w", h=height)
        yield from recorded(name, ours, reference, tolerance)


def converted_block(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    known = names("s2d", [f"prompt_blocks.0.{name}" for name in state])
    own = {known[f"prompt_blocks.0.{name}"].removeprefix("prompt_blocks.0."): value for name, value in state.items()}
    return {name: value.flatten(1) if value.ndim == 4 else value for name, value in own.items()}


# -- training ------------------------------------------------------------------------------------------------------------


def check_train_step(case: Case) -> Iterator[Comparison]:
    outputs, tolerance, options = case["outputs"], case["tolerance"], case["optimizer"]
    model, _ = model_of(case)
    model.freeze()
    model.train()
    theirs = {ours: name for name, ours in names("s2d", case["state_dict"]).items()}
    own = own_parameters(model)
    trained = {theirs[name]: p for name, p in own.items() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in trained.items()}
    yield same("trainable", sorted(trained), sorted(outputs["trainable"]))
    assert options["name"] == "AdamW"
    groups = parameter_groups(model, lr=options["lr"], weight_decay=options["weight_decay"])
    optimizer = torch.optim.AdamW(groups, betas=tuple(options["betas"]), eps=options["eps"])

    loss_of = Losses(case, model)
    expected = outputs["losses_before_and_after_each_of_two_steps"]
    for step, reference in enumerate(expected):
        optimizer.zero_grad()
        losses, logits = loss_of(backward=step < len(expected) - 1)
        for name, value in reference.items():
            yield close(f"{name} loss after {step} steps", losses[name], value, tolerance["loss"])
        if step == 0:
            yield close("logits", logits, outputs["first_logits"], tolerance["loss"])
            yield from loss_of.soft_targets(outputs.get("first_soft_targets"), tolerance["loss"])
            yield from compared_gradients(case, trained)
        if step < len(expected) - 1:
            optimizer.step()
    for name, reference in outputs["change_after_two_steps"].items():
        change = (trained[name].detach() - before[name]).reshape(case["state_dict"][name]["shape"])
        yield from recorded(f"change of {name}", change, reference, tolerance["change"])


class Losses:
    """The loss of the case's batch through `training_loss`, and its two terms by themselves."""

    def __init__(self, case: Case, model: S2D) -> None:
        self.model, self.video = model, video_input(case)
        self.targets = torch.tensor(case["targets"])
        self.criterion = nn.functional.cross_entropy if self.targets.ndim == 1 else soft_target_cross_entropy
        self.epoch = 0
        if rule := case.get("distillation"):
            self.epoch = rule["epoch"]
            model.anchors = seeded_anchors(rule["config"], rule["seed"])

    def __call__(self, backward: bool) -> tuple[dict[str, float], Tensor]:
        with torch.set_grad_enabled(backward):
            total, logits = self.model.training_loss(
                {"video": self.video}, self.targets, self.criterion, epoch=self.epoch
            )
        if backward:
            total.backward()
        losses = {"total": total.item(), "classification": self.criterion(logits.detach(), self.targets).item()}
        if self.model.anchors is not None:
            self.features = self.features_of()
            anchored = self.model.anchors.loss(self.features, logits.detach()).item()
            losses["distillation"] = distillation_weight(self.epoch) * anchored if self.epoch > 20 else 0.0
        return losses, logits.detach()

    @torch.no_grad()
    def features_of(self) -> Tensor:
        return self.model.forward_features(self.video)

    def soft_targets(self, reference: Any, tolerance: float) -> Iterator[Comparison]:
        if reference is not None:
            yield close("soft targets", self.model.anchors.soft_targets(self.features), reference, tolerance)


def compared_gradients(case: Case, trained: Mapping[str, nn.Parameter]) -> Iterator[Comparison]:
    outputs, tolerance = case["outputs"], case["tolerance"]["gradient"]
    silent = [name for name, p in trained.items() if p.grad is None]
    yield same("trainable without gradient", sorted(silent), sorted(outputs["trainable_without_gradient"]))
    ours = [trained[name].grad.norm().item() for name in outputs["gradient_l2"]]
    yield close("gradient norms", ours, list(outputs["gradient_l2"].values()), tolerance)
    for name, reference in outputs["gradients"].items():
        gradient = trained[name].grad.reshape(case["state_dict"][name]["shape"])
        yield from recorded(f"gradient of {name}", gradient, reference, tolerance)


def seeded_anchors(config: Mapping, seed: int) -> EmotionAnchors:
    classes, size = config["num_classes"], config["size"]
    anchors = EmotionAnchors(classes, config["dim"], size, nearest=config["k"])
    anchors.features = torch.from_numpy(seeded.uniform("Queue", (classes, size, config["dim"]), seed))
    anchors.probabilities = torch.from_numpy(seeded.uniform("Probe", (classes, size, classes), seed))
    return anchors


def check_self_distillation(case: Case) -> Iterator[Comparison]:
    config, outputs, tolerance = case["config"], case["outputs"], case["tolerance"]
    anchors = EmotionAnchors(config["num_classes"], config["dim"], config["size"], nearest=config["k"])
    anchors.features = seeded_input(case["inputs"]["queue"])
    anchors.probabilities = seeded_input(case["inputs"]["probe"])
    for number, (batch, reference) in enumerate(zip(case["inputs"]["batches"], outputs["batches"], strict=True)):
        features, logits = seeded_input(batch["features"]), seeded_input(batch["logits"])
        label = f"batch {number}"
        targets = anchors.soft_targets(features)
        yield from recorded(f"{label}: soft targets", targets, reference["soft_targets"], tolerance)
        loss = anchors.loss(features, logits).item()
        for epoch, value in reference["losses_by_epoch"].items():
            weight = distillation_weight(int(epoch)) if int(epoch) > 20 else 0.0
            yield close(f"{label}: loss in epoch {epoch}", weight * loss, value, tolerance)
        anchors.push(features, logits, torch.tensor(batch["labels"]))
        yield from recorded(f"{label}: queue", anchors.features, reference["queue_after"], tolerance)
        yield from recorded(f"{label}: probe", anchors.probabilities, reference["probe_after"], tolerance)
    weights = outputs["weight_by_epoch"]
    yield within("weights", [distillation_weight(epoch) for epoch in range(len(weights))], weights, tolerance)


# what the option fix_lgp freezes beyond the published rule
LANDMARK_PROMPTS = (
    "landmark_embed.*",
    "prompt_norms.*",
    "prompt_blocks.*.prompter.*",
    "prompt_blocks.*.adapter.norm.*",
)


def check_optimizer(case: Case) -> Iterator[Comparison]:
    config, outputs, tolerance = case["config"], case["outputs"], case["tolerance"]
    for rule, frozen in (("shipped", ()), ("fix_lgp", LANDMARK_PROMPTS)):
        if rule in outputs:
            with skip_init():
                model = S2D(**our_arguments(config))
            model.freeze()
            model.freeze(*frozen or S2D.frozen_parameters[:1])
            yield from compared_groups(rule, model, config["weight_decay"], outputs[rule], tolerance)
    per_epoch = config["samples"] // config["total_batch"]
    peak, floor = config["lr"] * config["total_batch"] / 8, config["min_lr"] * config["total_batch"] / 256
    yield same("steps per epoch", per_epoch, outputs["steps_per_epoch"])
    yield close("peak and floor", [peak, floor], [outputs["peak_lr"], outputs["final_lr"]], tolerance)
    options = {"steps": config["epochs"] * per_epoch, "warmup": config["warmup_epochs"] * per_epoch, "floor": floor}
    for step, rate in outputs["lr_at_step"].items():
        yield close(f"rate at step {step}", warmup_then_cosine(int(step), lr=peak, **options), rate, tolerance)


def compared_groups(
    rule: str, model: S2D, weight_decay: float, reference: Mapping, tolerance: float
) -> Iterator[Comparison]:
    own = own_parameters(model)
    listed = [*reference["frozen"], *(name for group in reference["groups"] for name in group["params"])]
    known = names("s2d", listed)
    yield same(f"{rule}: names", sorted(known.values()), sorted(own))
    yield same(
        f"{rule}: frozen",
        sorted(known[name] for name in reference["frozen"]),
        sorted(name for name, p in own.items() if not p.requires_grad),
    )
    groups = {group["weight_decay"]: group for group in parameter_groups(model, lr=1.0, weight_decay=weight_decay)}
    yield same(f"{rule}: number of groups", len(groups), len(reference["groups"]))
    for theirs in reference["groups"]:
        decay = theirs["weight_decay"]
        ours = next((group for value, group in groups.items() if abs(value - decay) <= tolerance), None)
        named = sorted(known[name] for name in theirs["params"])
        yield same(f"{rule}: decay {decay}", sorted(ours["names"]) if ours else None, named)
        numbers = sum(p.numel() for p in ours["params"]) if ours else 0
        yield same(f"{rule}: decay {decay}, numbers", numbers, theirs.get("numbers", numbers))
        yield close(f"{rule}: decay {decay}, rate", ours["lr"] if ours else 0.0, theirs["lr_scale"], tolerance)


def check_oversampling(case: Case) -> Iterator[Comparison]:
    labels, outputs, tolerance = case["inputs"]["labels"], case["outputs"], case["tolerance"]
    weights = balanced_weights(labels)
    yield close("weights", weights, outputs["weights"], tolerance)
    yield same("draws per epoch", len(weights), outputs["draws_per_epoch"])
    for label, reference in outputs["probability_of_each_class"].items():
        own = sum(w for w, other in zip(weights, labels) if other == int(label)) / sum(weights)
        yield within(f"probability of class {label}", own, reference, tolerance)


# -- files ---------------------------------------------------------------------------------------------------------------

RECORDS = {"dfew": "dfew_fold1", "ferv39k": "ferv39k", "mafw": "mafw_fold1"}


def check_annotations(case: Case) -> Iterator[Comparison]:
    with tempfile.TemporaryDirectory() as folder:
        for dataset, reference in case["outputs"].items():
            # FERV39k's classes are capitalised in the lists; labels of the zoo are lower case
            labels = get_weights("s2d", RECORDS[dataset]).labels
            yield same(f"{dataset}: classes", list(labels), [name.lower() for name in reference["class_order"]])
            path = Path(folder) / f"{dataset}.csv"
            path.write_text(case["inputs"]["files"][dataset], encoding="utf-8")
            rows = read_rows(path, labels, root="")  # folders as the list names them
            ours = [{"folder": row.path, "label": row.label, "class": labels[row.label]} for row in rows]
            expected = [{**entry, "class": entry["class"].lower()} for entry in reference["entries"]]
            yield same(f"{dataset}: entries", ours, expected)


def on_meta(table: Mapping) -> dict[str, Tensor]:
    return {
        name: torch.empty(entry["shape"], dtype=getattr(torch, entry["dtype"]), device="meta")
        for name, entry in table.items()
    }


def kinds(state: Mapping[str, Tensor]) -> dict[str, tuple]:
    return {name: (tuple(value.shape), value.dtype) for name, value in state.items()}


def check_checkpoint_keys(case: Case) -> Iterator[Comparison]:
    outputs, config = case["outputs"], case["config"]
    conversion = convert_state_dict("s2d", on_meta(outputs["state_dict"]))
    yield from concluded(config, conversion)
    models = {}
    for classes in (config["num_classes"], *(int(m[1]) for n in outputs if (m := re.match(r"trained_(\d+)_cl", n)))):
        with torch.device("meta"), skip_init():
            models[classes] = S2D(**{**our_arguments(config), "num_classes": classes})
        own, suffix = own_parameters(models[classes]), "" if len(models) == 1 else f"_{classes}_classes"
        yield same(f"parameters{suffix}", sum(p.numel() for p in own.values()), outputs[f"parameters{suffix}"])
        models[classes].freeze()
        trained = sum(p.numel() for p in own.values() if p.requires_grad)
        yield same(f"trained{suffix}", trained, outputs[f"trained{suffix}"])
    ours = kinds(models[config["num_classes"]].state_dict())
    landmarks = convert_state_dict("mobile_face_net", on_meta(outputs["landmark_state_dict"]))
    parts = S2D.entries_of_backbone("landmarks", landmarks.state)
    yield same("names, shapes and types", kinds({**conversion.state, **parts}), ours)

    net = MobileFaceNet()
    yield same("landmark net: names, shapes and types", kinds(landmarks.state), kinds(net.state_dict()))
    yield same("landmark net: parameters", sum(p.numel() for p in net.parameters()), outputs["landmark_parameters"])
    features = sum(p.numel() for p in net.features.parameters())
    yield same("landmark net: parameters of the features", features, outputs["landmark_parameters_up_to_conv_4"])
    unneeded = [n for n in outputs["landmark_state_dict"] if not str(own_name(n)).startswith("features.")]
    yield same(
        "landmark net: entries behind the features",
        sorted(unneeded),
        sorted(outputs["landmark_entries_not_needed_for_the_features"]),
    )


@torch.no_grad()
def check_pretrain_to_finetune(case: Case) -> Iterator[Comparison]:
    landmarks = landmark_entries(case)
    before = convert_state_dict("s2d", seeded_state(case["state_dict"], case["weights"]["model_before"]))
    video = video_input(case)
    for label, table in case["checkpoints"].items():
        reference = case["outputs"][label]
        file = wrapped_file(seeded_state(table, case["weights"]["checkpoint"]), reference["wrapper_key"])
        arch = "s2d" if "temporal_embedding" in file else "s2d_image"
        conversion = convert_state_dict(arch, file)
        model = build(case["config"], before, landmarks)
        report = model.load_backbones({"image": {**conversion.state, **landmarks}})

        theirs = {ours: name for name, ours in names("s2d", case["state_dict"]).items()}
        in_file = {ours: name for name, ours in names(arch, file).items()}
        unused = [*conversion.dropped, *(in_file[name] for name in report.ignored)]
        dropped = [*reference["not_used"], *reference["dropped_before_loading"]]
        yield same(f"{label}: taken", len(set(report.loaded) - landmarks.keys()), reference["taken"])
        left = sorted(theirs[name] for name in report.initialized)
        yield same(f"{label}: left as they were", left, sorted(reference["left_as_they_were"]))
        yield same(f"{label}: not used", sorted(unused), sorted(dropped))
        yield from recorded(f"{label}: logits", model(video), reference["logits_after"], case["tolerance"])


def wrapped_file(state: Mapping[str, Tensor], key: str) -> dict[str, Tensor]:
    """Written as the authors write it, and read as every checkpoint is read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pth"
        torch.save({key: dict(state), "epoch": 1}, path)
        return {name: value.clone() for name, value in read_checkpoint(path).items()}


CHECKS = {
    "model_forward": check_model_forward,
    "landmark_forward": check_landmark_forward,
    "prompt_block": check_prompt_block,
    "train_step": check_train_step,
    "self_distillation": check_self_distillation,
    "frame_indices": check_frame_indices,
    "image_transform": check_image_transform,
    "test_time_merge": check_test_time_merge,
    "annotations": check_annotations,
    "optimizer": check_optimizer,
    "oversampling": check_oversampling,
    "checkpoint_keys": check_checkpoint_keys,
    "pretrain_to_finetune": check_pretrain_to_finetune,
}
