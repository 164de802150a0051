"""DFER-CLIP: the whole model, its text side and its temporal side alone, a training step, names, frames, pixels."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dfer_zoo.convert import convert_state_dict
from dfer_zoo.convert.dfer_clip import our_clip_name, our_name, text_sizes
from dfer_zoo.factory import load_strictly
from dfer_zoo.inference.metrics import confusion, uar, war
from dfer_zoo.models.base import skip_init
from dfer_zoo.models.clip_towers import PromptLearner, TextTower, build_clip, tokenize
from dfer_zoo.models.dfer_clip import DFERCLIP, l2_normalize
from dfer_zoo.models.layers import TemporalTransformer
from dfer_zoo.training.optim import parameter_groups
from dfer_zoo.transforms import images
from dfer_zoo.transforms.sampling import segment_centres, segment_random
from dfer_zoo.transforms.train.dfer_clip import random_view
from dfer_zoo.weights.record import VideoSpec

from .. import compare, seeded
from ..compare import Comparison
from ..making import RecordingRandom, seeded_state
from ..runner import Case, read_case
from ..taps import Taps

# -- making things from a case -------------------------------------------------------------------------------------------


def with_prompt_buffers(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Add the two entries of a real file that hold its class texts."""
    contexts = "X " * config["contexts_number"]
    ids, _ = tokenize([contexts + text for text in config["texts"]])
    embedded = state["clip_model_.token_embedding.weight"][ids]
    return {
        **state,
        "prompt_learner.token_prefix": embedded[:, :1],
        "prompt_learner.token_suffix": embedded[:, 1 + config["contexts_number"] :],
    }


def build_model(config: Mapping[str, Any], state: Mapping[str, Tensor], what: str) -> tuple[DFERCLIP, Any]:
    """The model of a case with its weights, and the result of the converter."""
    converted = convert_state_dict("dfer_clip", state)
    arguments = {**converted.model_args, "class_token_position": config.get("class_token_position", "end")}
    arguments["prompts"] = list(config["texts"])
    for theirs, ours in (("temporal_heads", "num_heads"), ("temperature", "temperature")):
        if theirs in config:
            arguments[ours] = config[theirs]
    if "labels" not in arguments:
        arguments["labels"] = [f"class {i}" for i in range(config["num_classes"])]
    with skip_init():
        model = DFERCLIP(**arguments)
    load_strictly(model, converted.state, what)
    return model.eval(), converted


def seeded_video(recipe: Mapping[str, Any]) -> Tensor:
    video = seeded.uniform(recipe["name"], recipe["shape"], recipe["seed"])
    if "gain_name" in recipe:
        video = video * seeded.uniform(recipe["gain_name"], recipe["gain_shape"], recipe["seed"])
    return torch.from_numpy(video)


# -- comparing -----------------------------------------------------------------------------------------------------------


def tolerance(case: Case, name: str) -> float:
    return case["tolerance"].get(name.split("[")[0], case["tolerance"].get("intermediates"))


def compare_all(case: Case, found: Mapping[str, Tensor]) -> Iterator[Comparison]:
    """Intermediates in the order of the data flow, then the whole outputs; a missing one is a failure."""
    for name, reference in case.get("intermediates", {}).items():
        yield from compare.summary(name, found[name], reference, tolerance(case, name), spread="std")
    for name, reference in case["outputs"].items():
        yield compare.close(name, found[name], reference["values"], tolerance(case, name))


def compare_tokens(case: Case, learner: PromptLearner) -> Iterator[Comparison]:
    tokens, ends = case.get("tokens", {}), learner.ends.tolist()
    ids = [row[: end + 1] for row, end in zip(learner.token_ids.tolist(), ends)]
    yield compare.same("token_ids", ids, tokens.get("token_ids", ids))
    yield compare.same("padding", int(learner.token_ids.count_nonzero()), sum(map(len, ids)))
    yield compare.same("eot_positions", ends, tokens.get("eot_positions", ends))
    lengths = [end - 1 - learner.num_contexts for end in ends]
    yield compare.same("name_lens", lengths, tokens.get("name_lens", lengths))
    for name, buffer in case.get("derived_buffers", {}).items():
        kept = 1 if name.endswith("prefix") else learner.token_ids.shape[1] - 1 - learner.num_contexts
        width = learner.contexts.shape[-1]
        yield compare.same(f"{name}.shape", [len(ids), kept, width], list(buffer["shape"]))


def tap_temporal(taps: Taps, net: TemporalTransformer) -> None:
    taps.input("temporal.tokens_plus_pos", net.blocks[0])
    for number, block in enumerate(net.blocks):
        taps.input(f"temporal.layer{number}.after_attention", block.norm2)
        taps.output(f"temporal.layer{number}.after_mlp", block)
    taps.output("temporal.output", net)


def tap_image(taps: Taps, tower: nn.Module) -> None:
    taps.output("conv1", tower.conv1)
    taps.input("image.tokens_plus_pos", tower.ln_pre)
    taps.output("image.ln_pre", tower.ln_pre)
    for number, block in enumerate(tower.transformer.resblocks):
        taps.output(f"image.block{number:02d}", block)
    taps.output("image.ln_post_cls", tower.ln_post)


def image_values(found: dict[str, Tensor], tower: nn.Module) -> dict[str, Tensor]:
    """The summaries of the image side; our last block computes only the class token, so the whole block is run here."""
    last = len(tower.transformer.resblocks) - 1
    return {
        "image.patch_embed": found.pop("conv1").flatten(2).mT,
        f"image.block{last:02d}": tower.transformer.resblocks[last](found[f"image.block{last - 1:02d}"]),
    }


def text_values(tower: TextTower, learner: PromptLearner) -> dict[str, Tensor]:
    """The summaries of the text side, over all 77 positions; and the features as the model computes them, from truncated texts."""
    blocks = tower.transformer.resblocks
    whole = learner(tower.token_embedding, learner.token_ids.shape[1])
    with Taps() as taps:
        taps.input("text.prompts_plus_pos", blocks[0])
        for number, block in enumerate(blocks):
            taps.output(f"text.block{number:02d}", block)
        tower(whole, learner.ends)
    last = blocks[-1](taps.first[f"text.block{len(blocks) - 2:02d}"], attn_mask=tower.causal_mask)
    features = tower(learner(tower.token_embedding), learner.ends)
    return {
        **taps.first,
        "text.prompts": whole,
        f"text.block{len(blocks) - 1:02d}": last,
        "text.ln_final": tower.ln_final(last),
        "text.features_unnormalised": features,
        "text_features": l2_normalize(features),
    }


# -- kinds ---------------------------------------------------------------------------------------------------------------


def same_texts(found: list[str], expected: list[str]) -> Comparison:
    """Compare tokens: the original spelling ("mouth , raised") is not in a file."""
    found_ids, expected_ids = (tokenize(texts)[0].tolist() for texts in (found, expected))
    return compare.same("class texts read from the file", found_ids, expected_ids)


@torch.no_grad()
def check_model(case: Case) -> Iterator[Comparison]:
    state = with_prompt_buffers(seeded_state(case["state_dict"], case["weight_seed"]), case["config"])
    model, converted = build_model(case["config"], state, case.name)
    yield same_texts(converted.model_args["prompts"], case["config"]["texts"])
    yield from compare_tokens(case, model.prompt_learner)

    with Taps() as taps:
        tap_image(taps, model.image_encoder)
        tap_temporal(taps, model.temporal_net)
        video = seeded_video(case["inputs"]["video"])
        frames = model.encode_frames(video)
        mixed = model.mix_frames(frames)
    found = {
        **taps.first,
        **image_values(taps.first, model.image_encoder),
        **text_values(model.text_encoder, model.prompt_learner),
        "image.features": frames.flatten(0, 1),
        "image.features[first frame of every clip]": frames[:, 0],
        "video_features": model.forward_head(mixed, pre_logits=True),
        "text_features": model.encode_text(),
        "logits": model.forward_head(mixed),
    }
    yield from compare_all(case, found)
    if "logits" in case["outputs"]:
        reference, allowed = case["outputs"]["logits"]["values"], tolerance(case, "logits")
        yield compare.close("logits, with shortcuts", model(video), reference, allowed)


@torch.no_grad()
def check_text(case: Case) -> Iterator[Comparison]:
    config, state = case["config"], seeded_state(case["state_dict"], case["weight_seed"])
    sizes = {"embed_dim": state["text_encoder.text_projection"].shape[1], "quick_gelu": True, "vision_cfg": {}}
    tower = TextTower(build_clip({**sizes, "text_cfg": text_sizes(state)}, vision=False))
    learner = PromptLearner(
        config["texts"],
        tower.width,
        config["contexts_number"],
        class_token_position=config["class_token_position"],
        class_specific=config["class_specific_contexts"],
    )
    parts = nn.ModuleDict({"text_encoder": tower, "prompt_learner": learner}).eval()
    load_strictly(parts, {str(our_name(name)): tensor for name, tensor in state.items()}, case.name)
    yield from compare_tokens(case, learner)
    yield from compare_all(case, text_values(tower, learner))


@torch.no_grad()
def check_temporal(case: Case) -> Iterator[Comparison]:
    config, recipe = case["config"], case["inputs"]["frame_features"]
    state = seeded_state(case["state_dict"], case["weight_seed"])
    net = TemporalTransformer(
        state["temporal_net.cls_token"].shape[-1],
        config["temporal_layers"],
        config["heads"],
        config["mlp_dim"],
        config["max_frames"],
    )
    parts = nn.ModuleDict({"temporal_net": net}).eval()
    load_strictly(parts, {str(our_name(name)): tensor for name, tensor in state.items()}, case.name)
    with Taps() as taps:
        tap_temporal(taps, net)
        net(torch.from_numpy(seeded.normal(recipe["name"], recipe["shape"], recipe["seed"])))
    yield from compare_all(case, taps.first)


def named_case(rule: str) -> str:
    """The case that a sentence names."""
    return re.search(r"\w+\.json", rule).group()


def check_train_step(case: Case) -> Iterator[Comparison]:
    config, outputs, limits = case["config"], case["outputs"], case["tolerance"]
    table = case.get("state_dict") or case.neighbour(named_case(case["state_dict_rule"]))["state_dict"]
    model, _ = build_model(config, seeded_state(table, case["weight_seed"]), case.name)
    model.train()
    model.freeze()
    ours = {name: str(our_name(name)) for name in table}
    parameters = dict(model.named_parameters())

    optimizer = config["optimizer"]
    groups = parameter_groups(
        model,
        lr=0.0,
        weight_decay=optimizer["weight_decay"],
        rates={f"{part}.*": rate for part, rate in optimizer["groups"]},
        decay_all=True,
    )
    sgd = torch.optim.SGD(
        groups, momentum=optimizer["momentum"], nesterov=optimizer["nesterov"], dampening=optimizer["dampening"]
    )
    for part, counts in outputs["trainable [tensors, numbers]"].items():
        mine = [p.numel() for n, p in model.named_parameters() if n.startswith(f"{part}.") and p.requires_grad]
        yield compare.same(f"trainable of {part}", [len(mine), sum(mine)], counts)
    grouped = sum(len(group["params"]) for group in groups)
    yield compare.same("trained tensors", grouped, sum(c[0] for c in outputs["trainable [tensors, numbers]"].values()))
    yield compare.same("without gradient", len(parameters) - grouped, outputs["parameters_without_gradient"]["count"])

    video, targets = seeded_video(case["inputs"]["video"]), torch.tensor(case["inputs"]["targets"])
    for step, name in enumerate(("loss_before", "loss_after_step_1")):
        loss, logits = model.training_loss({"video": video}, targets, nn.functional.cross_entropy)
        if step == 0:
            yield compare.close("logits_before", logits, outputs["logits_before"]["values"], limits["logits_before"])
        yield compare.close(name, loss, outputs[name], limits["loss"])
        sgd.zero_grad()
        loss.backward()
        if step == 0:
            limit = next(value for key, value in limits.items() if key.startswith("gradient_l2"))
            for theirs, norm in outputs["gradient_l2_first_step"].items():
                gradient = parameters[ours[theirs]].grad
                yield compare.close(f"gradient_l2 {theirs}", gradient.double().norm(), norm, limit)
            for theirs, summary in outputs["gradient_first_step"].items():
                samples = seeded.summary(parameters[ours[theirs]].grad)["samples"]
                yield compare.close(
                    f"gradient samples {theirs}", samples, summary["samples"], limits["gradient samples"]
                )
        sgd.step()
    with torch.no_grad():
        loss = nn.functional.cross_entropy(model(video), targets)
    yield compare.close("loss_after_step_2", loss, outputs["loss_after_step_2"], limits["loss"])
    for theirs, summary in outputs["parameters_after_step_2"].items():
        yield from compare.summary(
            f"after step 2 {theirs}",
            parameters[ours[theirs]],
            summary,
            limits["parameters_after_step_2"],
            spread="std",
        )


@torch.no_grad()
def check_checkpoint_keys(case: Case) -> Iterator[Comparison]:
    """A file with all names of the authors' files, and the logits of the neighbouring case from it."""
    firsts = {n: {"shape": shape} for n, shape, *note in case["entries"] if not note}
    published = case_of_shapes(case, {name: entry["shape"] for name, entry in firsts.items()})
    state = with_prompt_buffers(seeded_state(firsts, published["weight_seed"]), published["config"])
    for name, shape, *note in case["entries"]:
        if note and note[0].startswith("same tensor as "):
            state[name] = state[note[0].removeprefix("same tensor as ").strip()]
        yield compare.same(f"{name}.shape", list(state[name].shape), list(shape))
    yield compare.same("entries", len(state), len(case["entries"]))

    model, converted = build_model(published["config"], state, case.name)
    yield same_texts(converted.model_args["prompts"], published["config"]["texts"])
    repeated = [n for n, _, *note in case["entries"] if note]
    yield compare.same("dropped", sorted(converted.dropped), sorted(repeated))
    mapping = case["open_clip"]["mapping"]
    for theirs, clips in mapping.items():
        yield compare.same(f"open_clip {clips}", our_name(theirs), our_clip_name(clips))
    with skip_init():
        clip = build_clip(case["open_clip"]["model"])
    yield compare.same("open_clip's names", sorted(mapping.values()), sorted(clip.state_dict()))
    logits = model(seeded_video(published["inputs"]["video"]))
    yield compare.close("logits", logits, published["outputs"]["logits"]["values"], tolerance(published, "logits"))


def case_of_shapes(case: Case, shapes: Mapping[str, list[int]]) -> Case:
    """The first model case with these tensors: next to this one, or in the repository."""
    for folder in (case.path.parent, Path(__file__).parents[1] / case["architecture"]):
        for path in sorted(folder.glob("*.json")):
            other = read_case(path)
            if (other.get("architecture"), other.get("kind")) == (case["architecture"], "model") and shapes == {
                name: entry["shape"] for name, entry in other.get("state_dict", {}).items()
            }:
                return other
    raise FileNotFoundError(f"{case.name}: no model case beside it or in the repository has its tensors")


def check_frame_indices(case: Case) -> Iterator[Comparison]:
    for block in case.get("test", ()):
        for row in block["rows"]:
            chosen = segment_centres(row["num_frames"], block["num_segments"], duration=block["duration"])
            yield compare.same(f"test {row['num_frames']}/{block['num_segments']}", chosen, row["indices"])
    for block in case.get("train", ()):
        for row in block["rows"]:
            chosen = segment_random(
                row["num_frames"],
                block["num_segments"],
                rng=np.random.RandomState(block["seed"]),
                duration=block["duration"],
            )
            name = f"train {row['num_frames']}/{block['num_segments']} seed {block['seed']}"
            yield compare.same(name, chosen, row["indices"])


def check_image_transforms(case: Case) -> Iterator[Comparison]:
    for row in case.get("test", ()):
        spec = VideoSpec(
            num_frames=row["frames"], img_size=row["output"]["summary"]["shape"][-1], sampling="segment_centres"
        )
        yield from compare_pixels(
            case, f"test {row['name']}", images.prepare_video(seeded_frames(row), spec), row["output"]
        )
    for row in case.get("train", ()):
        name, rng = (
            f"train {row['dataset']} {row['name']} {row['python_random_seed']}",
            RecordingRandom(row["python_random_seed"]),
        )
        spec = VideoSpec(
            num_frames=row["frames"], img_size=row["output"]["summary"]["shape"][-1], sampling="segment_centres"
        )
        frames = random_view(seeded_frames(row), spec.img_size, row["dataset"].lower(), rng=rng)
        yield compare.same(f"{name} draws", rng.draws, row["draws"])
        yield from compare_pixels(case, name, images.to_tensor(np.stack(frames), spec), row["output"])


def seeded_frames(row: Mapping[str, Any]) -> list[np.ndarray]:
    shape = (row["frames"], row["height"], row["width"], 3)
    return list(np.floor(seeded.uniform(row["name"], shape, row["seed"]) * 256).astype(np.uint8))


def compare_pixels(case: Case, name: str, video: Tensor, output: Mapping[str, Any]) -> Iterator[Comparison]:
    """Equal bytes; with another version of Pillow, the listed row and column within one grey level."""
    levels = (video * 255).round().to(torch.uint8).numpy()
    if hashlib.sha256(levels.tobytes()).hexdigest() == output["uint8_sha256"]:
        yield compare.same(f"{name} bytes", True, True)
    else:
        row, column = (
            output["uint8_first_frame_row_100_red_first_40"],
            output["uint8_last_frame_column_50_blue_first_40"],
        )
        yield compare.within(f"{name} row", levels[0, 0, 100, : len(row)], row, 1.0)
        yield compare.within(f"{name} column", levels[-1, 2, : len(column), 50], column, 1.0)
    yield from compare.summary(name, video, output["summary"], case["tolerance"]["output"], spread="std")


def check_metrics(case: Case) -> Iterator[Comparison]:
    limit = case["tolerance"]["percent"]
    for number, row in enumerate(case["cases"]):
        classes = sorted({*row["targets"], *row["predictions"]})
        table = confusion(row["targets"], row["predictions"], max(classes) + 1)
        yield compare.same(f"confusion {number}", table[np.ix_(classes, classes)].tolist(), row["confusion"])
        yield compare.within(f"uar {number}", [uar(table)], [row["uar_percent"]], limit)
        yield compare.within(f"war {number}", [war(table)], [row["war_percent"]], limit)


CHECKS = {
    "model": check_model,
    "text": check_text,
    "temporal": check_temporal,
    "train_step": check_train_step,
    "checkpoint_keys": check_checkpoint_keys,
    "frame_indices": check_frame_indices,
    "image_transforms": check_image_transforms,
    "metrics": check_metrics,
}
