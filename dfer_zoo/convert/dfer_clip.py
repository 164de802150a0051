"""DFER-CLIP's checkpoints, as its training script writes them, -> ours.

Their module holds CLIP as a whole and its parts a second time, so nearly every tensor is there twice; and the embedded
words of the class texts are there too, which says what texts a file was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import open_clip
import torch
from torch import Tensor

from ..convert import Conversion
from ..errors import WeightsError
from ..models.clip_towers import clip_config, tokenize
from ..models.dfer_clip import PROMPTS
from .rename import count_blocks, rename
from .rename import our_name as find_name

DEFAULT_CLIP = "ViT-B-32-quickgelu"

# authors' names -> ours; the first pattern that matches counts
RENAMES = (
    (r"prompt_learner\.ctx", "prompt_learner.contexts"),
    (r"clip_model_\.(token_embedding\.weight)", r"text_encoder.\1"),
    (r"clip_model_\.logit_scale", "logit_scale"),
    (r"temporal_net\.cls_token", "temporal_net.class_token"),
    (r"temporal_net\.pos_embedding", "temporal_net.positions"),
    (r"temporal_net\.temporal_transformer\.layers\.(\d+)\.0\.fn\.norm\.(.+)", r"temporal_net.blocks.\1.norm1.\2"),
    (r"temporal_net\.temporal_transformer\.layers\.(\d+)\.0\.fn\.fn\.to_qkv\.(.+)", r"temporal_net.blocks.\1.attn.qkv.\2"),
    (r"temporal_net\.temporal_transformer\.layers\.(\d+)\.0\.fn\.fn\.to_out\.0\.(.+)", r"temporal_net.blocks.\1.attn.proj.\2"),
    (r"temporal_net\.temporal_transformer\.layers\.(\d+)\.1\.fn\.norm\.(.+)", r"temporal_net.blocks.\1.norm2.\2"),
    (r"temporal_net\.temporal_transformer\.layers\.(\d+)\.1\.fn\.fn\.net\.0\.(.+)", r"temporal_net.blocks.\1.mlp.fc1.\2"),
    (r"temporal_net\.temporal_transformer\.layers\.(\d+)\.1\.fn\.fn\.net\.3\.(.+)", r"temporal_net.blocks.\1.mlp.fc2.\2"),
    (r"((?:image|text)_encoder\..+)", r"\1"),
)  # fmt: skip
# second names -> first names of the same tensors
COPIES = (
    (r"clip_model_\.visual\.(.+)", r"image_encoder.\1"),
    (r"clip_model_\.((?:transformer|ln_final)\..+|positional_embedding|text_projection)", r"text_encoder.\1"),
)
BUFFERS = ("prompt_learner.token_prefix", "prompt_learner.token_suffix")


def convert_dfer_clip(state: Mapping[str, Tensor]) -> Conversion:
    copies = {name: first for name in state if (first := find_name(name, COPIES))}
    for name, first in copies.items():
        if first in state and not torch.equal(state[first], state[name]):
            raise WeightsError(f"'{name}' and '{first}' are one tensor in DFER-CLIP, and differ in this file.")
    renamed, dropped = rename("dfer_clip", state, RENAMES, (*copies, *BUFFERS))
    contexts = state["prompt_learner.ctx"]
    if contexts.ndim not in (2, 3):
        raise WeightsError(
            f"The contexts are {tuple(contexts.shape)}; expected (classes, contexts, width), or one set for all classes."
        )
    model_args: dict[str, Any] = {
        "num_contexts": contexts.shape[-2],
        "class_specific_contexts": contexts.ndim == 3,
        "temporal_depth": count_blocks(renamed, r"temporal_net\.blocks\.(\d+)\."),
        "num_frames": state["temporal_net.pos_embedding"].shape[1] - 1,
        **_classes(state),
    }
    if clip_sizes(state) != clip_config(DEFAULT_CLIP):
        model_args["clip_model"] = clip_sizes(state)
    return Conversion(renamed, model_args, dropped)


def convert_part(part: str, state: Mapping[str, Tensor]) -> Conversion:
    """The part "clip": CLIP in open_clip's names."""
    if part != "clip":
        return Conversion(dict(state))
    return Conversion({our_clip_name(name): tensor for name, tensor in state.items()})


def our_name(name: str) -> str | None:
    """The authors' (first) name of a tensor -> ours."""
    return find_name(name, RENAMES)


def our_clip_name(name: str) -> str:
    """open_clip's name of a tensor -> its name in `DFERCLIP`."""
    if name.startswith("visual."):
        return "image_encoder." + name.removeprefix("visual.")
    return name if name == "logit_scale" else "text_encoder." + name


# -- what the tensors tell ---------------------------------------------------------------------------------------------


def clip_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes of the two towers, as open_clip writes them. Heads are 64 wide in all of OpenAI's models."""
    width, embed_dim = state["image_encoder.proj"].shape
    patch = state["image_encoder.conv1.weight"].shape[-1]
    grid = round((len(state["image_encoder.positional_embedding"]) - 1) ** 0.5)
    layers = _tower_depth(state, "image_encoder")
    vision = {"image_size": grid * patch, "layers": layers, "width": width, "patch_size": patch}
    return {"embed_dim": embed_dim, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text_sizes(state)}


def text_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    vocabulary, width = state["clip_model_.token_embedding.weight"].shape
    return {
        "context_length": len(state["text_encoder.positional_embedding"]),
        "vocab_size": vocabulary,
        "width": width,
        "heads": width // 64,
        "layers": _tower_depth(state, "text_encoder"),
    }


def _tower_depth(state: Mapping[str, Tensor], tower: str) -> int:
    depth = count_blocks(state, tower + r"\.transformer\.resblocks\.(\d+)\.")
    if not depth:
        raise KeyError(f"{tower}.transformer.resblocks.0.ln_1.weight")
    return depth


def _classes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The class texts, read back from the embedded words; labels too where all texts are published ones of one type.

    Without those buffers nothing is known but the number of classes, and that only from class-specific contexts.
    """
    contexts = state["prompt_learner.ctx"]
    if not set(BUFFERS) & state.keys():
        return {"num_classes": len(contexts)} if contexts.ndim == 3 else {}
    prefix, suffix = (state[name] for name in BUFFERS)
    embedding = state["clip_model_.token_embedding.weight"]
    num_classes, num_contexts = len(suffix), contexts.shape[-2]
    if contexts.ndim == 3 and len(contexts) != num_classes:
        raise WeightsError(f"There are contexts for {len(contexts)} classes and texts for {num_classes}.")
    expected = (num_classes, len(state["text_encoder.positional_embedding"]) - 1 - num_contexts)
    if suffix.shape[:2] != expected or prefix.shape[:2] != (num_classes, 1):
        raise WeightsError(
            f"The embedded texts are {tuple(prefix.shape)} and {tuple(suffix.shape)}; with {num_contexts} contexts "
            f"they must be of {num_classes} classes, 1 and {expected[1]} tokens."
        )
    embedded = torch.cat([prefix, suffix], dim=1)  # (C, 77 - num_contexts, W): the placeholders are not kept
    for text_type, texts in PROMPTS["texts"].items():
        published = dict(zip(texts, embedding[_ids(list(texts.values()), embedded)]))
        labels = [label for row in embedded for label, text in published.items() if torch.equal(row, text)]
        if len(labels) == len(set(labels)) == num_classes:
            of_type = {} if text_type == PROMPTS["published"] else {"text_type": text_type}
            return {
                "num_classes": num_classes,
                "labels": labels,
                "prompts": [texts[label] for label in labels],
                **of_type,
            }
    ids = token_ids(embedded, embedding)
    prompts = [open_clip.decode(row[1 : row.argmax()]).strip() for row in ids]
    if not torch.equal(_ids(prompts, embedded), ids):
        raise WeightsError(f"The embedded class texts are not what a tokenizer makes of a text; read back: {prompts}.")
    return {"num_classes": num_classes, "prompts": prompts}


def _ids(prompts: list[str], embedded: Tensor) -> Tensor:
    return tokenize(prompts, 1024)[0][:, : embedded.shape[1]].to(embedded.device)


def token_ids(embedded: Tensor, embedding: Tensor) -> Tensor:
    """Which rows of the table these vectors are, (C, L, W) -> (C, L). A vector that is no row is an error: the texts
    would then not be what the model was trained with."""
    rows, places = embedded.flatten(0, 1).unique(dim=0, return_inverse=True)
    found = torch.empty(len(rows), dtype=torch.long)
    for number, row in enumerate(rows):
        candidates = (embedding[:, 0] == row[0]).nonzero()[:, 0]  # a first look at one column: the table is large
        equal = candidates[(embedding[candidates] == row).all(dim=1)]
        if not len(equal):
            raise WeightsError(
                "The embedded class texts of this file are not rows of its own token embedding, so the texts that it "
                "was trained with cannot be told."
            )
        found[number] = equal[0]
    return found[places].view(embedded.shape[:2])
