"""The checks of emo_affectnet; see README.md next to the cases for the entries."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dfer_zoo.convert import Conversion, convert_state_dict
from dfer_zoo.convert.emo_affectnet import convert_emo_affectnet, convert_emo_affectnet_static, torch_name
from dfer_zoo.factory import load_strictly
from dfer_zoo.inference import metrics
from dfer_zoo.media.faces.crops import crop, detector_box
from dfer_zoo.models.base import DferModel
from dfer_zoo.models.emo_affectnet import LABELS, EmoAffectNet, EmoAffectNetStatic
from dfer_zoo.registry import get_weights, list_pretrained
from dfer_zoo.transforms import face_windows, images
from dfer_zoo.weights.record import Weights

from .. import compare
from ..compare import Comparison, close, recorded, same, within
from ..making import our_names, seeded_input, seeded_state
from ..published import evaluation_frames, grid_frames, landmark_box
from ..runner import Case
from ..taps import Taps
from .mini_xception import picture

# -- weights -------------------------------------------------------------------------------------------------------------


def loaded(model: DferModel, conversion: Conversion, case: Case, dtype: torch.dtype = torch.float32) -> Any:
    model = model.to(dtype)
    load_strictly(model, conversion.state, case.name)
    return model.eval()


def static_model(case: Case, state: Mapping[str, Tensor], **changes: Any) -> EmoAffectNetStatic:
    conversion = convert_state_dict("emo_affectnet_static", state)
    dtype = state["fc1.weight"].dtype
    return loaded(EmoAffectNetStatic(**conversion.model_args, **changes), conversion, case, dtype)


def parameters_of(*tables: Mapping) -> int:
    counted = [entry["shape"] for table in tables for name, entry in table.items() if not _is_statistic(name)]
    return sum(int(np.prod(shape)) for shape in counted)


def _is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# -- networks ------------------------------------------------------------------------------------------------------------


def static_steps(model: EmoAffectNetStatic, image: Tensor) -> dict[str, Tensor]:
    with Taps() as taps:
        taps.outputs_of(model)
        features = model.encoder(image)
    found = taps.last
    logits = model.forward_head(features)
    stem = F.relu(found["encoder.stem_norm"])
    steps = {
        "stem_conv": found["encoder.stem"],
        "stem_norm": found["encoder.stem_norm"],
        "max_pool": F.max_pool2d(stem, 3, 2),
        "pooled": found["encoder.stages.3"].mean((2, 3), keepdim=True),
        "features_before_relu": found["encoder.embed"],
        "features": features,
        "logits": logits,
        "probabilities": logits.softmax(-1),
    }
    for number, stage in enumerate(model.encoder.stages):
        steps[f"layer{number + 1}"] = found[f"encoder.stages.{number}"]
        for place in range(len(stage)):
            ours, theirs = f"encoder.stages.{number}.{place}", f"layer{number + 1}_{place}"
            steps[theirs] = found[ours]
            steps[f"{theirs}_shortcut"] = found[f"{ours}.shortcut"]
            for part in ("conv1", "norm1", "conv2", "norm2", "conv3", "norm3"):
                steps[f"{theirs}_{part}"] = found[f"{ours}.{part}"]
    return steps


@torch.no_grad()
def check_static_forward(case: Case) -> Iterator[Comparison]:
    model = static_model(case, seeded_state(case["state_dict"], case["weights"]["seed"]))
    if "parameters" in case:
        yield same("parameters", count(model), case["parameters"])
    yield same("classes", model.num_classes, case["config"]["num_classes"])
    # the encoder takes any size, the model only its own
    steps = static_steps(model, seeded_input(case["inputs"]["image"]))
    for name, reference in case["outputs"].items():
        yield from recorded(name, steps[re.sub(r"^\d+_", "", name)], reference, case["tolerance"])


def temporal_model(case: Case, state: Mapping[str, Tensor], frames: int) -> EmoAffectNet:
    """The temporal network, with an unused image network of zeros."""
    static = static_table()
    zeros = {name: torch.zeros(entry["shape"]) for name, entry in static.items()}
    zeros = {n: t.long() if n.endswith("num_batches_tracked") else t for n, t in zeros.items()}
    conversion = convert_state_dict("emo_affectnet", {**zeros, **state})
    return loaded(EmoAffectNet(num_frames=frames, **conversion.model_args), conversion, case)


def static_table() -> Mapping:
    """Names and shapes of the static file, in the authors' words."""
    from .. import runner

    path = runner.Path(runner.__file__).parent / "emo_affectnet" / "checkpoint_keys.json"
    return runner.read_case(path)["outputs"]["static"]["state_dict"]


@torch.no_grad()
def check_temporal_forward(case: Case) -> Iterator[Comparison]:
    features = seeded_input(case["inputs"]["features"])
    model = temporal_model(case, seeded_state(case["state_dict"], case["weights"]["seed"]), features.shape[1])
    if "parameters" in case:
        temporal = count(model.lstm1) + count(model.lstm2) + count(model.classifier)
        yield same("parameters", temporal, case["parameters"])
    with Taps() as taps:
        taps.outputs_of(model)
        logits = model.forward_frames(features)
    found = taps.last
    steps = {
        "lstm1": found["lstm1"],
        "lstm2": found["lstm2"],
        "logits": logits,
        "probabilities": logits.softmax(-1),
    }
    for name, reference in case["outputs"].items():
        yield from recorded(name, steps[re.sub(r"^\d+_", "", name)], reference, case["tolerance"])


@torch.no_grad()
def check_video_forward(case: Case) -> Iterator[Comparison]:
    tables, weights = case["state_dict"], case["weights"]
    static, temporal = (seeded_state(tables[part], weights[part]["seed"]) for part in ("static", "temporal"))
    video = seeded_input(case["inputs"]["video"])
    conversion = convert_state_dict("emo_affectnet", {**static, **temporal})
    yield same("dropped", sorted(conversion.dropped), ["fc2.bias", "fc2.weight"])
    height, width = video.shape[-2:]
    square = {"img_size": height} if height == width else {}
    model = loaded(EmoAffectNet(num_frames=video.shape[1], **square, **conversion.model_args), conversion, case)
    single = static_model(case, static)
    if "parameters" in case:
        own = count(model.lstm1) + count(model.lstm2) + count(model.classifier)
        yield same("parameters", {"static": count(single), "temporal": own}, case["parameters"])
    frames = model.encoder(video.flatten(0, 1)).unflatten(0, video.shape[:2])
    with Taps() as taps:
        taps.outputs_of(model)
        logits = model.forward_frames(frames)
    found = taps.last
    steps = {
        "features": frames,
        "static_logits_of_each_frame": single.forward_head(frames),
        "lstm1": found["lstm1"],
        "lstm2": found["lstm2"],
        "logits": logits,
        "probabilities": logits.softmax(-1),
    }
    for name, reference in case["outputs"].items():
        yield from recorded(name, steps[re.sub(r"^\d+_", "", name)], reference, case["tolerance"])
    if square:
        yield close("forward of the model", model(video), case["outputs"]["logits"]["full"], case["tolerance"])


def check_static_train_step(case: Case) -> Iterator[Comparison]:
    image, targets = seeded_input(case["inputs"]["image"]).double(), torch.tensor(case["inputs"]["targets"])
    outputs, tolerance = case["outputs"], case["tolerance"]
    for name, statistics in outputs.items():
        if not (momentum := re.fullmatch(r"statistics_after_momentum_([\d.]+)", name)):
            continue
        state = seeded_state(case["state_dict"], case["weights"]["seed"], torch.float64)
        names = our_names(state, convert_state_dict("emo_affectnet_static", state))
        model = static_model(case, state, norm_momentum=float(momentum[1])).train()
        logits = model.forward_head(model.encoder(image))
        loss = F.cross_entropy(logits, targets)
        loss.backward()
        what = f"momentum {momentum[1]}"
        yield from recorded(f"{what}: loss", loss, outputs["loss"], tolerance)
        yield from recorded(f"{what}: logits", logits, outputs["logits"], tolerance)
        parameters, after = dict(model.named_parameters()), model.state_dict()
        for theirs, reference in outputs["gradients"].items():
            yield from recorded(f"{what}: gradient of {theirs}", parameters[names[theirs]].grad, reference, tolerance)
        for theirs, reference in statistics.items():
            yield from recorded(f"{what}: {theirs}", after[names[theirs]], reference, tolerance)


# -- files ---------------------------------------------------------------------------------------------------------------


def check_checkpoint_keys(case: Case) -> Iterator[Comparison]:
    outputs = case["outputs"]
    static, temporal = (outputs[part]["state_dict"] for part in ("static", "temporal"))
    for part, table in (("static", static), ("temporal", temporal)):
        yield same(f"{part}: entries", len(table), outputs[part]["entries"])
        yield same(f"{part}: parameters", parameters_of(table), outputs[part]["parameters"])
    states = [
        {name: torch.zeros(e["shape"], dtype=getattr(torch, e["dtype"])) for name, e in table.items()}
        for table in (static, temporal)
    ]
    model = static_model(case, states[0])
    yield same("static: parameters of the model", count(model), outputs["static"]["parameters"])
    conversion = convert_state_dict("emo_affectnet", {**states[0], **states[1]})
    video = loaded(EmoAffectNet(**conversion.model_args), conversion, case)
    unused = count(model.classifier)
    yield same(
        "parameters of the temporal model",
        count(video),
        outputs["static"]["parameters"] - unused + outputs["temporal"]["parameters"],
    )
    records = {".".join(pair): get_weights(*pair) for pair in list_pretrained("emo_affectnet*")}
    for name, file in outputs["files"].items():
        yield same(f"{name}: there is a record", name in records, True)
        known = files_of(records[name]) if name in records else []
        yield same(f"{name}: size and digest", (file["size"], file["sha256"]) in known, True)
        yield same(f"{name}: files", len(known), 1 if name.startswith("emo_affectnet_static.") else 2)


def files_of(record: Weights) -> list[tuple[int | None, str | None]]:
    """Size and digest of every file of the authors that a record needs."""
    backbones = [get_weights(source) for source in record.backbones.values()]
    return [(file.size, file.sha256) for one in (record, *backbones) for file in one.origin]


def check_keras_names(case: Case) -> Iterator[Comparison]:
    """A Keras state dict is converted to the same tensors as that of the torch release."""
    outputs = case["outputs"]
    static = seeded_state(static_table(), 0)
    temporal = seeded_state(case["state_dict"], 0)
    for part, state, convert in (
        ("static", static, convert_emo_affectnet_static),
        ("temporal", {**static, **temporal}, convert_emo_affectnet),
    ):
        variables = {**outputs["static"], **outputs["temporal"]} if part == "temporal" else outputs["static"]
        if part == "temporal":  # both Keras networks call their last layer "classes"; the temporal one's counts
            variables = {
                n: v for n, v in variables.items() if n not in outputs["static"] or not n.startswith("classes/")
            }
            variables = {**variables, **outputs["temporal"]}
        keras = {}
        for name, entry in variables.items():
            added = [state[term] for term in entry["torch"].split(" + ")]
            tensor = torch.stack(added).sum(0)
            keras[name] = tensor if entry["axes"] is None else tensor.permute(entry["axes"]).contiguous()
            yield same(f"{name}: shape", list(keras[name].shape), entry["shape"])
            head = "fc" if part == "temporal" else "fc2"
            yield same(f"{name}: torch name", torch_name(name, head)[0], entry["torch"].split(" + ")[0])
        ours, wanted = convert(keras).state, convert(state).state
        yield same(f"{part}: names", sorted(ours), sorted(wanted))
        for name in ours:
            if "bias_ih" in name:
                other = name.replace("_ih", "_hh")
                yield same(name, torch.equal(ours[name] + ours[other], wanted[name] + wanted[other]), True)
            elif "bias_hh" not in name and not name.endswith("num_batches_tracked"):
                yield same(name, torch.equal(ours[name], wanted[name]), True)


# -- faces ---------------------------------------------------------------------------------------------------------------


def check_image_preparation(case: Case) -> Iterator[Comparison]:
    spec = EmoAffectNetStatic(img_size=case["config"]["size"], width_factor=0.1).video_spec
    assert spec is not None and spec.resize == case["config"]["resize"]
    tolerance = case["tolerance"]
    for number, recipe in enumerate(case["outputs"]["images"]):
        frame = picture(recipe)
        yield within(f"image {number}: mean", frame.mean(), recipe["image_mean"], 1e-5)
        resized = images.to_square(frame, spec)
        tensor = images.prepare_video([frame], spec)[0].numpy()
        for name, pixels in recipe.items():
            what = f"image {number}: {name}"
            if line := re.fullmatch(r"resized_(row|column)_(\d+)_(rgb|red|green|blue)_every_(\d+)(st|nd|rd|th)", name):
                cut = resized[int(line[2])] if line[1] == "row" else resized[:, int(line[2])]
                channels = slice(None) if line[3] == "rgb" else ("red", "green", "blue").index(line[3])
                yield within(what, cut[:: int(line[4])][:, channels], pixels, tolerance["resized"])
            elif place := re.fullmatch(r"tensor_pixel_(\d+)_(\d+)", name):
                yield within(what, tensor[:, int(place[1]), int(place[2])], pixels, tolerance["tensor_absolute"])
        summary = recipe["summary"]
        yield same(f"image {number}: shape", list(tensor.shape), summary["shape"])
        samples = tensor.reshape(-1)[:: summary["stride"]][:16]
        yield within(f"image {number}: samples", samples, summary["samples"], tolerance["tensor_absolute"])


def check_landmark_box(case: Case) -> Iterator[Comparison]:
    for number, entry in enumerate(case["outputs"]["boxes"]):
        box = landmark_box(entry["landmarks"], entry["width"], entry["height"])
        ours = [box.left, box.top, box.left + box.width, box.top + box.height]
        yield same(f"box {number}", ours, entry["box"])
        yield same(f"box {number}: size", [box.height, box.width], [entry["crop_height"], entry["crop_width"]])


def check_detector_crop(case: Case) -> Iterator[Comparison]:
    """The preparation of the script. The zoo has no INTER_AREA, so OpenCV resizes here."""
    import cv2

    config, tolerance = case["config"], case["tolerance"]
    spec = EmoAffectNetStatic(img_size=config["size"], width_factor=0.1).video_spec
    levels = tolerance["absolute_grey_levels"]
    for index in grid_frames(config["total_frames"], config["fps"]):
        number = str(index + 1)
        found = case["inputs"]["detections"].get(number, [])
        chosen = [face["box"] for face in found if face["score"] > config["threshold"]]
        reference = case["outputs"]["frames"].get(number)
        yield same(f"frame {number}: a face", bool(chosen), reference is not None)
        if reference is None or not chosen:
            continue
        recipe = case["inputs"]["frames"].get(number)
        bgr = picture(recipe, "frame") if recipe else np.zeros((*black_size(case), 3), np.uint8)
        frame = np.ascontiguousarray(bgr[..., ::-1])
        box = detector_box(chosen[-1], frame.shape[1], frame.shape[0])
        ours = [box.left, box.top, box.left + box.width, box.top + box.height]
        yield same(f"frame {number}: box", ours, reference["box"])
        face = cv2.resize(crop(frame, box), (config["size"],) * 2, interpolation=cv2.INTER_AREA)
        tensor = images.to_tensor(face[None], spec)[0].numpy()
        for name, pixels in reference.items():
            what = f"frame {number}: {name}"
            if row := re.fullmatch(r"resized_row_(\d+)_bgr_every_(\d+)(st|nd|rd|th)", name):
                yield within(what, face[int(row[1]), :: int(row[2]), ::-1], pixels, levels)
            elif place := re.fullmatch(r"tensor_pixel_(\d+)_(\d+)", name):
                yield within(what, tensor[:, int(place[1]), int(place[2])], pixels, levels + 1e-3)
        yield from compare.summary(f"frame {number}", tensor, reference["summary"], tolerance["summary_relative_l2"])


def black_size(case: Case) -> tuple[int, int]:
    """Frames that the case does not describe have the size of those that it does."""
    recipe = next(iter(case["inputs"]["frames"].values()))
    return recipe["height"], recipe["width"]


# -- frames, windows, answers --------------------------------------------------------------------------------------------


def check_frame_choice(case: Case) -> Iterator[Comparison]:
    for entry in case["outputs"]["inference"]:
        if "error" in entry:  # the authors' code raises where ours takes every frame
            continue
        ours = [index + 1 for index in grid_frames(entry["total_frames"], entry["fps"])]
        yield same(f"{entry['total_frames']} frames at {entry['fps']}", ours, entry["frames_from_1"])
    for entry in case["outputs"]["evaluation"]:
        ours = evaluation_frames(entry["face_frames"], entry["fps"])
        yield same(f"{entry['face_frames']} faces at {entry['fps']}", ours, entry["taken_from_0"])


def check_windows(case: Case) -> Iterator[Comparison]:
    faces, stride = case["config"]["frames"], case["config"]["step"]
    for entry in case["outputs"]["counts"]:
        for rule in ("inference", "evaluation"):
            ours = face_windows.windows(entry["faces"], faces, stride, rule)
            yield same(f"{entry['faces']} faces, {rule}", ours, entry[rule])


def frame_buffers(entry: Mapping, size: int, step: int | None) -> tuple[list[list[int]], list[int]]:
    """Both published rules of streams: (the buffer at every evaluation, how many evaluations each frame's answer has
    behind it). With a ``step`` a missing face empties the buffer; without one every face is pushed."""
    missing = set(entry["frames_without_face"])
    buffer: deque[int] = deque(maxlen=size)
    buffers, answers = [], []
    for frame in range(entry["frames"]):
        if frame in missing:
            if step is not None:
                buffer.clear()
        elif step is None or frame % step == 0:
            buffer.extend([frame] * (1 if buffer else size))
            buffers.append([*buffer])
        answers.append(len(buffers))
    return buffers, answers


def check_streaming(case: Case) -> Iterator[Comparison]:
    size = case["config"]["frames"]
    for number, entry in enumerate(case["outputs"]["steps"]):
        step = round(5 * entry["fps"] / 25)
        buffers, answers = frame_buffers(entry, size, step)
        yield same(f"steps {number}: step", step, entry["step"])
        yield same(f"steps {number}: buffers", buffers, entry["buffers"])
        yield same(f"steps {number}: answers", answers, entry["answer_of_each_frame"])
    for number, entry in enumerate(case["outputs"]["every_frame"]):
        yield same(f"every frame {number}: buffers", frame_buffers(entry, size, None)[0], entry["buffers"])


def frame_report(
    windows: Sequence[Sequence[int]], frames: Sequence[int], chances: np.ndarray, total: int
) -> tuple[list[int], np.ndarray]:
    """The published report: (frame numbers, probabilities), each frame the mean of the windows around it. Frames behind
    the last window are given its answer, frames before the first face are left out."""
    spans = [(frames[window[0]], frames[window[-1]]) for window in windows]
    reported = [*range(frames[0], total + 1)]
    answers = []
    for frame in reported:
        around = [chances[n] for n, (first, last) in enumerate(spans) if first <= frame <= last]
        answers.append(np.mean(around, axis=0) if around else chances[-1])
    return reported, np.stack(answers)


@torch.no_grad()
def check_clip_answer(case: Case) -> Iterator[Comparison]:
    config, outputs, tolerance = case["config"], case["outputs"], case["tolerance"]
    missing = set(config["frames_without_face_from_1"])
    grid = [index + 1 for index in grid_frames(config["total_frames"], config["fps"])]
    frames = [number for number in grid if number not in missing]
    yield same("frames", frames, config["sampled_frames_from_1"])
    features = seeded_input(case["inputs"]["features"])
    windows = face_windows.windows(len(frames), config["frames"], config["step"], "inference")
    model = temporal_model(case, seeded_state(case["state_dict"], case["weights"]["seed"]), config["frames"])
    chances = model.forward_frames(torch.stack([features[window] for window in windows])).softmax(-1).numpy()
    yield close("windows", chances, outputs["window_probabilities"], tolerance)
    reported, report = frame_report(windows, frames, chances, config["total_frames"])
    yield same("frames of the report", reported, outputs["frames_in_report_from_1"])
    yield close("report", report, outputs["frame_probabilities"], tolerance)
    yield same("vote", LABELS[face_windows.majority(chances)], outputs["run_py_answer"])
    yield same("sum", LABELS[int(chances.sum(0).argmax())], outputs["evaluation_answer"])
    yield close("mean", chances.mean(0), outputs["mean_probabilities"], tolerance)


def window_label(labels: Sequence[int]) -> int:
    """The most frequent label that is not -1, the first one among equals; -1 where there is nothing else."""
    for label, _ in Counter(labels).most_common(2):
        if label != -1:
            return label
    return -1


def check_clip_merge(case: Case) -> Iterator[Comparison]:
    inputs, outputs = case["inputs"], case["outputs"]
    labels = [window_label(frame_labels) for frame_labels in inputs["frame_labels"]]
    yield same("window labels", labels, outputs["window_labels"])
    clips = list(dict.fromkeys(inputs["clips"]))
    of = [[n for n, clip in enumerate(inputs["clips"]) if clip == name] for name in clips]
    clip_labels = [labels[places[0]] for places in of]
    chances = np.array(inputs["probabilities"])
    predictions = [int(chances[places].sum(0).argmax()) for places in of]
    yield same("clip labels", clip_labels, outputs["clip_labels"])
    yield same("clip predictions", predictions, outputs["clip_predictions"])
    table = metrics.confusion(clip_labels, predictions, chances.shape[1])
    # the mean recall of the classes that occur
    yield close("uar", metrics.uar_of_present(table), outputs["uar"], case["tolerance"])
    yield close("war", metrics.war(table), outputs["war"], case["tolerance"])


CHECKS = {
    "static_forward": check_static_forward,
    "temporal_forward": check_temporal_forward,
    "video_forward": check_video_forward,
    "static_train_step": check_static_train_step,
    "checkpoint_keys": check_checkpoint_keys,
    "keras_names": check_keras_names,
    "image_preparation": check_image_preparation,
    "landmark_box": check_landmark_box,
    "detector_crop": check_detector_crop,
    "frame_choice": check_frame_choice,
    "windows": check_windows,
    "streaming": check_streaming,
    "clip_answer": check_clip_answer,
    "clip_merge": check_clip_merge,
}
