"""Convert checkpoints of DK-CLIP, and the files that its training can start from: OpenAI's CLIP and Microsoft's X-CLIP.

All three use CLIP's names for the layers of CLIP, so they share one table.
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

# authors' names -> ours; the first pattern that matches the whole name is used
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
# inside modules that are not open_clip's
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
    (r"(conditioning\.blocks\.\d+)\.norm3\.", r"\1.norm2."),  # the published blocks have no norm2
    (r"(conditioning\.blocks\.\d+\.mlp)\.0\.", r"\1.fc1."),
    (r"(conditioning\.blocks\.\d+\.mlp)\.3\.", r"\1.fc2."),
]
# three numbers in OpenAI's archive, and the causal mask
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")


def our_name(name: str) -> str | None:
    """Our name of an authors' entry, or None if it is unknown.

    >>> our_name("visual.transformer.resblocks.3.message_fc.weight")
    'local_tower.blocks.3.message.weight'
    """
    ours = find_name(name, NAMES)
    return None if ours is None else _inside(ours)


def _inside(name: str) -> str:
    if name.startswith("text_tower."):
        return name  # open_clip's module keeps CLIP's names
    for pattern, ours in PARTS:
        name = re.sub(pattern, ours, name)
    return name


def convert_dk_clip(state: Mapping[str, Tensor]) -> Conversion:
    """The whole model, which the released training stores under "model"."""
    _want(state, "msim.positional_embedding", "DK-CLIP")
    renamed, dropped = rename("dk_clip", state, our_name, NOT_WEIGHTS)
    return Conversion(renamed, _sizes(state), dropped)


def convert_clip(state: Mapping[str, Tensor]) -> Conversion:
    """OpenAI's CLIP: the local tower without messages, the text tower, the logit scale."""
    _want(state, "visual.conv1.weight", "CLIP with a ViT")
    renamed, dropped = rename("CLIP", state, our_name, NOT_WEIGHTS)
    return Conversion(renamed, {}, dropped)


def convert_x_clip(state: Mapping[str, Tensor]) -> Conversion:
    """X-CLIP, on which DK-CLIP is based: the local tower with messages, the interaction (of frames in X-CLIP, of
    snippets here), the conditioning, the text tower. The semantic tower keeps its random values.

    This follows from the names and shapes of both systems. It was never tested with Microsoft's files.
    """
    _want(state, "mit.positional_embedding", "X-CLIP")
    theirs, dropped = {}, []
    for name, tensor in state.items():
        if name == "mit.positional_embedding":
            dropped.append(name)  # one row per frame; ours has one per snippet
        else:
            name = re.sub(r"^mit\.", "msim.", name)
            theirs[re.sub(r"^prompts_generator\.", "prompts_generator_cmam.", name)] = tensor
    renamed, not_weights = rename("X-CLIP", theirs, our_name, NOT_WEIGHTS)
    return Conversion(renamed, {}, (*dropped, *not_weights))


def convert_part(part: str, state: Mapping[str, Tensor]) -> Conversion:
    """The backbones "clip" and "x_clip"."""
    converters = {"clip": convert_clip, "x_clip": convert_x_clip}
    return converters[part](state) if part in converters else Conversion(dict(state))


def _want(state: Mapping[str, Tensor], name: str, what: str) -> None:
    if name not in state:
        first = ", ".join(list(state)[:3]) or "none"
        raise WeightsError(
            f"This is not a checkpoint of {what}: it has no entry '{name}'. It holds {len(state)} entries ({first}, ...)."
        )


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Constructor arguments. The shapes give the number of snippets, but not of frames."""
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
