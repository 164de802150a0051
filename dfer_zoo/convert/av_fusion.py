"""Convert checkpoints of the audiovisual network (RAVDESS) and of EfficientFace."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from torch import Tensor

from ..convert import Conversion
from ..errors import WeightsError
from .rename import our_name, rename

# Patterns of the authors' names and ours, tried in this order.

FACE_ENCODER = (
    (r"conv1\.0\.", "stem.conv."),
    (r"conv1\.1\.", "stem.norm."),
    (r"(stage[234]\.\d+)\.branch1\.0\.", r"\1.left.0.conv."),
    (r"(stage[234]\.\d+)\.branch1\.1\.", r"\1.left.0.norm."),
    (r"(stage[234]\.\d+)\.branch1\.2\.", r"\1.left.1.conv."),
    (r"(stage[234]\.\d+)\.branch1\.3\.", r"\1.left.1.norm."),
    (r"(stage[234]\.\d+)\.branch2\.0\.", r"\1.right.0.conv."),
    (r"(stage[234]\.\d+)\.branch2\.1\.", r"\1.right.0.norm."),
    (r"(stage[234]\.\d+)\.branch2\.3\.", r"\1.right.1.conv."),
    (r"(stage[234]\.\d+)\.branch2\.4\.", r"\1.right.1.norm."),
    (r"(stage[234]\.\d+)\.branch2\.5\.", r"\1.right.2.conv."),
    (r"(stage[234]\.\d+)\.branch2\.6\.", r"\1.right.2.norm."),
    *(
        (rf"local\.{theirs}{corner + 1}_{layer + 1}\.", f"local.quadrants.{corner}.{layer}.{ours}.")
        for corner in range(4)
        for layer in range(2)
        for theirs, ours in (("conv", "conv"), ("bn", "norm"))
    ),
    (r"modulator\.channel_att\.gate_c\.gate_c_fc_0\.", "modulator.channel_gate.0."),
    (r"modulator\.channel_att\.gate_c\.gate_c_bn_1\.", "modulator.channel_gate.1."),
    (r"modulator\.channel_att\.gate_c\.gate_c_fc_final\.", "modulator.channel_gate.3."),
    (r"modulator\.spatial_att\.gate_s\.gate_s_conv_reduce0\.", "modulator.spatial_gate.0.conv."),
    (r"modulator\.spatial_att\.gate_s\.gate_s_bn_reduce0\.", "modulator.spatial_gate.0.norm."),
    (r"modulator\.spatial_att\.gate_s\.gate_s_conv_di_0\.", "modulator.spatial_gate.1.conv."),
    (r"modulator\.spatial_att\.gate_s\.gate_s_bn_di_0\.", "modulator.spatial_gate.1.norm."),
    (r"modulator\.spatial_att\.gate_s\.gate_s_conv_di_1\.", "modulator.spatial_gate.2.conv."),
    (r"modulator\.spatial_att\.gate_s\.gate_s_bn_di_1\.", "modulator.spatial_gate.2.norm."),
    (r"modulator\.spatial_att\.gate_s\.gate_s_conv_final\.", "modulator.spatial_gate.3."),
    (r"conv5\.0\.", "expand.conv."),
    (r"conv5\.1\.", "expand.norm."),
)

EFFICIENT_FACE = (
    *((theirs, f"encoder.{ours}") for theirs, ours in FACE_ENCODER),
    (r"fc\.", "classifier."),
)

AV_FUSION = (
    *((rf"visual_model\.{theirs}", f"face.{ours}") for theirs, ours in FACE_ENCODER),
    *(
        (rf"{theirs}_model\.conv1d_{layer}\.{part}\.", f"{ours}_stage{1 + layer // 2}.{layer % 2}.{name}.")
        for theirs, ours in (("visual", "video"), ("audio", "audio"))
        for layer in range(4)
        for part, name in enumerate(("conv", "norm"))
    ),
    # "av": queries from the sound; "va": queries from the frames; with a 1 if the fusion is after the first stage
    (r"av1?\.", "audio_asks."),
    (r"va1?\.", "video_asks."),
    (r"classifier(_1)?\.0\.", "classifier."),
)

MEETING = (
    (r"norm1_q\.", "query_norm."),
    (r"norm1_k\.", "key_norm."),
    (r"norm2\.", "mlp_norm."),
    (r"mlp\.", "mlp."),
    (r"(?:attn\.)?q\.", "query."),
    (r"(?:attn\.)?kv\.", "key_value."),
    (r"attn\.proj\.", "project."),
)

# OpenDR's "ia" file has the names without the 1
CLASSIFIERS = ("classifier_1.0.weight", "classifier.0.weight")
FUSION_BY_NAME = {"av1.q.weight": "ia", "av1.attn.q.weight": "it", "av.attn.q.weight": "lt", "av.q.weight": "ia"}

# no output depends on these: untrained classifiers of single modalities, and the projection of attention outputs, which
# "ia" discards
UNUSED = (
    "audio_model.classifier.0.*",
    "audio_model.classifier_1.0.*",
    "visual_model.classifier.0.*",
    "visual_model.classifier_1.0.*",
    "av.proj.*",
    "va.proj.*",
    "av1.proj.*",
    "va1.proj.*",
)


def convert_efficient_face(state: Mapping[str, Tensor]) -> Conversion:
    converted, _ = rename("efficient_face", state, EFFICIENT_FACE)
    return Conversion(converted, {"num_classes": len(state["fc.weight"])})


def convert_av_fusion(state: Mapping[str, Tensor]) -> Conversion:
    """The number of attention heads is not in the file, since no shape depends on it."""
    fusion = next((fusion for name, fusion in FUSION_BY_NAME.items() if name in state), None)
    if fusion is None:
        raise WeightsError(
            f"This is not a checkpoint of av_fusion: none of {', '.join(FUSION_BY_NAME)} is there to identify the fusion. "
            f"It holds {len(state)} entries, the first are {', '.join(list(state)[:3])}."
        )
    classifier = next((name for name in CLASSIFIERS if name in state), CLASSIFIERS[0])
    converted, dropped = rename("av_fusion", state, functools.partial(_av_fusion_name, fusion=fusion), UNUSED)
    return Conversion(converted, {"fusion": fusion, "num_classes": len(state[classifier])}, dropped)


def _av_fusion_name(name: str, fusion: str) -> str | None:
    ours = our_name(name, AV_FUSION)
    tower, _, rest = (ours or "").partition(".")
    if tower not in ("audio_asks", "video_asks"):
        return ours
    inner = our_name(rest, MEETING)
    if inner is None or fusion == "ia" or not inner.startswith(("query.", "key_value.", "project.")):
        return inner and f"{tower}.{inner}"
    return f"{tower}.attention.{inner}"
