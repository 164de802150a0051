"""MMA-DFER, MAE-Face and AudioMAE: the authors' names -> ours."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..convert import Conversion
from ..errors import WeightsError
from ..models.vit import PRESETS
from .rename import rename

# (authors' pattern, ours); the first that matches a name counts
ENCODER_NAMES = (
    (r"cls_token", r"class_token"),
    (r"pos_embed", r"positions"),
    (r"patch_embed\.proj\.(weight|bias)", r"patch_embed.\1"),
    (r"(blocks\.\d+\.(?:norm[12]|attn\.qkv|attn\.proj|mlp\.fc[12])\.(?:weight|bias))", r"\1"),
    (r"(norm\.(?:weight|bias))", r"\1"),
)
PROMPT_NAMES = (
    (r"learnable_prompts_init", r"initial"),
    (r"learnable_prompts_progr\.(\d+)", r"progressive.\1"),
)
FUSION_NAMES = (
    (r"image_encoder\.temporal_pre\.(\d+)\.(weight|bias)", r"exchanges.\1.face.down.\2"),
    (r"image_encoder\.temporal_pre_norm\.(\d+)\.(weight|bias)", r"exchanges.\1.face.norm.\2"),
    (r"image_encoder\.temporal_att_post\.(\d+)\.0\.(weight|bias)", r"exchanges.\1.face.up.\2"),
    (r"image_encoder\.all_gate\.(\d+)", r"exchanges.\1.face.gate"),
    # the sound's way down lives in the authors' visual encoder
    (r"image_encoder\.audio_proj_pre\.(\d+)\.0\.(weight|bias)", r"exchanges.\1.sound.down.\2"),
    (r"image_encoder\.audio_proj_pre\.(\d+)\.1\.(weight|bias)", r"exchanges.\1.sound.norm.\2"),
    (r"audio_model\.temporal_att_post\.(\d+)\.0\.(weight|bias)", r"exchanges.\1.sound.up.\2"),
    (r"audio_model\.all_gate\.(\d+)", r"exchanges.\1.sound.gate"),
    (r"vision_proj\.(weight|bias)", r"projection.\1"),
    (r"our_classifier\.(weight|bias)", r"classifier.\1"),
    (r"temporal_net\.cls_token", r"temporal.class_token"),
    (r"temporal_net\.pos_embedding", r"temporal.positions"),
)
LAYER = r"temporal_net\.temporal_transformer\.layers\.(\d+)"
TEMPORAL_NAMES = (
    (LAYER + r"\.0\.fn\.norm\.(weight|bias)", r"temporal.blocks.\1.norm1.\2"),
    (LAYER + r"\.0\.fn\.fn\.to_out\.0\.(weight|bias)", r"temporal.blocks.\1.attn.proj.\2"),
    (LAYER + r"\.1\.fn\.norm\.(weight|bias)", r"temporal.blocks.\1.norm2.\2"),
    (LAYER + r"\.1\.fn\.fn\.net\.0\.(weight|bias)", r"temporal.blocks.\1.mlp.fc1.\2"),
    (LAYER + r"\.1\.fn\.fn\.net\.3\.(weight|bias)", r"temporal.blocks.\1.mlp.fc2.\2"),
)
MMA_NAMES = (
    *FUSION_NAMES,
    *TEMPORAL_NAMES,
    *((r"image_encoder\." + theirs, "face_prompts." + ours) for theirs, ours in PROMPT_NAMES),
    *((r"audio_model\." + theirs, "sound_prompts." + ours) for theirs, ours in PROMPT_NAMES),
    *((r"image_encoder\." + theirs, "face." + ours) for theirs, ours in ENCODER_NAMES),
    *((r"audio_model\." + theirs, "sound." + ours) for theirs, ours in ENCODER_NAMES),
)
# heads of the encoders and second norms of the temporal layers: in the files, in no output
MMA_UNUSED = ("image_encoder.head.*", "audio_model.head.*", "temporal_net.temporal_transformer.layers.*.fn.norm2.*")

CLASSIFIER_NAMES = (
    *((theirs, "encoder." + ours) for theirs, ours in ENCODER_NAMES),
    (r"fc_norm\.(weight|bias)", r"pooled_norm.\1"),
    (r"head\.(weight|bias)", r"classifier.\1"),
)
PRETRAINING_ONLY = ("decoder_*", "mask_token")  # the masked autoencoder's second half


def convert_mma_dfer(state: Mapping[str, Tensor]) -> Conversion:
    entries = dict(state)
    stacked = {}
    for layer in _layers(entries, LAYER + r"\..*"):
        attention = f"temporal_net.temporal_transformer.layers.{layer}.0.fn.fn"
        queries, keys_values = entries.pop(f"{attention}.to_q.weight"), entries.pop(f"{attention}.to_kv.weight")
        stacked[f"temporal.blocks.{layer}.attn.qkv.weight"] = torch.cat([queries, keys_values])
    renamed, dropped = rename("mma_dfer", entries, MMA_NAMES, MMA_UNUSED)
    prompts = len(state["image_encoder.learnable_prompts_init"])
    patches = state["image_encoder.pos_embed"].shape[1] - 1 - prompts
    arguments = {
        "num_classes": len(state["our_classifier.weight"]),
        "img_size": _side("image_encoder.pos_embed", patches) * 16,
        "temporal_depth": len(stacked),
        "preset": _preset(state, "image_encoder."),
    }
    return Conversion({**renamed, **stacked}, arguments, dropped)


def convert_mae_face(state: Mapping[str, Tensor]) -> Conversion:
    """The pre-trained file (the "visualize" variant has a decoder, which is dropped), or a fine-tuned one."""
    patch = state["patch_embed.proj.weight"].shape[-1]
    size = _side("pos_embed", state["pos_embed"].shape[1] - 1) * patch
    return _convert_encoder("mae_face", state, channels=3, arguments={"img_size": size})


def convert_audio_mae(state: Mapping[str, Tensor]) -> Conversion:
    """The pre-trained file, whose decoder is dropped, or a fine-tuned one."""
    patch = state["patch_embed.proj.weight"].shape[-1]
    bands = 128 // patch
    patches = state["pos_embed"].shape[1] - 1
    if patches < 1 or patches % bands:
        raise WeightsError(f"pos_embed has {patches} patches; a spectrogram with {bands} rows of them has a multiple.")
    least = patches // bands * patch
    # patches of 14 leave a rest at the end; the published lengths are multiples of 16
    frames = next((n for n in range(least, least + patch) if n % 16 == 0), least)
    return _convert_encoder("audio_mae", state, channels=1, arguments={"num_frames": frames})


def _convert_encoder(
    arch: str, state: Mapping[str, Tensor], *, channels: int, arguments: Mapping[str, Any]
) -> Conversion:
    found = state["patch_embed.proj.weight"].shape[1]
    if found != channels:
        raise WeightsError(f"This is not a checkpoint of {arch}: its patches have {found} channels, not {channels}.")
    renamed, dropped = rename(arch, state, CLASSIFIER_NAMES, PRETRAINING_ONLY)
    model_args = {
        "num_classes": len(state["head.weight"]) if "head.weight" in state else 0,
        **arguments,
        "preset": _preset(state, ""),
        "pooling": "mean" if "fc_norm.weight" in state else "class",
    }
    return Conversion(renamed, model_args, dropped)


def _layers(state: Mapping[str, Tensor], pattern: str) -> list[int]:
    return sorted({int(m[1]) for name in state if (m := re.fullmatch(pattern, name))})


def _side(name: str, patches: int) -> int:
    side = math.isqrt(max(patches, 0))
    if side == 0 or side * side != patches:
        raise WeightsError(f"{name} has rows for {patches} patches, which is not a square image.")
    return side


def _preset(state: Mapping[str, Tensor], prefix: str) -> str:
    width, _, _, patch = state[f"{prefix}patch_embed.proj.weight"].shape
    depth = len(_layers(state, re.escape(prefix) + r"blocks\.(\d+)\.norm1\.weight"))
    for name, preset in PRESETS.items():
        if (preset.width, preset.depth, preset.patch) == (width, depth, patch):
            return name
    raise WeightsError(
        f"No preset has {depth} blocks of width {width} with patches of {patch}; there are {', '.join(PRESETS)}."
    )
