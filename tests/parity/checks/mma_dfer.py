"""The checks of mma_dfer, mae_face and audio_mae; see README.md next to the cases for the entries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dfer_zoo.convert import Conversion, convert_state_dict
from dfer_zoo.factory import load_strictly
from dfer_zoo.inference import metrics
from dfer_zoo.media.faces.crops import Box, crop
from dfer_zoo.media.resize import pillow_bilinear
from dfer_zoo.models.audio_mae import AudioMAE, published_positions
from dfer_zoo.models.base import DferModel, skip_init
from dfer_zoo.models.mae_face import MAEFace
from dfer_zoo.models.mma_dfer import MMADFER
from dfer_zoo.models.vit import Encoder
from dfer_zoo.training import optim
from dfer_zoo.training.optim import parameter_groups
from dfer_zoo.transforms import audio, augment, images, sampling
from dfer_zoo.transforms.train.mma_dfer import augmented
from dfer_zoo.weights.record import AudioSpec, VideoSpec

from .. import seeded
from ..compare import Comparison, close, recorded, same, summary, within
from ..making import RecordingRandom, seeded_input, seeded_state
from ..published import cosine_with_restarts
from ..runner import Case
from ..taps import Taps

# -- weights and inputs ------------------------------------------------------------------------------------------------


def authors_table(case: Case) -> dict[str, dict]:
    """Names and shapes: the case's own, or a neighbour's ("the table of NAME")."""
    table = case["state_dict"]
    return case.neighbour(table.split()[-1])["state_dict"] if isinstance(table, str) else table


def authors_state(case: Case) -> dict[str, Tensor]:
    state = seeded_state(authors_table(case), case["seed"])
    if "scaled" in case:
        for name in scaled_entries(case["scaled"]["entries"], state):
            state[name] = state[name] * np.float32(case["scaled"]["factor"])
    return state


def scaled_entries(text: str, names: Any) -> set[str]:
    """ "a.<i>.weight and .bias, b.<i>.weight and .bias, i = 0..11" -> the names it means."""
    first, last = map(int, re.search(r"i = (\d+)\.\.(\d+)", text).groups())
    entries = set()
    for stem, kinds in re.findall(r"([\w.<>]+\.)(weight(?: and \.bias)?|bias)", text):
        for i in range(first, last + 1):
            entries |= {stem.replace("<i>", str(i)) + kind for kind in re.findall(r"weight|bias", kinds)}
    assert entries <= set(names), sorted(entries - set(names))
    return entries


def build(kind: type[DferModel], conversion: Conversion) -> DferModel:
    with skip_init():
        model = kind(**conversion.model_args)
    load_strictly(model, conversion.state, kind.__name__)
    return model.eval()


def tolerance_of(case: Case, name: str) -> float:
    return case["tolerance"].get(name, case["tolerance"]["default"])


class ModelTaps(Taps):
    """The tensors of MMA-DFER and its encoders, by the authors' names."""

    def encoder(self, encoder: Encoder, prefix: str = "", norm: str = "final_norm") -> None:
        self.output(f"{prefix}patch_embed", encoder.patch_embed, lambda t: t.flatten(2).transpose(1, 2))
        self.input(f"{prefix}tokens_with_pos", encoder.blocks[0])
        for i, block in enumerate(encoder.blocks):
            self.output(f"{prefix}block{i}.out", block)
        self.output(f"{prefix}{norm}", encoder.norm)

    def exchange(self, model: MMADFER) -> None:
        for prefix, encoder, side in (("image", model.face, "face"), ("audio", model.sound, "sound")):
            self.encoder(encoder, f"{prefix}.")
            self.output(f"{prefix}.cls", encoder.norm, lambda t: t[:, 0])
            followers = [*list(encoder.blocks)[1:], encoder.norm]
            for i, (exchange, follower) in enumerate(zip(model.exchanges, followers)):
                adapter = getattr(exchange, side)
                self.output(f"{prefix}.block{i}.low_linear", adapter.down)
                self.output(f"{prefix}.block{i}.low", adapter.norm)
                self.input(f"{prefix}.block{i}.low_fused", adapter.up)
                self.output(f"{prefix}.block{i}.adapter_up", adapter.act)
                self.input(f"{prefix}.block{i}.post", follower)  # gate and prompts are behind it
        self.input("fused_frames.pre_proj", model.projection)
        self.output("fused_frames", model.projection)
        for block in model.temporal.blocks[:1]:
            self.input("temporal.tokens_in", block)
        for i, block in enumerate(model.temporal.blocks):
            self.input(f"temporal.layer{i}.after_attention", block.norm2)
            self.output(f"temporal.layer{i}.out", block)


def compare_all(case: Case, ours: dict[str, Tensor]) -> Iterator[Comparison]:
    """In the order of the data flow."""
    taps = case.get("tap_order", ())
    for name in (*taps, *(n for n in case["outputs"] if n not in taps)):
        yield from recorded(name, ours[name], case["outputs"][name], tolerance_of(case, name))
    for name, part in case.get("slices", {}).items():
        yield close(f"{name} slice", sliced(ours[name], part["index"]), part["values"], tolerance_of(case, name))


def sliced(tensor: Tensor, index: str) -> Tensor:
    """ "[5, tokens 0, 1, 2 and the last 6, channels 3..10]": channels are inclusive."""
    pattern = r"\[(\d+), tokens ([\d, ]+) and the last (\d+), channels (\d+)\.\.(\d+)\]"
    entry, tokens, last, low, high = re.fullmatch(pattern, index).groups()
    rows = [int(t) for t in tokens.split(",")] + list(range(-int(last), 0))
    return tensor[int(entry), rows, int(low) : int(high) + 1]


# -- models ------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def check_model(case: Case) -> Iterator[Comparison]:
    config = case["config"]
    conversion = convert_state_dict("mma_dfer", authors_state(case))
    yield same(
        "the shapes tell the configuration",
        {k: conversion.model_args[k] for k in ("num_classes", "img_size", "temporal_depth")},
        {
            "num_classes": config["num_classes"],
            "img_size": config["img_size"],
            "temporal_depth": config["temporal_layers"],
        },
    )
    model = build(MMADFER, conversion)
    del conversion
    # constants of the model
    yield same("frames", model.video_spec.num_frames, config.get("num_frames", 16))
    yield same("audio shape", list(model.audio_spec.shape), config.get("audio_shape", [1, 512, 128]))
    taps = ModelTaps({*case["outputs"], *case.get("slices", {})})
    taps.exchange(model)
    inputs = {name: seeded_input(rule) for name, rule in case["inputs"].items()}
    features = model.forward_features(video=inputs["image"], audio=inputs["audio"])
    outputs = {"video_features": features, "logits": model.forward_head(features)}
    taps.remove()
    yield from compare_all(case, {**taps.last, **outputs})
    if "logits" in case["outputs"]:
        logits = model(video=inputs["image"], audio=inputs["audio"])
        yield from recorded("logits, with shortcuts", logits, case["outputs"]["logits"], tolerance_of(case, "logits"))


def check_encoder_classifier(case: Case) -> Iterator[Comparison]:
    config = case["config"]
    arch, kind = {"mae_face": ("mae_face", MAEFace), "audio_mae": ("audio_mae", AudioMAE)}[case["kind"]]
    conversion = convert_state_dict(arch, authors_state(case))
    size = {"img_size": config["img_size"]} if arch == "mae_face" else {"num_frames": config["input"][1]}
    expected = {
        "num_classes": config["num_classes"],
        "preset": config["preset"],
        "pooling": "mean" if config["global_pool"] else "class",
        **size,
    }
    yield same("the shapes tell the configuration", conversion.model_args, expected)
    yield from encoder_outputs(case, build(kind, conversion))


@torch.no_grad()
def encoder_outputs(case: Case, model: MAEFace | AudioMAE) -> Iterator[Comparison]:
    image = seeded_input(case["inputs"]["x"])
    with ModelTaps(case["outputs"]) as taps:
        taps.encoder(model.encoder, norm="tokens_normed")
        features = model.forward_features(image)
        logits = model.forward_head(features)
    outputs = {"features": features, "logits": logits, "cls": features}
    if "contextual" in case["outputs"]:
        outputs["contextual"] = model.contextual_tokens(image)
    yield from compare_all(case, {**taps.last, **outputs})


def check_pretrain_encoder(case: Case) -> Iterator[Comparison]:
    config = case["config"]
    conversion = convert_state_dict("audio_mae", authors_state(case))
    expected = {"num_classes": 0, "preset": config["preset"], "pooling": "class", "num_frames": config["input"][1]}
    yield same("the shapes tell the configuration", conversion.model_args, expected)
    model = build(AudioMAE, conversion)
    yield from encoder_outputs(case, model)
    if "sincos_pos_embed" in case:
        reference, tolerance = case["sincos_pos_embed"], case["tolerance"]["default"]
        table = published_positions(model.encoder.grid, model.num_features)
        yield same("table shape", list(table.shape), reference["shape"])
        yield from summary("table", table, reference["summary"], tolerance)
        for name, values in reference.items():
            place = re.fullmatch(r"token(\d+)(?:_(first|from)(\d+))?", name)
            if place is None:
                continue
            row = table[0, int(place[1])]
            if place[2] == "first":
                row = row[: int(place[3])]
            elif place[2] == "from":
                row = row[int(place[3]) :][: len(values)]
            yield close(f"table {name}", row, values["values"] if isinstance(values, dict) else values, tolerance)


# -- training ----------------------------------------------------------------------------------------------------------


class Origins:
    """Maps the authors' entries to ours, by converting tensors of numbers instead of weights."""

    def __init__(self, table: dict[str, dict]) -> None:
        self.table = table
        self.names = list(table)
        tags = {
            name: torch.tensor(number, dtype=torch.int32).expand(table[name]["shape"])
            for number, name in enumerate(self.names)
        }
        self.conversion = convert_state_dict("mma_dfer", tags)
        self.ours: dict[str, str] = {}
        for name, tag in self.conversion.state.items():
            for number in (tag if tag.stride()[:1] != (0,) else tag.flatten()[:1]).unique().tolist():
                self.ours[self.names[number]] = name

    def pull(self, tensors: dict[str, Tensor], name: str) -> Tensor:
        """The values of an authors' entry, in its shape."""
        ours = self.ours[name]
        tag = self.conversion.state[ours]
        return tensors[ours][tag == self.names.index(name)].reshape(self.table[name]["shape"])


def check_train_step(case: Case) -> Iterator[Comparison]:
    origins = Origins(authors_table(case))
    model = build(MMADFER, convert_state_dict("mma_dfer", authors_state(case)))
    model.freeze()
    model.eval()
    options = case["optimizer"]
    assert options["name"] == "AdamW"
    optimizer = torch.optim.AdamW(
        parameter_groups(model, lr=options["lr"], weight_decay=options["weight_decay"], decay_all=True),
        betas=tuple(options["betas"]),
        eps=options["eps"],
    )
    inputs = {name: seeded_input(rule) for name, rule in case["inputs"].items()}
    inputs = {"video": inputs["image"], "audio": inputs["audio"]}
    targets = torch.tensor(case["labels"])
    losses = []
    expected = case["loss_before_then_after_each_of_two_steps"]
    for step in range(len(expected)):
        last = step == len(expected) - 1
        with torch.set_grad_enabled(not last):
            loss, _ = model.training_loss(inputs, targets, nn.functional.cross_entropy)
        losses.append(loss.item())
        if last:
            break
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            yield from compared_gradients(case, model, origins)
        optimizer.step()
    for step, (ours, reference) in enumerate(zip(losses, expected)):
        yield close(f"loss after {step} steps", ours, reference, case["tolerance"]["loss"])
    state = model.state_dict()
    for name, reference in case.get("parameters_after_two_steps", {}).items():
        # without weight decay, a tensor would differ by only 2e-6
        yield from summary(f"{name} after two steps", origins.pull(state, name), reference, 5e-7)


def compared_gradients(case: Case, model: MMADFER, origins: Origins) -> Iterator[Comparison]:
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    trained = {name for name, ours in origins.ours.items() if ours in gradients}
    absent = set(case.get("trainable_without_gradient", ()))
    yield same("trained", sorted(trained), sorted(set(case["gradient_l2"]) - absent))
    yield same("absent", absent - set(origins.conversion.dropped), set())
    tolerance = case["tolerance"]["gradient"]
    for name, reference in case["gradient_l2"].items():
        if name not in absent:
            yield close(f"{name} gradient l2", origins.pull(gradients, name).double().norm(), reference, tolerance)
    for name, reference in case.get("gradient_samples", {}).items():
        yield from summary(f"{name} gradient", origins.pull(gradients, name), reference, tolerance)


def check_trainable_parameters(case: Case) -> Iterator[Comparison]:
    groups = case["trainable_elements_by_group"]
    table = dict(case.neighbour("dfew_224")["state_dict"])
    # the case has no table, but its counts give the sizes of its configuration
    classes = groups["our_classifier.bias"]
    width = table["image_encoder.pos_embed"]["shape"][-1]
    table["our_classifier.weight"] = {"shape": [classes, table["our_classifier.weight"]["shape"][1]]}
    table["our_classifier.bias"] = {"shape": [classes]}
    table["image_encoder.pos_embed"] = {"shape": [1, groups["image_encoder.pos_embed"] // width, width]}
    layer = re.compile(r"(temporal_net\.temporal_transformer\.layers\.)0(\..*)")
    depth = 1 + max(int(m[1]) for n in case["trainable"] if (m := re.search(r"transformer\.layers\.(\d+)\.", n)))
    for name in [n for n in table if layer.fullmatch(n)]:
        for i in range(depth):
            table[layer.sub(rf"\g<1>{i}\2", name)] = table[name]

    origins = Origins(table)
    with skip_init():
        model = MMADFER(**origins.conversion.model_args)
    model.freeze()
    model.train()
    trains = {name for name, p in model.named_parameters() if p.requires_grad}
    unused = set(case.get("requires_grad_but_unused_in_the_forward", ()))
    size = {name: int(np.prod(entry["shape"])) for name, entry in table.items()}
    dropped = set(origins.conversion.dropped)
    trained = {name for name, ours in origins.ours.items() if ours in trains}
    yield same("our parameters are the authors'", {n for n, _ in model.named_parameters()}, set(origins.ours.values()))
    yield same("unused", unused - dropped, set())
    yield same("trainable", sorted(trained), sorted(set(case["trainable"]) - unused))
    ours = sum(p.numel() for p in model.parameters())
    yield same("parameters, with the dropped ones", ours + sum(size[n] for n in dropped), case["total_parameters"])
    ours = sum(p.numel() for p in model.parameters() if p.requires_grad)
    yield same("trained, with the unused ones", ours + sum(size[n] for n in unused), case["trainable_parameters"])
    counted: dict[str, int] = {}
    for name in trained | unused:
        group = re.sub(r"\.\d+(?=\.|$)", "", name)
        counted[group] = counted.get(group, 0) + size[name]
    yield same("trainable elements by group", counted, groups)


def check_backbone_init(case: Case) -> Iterator[Comparison]:
    tolerance = case["tolerance"]["default"]
    parts = {"image": ("face", "mae_face", "image_encoder"), "audio": ("sound", "audio_mae", "audio_model")}
    states, conversions = {}, {}
    for kind, (part, arch, _) in parts.items():
        table = case[f"{kind}_checkpoint"]
        conversions[kind] = convert_state_dict(arch, seeded_state(table["state_dict"], table["seed"]))
        states[part] = conversions[kind].state
    for item in case["items"]:
        config = item["config"]
        name = f"{config['img_size']}"
        model = MMADFER(num_classes=config["num_classes"], img_size=config["img_size"])
        drawn = {part: getattr(model, part).positions.detach().clone() for part in states}
        report = model.load_backbones(states)
        for kind, (part, _, authors) in parts.items():
            reference, encoder = item[f"{kind}_pos_embed"], getattr(model, part)
            table, rows = encoder.positions.detach(), reference["rows_from_checkpoint"]
            yield same(f"{name} {part} table", list(table.shape), reference["shape"])
            yield same(f"{name} {part} drawn rows", table.shape[1] - rows, reference["random_rows_at_the_end"])
            yield same(f"{name} {part} drawn rows stay", torch.equal(table[:, rows:], drawn[part][:, rows:]), True)
            yield from summary(
                f"{name} {part} rows", table[:, :rows], reference["summary_of_checkpoint_rows"], tolerance
            )
            for key, values in reference.items():
                place = re.fullmatch(r"row(\d+|_mid|_last)_first(\d+)", key)
                if place is not None:
                    row = {"_mid": table.shape[1] // 2, "_last": rows - 1}.get(place[1]) or int(place[1])
                    yield close(f"{name} {part} {key}", table[0, row, : int(place[2])], values, tolerance)
            own = encoder.state_dict()
            copied = {n for n, v in own.items() if n != "positions" and torch.equal(v, states[part][f"encoder.{n}"])}
            yield same(f"{name} {part} copied", len(copied), item["copied_unchanged"][authors])
            yield same(
                f"{name} {part} not copied",
                sorted({*conversions[kind].dropped, "pos_embed"}),
                sorted(item["not_copied"][authors]),
            )
            yield same(f"{name} {part} reported", {f"{part}.{n}" for n in own} <= set(report.loaded), True)
        gates = [p for n, p in model.named_parameters() if n.endswith(".gate")]
        zero = item["zero_at_start"]
        yield same(f"{name} gates", len(gates), zero["count"])
        yield same(f"{name} gates are zero", not any(gate.any() for gate in gates), zero["all_gates_zero"])


# -- inputs ------------------------------------------------------------------------------------------------------------


def check_frame_indices(case: Case) -> Iterator[Comparison]:
    for count, reference in case.get("test", {}).items():
        spec = VideoSpec(num_frames=len(reference), img_size=1, sampling="segment_centres")
        yield same(f"test {count}", sampling.indices(int(count), None, spec), reference)
    for item in case.get("train", ()):
        rng = np.random.RandomState(item["numpy_seed"])
        ours = sampling.segment_random(item["num_frames"], len(item["indices"]), rng=rng)
        yield same(f"train {item['num_frames']}", ours, item["indices"])
        if item.get("random_offsets") is not None:
            part = item["num_frames"] // len(item["indices"])
            offsets = [index - i * part for i, index in enumerate(ours)]
            yield same(f"train {item['num_frames']} offsets", offsets, item["random_offsets"])


def frames_of(rule: dict) -> list[np.ndarray]:
    height, width = rule["height"], rule["width"]
    frames = []
    for seed in rule["seeds"]:
        blocks = seeded.uniform("frame_blocks", (8, 8, 3), seed)
        blocks = blocks.repeat(-(-height // 8), 0).repeat(-(-width // 8), 1)[:height, :width]
        noise = seeded.uniform("frame", (height, width, 3), seed)
        half = np.float32(0.5)
        frames.append(np.floor((half * noise + half * blocks) * np.float32(255.999)).astype(np.uint8))
    assert len(frames) == rule["count"]
    return frames


def compared_frames(name: str, video: Tensor, reference: dict) -> Iterator[Comparison]:
    sums = (video * 255).round().long().sum((2, 3)).tolist()
    yield same(f"{name} bytes", sums, reference["bytes_sum_per_frame_channel"])
    yield from summary(name, video, reference["summary"], 1e-6)
    for key, values in reference.items():
        place = re.fullmatch(r"frame(\d+|_last)_channel(\d+)_row(\d+|_last)_first(\d+)", key)
        if place is not None:
            frame, channel, row = (-1 if number == "_last" else int(number) for number in place.groups()[:3])
            yield within(f"{name} {key}", video[frame, channel, row, : int(place[4])], values, 1e-6)


def check_test_transform(case: Case) -> Iterator[Comparison]:
    for number, item in enumerate(case["items"]):
        frames = frames_of(item["frames"])
        first = item["frames"].get("first_pixels")
        if first is not None:
            yield same(f"{number} first pixels", frames[0].flatten()[: len(first)].tolist(), first)
        spec = VideoSpec(num_frames=len(frames), img_size=item["image_size"], sampling="segment_centres")
        yield from compared_frames(str(number), images.prepare_video(frames, spec), item["output"])


def check_train_transform(case: Case) -> Iterator[Comparison]:
    for number, item in enumerate(case["items"]):
        frames, size = frames_of(item["frames"]), item["image_size"]
        rng = RecordingRandom(item["python_random_seed"])
        changed = augmented(frames, size, rng=rng)
        yield same(f"{number} draws", rng.draws, item["drawn_in_order"])
        spec = VideoSpec(num_frames=len(frames), img_size=size, sampling="segment_centres")
        yield from compared_frames(str(number), images.to_tensor(np.stack(changed), spec), item["output"])
        meaning = item.get("meaning")
        if meaning and "crop_left" in meaning:
            box = Box(*(meaning[f"crop_{side}"] for side in ("left", "top", "width", "height")))
            again = augment.scale_brightness(frames, meaning["brightness_factor"])
            again = [pillow_bilinear(crop(frame, box), size, size) for frame in again]
            again = [frame[:, ::-1] for frame in again] if meaning["flip"] else again
            yield same(
                f"{number} by the meaning of the draws", np.array_equal(np.stack(again), np.stack(changed)), True
            )


def waveform_of(rule: dict) -> np.ndarray:
    rate, samples = rule["sample_rate"], rule["samples"]
    t = np.arange(samples, dtype=np.float64) / rate
    channels = []
    for c in range(rule["channels"]):
        noise = seeded.normal(f"wave{c}", (samples,), rule["seed"]).astype(np.float64)
        channels.append(
            0.05 * noise * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))
            + 0.2 * np.sin(2 * np.pi * (440 + 110 * c) * t)
            + 0.1 * np.sin(2 * np.pi * (3000 + 500 * c) * t)
            + 0.01 * (c + 1)
        )
    integers = np.clip(np.round(np.stack(channels) * 32768), -32768, 32767)
    return (integers / 32768).astype(np.float32)


def check_audio(case: Case) -> Iterator[Comparison]:
    tolerance = case["tolerance"]["default"]
    for number, item in enumerate(case["items"]):
        rule = item["waveform"]
        waveform, rate = waveform_of(rule), rule["sample_rate"]
        if "first8" in rule:
            yield within(f"{number} first samples", waveform[0, : len(rule["first8"])], rule["first8"], 1e-9)
        if "mean_all" in rule:
            yield within(f"{number} mean", waveform.astype(np.float64).mean(), rule["mean_all"], 1e-8)
        signal = torch.from_numpy(waveform)
        raw = audio.kaldi_log_mel((signal[0] - signal.mean())[None], rate, item.get("fbank_shape", (0, 128))[1])[0]
        reference = item["fbank_raw"]
        if "num_frames_before_padding" in item:
            yield same(f"{number} frames", len(raw), item["num_frames_before_padding"])
        yield from summary(f"{number} log-mel", raw, reference["summary"], tolerance)
        yield close(f"{number} first frame", raw[0], reference["frame0"]["values"], tolerance)
        yield close(f"{number} last frame", raw[-1], reference["frame_last"]["values"], tolerance)
        for key, values in reference.items():
            if (place := re.fullmatch(r"bin(\d+)_first_frames", key)) is not None:
                yield close(f"{number} band {place[1]}", raw[: len(values), int(place[1])], values, tolerance)
        reference = item["model_input"]
        spec = AudioSpec(front_end="kaldi_fbank", shape=tuple(reference["shape"]))
        ours = audio.prepare_audio(waveform, rate, spec)
        both = {"": ours, " in a batch": audio.kaldi_front_end_batch([signal, signal[:, : 2 * rate]], rate, spec)[0]}
        for path, prepared in both.items():
            yield same(f"{number} input shape{path}", list(prepared.shape), reference["shape"])
            yield from summary(f"{number} input{path}", prepared[0], reference["summary"], tolerance)
            yield close(f"{number} frame 5{path}", prepared[0, 5], reference["frame5"]["values"], tolerance)
            last = reference["last_frame"]
            if isinstance(last, str):
                last = {"values": [case["padding_value_after_normalisation"]] * len(prepared[0, -1])}
            yield close(f"{number} last frame{path}", prepared[0, -1], last["values"], tolerance)
    padding = MMADFER(preset="tiny", img_size=16).audio_spec.silence_value
    yield within("padding", padding, case["padding_value_after_normalisation"], 1e-8)


# -- arithmetic --------------------------------------------------------------------------------------------------------


def check_learning_rates(case: Case) -> Iterator[Comparison]:
    used = case["used_by_training"]
    epochs = int(re.search(r"T_max=(\d+)", used["rule"])[1])
    floor = float(re.search(r"floor ([\d.e-]+)", used["rule"])[1])
    rates = used["lr_of_epoch"]
    ours = [optim.cosine(epoch, lr=rates[0], epochs=epochs, floor=floor) for epoch in range(len(rates))]
    yield close("cosine", ours, rates, 1e-12)
    for number, item in enumerate(case.get("unused_warmup_restarts", ())):
        config = item["config"]
        rates = item["lr_after_construction_then_after_each_step"]
        ours = [
            cosine_with_restarts(
                step,
                lr=config["max_lr"],
                floor=config["min_lr"],
                cycle=config["first_cycle_steps"],
                warmup=config["warmup_steps"],
                stretch=config["cycle_mult"],
                decay=config["gamma"],
            )
            for step in range(len(rates))
        ]
        yield close(f"restarts {number}", ours, rates, 1e-12)


def check_metrics(case: Case) -> Iterator[Comparison]:
    for number, item in enumerate(case["items"]):
        count, classes, seed = item["count"], item["classes"], item["seed"]
        targets = np.floor(seeded.uniform("targets", (count,), seed) * classes).astype(int)
        logits = seeded.normal("logits", (count, classes), seed)
        added = np.float32(re.search(r"with ([\d.]+) added at each target", item["logits"])[1])
        logits[np.arange(count), targets] += added
        moved = re.search(r"class (\d+) relabelled as class (\d+)", item["targets"])
        if moved is not None:
            targets[targets == int(moved[1])] = int(moved[2])
        table = metrics.confusion(targets, logits.argmax(1), classes)
        seen = (table.sum(0) + table.sum(1)) > 0
        yield same(f"{number} confusion", table[seen][:, seen].tolist(), item["confusion"])
        yield close(f"{number} recalls", metrics.recalls(table)[seen], item["recall_percent"], 1e-12)
        yield close(f"{number} uar", metrics.uar(table), item["uar"], 1e-12)
        yield close(f"{number} war", metrics.war(table), item["war"], 1e-12)


CHECKS = {
    "model": check_model,
    "mae_face": check_encoder_classifier,
    "audio_mae": check_encoder_classifier,
    "audio_mae_pretrain_encoder": check_pretrain_encoder,
    "train_step": check_train_step,
    "trainable_parameters": check_trainable_parameters,
    "backbone_init": check_backbone_init,
    "frame_indices": check_frame_indices,
    "image_test_transform": check_test_transform,
    "image_train_transform": check_train_transform,
    "audio_fbank": check_audio,
    "learning_rates": check_learning_rates,
    "metrics": check_metrics,
}
