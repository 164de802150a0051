"""Checkpoints of EMO-AffectNet -> ours.

A temporal system needs two of the authors' files, its own and the static one. Their names do not overlap, so that the
converter takes the entries of both in one mapping; the record of a temporal system names the static weights as its
backbone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import WeightsError
from . import Conversion
from .rename import rename

# Patterns of the authors' names and ours, tried in this order.
ENCODER = (
    (r"conv_layer_s2_same\.", "encoder.stem."),
    (r"batch_norm1\.", "encoder.stem_norm."),
    *((rf"layer{n + 1}\.(\d+)\.conv(\d)\.", rf"encoder.stages.{n}.\1.conv\2.") for n in range(4)),
    *((rf"layer{n + 1}\.(\d+)\.batch_norm(\d)\.", rf"encoder.stages.{n}.\1.norm\2.") for n in range(4)),
    *((rf"layer{n + 1}\.(\d+)\.i_downsample\.", rf"encoder.stages.{n}.\1.shortcut.") for n in range(4)),
    (r"fc1\.", "encoder.embed."),
)
STATIC = (*ENCODER, (r"fc2\.", "classifier."))
TEMPORAL = (
    (r"lstm(\d)\.(weight|bias)_(ih|hh)_l0", r"lstm\1.\2_\3"),
    (r"fc\.", "classifier."),
)
STATIC_HEAD = ("fc2.weight", "fc2.bias")


def convert_emo_affectnet_static(state: Mapping[str, Tensor]) -> Conversion:
    """FER_static_ResNet50_AffectNet.pt."""
    state = from_keras(state)
    converted, _ = rename("emo_affectnet_static", state, STATIC)
    return Conversion(converted, {"num_classes": len(state["fc2.weight"])})


def convert_emo_affectnet(state: Mapping[str, Tensor]) -> Conversion:
    """One FER_dinamic_LSTM_*.pt, alone or together with FER_static_ResNet50_AffectNet.pt, whose head is dropped."""
    state = from_keras(state)
    converted, dropped = rename("emo_affectnet", state, (*TEMPORAL, *ENCODER), STATIC_HEAD)
    return Conversion(converted, {"num_classes": len(state["fc.weight"])}, dropped)


# -- the authors' Keras networks -----------------------------------------------------------------------------------------

KERAS_LAYERS = (
    (r"conv1_7x7_s2", "conv_layer_s2_same", "batch_norm1"),
    (r"conv(\d)_(\d+)_1x1_reduce", "layer{stage}.{block}.conv1", "layer{stage}.{block}.batch_norm1"),
    (r"conv(\d)_(\d+)_3x3", "layer{stage}.{block}.conv2", "layer{stage}.{block}.batch_norm2"),
    (r"conv(\d)_(\d+)_1x1_increase", "layer{stage}.{block}.conv3", "layer{stage}.{block}.batch_norm3"),
    (r"conv(\d)_(\d+)_1x1_proj", "layer{stage}.{block}.i_downsample.0", "layer{stage}.{block}.i_downsample.1"),
)
KERAS_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
KERAS_LSTM = {"kernel": "weight_ih_l0", "recurrent_kernel": "weight_hh_l0", "bias": "bias_ih_l0"}


def from_keras(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A state of the torch release as it is; variables of the authors' Keras networks ("layer/variable") turned into one.

    A Keras LSTM has one bias where torch adds two: the second one is zero.
    """
    if not any("/" in name for name in state):
        return state
    heads = "fc" if any(name.startswith("lstm_") for name in state) else "fc2"
    converted: dict[str, Tensor] = {}
    for variable, tensor in state.items():
        name, axes = torch_name(variable, heads)
        converted[name] = tensor if axes is None else tensor.permute(axes).contiguous()
        if name.endswith("running_var"):
            converted[name.replace("running_var", "num_batches_tracked")] = torch.tensor(0)
        if name.endswith("bias_ih_l0"):
            converted[name.replace("_ih_", "_hh_")] = torch.zeros_like(tensor)
    return converted


def torch_name(variable: str, head: str = "fc2") -> tuple[str, tuple[int, ...] | None]:
    """The torch release's name of a Keras variable, and the axes that turn its layout into torch's.

    >>> torch_name("conv3_2_1x1_reduce/kernel")
    ('layer2.1.conv1.weight', (3, 2, 0, 1))
    """
    layer, _, leaf = variable.removesuffix(":0").partition("/")
    if (lstm := re.fullmatch(r"lstm_(\d)", layer)) and leaf in KERAS_LSTM:
        return f"lstm{lstm[1]}.{KERAS_LSTM[leaf]}", None if leaf == "bias" else (1, 0)
    if layer in ("features", "classes") and leaf in ("kernel", "bias"):
        name = "fc1" if layer == "features" else head
        return (f"{name}.weight", (1, 0)) if leaf == "kernel" else (f"{name}.bias", None)
    plain, norm = layer.removesuffix("_bn"), layer.endswith("_bn")
    for pattern, conv_name, norm_name in KERAS_LAYERS:
        if match := re.fullmatch(pattern, plain):
            numbers = [int(number) for number in match.groups()]
            place = {"stage": numbers[0] - 1, "block": numbers[1] - 1} if numbers else {}
            if norm and leaf in KERAS_NORM:
                return f"{norm_name.format(**place)}.{KERAS_NORM[leaf]}", None
            if not norm and leaf == "kernel":
                return f"{conv_name.format(**place)}.weight", (3, 2, 0, 1)
    raise WeightsError(f"This is not a Keras checkpoint of emo_affectnet: no variable '{variable}' is known there.")
