"""HiCMAE: the authors' names -> ours. Fine-tuned and pre-trained files name the encoders and the fusion alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..errors import WeightsError
from ..models.hicmae import PRESETS, HiCMAE
from ..models.hicmae_pretrain import DECODER_WIDTHS, HiCMAEPretrain
from . import Conversion
from .mae_dfer import ATTENTION, BLOCK, JOINT_NAMES, PARTS
from .rename import count_blocks, match_names, not_default

# (authors' pattern, ours)
CROSS_NAMES = (
    (BLOCK + r"cross_attn\." + ATTENTION, r"blocks.\1.cross_attn.\2"),
    (BLOCK + r"cross_norm1\." + PARTS, r"blocks.\1.cross_norm.\2"),
    (BLOCK + r"cross_norm2\." + PARTS, r"blocks.\1.context_norm.\2"),
    (BLOCK + r"gamma_0", r"blocks.\1.cross_scale"),
    *JOINT_NAMES,
)


def _below(theirs: str, ours: str, table: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    return [(theirs + their_name, ours + our_name) for their_name, our_name in table]


def _of_both(suffixless: str, table: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    """The video's part has a bare name in the authors' files, the audio's ends with "_audio"."""
    video = _below(suffixless + r"\.", f"video_{suffixless}.", table)
    return video + _below(suffixless + r"_audio\.", f"audio_{suffixless}.", table)


ENCODER_NAMES = (
    *_of_both("encoder", ((r"patch_embed\.proj\." + PARTS, r"patch_embed.\1"), (r"norm\." + PARTS, r"norm.\1"))),
    *_of_both("encoder", JOINT_NAMES),
    *_below(r"encoder_fusion\.", "fusion.video_", CROSS_NAMES),
    *(
        (theirs.replace("blocks", "blocks_audio", 1), f"fusion.audio_{ours}")
        for theirs, ours in _below(r"encoder_fusion\.", "", CROSS_NAMES)
    ),
    (r"encoder_fusion\.norm\." + PARTS, r"fusion.video_norm.\1"),
    (r"encoder_fusion\.norm_audio\." + PARTS, r"fusion.audio_norm.\1"),
)
HEAD_NAMES = (
    (r"fc_norm\." + PARTS, r"feature_norm.\1"),
    (r"head\." + PARTS, r"classifier.\1"),
    (r"(video|audio)_layer_weights", r"\1_layer_weights"),
)
DECODER_NAMES = (
    *_of_both("decoder", ((r"(norm|head)\." + PARTS, r"\1.\2"), *CROSS_NAMES)),
    (r"encoder_to_decoder\.weight", r"video_decoder.embed.weight"),
    (r"encoder_to_decoder_audio\.weight", r"audio_decoder.embed.weight"),
    (r"mask_token", r"video_decoder.mask_token"),
    (r"mask_token_audio", r"audio_decoder.mask_token"),
)


def names(arch: str, state: Mapping[str, Any]) -> dict[str, str]:
    """{authors' name: ours} of the entries of one of the two kinds of file; an unknown entry is an error."""
    table = (*ENCODER_NAMES, *(DECODER_NAMES if arch == "hicmae_pretrain" else HEAD_NAMES))
    return match_names(state, table, f"This is not a checkpoint of {arch}{_kind(state, arch)}")


def _kind(state: Mapping[str, Any], arch: str) -> str:
    """What the file is instead, where that can be seen."""
    if "encoder_fusion.norm_audio.weight" not in state:
        return ""
    kind = "hicmae_pretrain" if "mask_token_audio" in state else "hicmae"
    return f" but of {kind}" if kind != arch else ""


def convert_hicmae(state: Mapping[str, Tensor]) -> Conversion:
    own = _renamed("hicmae", state, "video_layer_weights")
    classes = len(own["classifier.weight"]) if "classifier.weight" in own else 0
    return Conversion(own, not_default(HiCMAE, {**_encoder_arguments(own), "num_classes": classes}))


def convert_hicmae_pretrain(state: Mapping[str, Tensor]) -> Conversion:
    """Which levels the decoders attend to is in no file; how many is checked when the weights are loaded."""
    own = _renamed("hicmae_pretrain", state, "mask_token_audio")
    arguments = _encoder_arguments(own)
    decoder_width, audio_decoder_width = (len(own[f"{kind}_decoder.embed.weight"]) for kind in ("video", "audio"))
    if decoder_width != DECODER_WIDTHS.get(arguments["preset"]):
        arguments["decoder_width"] = decoder_width
    if audio_decoder_width != decoder_width:
        arguments["audio_decoder_width"] = audio_decoder_width
    return Conversion(own, not_default(HiCMAEPretrain, arguments, always=()))


def _renamed(arch: str, state: Mapping[str, Tensor], mark: str) -> dict[str, Tensor]:
    """Under our names; ``mark`` is an entry that only files of this stage have."""
    if mark not in state:
        raise WeightsError(f"This is not a checkpoint of {arch}{_kind(state, arch)}: it has no '{mark}'.")
    own = {ours: state[theirs] for theirs, ours in names(arch, state).items()}
    shapes = {"encoder.patch_embed.proj.weight": 5, "encoder_audio.patch_embed.proj.weight": 4}
    shapes |= {"encoder.blocks.0.mlp.fc1.weight": 2, "encoder_to_decoder.weight": 2, "head.weight": 2}
    for name, axes in shapes.items():
        if name in state and state[name].ndim != axes:
            raise WeightsError(
                f"This is not a checkpoint of {arch}: its '{name}' has the shape {tuple(state[name].shape)}; "
                f"expected {axes} axes."
            )
    # a spectrogram is a clip of one frame: its patches are tubelets that are one frame long
    patches = "audio_encoder.patch_embed.weight"
    own[patches] = own[patches].unsqueeze(2)
    return own


def _encoder_arguments(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Heads are in no file: where there is one for every 64 channels, as in all published models, nothing is said."""
    width, _, tubelet, patch_size, _ = state["video_encoder.patch_embed.weight"].shape
    audio_width, _, _, audio_patch_size, _ = state["audio_encoder.patch_embed.weight"].shape
    preset = next((name for name, size in PRESETS.items() if size == width), "base")
    return {
        "preset": preset,
        "width": None if PRESETS[preset] == width else width,
        "audio_width": None if audio_width == width else audio_width,
        "tubelet": tubelet,
        "patch_size": patch_size,
        "audio_patch_size": audio_patch_size,
        "depth": count_blocks(state, r"video_encoder\." + BLOCK),
        "audio_depth": count_blocks(state, r"audio_encoder\." + BLOCK),
        "fusion_depth": count_blocks(state, r"fusion\.video_" + BLOCK),
        "mlp_ratio": len(state["video_encoder.blocks.0.mlp.fc1.weight"]) / width,
        "qkv_bias": any(name.endswith(".q_bias") for name in state),
        # any value above 0 makes the scales; their numbers are in the file
        "layer_scale": 0.1 if "video_encoder.blocks.0.attn_scale" in state else 0.0,
    }
