"""S2D: the authors' names -> ours. Their files lack the landmark network; a state dict that has its entries beside the
others is converted whole."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from ..errors import WeightsError
from ..models.s2d import GRID, S2D, S2DImage
from . import Conversion, mobile_face_net
from .rename import count_blocks, not_default, our_name, rename

# (authors' pattern, ours)
PARTS = r"(weight|bias)"
BLOCK = r"prompt_blocks\.(\d+)\."
NAMES = (
    (r"cls_token", r"encoder.class_token"),
    (r"pos_embed", r"encoder.positions"),
    (r"patch_embed\.proj\." + PARTS, r"encoder.patch_embed.\1"),
    (r"(blocks\.\d+\.(?:norm[12]|attn\.qkv|attn\.proj|mlp\.fc[12])\.(?:weight|bias))", r"encoder.\1"),
    (r"patch_embed_prompt\.proj\." + PARTS, r"landmark_embed.\1"),
    (r"(prompt_norms\.\d+\.(?:weight|bias))", r"\1"),
    (BLOCK + r"conv0_0\." + PARTS, r"prompt_blocks.\1.prompter.image_down.\2"),
    (BLOCK + r"conv0_1\." + PARTS, r"prompt_blocks.\1.prompter.prompt_down.\2"),
    (BLOCK + r"conv1x1\." + PARTS, r"prompt_blocks.\1.prompter.up.\2"),
    (BLOCK + r"fovea\.smooth", r"prompt_blocks.\1.prompter.fovea.smooth"),
)
VIDEO_NAMES = (
    (r"temporal_embedding", r"temporal_positions"),
    (BLOCK + r"TMA\.T_Adapter\.D_fc1\." + PARTS, r"prompt_blocks.\1.adapter.temporal.down.\2"),
    (BLOCK + r"TMA\.T_Adapter\.D_fc2\." + PARTS, r"prompt_blocks.\1.adapter.temporal.up.\2"),
    (BLOCK + r"TMA\.T_Adapter\.attn\.(qkv|proj)\." + PARTS, r"prompt_blocks.\1.adapter.temporal.attn.\2.\3"),
    (BLOCK + r"TMA\.S_Adapter\.D_(fc[12])\." + PARTS, r"prompt_blocks.\1.adapter.spatial.\2.\3"),
    (BLOCK + r"TMA\.norm\." + PARTS, r"prompt_blocks.\1.adapter.norm.\2"),
    (r"ln_post\." + PARTS, r"encoder.norm.\1"),
    (r"fc_norm\." + PARTS, r"pooled_norm.\1"),
    (r"head\.fc_cls\." + PARTS, r"classifier.\1"),
)
IMAGE_NAMES = ((r"(?:norm|ln_post)\." + PARTS, r"encoder.norm.\1"),)
# in the files, in no output: layers of a landmark network behind its features; heads of the image model
UNUSED = {
    "s2d": ("conv_45.*", "conv_5.*", "conv_6_sep.*", "output_layer.*"),
    "s2d_image": ("*landmark*", "head.*", "*_head.*"),
}
CONVOLUTIONS = (
    "landmark_embed.weight",
    ".image_down.weight",
    ".prompt_down.weight",
    ".up.weight",
)  # 1 x 1: linear here


def names(arch: str, state: Iterable[str]) -> dict[str, str]:
    """{authors' name: ours} of all entries that have a place in ``s2d`` or ``s2d_image``.

    Args:
        arch: "s2d" or "s2d_image".
        state: Authors' names.

    Returns:
        The names that are known; the others are left out.

    Examples:
        >>> names("s2d", ["ln_post.bias", "weak_head.weight"])
        {'ln_post.bias': 'encoder.norm.bias'}
    """
    found = {name: _own_name(arch, name) for name in state}
    return {name: ours for name, ours in found.items() if ours is not None}


def _own_name(arch: str, name: str) -> str | None:
    table = (*NAMES, *(VIDEO_NAMES if arch == "s2d" else IMAGE_NAMES))
    return our_name(name, table) or _landmark_name(name)


def _landmark_name(name: str) -> str | None:
    own = mobile_face_net.own_name(name)
    return own.replace("features.", "landmarks.", 1) if own and own.startswith("features.") else None


def convert_s2d(state: Mapping[str, Tensor]) -> Conversion:
    """A fine-tuned file. What stands in it and has no place here is an error."""
    if "temporal_embedding" not in state:
        raise WeightsError(
            "This is not a checkpoint of s2d: it has no temporal embedding. Its image model is an s2d_image."
        )
    own, dropped = _converted("s2d", state)
    blocks = count_blocks(own, r"prompt_blocks\.(\d+)\.")
    depth = count_blocks(own, r"encoder\.blocks\.(\d+)\.")
    arguments = {
        "num_classes": len(own["classifier.weight"]) if "classifier.weight" in own else 0,
        "num_frames": own["temporal_positions"].shape[1],
        **_arguments(own),
        # one block of one may be either, and is the same network
        "prompts": "none" if blocks == 0 else "deep" if blocks == depth else "shallow",
        "pooling": "average" if "pooled_norm.weight" in own else "token",
    }
    if blocks:
        down = own["prompt_blocks.0.adapter.temporal.down.weight"]
        arguments["adapter_scale"] = down.shape[0] / down.shape[1]
    return Conversion(own, not_default(S2D, arguments), dropped)


def convert_s2d_image(state: Mapping[str, Tensor]) -> Conversion:
    """The image model that fine-tuning starts from. As in the authors' loading, its heads are not used."""
    if "temporal_embedding" in state:
        raise WeightsError("This is not a checkpoint of s2d_image but of s2d: it has a temporal embedding.")
    own, dropped = _converted("s2d_image", state)
    return Conversion(own, not_default(S2DImage, _arguments(own), always=()), dropped)


def _converted(arch: str, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """(our entries, authors' names that are not used)"""
    for needed in ("patch_embed.proj.weight", "blocks.0.mlp.fc1.weight"):
        state[needed]  # a KeyError is told as a sentence
    own, dropped = rename(arch, state, functools.partial(_own_name, arch), UNUSED[arch])
    return {name: _linear(name, value) for name, value in own.items()}, dropped


def _linear(name: str, value: Tensor) -> Tensor:
    is_convolution = name.endswith(CONVOLUTIONS) and value.ndim == 4 and value.shape[2:] == (1, 1)
    return value.flatten(1) if is_convolution else value


def _arguments(own: Mapping[str, Tensor]) -> dict[str, Any]:
    """Constructor arguments of both models that the shapes tell; the number of heads is not among them."""
    width, _, patch_size, _ = own["encoder.patch_embed.weight"].shape
    squeeze = own.get("prompt_blocks.0.prompter.image_down.weight")
    return {
        "img_size": GRID * patch_size,
        "patch_size": patch_size,
        "width": width,
        "depth": count_blocks(own, r"encoder\.blocks\.(\d+)\."),
        "mlp_ratio": len(own["encoder.blocks.0.mlp.fc1.weight"]) / width,
        "qkv_bias": "encoder.blocks.0.attn.qkv.bias" in own,
        **({} if squeeze is None else {"hidden": len(squeeze)}),
    }
