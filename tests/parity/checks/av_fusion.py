"""The checks of av_fusion and its backbone; see README.md next to the cases for the entries."""

from __future__ import annotations

import dataclasses
import functools
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dfer_zoo.checkpoints import read_checkpoint
from dfer_zoo.convert import Conversion, convert_state_dict
from dfer_zoo.data.formats import read_audiovisual_list
from dfer_zoo.factory import load_strictly
from dfer_zoo.models.av_fusion import AVFusion, CrossScores, attention_received
from dfer_zoo.models.efficient_face import EfficientFace
from dfer_zoo.training.mixing import MODALITY_DROPOUT
from dfer_zoo.training.optim import parameter_groups
from dfer_zoo.transforms import audio as sounds
from dfer_zoo.transforms.images import to_tensor
from dfer_zoo.transforms.sampling import BLACK, indices
from dfer_zoo.transforms.train.av_fusion import augment_frames
from dfer_zoo.weights.record import VideoSpec

from .. import compare, seeded
from ..compare import Comparison, close, same, within
from ..making import RecordingRandom, our_names, seeded_input, seeded_state
from ..published import crop_faces, step_decay
from ..rates import RunningMean, top_k
from ..runner import Case

summary = functools.partial(compare.summary, spread="std")

# -- weights and inputs --------------------------------------------------------------------------------------------------


def build(case: Case, conversion: Conversion, **changes: Any) -> AVFusion:
    config = case["config"]
    steps = case["inputs"]["audio"]["shape"][-1]
    model = AVFusion(
        **{
            **conversion.model_args,
            "num_heads": config["num_heads"],
            "num_frames": config["seq_length"],
            "seconds": (steps - 1) * 512 / 22050,
            "img_size": seeded_input(case["inputs"]["video"]).shape[-1],
            **changes,
        }
    )
    load_strictly(model, conversion.state, case.name)
    return model.eval()


# -- networks ------------------------------------------------------------------------------------------------------------

FACE = {
    "conv1": "stem",
    "maxpool": "pool",
    "stage2": "stage2",
    "modulator.channel_gate": "modulator.channel_gate",
    "modulator.spatial_gate": "modulator.spatial_gate",
    "modulator": "modulator",
    "local": "local",
    "stage3": "stage3",
    "stage4": "stage4",
    "conv5": "expand",
}
MODULES = {
    **{f"visual.{theirs}": f"face.{ours}" for theirs, ours in FACE.items()},
    "frame_features": "face",
    **{
        f"{theirs}.conv1d_{layer}": f"{ours}_stage{1 + layer // 2}.{layer % 2}"
        for theirs, ours in (("visual", "video"), ("audio", "audio"))
        for layer in range(4)
    },
    **{
        f"{theirs}{meeting}.{what}": f"{ours}{part}"
        for theirs, ours in (("av", "audio_asks"), ("va", "video_asks"))
        for meeting in ("", "1")
        for what, part in (("attention_output", ".attention"), ("block_output", ""))
    },
}


class Tap:
    """Inputs and outputs of all modules in the last forward pass."""

    def __init__(self, model: nn.Module) -> None:
        self.taken: dict[str, tuple[tuple, Tensor]] = {}
        for name, module in model.named_modules():
            module.register_forward_hook(lambda _, taken, given, name=name: self.taken.update({name: (taken, given)}))
        self.model = model

    def output(self, name: str) -> Tensor:
        return self.taken[name][1]

    def scores(self, block: str) -> Tensor:
        """The attention map of a block, computed from its inputs if the network does not compute it."""
        name = block if isinstance(self.model.get_submodule(block), CrossScores) else f"{block}.attention"
        return self.model.get_submodule(name).scores(*self.taken[name][0])

    def of(self, name: str) -> Tensor:
        blocks = {"av": "audio_asks", "va": "video_asks"}
        if name.endswith(".attention"):
            return self.scores(blocks[name[:2]])
        if name.startswith("gate_"):
            return attention_received(self.scores(blocks[{"gate_video": "av", "gate_audio": "va"}[name.split()[0]]]))
        return self.output(MODULES[name])


@torch.no_grad()
def check_model(case: Case) -> Iterator[Comparison]:
    conversion = convert_state_dict("av_fusion", seeded_state(case["state_dict"], case["weights"]))
    yield same("fusion", conversion.model_args["fusion"], case["config"]["fusion"])
    yield same("number of classes", conversion.model_args["num_classes"], case["config"]["num_classes"])
    model = build(case, conversion)
    video, audio = (seeded_input(case["inputs"][name]) for name in ("video", "audio"))
    tolerance, outputs = case["tolerance"], case["outputs"]
    tap = Tap(model)
    features = model.forward_features(video, audio)
    for name, reference in case.get("intermediates_both", {}).items():
        yield from summary(name, tap.of(name), reference, tolerance["intermediates"])
    silent, dark = torch.zeros_like(audio), torch.zeros_like(video)
    by_zeros = {"logits": (video, audio), "logits_audio_zero": (video, silent), "logits_video_zero": (dark, audio)}
    by_none = {"logits_audio_zero": (video, None), "logits_video_zero": (None, audio)}
    for name, reference in outputs.items():
        if name == "audio_pooled_and_video_pooled":
            yield close(name, features, reference, tolerance["intermediates"])
            continue
        yield close(name, model(*by_zeros[name]), reference, tolerance["logits"])
        if name in by_none:
            yield close(f"{name}, by None", model(*by_none[name]), reference, tolerance["logits"])


@torch.no_grad()
def check_efficient_face(case: Case) -> Iterator[Comparison]:
    conversion = convert_state_dict("efficient_face", seeded_state(case["state_dict"], case["weights"]))
    image = seeded_input(case["inputs"]["image"])
    model = EfficientFace(**conversion.model_args, img_size=image.shape[-1])
    load_strictly(model, conversion.state, case.name)
    tap = Tap(model.eval())
    tolerance, outputs = case["tolerance"], case["outputs"]
    logits = model(image)
    pooled = tap.output("encoder")
    for name, reference in case.get("intermediates", {}).items():
        ours = pooled if name == "pooled" else tap.output(f"encoder.{FACE[name]}")
        yield from summary(name, ours, reference, tolerance["intermediates"])
    reference = outputs["pooled_1024_first_item_first_64"]
    yield close("pooled, first of the first item", pooled[0, : len(reference)], reference, tolerance["logits"])
    yield close("logits", logits, outputs["logits"], tolerance["logits"])


def from_file(state: Mapping[str, Tensor], checkpoint: Mapping) -> dict[str, Tensor]:
    """Write a file with the authors' wrapper and prefix, and read it like the converter."""
    content: Mapping = {f"{checkpoint.get('prefix') or ''}{name}": tensor for name, tensor in state.items()}
    if checkpoint.get("wrapper"):
        content = {checkpoint["wrapper"]: content}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pth.tar"
        torch.save(content, path)
        return {name: tensor.clone() for name, tensor in read_checkpoint(path).items()}


@torch.no_grad()
def check_backbone_init(case: Case) -> Iterator[Comparison]:
    """Load a checkpoint of the backbone into the frame encoder of a new network; compare by the authors' names."""
    outputs = case["outputs"]
    face_state = from_file(seeded_state(case["state_dict"], case["checkpoint"]["weights"]), case["checkpoint"])
    face = convert_state_dict("efficient_face", face_state)
    image = seeded_input(case["inputs"]["image"])
    model = AVFusion(img_size=image.shape[-1]).eval()
    report = model.load_backbones({"face": face.state})

    table = case.neighbour("model_ia_heads1")
    whole_state = seeded_state(table["state_dict"], table["weights"])
    whole = convert_state_dict("av_fusion", whole_state)
    theirs = {ours: name for name, ours in our_names(whole_state, whole).items()}
    visual = {name for name in whole_state if name.startswith("visual_model.")}
    loaded = {theirs[name] for name in report.loaded}
    # our network lacks the dropped entries, so they count as not loaded
    fresh = ({theirs[name] for name in report.initialized} | set(whole.dropped)) & visual
    dropped = {name for name, ours in our_names(face_state, face).items() if ours in report.ignored}

    yield same("loaded", len(loaded), outputs["loaded_count"])
    yield same("dropped", dropped, set(outputs["dropped_from_checkpoint"]))
    left = {name.removeprefix("visual_model.") for name in fresh}
    yield same("left at their own initialisation", left, set(outputs["left_at_their_own_initialisation"]))
    yield same("nothing is loaded and fresh", (loaded & fresh, loaded | fresh), (set(), visual))
    features = model.face(image)
    yield from summary("frame_features", features, outputs["frame_features"], case["tolerance"]["frame_features"])
    reference = outputs["frame_features_first_item_first_64"]
    yield close(
        "frame_features, first of the first item",
        features[0, : len(reference)],
        reference,
        case["tolerance"]["frame_features"],
    )


def check_train_steps(case: Case) -> Iterator[Comparison]:
    outputs, tolerance = case["outputs"], case["tolerance"]["all"]
    state = seeded_state(case["state_dict"], case["weights"])
    conversion = convert_state_dict("av_fusion", state)
    names = our_names(state, conversion)
    video, audio = (seeded_input(case["inputs"][name]) for name in ("video", "audio"))
    targets = torch.tensor(case["inputs"]["targets"])

    single = build(case, conversion).train()
    loss = nn.functional.cross_entropy(single(video, audio), targets)
    if "float32_loss_step1" in case["tolerance"]:
        yield close("loss[0] in float32", loss, outputs["loss"][0], case["tolerance"]["float32_loss_step1"])

    model = build(case, conversion).double().train()
    video, audio = video.double(), audio.double()
    settings = {k: v for k, v in case["optimiser"].items() if k not in ("kind", "lr", "weight_decay")}
    groups = parameter_groups(
        model, lr=case["optimiser"]["lr"], weight_decay=case["optimiser"]["weight_decay"], decay_all=True
    )
    optimiser = torch.optim.SGD(
        [{k: v for k, v in group.items() if k != "names"} for group in groups], lr=0, **settings
    )
    losses = []
    for step in range(1, len(outputs["loss"]) + 1):
        optimiser.zero_grad()
        loss, logits = model.training_loss({"video": video, "audio": audio}, targets, nn.functional.cross_entropy)
        loss.backward()
        losses.append(loss.item())
        if f"logits_step{step}" in outputs:
            yield close(f"logits_step{step}", logits, outputs[f"logits_step{step}"], tolerance)
        if f"gradient_step{step}" in outputs:
            for name, reference in outputs[f"gradient_step{step}"].items():
                gradient = model.get_parameter(names[name]).grad
                yield from summary(f"gradient_step{step} {name}", gradient, reference, tolerance)
        if step == 1:
            idle = {name for name, ours in names.items() if ours in _without_gradient(model)}
            yield same(
                "parameters without gradient",
                idle | set(conversion.dropped),
                set(outputs["parameters_without_gradient"]),
            )
        optimiser.step()
    yield close("loss", losses, outputs["loss"], tolerance)
    after = model.state_dict()
    for name, reference in outputs.get(f"after_{len(losses)}_steps", {}).items():
        ours = state[name] if name in conversion.dropped else after[names[name]]  # what nothing uses stays as it was
        yield from summary(f"after {len(losses)} steps: {name}", ours, reference, tolerance)


def _without_gradient(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.grad is None}


# -- training ------------------------------------------------------------------------------------------------------------


def check_modality_dropout(case: Case) -> Iterator[Comparison]:
    inputs, tolerance = case["inputs"], case["tolerance"]["all"]
    audio = seeded_input(inputs["audio"])
    video = seeded_input(inputs["video"]).transpose(1, 2)  # (B, 3, T, H, W) -> (B, T, 3, H, W)
    targets = torch.tensor(inputs["targets"])
    for mode, reference in case["outputs"].items():
        given = inputs.get(mode, {})
        draws: dict[str, Tensor] = {}
        if "permutation" in given:
            draws["order"] = torch.tensor(given["permutation"])
        if "integers_0_to_99_per_clip" in given:
            draws["shares"] = torch.tensor(given["integers_0_to_99_per_clip"])
        if "audio_noise" in given:
            draws["audio_noise"] = seeded_input(given["audio_noise"])
            draws["video_noise"] = seeded_input(given["video_noise"]).transpose(1, 2)
        frames, sound, classes = MODALITY_DROPOUT[mode](video, audio, targets, **draws)
        yield same(f"{mode}: shape_audio", list(sound.shape), reference["shape_audio"])
        shape = [frames.shape[0] * frames.shape[1], *frames.shape[2:]]
        yield same(f"{mode}: shape_video", shape, reference["shape_video_given_to_the_network"])
        yield same(f"{mode}: targets", classes.tolist(), reference["targets"])
        sums = {
            "audio_sum_per_row": sound.double().flatten(1).sum(1),
            "video_sum_per_row": frames.double().flatten(1).sum(1),
            "video_frame0_sum_per_row": frames[:, 0].double().flatten(1).sum(1),
        }
        for name, ours in sums.items():
            yield close(f"{mode}: {name}", ours, reference[name], tolerance)
        yield from summary(f"{mode}: audio", sound, reference["audio"], tolerance)
        yield from summary(f"{mode}: video", frames, reference["video"], tolerance)


class GivenDraws:
    """Replaces `random` and returns the draws of a case."""

    def __init__(self, p: float, angle: int) -> None:
        self.p, self.angle = p, angle

    def random(self) -> float:
        return self.p

    def randint(self, low: int, high: int) -> int:
        assert low <= self.angle <= high
        return self.angle


def check_image_transforms(case: Case) -> Iterator[Comparison]:
    image = blocks_with_grain(case["inputs"]["image"], case["inputs"]["seed"], "image")
    if "image_mean" in case["inputs"]:
        yield within("image mean", image.mean(), case["inputs"]["image_mean"], 1e-5)
    first = case["inputs"].get("image_first_row_first_5_pixels", [])
    yield same("image", image[0, : len(first)].tolist(), first)
    tolerance = case["tolerance"]

    def compared(what: str, ours: Tensor, reference: dict, absolute: float) -> Iterator[Comparison]:
        mine, theirs = seeded.summary(ours.numpy()), reference["summary"]
        yield same(f"{what}: shape", mine["shape"], theirs["shape"])
        yield within(f"{what}: samples", mine["samples"], theirs["samples"], absolute)
        for name, scale in (("l2", theirs["l2"]), ("std", theirs["std"]), ("mean", theirs["std"])):
            error = abs(mine[name] - theirs[name]) / scale
            yield Comparison("", f"{what}: {name}", error, tolerance["relative_l2"])
        for name, values in reference.items():
            if row := re.fullmatch(r"row_(\d+)_channel_(\d+)_every_(\d+)(st|nd|rd|th)", name):
                number, channel, step = (int(part) for part in row.groups()[:3])
                yield within(f"{what}: {name}", ours[channel, number, ::step], values, absolute)
            elif corners := re.fullmatch(r"corner_values_channel(\d+)", name):
                found = ours[int(corners[1])][[0, 0, -1, -1], [0, -1, 0, -1]]
                yield within(f"{what}: {name}", found, values, absolute)
            elif name not in ("summary", "p", "flipped", "angle_degrees"):
                yield same(f"{what}: {name} is compared", False, True)

    def scaled(frame: np.ndarray) -> Tensor:
        return to_tensor(
            np.stack([frame]), VideoSpec(num_frames=1, img_size=frame.shape[0], sampling="leading_window")
        )[0]

    for reference in case["outputs"].get("train", ()):
        p, angle = reference["p"], reference["angle_degrees"]
        ours = scaled(augment_frames([image], rng=GivenDraws(p, angle))[0])
        absolute = tolerance["absolute_per_value"] if angle else tolerance["without_rotation_absolute"]
        yield from compared(f"p {p}, {angle} degrees", ours, reference, absolute)
        yield same(f"p {p}: flipped", p < 0.5, reference["flipped"])
    if "eval" in case["outputs"]:
        absolute = case["tolerance"]["without_rotation_absolute"]
        yield from compared("eval", scaled(image), case["outputs"]["eval"], absolute)
    draws = case["outputs"].get("draws")
    if draws is None:
        return
    reference = draws["p_and_angle_of_four_clips"]
    rng = RecordingRandom(draws["python_random_seed"])
    for _ in reference:
        augment_frames([image[:8, :8]], rng=rng)
    yield within("draws", [value for *_, value in rng.draws], np.asarray(reference).reshape(-1), 1e-8)


def blocks_with_grain(recipe: str, seed: int, name: str) -> np.ndarray:
    """The images that cases describe in words: coarse blocks with fine noise."""
    cells = re.search(rf"uniform\('{name}',\((\d+),(\d+),3\)", recipe)
    times = re.search(r"repeated (\d+)x(\d+)", recipe)
    assert cells and times and "floor(0.7*a + 70*uniform('grain'" in recipe, recipe
    shape = (int(cells[1]), int(cells[2]), 3)
    coarse = np.floor(255 * seeded.uniform(name, shape, seed)).astype(np.uint8)
    coarse = coarse.repeat(int(times[1]), axis=0).repeat(int(times[2]), axis=1)
    grain = seeded.uniform("grain", coarse.shape, seed)
    return np.floor(np.float32(0.7) * coarse.astype(np.float32) + np.float32(70) * grain).astype(np.uint8)


def check_metrics_and_schedule(case: Case) -> Iterator[Comparison]:
    outputs, tolerance = case["outputs"], case["tolerance"]["all"]
    logits = seeded_input(case["inputs"]["logits"]).numpy()
    classes = logits.shape[1]
    targets = np.floor(classes * seeded_input(case["inputs"]["targets"]).numpy()).astype(int)
    yield same("targets", targets.tolist(), outputs["targets"])
    for k in (1, 5):
        yield close(f"top {k}", top_k(logits, targets, k), outputs[f"top{k}_percent"], tolerance)
        four = top_k(logits[:, :4], targets % 4, k)
        yield close(f"top {k} of four classes", four, outputs[f"four_classes_top{k}"], tolerance)
    for epoch, reference in outputs["learning_rate_by_epoch"].items():
        ours = step_decay(int(epoch), lr=0.04, milestones=(40, 55, 65, 70, 200, 250))
        yield close(f"learning rate of epoch {epoch}", ours, reference, tolerance)
    for name, reference in outputs.items():
        if name.startswith("running_average_of_"):
            mean = RunningMean()
            for value, clips in re.findall(r"\(([\d.]+) over (\d+)\)", name):
                mean.add(float(value), int(clips))
            yield close(name, mean.value, reference, tolerance)


# -- sound ---------------------------------------------------------------------------------------------------------------


def signal(recipe: Mapping) -> np.ndarray:
    n = np.arange(recipe["samples"])
    kind = recipe["recipe"]
    if kind == "silence":
        wave = np.zeros(len(n))
    elif kind == "noise":
        wave = np.float32(recipe["scale"]) * seeded.normal("wave", n.shape, recipe["seed"])
    elif kind == "tone_then_silence":
        tone = recipe["scale"] * np.sin(2 * np.pi * recipe["hertz"] * n / 22050)
        wave = np.where(n < recipe["tone_samples"], tone, 0.0)
    elif kind == "chirp":
        t = n / 22050
        chirp = 0.4 * np.sin(2 * np.pi * (200 * t + 150 * t**2)) * np.exp(-1.5 * t)
        wave = chirp + 0.001 * seeded.normal("wave", n.shape, recipe["seed"])
    else:
        raise ValueError(f"there is no recipe '{kind}'")
    return wave.astype(np.float32)


def check_mfcc(case: Case) -> Iterator[Comparison]:
    relative, absolute = case["tolerance"]["relative_l2"], case["tolerance"]["absolute"]
    for name, reference in case["outputs"].items():
        ours = sounds.mfcc(torch.from_numpy(signal(case["inputs"][name])), 22050)
        yield same(f"{name}: shape", list(ours.shape), reference["shape"])
        yield from summary(name, ours, reference["summary"], relative)
        parts = {
            "coefficient_0_1_2_9_all_frames": ours[[0, 1, 2, 9]],
            "all_coefficients_first_3_frames": ours[:, :3],
        }
        for part, values in parts.items():
            yield close(f"{name}: {part}", values, reference[part], relative)
            yield within(f"{name}: {part}, absolute", values, reference[part], absolute)


def check_audio_preparation(case: Case) -> Iterator[Comparison]:
    tolerance = case["tolerance"]
    samples = 79380
    for name, recipe in case["inputs"].items():
        rate = int(re.search(r"t=n/(\d+)", recipe["samples"])[1])
        t = np.arange(recipe["n"]) / rate
        wave = 0.4 * np.sin(2 * np.pi * (180 * t + 120 * t**2)) * np.exp(-0.7 * t)
        wave = wave + 0.01 * seeded.normal("wave48", t.shape, recipe["seed"])
        saved = np.round(32767 * np.clip(wave, -1, 1)).astype(np.int16)
        reference = case["outputs"][name]
        resampled = sounds.kaiser_resample(torch.from_numpy(saved.astype(np.float32) / 32768), rate, 22050)
        yield same(f"{name}: samples", len(resampled), reference["resampled_samples_before_crop"])
        yield from summary(f"{name}: resampled", resampled, reference["resampled"], tolerance["resampled_relative_l2"])
        short = sounds.sixteen_bits(sounds.centre_crop_or_pad(resampled, samples))
        integers = short.double() * 32768
        first = reference["saved_int16_first_nonpadded"]
        yield within(
            f"{name}: saved from sample 1000", integers[1000 : 1000 + len(first)], first, tolerance["int16_absolute"]
        )
        theirs = reference["saved_int16_summary"]
        yield same(f"{name}: saved samples", list(integers.shape), theirs["shape"])
        yield within(
            f"{name}: saved", integers[:: theirs["stride"]][:16], theirs["samples"], tolerance["int16_absolute"]
        )
        features = sounds.mfcc(short, 22050)
        yield from summary(f"{name}: mfcc", features, reference["mfcc"], tolerance["mfcc_relative_l2"])
        for entry in reference:
            if frame := re.fullmatch(r"mfcc_coefficients_0_to_9_at_frame_(\d+)", entry):
                yield close(
                    f"{name}: {entry}", features[:, int(frame[1])], reference[entry], tolerance["mfcc_relative_l2"]
                )
    crops = case.get("crop_and_pad_of_22050_hz_files", {"by_number_of_samples": {}})["by_number_of_samples"]
    for count, reference in crops.items():
        if reference["length"] == 0:  # the published fault: a sound of the wanted length came out empty
            reference = {
                "length": samples,
                "first_source_sample": 0,
                "last_source_sample": samples - 1,
                "zeros_at_end": 0,
            }
        numbered = torch.arange(1, int(count) + 1)
        ours = sounds.centre_crop_or_pad(numbered, samples)
        kept = ours[ours > 0]
        found = {
            "length": len(ours),
            "first_source_sample": int(kept[0]) - 1,
            "last_source_sample": int(kept[-1]) - 1,
            "zeros_at_end": int((ours == 0).sum()),
        }
        yield same(f"crop of {count} samples", found, reference)
        in_order = list(range(reference["first_source_sample"] + 1, reference["last_source_sample"] + 2))
        yield same(f"order of {count} samples", ours[: len(in_order)].tolist(), in_order)


# -- frames --------------------------------------------------------------------------------------------------------------


def check_frame_selection(case: Case) -> Iterator[Comparison]:
    published = AVFusion().video_spec
    for number in case["inputs"]["number_of_frames"]:
        reference = case["outputs"][str(number)]
        spec = dataclasses.replace(published, num_frames=len(reference))
        ours = [None if index == BLACK else index for index in indices(number, None, spec)]
        yield same(f"{number} frames", ours, reference)


def check_face_crop(case: Case) -> Iterator[Comparison]:
    recipe = case["inputs"]["frame"]
    frame = blocks_with_grain(recipe, case["inputs"]["seed"], "frame")
    if "frame_mean" in case["inputs"]:
        yield within("frame mean", frame.mean(), case["inputs"]["frame_mean"], 1e-5)
    tolerance = case["tolerance"]["absolute_grey_levels"]
    crops = case["outputs"]["crops"]
    size = crops[0]["summary"]["shape"][0]
    faces = crop_faces([frame] * len(crops), [crop["box"] for crop in crops], size)
    for face, crop in zip(faces, crops):
        reference = crop["summary"]
        what = f"box {crop['box']}"
        yield same(f"{what}: shape", list(face.shape), reference["shape"])
        yield within(f"{what}: samples", face.reshape(-1)[:: reference["stride"]][:16], reference["samples"], tolerance)
        for name, pixels in crop.items():
            if row := re.fullmatch(r"pixels_row_(\d+)_every_(\d+)(st|nd|rd|th)", name):
                yield within(f"{what}: {name}", face[int(row[1]), :: int(row[2])], pixels, tolerance)


def check_annotations(case: Case) -> Iterator[Comparison]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "annotations.txt"
        path.write_text(case["inputs"]["file"], encoding="utf-8")
        for subset, reference in case["outputs"].items():
            rows = read_audiovisual_list(path, subset=subset)
            ours = [{"video_path": row.path, "audio_path": row.audio, "label": row.label} for row in rows]
            yield same(subset, ours, reference)


CHECKS = {
    "model": check_model,
    "efficient_face": check_efficient_face,
    "backbone_init": check_backbone_init,
    "train_steps": check_train_steps,
    "modality_dropout": check_modality_dropout,
    "image_transforms": check_image_transforms,
    "mfcc": check_mfcc,
    "audio_preparation": check_audio_preparation,
    "frame_selection": check_frame_selection,
    "face_crop": check_face_crop,
    "annotations": check_annotations,
    "metrics_and_schedule": check_metrics_and_schedule,
}
