"""MAE-DFER: the authors' names -> ours. Fine-tuned files hold the encoder at the top, pre-trained ones below `encoder.`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..convert import Conversion
from ..errors import WeightsError
from ..models.mae_dfer import MAEDFER
from ..models.mae_dfer_pretrain import MAEDFERPretrain
from ..models.video_mae import VideoMAE
from .rename import count_blocks, match_names, not_default

# (authors' pattern, ours)
PARTS = r"(weight|bias)"
BLOCK = r"blocks\.(\d+)\."
ATTENTION = r"(q\.weight|kv\.weight|q_bias|v_bias|proj\.weight|proj\.bias)"
EMBEDDING_NAMES = (
    (r"lg_region_tokens", r"region_tokens"),
    (r"pos_embed", r"position"),
    (r"patch_embed\.proj\." + PARTS, r"patch_embed.\1"),
)
LGI_NAMES = (
    (BLOCK + r"first_attn_norm0\." + PARTS, r"blocks.\1.local_norm.\2"),
    (BLOCK + r"first_attn_norm1\." + PARTS, r"blocks.\1.local_context_norm.\2"),
    (BLOCK + r"first_attn\." + ATTENTION, r"blocks.\1.local_attn.\2"),
    (BLOCK + r"second_attn_norm0\." + PARTS, r"blocks.\1.global_norm.\2"),
    (BLOCK + r"second_attn\." + ATTENTION, r"blocks.\1.global_attn.\2"),
    (BLOCK + r"third_attn_norm0\." + PARTS, r"blocks.\1.interaction_norm.\2"),
    (BLOCK + r"third_attn_norm1\." + PARTS, r"blocks.\1.interaction_context_norm.\2"),
    (BLOCK + r"third_attn\." + ATTENTION, r"blocks.\1.interaction.\2"),
    (BLOCK + r"norm2\." + PARTS, r"blocks.\1.mlp_norm.\2"),
    (BLOCK + r"mlp\.(fc[12])\." + PARTS, r"blocks.\1.mlp.\2.\3"),
)
JOINT_NAMES = (
    (BLOCK + r"(norm1|norm2|attn\.proj|mlp\.fc1|mlp\.fc2)\." + PARTS, r"blocks.\1.\2.\3"),
    (BLOCK + r"attn\.(qkv\.weight|q_bias|v_bias)", r"blocks.\1.attn.\2"),
    (BLOCK + r"gamma_1", r"blocks.\1.attn_scale"),
    (BLOCK + r"gamma_2", r"blocks.\1.mlp_scale"),
)
HEAD_NAMES = (
    (r"norm\." + PARTS, r"token_norm.\1"),
    (r"fc_norm\." + PARTS, r"feature_norm.\1"),
    (r"head\." + PARTS, r"classifier.\1"),
)
DECODER_NAMES = (
    (r"encoder\.norm\." + PARTS, r"encoder_norm.\1"),
    (r"encoder_to_decoder\.weight", r"to_decoder.weight"),
    (r"mask_token", r"mask_token"),
    (r"decoder\.(norm|head)\." + PARTS, r"decoder.\1.\2"),
    *((r"decoder\." + theirs, "decoder." + ours) for theirs, ours in JOINT_NAMES),
)


def names(arch: str, state: Mapping[str, Any]) -> dict[str, str]:
    """{authors' name: ours} of the entries of one of the three kinds of file; an unknown entry is an error."""
    pretrained = arch == "mae_dfer_pretrain"
    prefix = "encoder." if pretrained else ""
    if pretrained:
        blocks = LGI_NAMES if f"{prefix}lg_region_tokens" in state else JOINT_NAMES
    else:
        blocks = LGI_NAMES if arch == "mae_dfer" else JOINT_NAMES
    table = [
        *((re.escape(prefix) + theirs, "encoder." + ours) for theirs, ours in (*EMBEDDING_NAMES, *blocks)),
        *(DECODER_NAMES if pretrained else HEAD_NAMES),
    ]
    return match_names(state, table, f"This is not a checkpoint of {arch}{_kind(state, arch)}")


def _kind(state: Mapping[str, Any], arch: str) -> str:
    """What the file is instead, where that can be seen."""
    if "mask_token" in state or "encoder.patch_embed.proj.weight" in state:
        kind = "mae_dfer_pretrain"
    elif "patch_embed.proj.weight" not in state:
        return ""
    else:
        kind = "mae_dfer" if "lg_region_tokens" in state else "video_mae"
    return f" but of {kind}" if kind != arch else ""


def convert_mae_dfer(state: Mapping[str, Tensor]) -> Conversion:
    if "lg_region_tokens" not in state:
        raise WeightsError(f"This is not a checkpoint of mae_dfer{_kind(state, 'mae_dfer')}: it has no region tokens.")
    state, arguments, dropped = _shared(state)
    own = _renamed("mae_dfer", state)
    arguments |= {**_lgi_arguments(own), **_classifier_arguments(own)}
    return Conversion(own, not_default(MAEDFER, arguments), dropped)


def convert_video_mae(state: Mapping[str, Tensor]) -> Conversion:
    if "blocks.0.attn.qkv.weight" not in state:
        raise WeightsError(
            f"This is not a checkpoint of video_mae{_kind(state, 'video_mae')}: it has no joint attention."
        )
    own = _renamed("video_mae", state)
    return Conversion(own, not_default(VideoMAE, {**_joint_arguments(own), **_classifier_arguments(own)}))


def convert_mae_dfer_pretrain(state: Mapping[str, Tensor]) -> Conversion:
    if "lg_region_tokens" in state or "head.weight" in state:
        raise WeightsError(f"This is not a checkpoint of mae_dfer_pretrain{_kind(state, 'mae_dfer_pretrain')}.")
    state, arguments, dropped = _shared(state)
    own = _renamed("mae_dfer_pretrain", state)
    decoder_width, width = own["to_decoder.weight"].shape
    arguments |= {
        **_encoder_arguments(own),
        "decoder_width": decoder_width,
        "decoder_depth": count_blocks(own, r"decoder\." + BLOCK),
    }
    if "encoder.region_tokens" in own:
        arguments |= _lgi_arguments(own)
    else:
        arguments |= {"attention": "joint", **_joint_arguments(own), "num_heads": width // 64}
    return Conversion(own, not_default(MAEDFERPretrain, arguments), dropped)


# -- what the entries tell of the constructor's arguments ----------------------------------------------------------------


def _renamed(arch: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Under our names, once the entries whose sizes are read are there; the user is told their names in the authors' file."""
    pretrained = arch == "mae_dfer_pretrain"
    prefix = "encoder." if pretrained else ""
    read = [(f"{prefix}patch_embed.proj.weight", 5), (f"{prefix}blocks.0.mlp.fc1.weight", 2)]
    if pretrained:
        read.append(("encoder_to_decoder.weight", 2))
    elif "head.weight" in state:
        read.append(("head.weight", 2))
    for name, axes in read:
        if state[name].ndim != axes:
            raise WeightsError(
                f"This is not a checkpoint of {arch}: its '{name}' has the shape {tuple(state[name].shape)}; "
                f"expected {axes} axes."
            )
    return {ours: state[theirs] for theirs, ours in names(arch, state).items()}


def _shared(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any], tuple[str, ...]]:
    """Attentions that share their matrices stand in the authors' files twice or three times; we hold them once."""
    same = set()
    for twin in (".second_attn.", ".third_attn."):
        alike = [torch.equal(t, state[n.replace(twin, ".first_attn.")]) for n, t in state.items() if twin in n]
        if alike and all(alike):
            same.add(twin)
    dropped = tuple(name for name in state if any(twin in name for twin in same))
    share = "all" if ".second_attn." in same else "local" if same else "none"
    if share == "all" and ".third_attn." not in same and any(".third_attn." in name for name in state):
        raise WeightsError("The global attention shares the local one's matrices and the interaction does not.")
    return {n: t for n, t in state.items() if n not in dropped}, {"share_attention": share}, dropped


def _encoder_arguments(state: Mapping[str, Tensor]) -> dict[str, Any]:
    width, channels, tubelet, patch_size, _ = state["encoder.patch_embed.weight"].shape
    return {
        "width": width,
        "channels": channels,
        "tubelet": tubelet,
        "patch_size": patch_size,
        "depth": count_blocks(state, r"encoder\." + BLOCK),
        "mlp_ratio": len(state["encoder.blocks.0.mlp.fc1.weight"]) / width,
        "qkv_bias": any(name.endswith(".q_bias") for name in state),
        "learned_position": "encoder.position" in state,
    }


def _lgi_arguments(state: Mapping[str, Tensor]) -> dict[str, Any]:
    block = "encoder.blocks.0."
    interaction = "none"
    if block + "interaction_norm.weight" in state:
        interaction = "cross" if block + "interaction_context_norm.weight" in state else "self"
    return {
        **_encoder_arguments(state),
        "local_attention": "cross" if block + "local_context_norm.weight" in state else "self",
        "global_attention": block + "global_norm.weight" in state,
        "interaction": interaction,
    }


def _joint_arguments(state: Mapping[str, Tensor]) -> dict[str, Any]:
    scaled = "encoder.blocks.0.attn_scale" in state
    # any value above 0 makes the scales; their numbers are in the file
    return {**_encoder_arguments(state), "layer_scale": 0.1 if scaled else 0.0}


def _classifier_arguments(state: Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        "num_classes": len(state["classifier.weight"]) if "classifier.weight" in state else 0,
        "mean_pooling": "feature_norm.weight" in state,
    }
