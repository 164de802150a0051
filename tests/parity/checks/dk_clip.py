"""DK-CLIP. What is compared, and how, stands in the notes beside the cases."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from dfer_zoo.convert import convert_state_dict
from dfer_zoo.convert.dk_clip import our_name
from dfer_zoo.factory import load_strictly
from dfer_zoo.media.faces.crops import Box
from dfer_zoo.media.resize import RESIZES, shorter_side_size
from dfer_zoo.models import dk_clip as dk
from dfer_zoo.models.base import skip_init
from dfer_zoo.models.clip_towers import PromptLearner, TextTower, build_clip, tokenize
from dfer_zoo.models.layers import TemporalTransformer
from dfer_zoo.models.message_towers import LocalTower, MessageBlock, SemanticTower
from dfer_zoo.training.mixing import blend, soft_targets
from dfer_zoo.training.optim import learning_rate
from dfer_zoo.training.recipe import ScheduleSection
from dfer_zoo.transforms import images, sampling
from dfer_zoo.transforms.augment import FIVE_PLACES, crop_sizes, fixed_places, snap
from dfer_zoo.transforms.train.dk_clip import crop_and_resize, train_indices

from .. import seeded
from ..compare import Comparison, close, recorded, same, summary, within
from ..making import seeded_state
from ..published import dk_clip_groups
from ..taps import Taps

# -- weights and inputs ------------------------------------------------------------------------------------------------


def inputs_of(case: Any) -> dict[str, Tensor]:
    """Every input is a call of `seeded`, times a scale."""
    entries = case["inputs"]
    entries = entries.values() if isinstance(entries, dict) else entries
    made = {}
    for entry in entries:
        draw = getattr(seeded, entry.get("distribution", "normal"))
        shape = re.search(r"\[[\d, ]*\]", entry["call"])  # of what is drawn; the entry's own is of what becomes of it
        drawn = torch.from_numpy(draw(entry["name"], json.loads(shape[0]), entry["seed"])) * entry.get("scale", 1.0)
        made[entry["name"]] = finished(drawn, entry.get("then", "as is"), (case.get("config") or {}).get("T"))
    return made


def finished(drawn: Tensor, then: str, frames: int) -> Tensor:
    """What a case does to an input in words: nothing, or a clip that stands still."""
    if then == "as is":
        return drawn
    if "repeat" in then and drawn.ndim == 5 and (drawn.shape[1] == 1 or re.search("frame 0|first frame", then)):
        return drawn[:, :1].expand(-1, frames, -1, -1, -1)
    raise ValueError(f"no input is known that is drawn as {tuple(drawn.shape)}, then '{then}'")


def whole(output: dict) -> np.ndarray:
    return np.array(output["values"], dtype=np.float64).reshape(output["shape"])


def as_published(ours: Tensor, reference: np.ndarray) -> Tensor:
    """Mended: in a clip that stands still the published code divides 0 by 0. Ours must have a number there, and no more
    can be asked of it, so it becomes a NaN like theirs, and a NaN of ours a number; all the rest is compared."""
    undefined = torch.from_numpy(np.isnan(reference))
    return torch.where(undefined, torch.where(ours.isfinite(), math.nan, 0.0), ours)


def compared_mended(name: str, ours: Tensor, output: dict, tolerance: float) -> Iterator[Comparison]:
    yield from recorded(name, as_published(ours, whole(output)) if "values" in output else ours, output, tolerance)


def build_model(config: dict, texts: list[str], state: dict[str, Tensor]) -> dk.DKCLIP:
    """The authors' names -> ours -> a strict load."""
    conversion = convert_state_dict("dk_clip", state)
    with skip_init():
        model = dk.DKCLIP(
            labels=[f"class {number}" for number in range(len(texts))],
            prompts=texts,
            num_frames=config.get("T", 16),
            frames_per_snippet=config.get("N", 4),
            **conversion.model_args,
        )
    load_strictly(model, conversion.state, "the case")
    return model.eval()


def token_ids(texts: list[str], reference: list[list[int]], length: int) -> Comparison:
    ids, _ = tokenize(texts, length)
    return same("token ids", [[i for i in row if i] for row in ids.tolist()], reference)


# -- the model ---------------------------------------------------------------------------------------------------------


def check_model(case: Any) -> Iterator[Comparison]:
    config, texts, tolerance = case["config"], case["texts"], case["tolerance"]
    per_intermediate = tolerance.get("relative_l2_per_intermediate", {})
    anywhere = tolerance.get("relative_l2_any_intermediate", tolerance.get("relative_l2"))
    per_output = tolerance.get("relative_l2_per_output", {})

    def allowed(name: str) -> float:
        return per_intermediate.get(name, anywhere)

    if "token_ids_nonzero" in case:
        yield token_ids(texts, case["token_ids_nonzero"], config.get("context_length", 77))
    model = build_model(config, texts, seeded_state(case["state_dict"], case["weights"]["seed"]))
    yield same("number of parameters", sum(p.numel() for p in model.parameters()), entries(case["state_dict"]))

    video = inputs_of(case)["video"]
    with torch.no_grad():
        with Taps() as taps:
            for name, module in tapped(model).items():
                taps.output(name, module)
            details = model.explain(video)
        logits = model(video)
        found = intermediates(model, taps.last, details, video)
    for name, reference in case.get("intermediates", {}).items():
        ours = found[name.split()[0]]
        if reference["mean"] is None:
            yield same(f"{name}: finite, mended", bool(ours.isfinite().all()), True)
        else:
            yield from summary(name, ours, reference, allowed(name))

    outputs = {
        "logits": logits,
        "logits_local_weighted": details.local_logits,
        "logits_local_summed": details.local_logits.sum(1),
        "video_features": details.embedding,
        "probabilities_global": logits.softmax(-1),
        "probabilities_local": details.local_logits.sum(1).softmax(-1),
    }
    for name, reference in case["outputs"].items():
        yield from compared_mended(name, outputs[name], reference, per_output.get(name, tolerance.get("relative_l2")))
    if "logits" in case["outputs"]:
        limit = per_output.get("logits", tolerance.get("relative_l2"))
        yield close("explained logits", details.logits, whole(case["outputs"]["logits"]), limit)
    if "erased" in case:
        yield same("erased", details.erased.int().tolist(), case["erased"])
    by_number = {name[:2]: name for name in case.get("intermediates", {})}
    for key, ours, number in (
        ("similarity", details.similarity, "13"),
        ("similarity_weights", details.snippet_weights, "14"),
        ("msim_attention", details.attention, "12"),
    ):
        if key in case:
            reference = np.array(case[key], dtype=np.float64)
            yield close(key, as_published(ours, reference), reference, allowed(by_number.get(number, key)))


def entries(table: dict) -> int:
    return sum(int(np.prod(entry["shape"], dtype=np.int64)) for entry in table.values())


def tapped(model: dk.DKCLIP) -> dict[str, nn.Module]:
    local, semantic, conditioning = model.local_tower, model.semantic_tower, model.conditioning
    return {
        "01_visual.conv1": local.patch_embed,
        "02_visual.ln_pre": local.norm_pre,
        **{f"03_visual.block{i}": block for i, block in enumerate(local.blocks)},
        "03a_visual.block0.message_fc": local.blocks[0].message,
        "03b_visual.block0.message_attn": local.blocks[0].message_attn,
        "07_visual_semantic.ln_pre": semantic.norm_pre,
        **{f"08_visual_semantic.block{i}": block for i, block in enumerate(semantic.blocks)},
        "11_video_feature_raw": model.interaction,
        "19a_prompts_generator.norm": conditioning.norm,
        **{f"19b_prompts_generator.layer{i}": block for i, block in enumerate(conditioning.blocks)},
        "20_prompts_generator": conditioning,
    }


def intermediates(model: dk.DKCLIP, caught: dict, details: dk.ClipDetails, video: Tensor) -> dict[str, Tensor]:
    """The reference tensors, by the number and name in front of their layout."""
    batch, snippets = len(video), model.snippets
    last = len(model.local_tower.blocks) - 1
    local_tokens, semantic_tokens = caught[f"03_visual.block{last}"], caught[f"08_visual_semantic.block{last}"]
    embedding = model.embed_video(video)
    texts = model.conditioned_texts(dk.kept_mean(embedding.patches, details.erased))
    return {
        **caught,
        "03a_visual.block0.message_fc": rearrange(
            caught["03a_visual.block0.message_fc"], "(groups near) d -> groups near d", near=snippets
        ),
        "03b_visual.block0.message_attn": caught["03b_visual.block0.message_attn"].transpose(0, 1),
        "04_frame_cls": model.local_tower.embed(local_tokens[:, 0]),
        "05_patch_tokens": local_tokens[:, 1:],
        "06_snippet_patch_mean": rearrange(local_tokens[:, 1:], "(b s n) p d -> b s n p d", b=batch, s=snippets).mean(
            2
        ),
        "09_semantic_cls_unused": model.semantic_tower.embed(semantic_tokens[:, 0]),
        "10_snippet_cls_mean": embedding.raw_snippets,
        "12_msim_attention": details.attention,
        "13_similarity": details.similarity,
        "14_similarity_weights": details.snippet_weights,
        "15_semantic_tokens_projected": embedding.patches,
        "16_erased": details.erased.float(),
        "17_kept_mean": dk.kept_mean(embedding.patches, details.erased),
        "18_text_features": model.text_features(),
        "21_logits_local_before_weighting": model.logit_scale.exp()
        * torch.einsum("bse,bke->bsk", embedding.snippets, texts),
    }


# -- parts -------------------------------------------------------------------------------------------------------------


def part(module: nn.Module, entry: dict, theirs: str, ours: str) -> nn.Module:
    """A module alone: its entries have short names, and the map knows the names in the whole model."""
    state = seeded_state(entry["state_dict"], entry["weights"]["seed"])
    renamed = {(our_name(theirs + name) or name).removeprefix(ours): tensor for name, tensor in state.items()}
    load_strictly(module, renamed, entry["module"])
    return module.eval()


def temporal_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The ablation's transformer is in no checkpoint of the model, so `convert` does not know its names."""
    names = [
        (r"^cls_token$", "class_token"),
        (r"^pos_embedding$", "positions"),
        (r"^temporal_transformer\.layers\.(\d+)\.", r"blocks.\1."),
        (r"\.0\.fn\.norm\.", ".norm1."),
        (r"\.1\.fn\.norm\.", ".norm2."),
        (r"\.0\.fn\.fn\.to_qkv\.", ".attn.qkv."),
        (r"\.0\.fn\.fn\.to_out\.0\.", ".attn.proj."),
        (r"\.1\.fn\.fn\.net\.0\.", ".mlp.fc1."),
        (r"\.1\.fn\.fn\.net\.3\.", ".mlp.fc2."),
    ]
    renamed = {}
    for name, tensor in state.items():
        for pattern, ours in names:
            name = re.sub(pattern, ours, name)
        renamed[name] = tensor
    return renamed


def run_part(entry: dict) -> dict[str, Tensor]:
    """The outputs of one module, by their names in the case."""
    kind, config, given = entry["module"], entry["config"], inputs_of(entry)
    if kind.startswith("msim"):
        msim = dk.SnippetInteraction(config["embed_dim"], config["T"], config["layers"])
        part(msim, entry, "msim.", "interaction.")
        return {"video": msim(given["x"]), "attention": msim.attention(given["x"])}
    if kind.startswith("prompt generator"):
        generator = dk.TextConditioning(config["embed_dim"], config["layers"])
        part(generator, entry, "prompts_generator_cmam.", "conditioning.")
        return {"out": generator(given["text"], given["visual"])}
    if kind.startswith(("cfam local block", "cfam integration block")):
        block = MessageBlock(config["d_model"])
        part(block, entry, "visual.transformer.resblocks.0.", "local_tower.blocks.0.")
        neighbours = config["T"] // config["N"] if "local" in kind else config["T"]
        return {"out": block(given["x"].transpose(0, 1), neighbours).transpose(0, 1)}
    if kind.startswith("temporal"):
        pool = {"Cls": "token", "Mean": "mean", "All": "none"}[kind.split()[-1]]
        temporal = TemporalTransformer(
            config["input_dim"], config["depth"], config["heads"], config["mlp_dim"], config["num_patches"], pool
        )
        load_strictly(temporal, temporal_state(seeded_state(entry["state_dict"], entry["weights"]["seed"])), kind)
        return {"out": temporal.eval()(given["x"])}
    patch = (config["input_resolution"], config["patch_size"])
    if kind.startswith("local tower"):
        local = LocalTower(*patch, config["width"], config["layers"], config["output_dim"], 0.0)
        part(local, entry, "visual.", "local_tower.")
        tokens = local(given["image"], config["T"] // config["N"])
        return {"frame_cls": local.embed(tokens[:, 0]), "patch_tokens": tokens[:, 1:]}
    if kind.startswith("integration tower"):
        patches = (patch[0] // patch[1]) ** 2
        semantic = SemanticTower(config["width"], config["layers"], patches, config["output_dim"])
        part(semantic, entry, "visual_semantic.", "semantic_tower.")
        tokens = semantic(given["tokens"])
        return {"cls": semantic.embed(tokens[:, 0]), "patch_tokens": tokens[:, 1:]}
    raise ValueError(f"no check for the module '{kind}'")


@torch.no_grad()
def check_modules(case: Any) -> Iterator[Comparison]:
    for entry in case["modules"]:
        ours = run_part(entry)
        for name, output in entry["outputs"].items():
            yield from recorded(f"{entry['module']}: {name}", ours[name], output, entry["tolerance"]["relative_l2"])


def check_noise_erasing(case: Any) -> Iterator[Comparison]:
    given, outputs, tolerance = inputs_of(case), case["outputs"], case["tolerance"]["relative_l2"]
    weights, erased = dk.weigh_snippets(given["similarity"], (case.get("config") or {}).get("threshold", 0.15))
    local = dk.weighted_local_logits(given["logits_local"], weights, erased)
    yield same("erased", erased.int().tolist(), outputs["erased"])
    for name, ours in (
        ("weights", weights),
        ("kept_mean", dk.kept_mean(given["tokens"], erased)),
        ("local_weighted", local),
        ("local_summed", local.sum(1)),
    ):
        yield from compared_mended(name, ours, outputs[name], tolerance)


def check_noise_erasing_table(case: Any) -> Iterator[Comparison]:
    for number, row in enumerate(case["rows"]):
        weights, erased = dk.weigh_snippets(torch.tensor([row["similarity"]]))
        # mended: where the published code divides 0 by 0, and erases nothing, all snippets weigh the same
        published = [1 / len(row["weights"]) if weight is None else weight for weight in row["weights"]]
        yield same(f"row {number}: erased", erased[0].int().tolist(), row["erased"])
        yield within(f"row {number}: weights", weights[0], published, 1e-6)


# -- texts -------------------------------------------------------------------------------------------------------------


def text_config(config: dict) -> dict:
    return {
        "embed_dim": config["embed_dim"],
        "vision_cfg": {
            "layers": config.get("vision_layers"),
            "width": config.get("vision_width"),
            "patch_size": config.get("vision_patch_size"),
            "image_size": config.get("image_resolution"),
            "head_width": 64,
        },
        "text_cfg": {
            "context_length": config["context_length"],
            "vocab_size": config["vocab_size"],
            "width": config["transformer_width"],
            "heads": config["transformer_heads"],
            "layers": config["transformer_layers"],
        },
        "quick_gelu": True,
    }


@torch.no_grad()
def check_text(case: Any) -> Iterator[Comparison]:
    config, tolerance = case["config"], case["tolerance"]["relative_l2"]
    tower = TextTower(build_clip(text_config(config), vision=False)).eval()
    state = seeded_state(case["state_dict"], case["weights"]["seed"])
    load_strictly(tower, {our_name(n).removeprefix("text_tower."): t for n, t in state.items()}, "the case")
    for name, reference in case["outputs"].items():
        texts = reference["texts"]
        if "token_ids_nonzero" in reference:
            yield token_ids(texts, reference["token_ids_nonzero"], config["context_length"])
        ids, ends = tokenize(texts, config["context_length"])
        if "eot_position" in reference:
            yield same(f"{name}: end positions", ends.tolist(), reference["eot_position"])
        features = tower.encode_ids(ids, ends)
        if "features_first_16" in reference:
            yield close(f"{name}: first 16", features[:, :16], reference["features_first_16"], tolerance)
        yield from summary(f"{name}: features", features, reference["features_summary"], tolerance)
        unit = dk.l2_normalize(features)
        if "cosine_matrix" in reference:
            yield close(f"{name}: cosines", unit @ unit.T, reference["cosine_matrix"], tolerance)


@torch.no_grad()
def check_prompt_learner(case: Any) -> Iterator[Comparison]:
    config, outputs, tolerance = case["config"], case["outputs"], case["tolerance"]["relative_l2"]
    seed, length = case["weights"]["seed"], config["context_length"]
    clip = build_clip(text_config(config)).eval()
    load_strictly(clip, seeded_state(case["state_dict"], seed), "the case")
    tower = TextTower(clip)
    learner = PromptLearner(case["texts"], config["transformer_width"], config["n_ctx"], context_length=length)
    learner.contexts.copy_(torch.from_numpy(seeded.parameter(case["ctx"]["name"], case["ctx"]["shape"], seed)))
    if "token_ids_nonzero" in case:
        ids = [[i for i in row if i] for row in learner.token_ids.tolist()]
        yield same("token ids", ids, case["token_ids_nonzero"])
    prompts = learner(tower.token_embedding, length)
    yield from summary("prompts", prompts, outputs["prompts_summary"], tolerance)
    yield from recorded("text features", tower(prompts, learner.ends), outputs["text_features"], tolerance)
    short = tower(learner(tower.token_embedding), learner.ends)  # as the models call it: cut behind the last end mark
    yield from recorded("text features, cut", short, outputs["text_features"], tolerance)
    yield from recorded(
        "image features", clip.encode_image(inputs_of(case)["image"]), outputs["image_features"], tolerance
    )


# -- training ----------------------------------------------------------------------------------------------------------


def check_loss(case: Any) -> Iterator[Comparison]:
    config, outputs, tolerance = case["config"], case["outputs"], case["tolerance"]["relative_l2"]
    given = {name: tensor.requires_grad_() for name, tensor in inputs_of(case).items()}
    logits, local = given["logits_global"], given["logits_local_weighted"]
    batch, classes = logits.shape
    clean = soft_targets(torch.arange(batch) % classes, classes, config["label_smoothing"])
    for name, ours in (("on_value", clean.max()), ("off_value", clean.min())):
        if name in config:
            yield close(name, [ours], [config[name]], tolerance)
    targets = blend(clean, config["lambda"], torch.arange(batch).roll(1))
    if "soft_labels" in case:
        yield close("soft labels", targets, case["soft_labels"], tolerance)

    steps, both = config.get("accumulation_steps", 1), [logits, local]
    whole_clip = F.cross_entropy(logits, targets)
    total = dk.global_local_loss(logits, local, targets, F.cross_entropy)
    found = {
        "ce_global": whole_clip,
        "ce_local": F.cross_entropy(local.sum(1), targets),
        "consistency": dk.consistency(local.sum(1), logits),
        "total_epoch_0_to_13": total,
        "total_divided_by_accumulation": total / steps,
        "total_from_epoch_14": whole_clip,
    }
    for name, ours in found.items():
        yield close(name, [ours.detach()], [outputs[name]], tolerance)
    of_logits, of_local = torch.autograd.grad(total / steps, both, retain_graph=True)
    yield from recorded("gradient, global", of_logits, outputs["grad_global_of_total_over_2"], tolerance)
    yield from recorded("gradient, local", of_local, outputs["grad_local_of_total_over_2"], tolerance)
    (of_logits,) = torch.autograd.grad(whole_clip / steps, [logits])
    yield from recorded("gradient, later epochs", of_logits, outputs["grad_global_from_epoch_14_over_2"], tolerance)


def check_train_step(case: Any) -> Iterator[Comparison]:
    outputs, tolerance = case["outputs"], case["tolerance"]["relative_l2"]
    table = case["state_dict"]
    if isinstance(table, str):  # "see NAME.json"
        table = case.neighbour(table.split()[-1])["state_dict"]
    model = build_model(case["config"], case["texts"], seeded_state(table, case["weights"]["seed"])).train()
    dk_clip_groups(model, published_freeze=True)
    targets = soft_targets(torch.tensor(case["labels"]), model.num_classes, case.get("label_smoothing", 0.1))
    inputs = inputs_of(case)
    loss, logits = model.training_loss(inputs, targets, F.cross_entropy, epoch=0)
    loss.backward()
    with torch.no_grad():
        local = model.explain(**inputs).local_logits.sum(1)
    for name, ours in (
        ("loss_total", loss.detach()),
        ("ce_global", F.cross_entropy(logits.detach(), targets)),
        ("ce_local", F.cross_entropy(local, targets)),
    ):
        yield close(name, [ours], [outputs[name]], tolerance)

    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, norm in outputs["grad_l2"].items():
        yield close(f"gradient of {name}: l2", [gradients[our_name(name)].norm()], [norm], tolerance)
    for name, samples in outputs["grad_samples"].items():
        ours = gradients[our_name(name)].flatten()[: len(samples)]
        yield close(f"gradient of {name}: samples", ours, samples, tolerance)
    frozen = {name.split(".")[0] for name in table if gradients[our_name(name)] is None}
    yield same("frozen", sorted(frozen), sorted(outputs["no_gradient_because_frozen"]))


def family(name: str) -> str:
    """The published groups, in our names."""
    if ".message" in name:
        return "message"
    if name.startswith(("conditioning.", "semantic_norm.", "semantic_projection")):
        return "prompts"
    return "mit" if name.startswith("interaction.") else "clip"


def their_first_part(name: str) -> str:
    first, _, rest = name.partition(".")
    theirs = {"interaction": "msim", "semantic_tower": "visual_semantic", "text_tower": rest.split(".")[0]}
    return theirs.get(first, first)


def check_optimizer_and_schedule(case: Any) -> Iterator[Comparison]:
    tolerance = case["tolerance"]["relative"]
    reference = {group["group"]: group for group in case["groups"]}
    base = reference["clip decay"]
    patch_size = int(re.search(r"ViT-B/(\d+)", case["note"])[1])
    with skip_init():  # nothing is computed with its numbers
        model = dk.DKCLIP(patch_size=patch_size)
    groups = dk_clip_groups(model, lr=base["lr"], weight_decay=base["weight_decay"], published_freeze=True)

    empty = {"tensors": 0, "numbers": 0}
    found: dict[str, dict] = {name: dict(empty) for name in reference}
    for group in groups:
        for name, parameter in zip(group["names"], group["params"]):
            entry = found[f"{family(name)} {'decay' if group['weight_decay'] else 'no decay'}"]
            entry["tensors"] += 1
            entry["numbers"] += parameter.numel()
            entry.setdefault("rates", set()).add((group["lr"], group["weight_decay"]))
    for name, group in reference.items():
        for count in empty:
            yield same(f"{name}: {count}", found[name][count], group[count])
        for lr, weight_decay in found[name].get("rates", ()):
            yield close(f"{name}: lr", [lr], [group["lr"]], tolerance)
            yield close(f"{name}: weight decay", [weight_decay], [group["weight_decay"]], tolerance)

    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    yield same("trainable", trainable, case["trainable"])
    yield same("total", sum(p.numel() for p in model.parameters()), case["total"])
    frozen: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            first = their_first_part(name)
            frozen[first] = frozen.get(first, 0) + parameter.numel()
    yield same("frozen", frozen, case["frozen_by_prefix"])

    numbers = re.search(r"iterations per epoch (\d+), (\d+) epochs, (\d+) of warm-up", case["note"])
    per_epoch, epochs, warmup = (int(number) for number in numbers.groups())
    schedule = ScheduleSection("cosine", min_lr=base["lr"] / 100, warmup_epochs=float(warmup), cosine_from="start")
    for entry in case["schedule"]:
        for key, lr in (("lr_base", base["lr"]), ("lr_x10", 10 * base["lr"])):
            ours = learning_rate(schedule, lr, entry["step"], per_epoch, epochs)
            yield close(f"step {entry['step']}: {key}", [ours], [entry[key]], tolerance)


# -- inputs ------------------------------------------------------------------------------------------------------------


def check_frame_sampling(case: Any) -> Iterator[Comparison]:
    for frames, table in case.get("test_mode", {}).items():
        spec = dk.video_spec(int(frames))
        for n, expected in table.items():
            yield same(f"test, {frames} of {n}", sampling.indices(int(n), None, spec), expected)
    for frames, table in case.get("train_mode_without_randomness", {}).items():
        for n, expected in table.items():
            yield same(f"train, {frames} of {n}", train_indices(int(n), int(frames)), expected)
    for key, entry in case.get("train_mode_random", {}).items():
        frames, n = (int(number) for number in key.split("/"))
        yield same(f"train, {key}: part", n // frames, entry["interval"])
        drawn = train_indices(n, frames, rng=np.random.RandomState(0))
        yield same(f"train, {key}: seed 0", drawn, entry["with_numpy_legacy_seed_0"])
    for key in case.data:
        if found := re.fullmatch(r"multiview_(\d+)_train_mode", key):
            views = int(found[1])
            for n, expected in case[key].items():
                if n != "note":
                    rng = np.random.RandomState(0)
                    frames = len(expected) // views
                    drawn = [index for _ in range(views) for index in train_indices(int(n), frames, rng=rng)]
                    yield same(f"{views} views of {n}", drawn, expected)


def picture(entry: dict) -> np.ndarray:
    """The uint8 image that a case describes in words."""
    name, shape, seed = re.search(r"seeded\.uniform\('(\w+)', (\[[^]]*\]), (\d+)\)", entry["how"]).groups()
    values = seeded.uniform(name, json.loads(shape), int(seed))
    height, width = entry["h"], entry["w"]
    if "bilinear upsampling" not in entry["how"]:
        return np.clip(np.floor(values * 256), 0, 255).astype(np.uint8)
    for axis, length in ((0, height), (1, width)):
        place = np.linspace(0, values.shape[axis] - 1, length)
        first = np.clip(np.floor(place).astype(int), 0, values.shape[axis] - 2)
        share = np.expand_dims(place - first, [a for a in range(3) if a != axis])
        values = values.take(first, axis) * (1 - share) + values.take(first + 1, axis) * share
    return np.floor(values * 255).astype(np.uint8)


def shorter_side(frame: np.ndarray, side: int, resize: str) -> np.ndarray:
    return RESIZES[resize](frame, *shorter_side_size(frame, side))


def check_image_transforms(case: Any) -> Iterator[Comparison]:
    tolerance = case["tolerance"]["relative_l2_exact_resize"]
    spec = dk.video_spec()
    for name, values in case.get("normalise", {}).items():  # without it: the published numbers, which `spec` has
        if name in ("mean", "std"):
            yield close(name, np.array(getattr(spec, name)) * 255, values, tolerance)
    for key in case.data:
        if found := re.match(r"rescale_short_side_(\d+)", key):
            for size, expected in case[key].items():
                width, height = (int(side) for side in size.split("x"))
                resized = shorter_side(np.zeros((height, width, 3), np.uint8), int(found[1]), spec.resize)
                yield same(f"rescale {size} to {found[1]}", [resized.shape[1], resized.shape[0]], expected)

    for number, entry in enumerate(case.get("test_pipeline", ())):
        name = f"test {number} ({entry.get('label', '')} {entry['image']['h']}x{entry['image']['w']})"
        frame, spec = picture(entry["image"]), dk.video_spec(1, entry.get("input_size", 224))
        one = entry.get("crops", 1) == 1
        side = spec.resize_shorter if one else spec.img_size
        resized = shorter_side(frame, side, spec.resize)
        if "resized_hw" in entry:
            yield same(f"{name}: resized to", list(resized.shape[:2]), entry["resized_hw"])
        if "resized_uint8" in entry:
            yield from summary(f"{name}: resized", resized, entry["resized_uint8"], tolerance)
        crops = [images.prepare_video([frame], spec)] if one else images.three_crops([frame], spec)
        yield from summary(f"{name}: output", torch.cat(crops), entry["output"], tolerance)
        for index, reference in enumerate(entry.get("each_crop") or ()):
            yield from summary(f"{name}: crop {index}", crops[index][0], reference, tolerance)

    for entry in case.get("multi_scale_crop", ()):
        height, width = entry["image_hw"]
        candidates = crop_sizes(width, height)
        name = f"multi-scale crop of {height}x{width}"
        yield same(f"{name}: sizes", [list(c) for c in candidates], entry["candidate_w_h_before_snapping"])
        places = [[list(place) for place in fixed_places(width, height, *c, FIVE_PLACES)] for c in candidates]
        yield same(f"{name}: places", places, entry["offsets_x_y_per_candidate"])
        last = [snap(side, entry.get("input_size", 224)) for side in reversed(candidates[-1])]
        yield same(f"{name}: last crop", last, entry["crop_shape_hw_for_first"])

    tail = case.get("train_tail")
    if tail is None:
        return
    left, top, width, height = tail["crop_x_y_w_h"]
    size = tail["resized_uint8"]["shape"][0]
    box = Box(left, top, width, height)
    resized = crop_and_resize([picture(tail["image"])], box, size, spec.resize)
    yield from summary("train: resized", resized[0], tail["resized_uint8"], tolerance)
    flipped = images.to_tensor(np.stack(resized)[:, :, ::-1], dk.video_spec(1, size))
    yield from summary("train: output", flipped, tail["output_after_horizontal_flip_and_normalise"], tolerance)


CHECKS = {
    "model": check_model,
    "modules": check_modules,
    "noise_erasing": check_noise_erasing,
    "noise_erasing_table": check_noise_erasing_table,
    "text": check_text,
    "ablation_prompt_learner": check_prompt_learner,
    "loss": check_loss,
    "train_step": check_train_step,
    "optimizer_and_schedule": check_optimizer_and_schedule,
    "frame_sampling": check_frame_sampling,
    "image_transforms": check_image_transforms,
}
