"""DK-CLIP's checkpoints, and the files that a training may start from: OpenAI's CLIP and Microsoft's X-CLIP.

The authors kept CLIP's names for whatever is in CLIP, so one table serves all three.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..convert import Conversion
from ..errors import WeightsError
from .rename import count_blocks, rename
from .rename import our_name as find_name

# the authors' -> ours; the first pattern that fits a whole name counts
NAMES = [
    (r"visual\.conv1\.weight", "local_tower.patch_embed.weight"),
    (r"visual\.(.+)", r"local_tower.\1"),
    (r"visual_semantic\.(.+)", r"semantic_tower.\1"),
    (r"prompts_visual_ln\.(.+)", r"semantic_norm.\1"),
    (r"prompts_visual_proj", "semantic_projection"),
    (r"msim\.(.+)", r"interaction.\1"),
    (r"prompts_generator_cmam\.(.+)", r"conditioning.\1"),
    (r"((?:token_embedding|transformer|ln_final)\..+|positional_embedding|text_projection)", r"text_tower.\1"),
    (r"(logit_scale)", r"\1"),
]
# inside what is not open_clip's own
PARTS = [
    (r"^((?:local|semantic)_tower)\.class_embedding$", r"\1.class_token"),
    (r"^((?:local|semantic)_tower)\.proj$", r"\1.projection"),
    (r"^((?:local|semantic)_tower)\.ln_pre\.", r"\1.norm_pre."),
    (r"^((?:local|semantic)_tower)\.ln_post\.", r"\1.norm."),
    (r"^((?:local|semantic)_tower|interaction)\.positional_embedding$", r"\1.positions"),
    (r"^((?:local|semantic)_tower)\.transformer\.resblocks\.", r"\1.blocks."),
    (r"^interaction\.resblocks\.", "interaction.blocks."),
    (r"\.message_fc\.", ".message."),
    (r"\.message_ln\.", ".message_norm."),
    (r"\.in_proj_(weight|bias)$", r".qkv.\1"),
    (r"\.out_proj\.", ".proj."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"^conditioning\.decoder\.", "conditioning.blocks."),
    (r"\.cross_attn\.q_proj\.", ".attn.query."),
    (r"\.cross_attn\.k_proj\.", ".attn.key."),
    (r"\.cross_attn\.v_proj\.", ".attn.value."),
    (r"\.cross_attn\.proj\.", ".attn.proj."),
    (r"(conditioning\.blocks\.\d+)\.norm3\.", r"\1.norm2."),  # there is no second norm in the published blocks
    (r"(conditioning\.blocks\.\d+\.mlp)\.0\.", r"\1.fc1."),
    (r"(conditioning\.blocks\.\d+\.mlp)\.3\.", r"\1.fc2."),
]
# three numbers in OpenAI's archive, and the mask that torch can make again
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")


def our_name(name: str) -> str | None:
    """The authors' name of an entry -> ours, or None if the name is unknown.

    >>> our_name("visual.transformer.resblocks.3.message_fc.weight")
    'local_tower.blocks.3.message.weight'
    """
    ours = find_name(name, NAMES)
    return None if ours is None else _inside(ours)


def _inside(name: str) -> str:
    if name.startswith("text_tower."):
        return name  # open_clip's module, with CLIP's names
    for pattern, ours in PARTS:
        name = re.sub(pattern, ours, name)
    return name


def convert_dk_clip(state: Mapping[str, Tensor]) -> Conversion:
    """The whole model, as the released training writes it under "model"."""
    _want(state, "msim.positional_embedding", "DK-CLIP")
    renamed, dropped = rename("dk_clip", state, our_name, NOT_WEIGHTS)
    return Conversion(renamed, _sizes(state), dropped)


def convert_clip(state: Mapping[str, Tensor]) -> Conversion:
    """OpenAI's CLIP: the local tower without its messages, the texts, the logit scale."""
    _want(state, "visual.conv1.weight", "CLIP with a ViT")
    renamed, dropped = rename("CLIP", state, our_name, NOT_WEIGHTS)
    return Conversion(renamed, {}, dropped)


def convert_x_clip(state: Mapping[str, Tensor]) -> Conversion:
    """X-CLIP, which DK-CLIP grew from: the local tower with its messages, the interaction of what are frames there
    and snippets here, the conditioning, the texts. Its semantic tower stays fresh.

    This follows from the names and shapes of both systems; it was never tried on Microsoft's files.
    """
    _want(state, "mit.positional_embedding", "X-CLIP")
    theirs, dropped = {}, []
    for name, tensor in state.items():
        if name == "mit.positional_embedding":
            dropped.append(name)  # it has a row for every frame; ours has one for every snippet
        else:
            name = re.sub(r"^mit\.", "msim.", name)
            theirs[re.sub(r"^prompts_generator\.", "prompts_generator_cmam.", name)] = tensor
    renamed, not_weights = rename("X-CLIP", theirs, our_name, NOT_WEIGHTS)
    return Conversion(renamed, {}, (*dropped, *not_weights))


def convert_part(part: str, state: Mapping[str, Tensor]) -> Conversion:
    """The parts "clip" and "x_clip" of a composed model."""
    converters = {"clip": convert_clip, "x_clip": convert_x_clip}
    return converters[part](state) if part in converters else Conversion(dict(state))


def _want(state: Mapping[str, Tensor], name: str, what: str) -> None:
    if name not in state:
        first = ", ".join(list(state)[:3]) or "none"
        raise WeightsError(
            f"This is not a checkpoint of {what}: it has no entry '{name}'. It holds {len(state)} entries ({first}, ...)."
        )


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Constructor arguments. How many frames there are stands in no shape, only how many snippets."""
    width, _, patch_size, _ = state["visual.conv1.weight"].shape
    patches = state["visual.positional_embedding"].shape[0] - 1
    context_length, text_width = state["positional_embedding"].shape
    return {
        "img_size": round(patches**0.5) * patch_size,
        "patch_size": patch_size,
        "width": width,
        "depth": count_blocks(state, r"visual\.transformer\.resblocks\.(\d+)\."),
        "embed_dim": state["text_projection"].shape[1],
        "text_width": text_width,
        "text_depth": count_blocks(state, r"transformer\.resblocks\.(\d+)\."),
        "vocab_size": state["token_embedding.weight"].shape[0],
        "context_length": context_length,
        "interaction_depth": count_blocks(state, r"msim\.resblocks\.(\d+)\."),
        "conditioning_depth": count_blocks(state, r"prompts_generator_cmam\.decoder\.(\d+)\."),
    }
