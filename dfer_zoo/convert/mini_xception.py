"""Convert the HDF5 file of mini-Xception. Datasets have their names below the group ``model_weights``."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import WeightsError
from . import Conversion

MODULES = 4
# the authors' layer -> ours
LAYERS = {
    "conv2d_1": "encoder.conv1",
    "conv2d_2": "encoder.conv2",
    "conv2d_7": "classifier",
    "batch_normalization_1": "encoder.norm1",
    "batch_normalization_2": "encoder.norm2",
    **{f"conv2d_{3 + m}": f"encoder.blocks.{m}.shortcut" for m in range(MODULES)},
    **{f"separable_conv2d_{2 * m + n}": f"encoder.blocks.{m}.conv{n}" for m in range(MODULES) for n in (1, 2)},
    **{
        f"batch_normalization_{3 + 3 * m + n}": f"encoder.blocks.{m}.{name}"
        for m in range(MODULES)
        for n, name in enumerate(("shortcut_norm", "norm1", "norm2"))
    },
}
# variable of a layer -> ours, and the axes that turn the file's layout into torch's
VARIABLES: dict[str, tuple[str, tuple[int, ...] | None]] = {
    "kernel": ("weight", (3, 2, 0, 1)),  # (h, w, in, out)
    "bias": ("bias", None),
    "depthwise_kernel": ("depthwise.weight", (2, 3, 0, 1)),  # (h, w, in, 1)
    "pointwise_kernel": ("pointwise.weight", (3, 2, 0, 1)),
    "gamma": ("weight", None),
    "beta": ("bias", None),
    "moving_mean": ("running_mean", None),
    "moving_variance": ("running_var", None),
}
DATASET = re.compile(r"(?P<layer>\w+)/(?P=layer)(?:_\d+)?/(?P<variable>\w+):0")


def convert_mini_xception(state: Mapping[str, Tensor]) -> Conversion:
    """Datasets in Keras' layout -> tensors in torch's."""
    converted: dict[str, Tensor] = {}
    for dataset, tensor in state.items():
        name, axes = our_name(dataset)
        converted[name] = tensor if axes is None else tensor.permute(axes).contiguous()
    for name in [name for name in converted if name.endswith("running_var")]:
        # the file has no batch counters
        converted[name.replace("running_var", "num_batches_tracked")] = torch.tensor(0)
    return Conversion(converted, {"num_classes": len(converted["classifier.bias"])})


def our_name(dataset: str) -> tuple[str, tuple[int, ...] | None]:
    """Our name of a dataset, and the permutation of its axes.

    >>> our_name("separable_conv2d_3/separable_conv2d_3_1/depthwise_kernel:0")
    ('encoder.blocks.1.conv1.depthwise.weight', (2, 3, 0, 1))
    """
    found = DATASET.fullmatch(dataset)
    if found is None or found["layer"] not in LAYERS or found["variable"] not in VARIABLES:
        raise WeightsError(f"This is not a checkpoint of mini_xception: its dataset '{dataset}' is unknown.")
    name, axes = VARIABLES[found["variable"]]
    return f"{LAYERS[found['layer']]}.{name}", axes
