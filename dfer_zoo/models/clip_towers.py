"""CLIP's towers and its way with texts, for the systems that stand on it.

Everything of open_clip enters here: its towers, its tokenizer, both by public names. The word lists of the tokenizer
are read when open_clip is imported, so that constructors read no file.
"""

from __future__ import annotations

import importlib.resources
import json
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from ..errors import InputError, suggest
from ..weights.record import check_labels
from .layers import call
from .shortcuts import ClipMlp

CONTEXT_LENGTH = 77  # rows of the published position table
CLASS_TOKEN_POSITIONS = ("end", "middle", "front")


# -- texts -------------------------------------------------------------------------------------------------------------


def read_prompts(name: str) -> dict[str, Any]:
    """The class texts of a system, as data: ``dfer_zoo/prompts/NAME.json``."""
    source = importlib.resources.files(__package__) / "prompts" / f"{name}.json"
    return json.loads(source.read_text(encoding="utf-8"))


def class_names(
    known: Mapping[int, tuple[str, ...]], num_classes: int | None, labels: Sequence[str] | None
) -> tuple[str, ...]:
    """The classes of a system that tells them apart by texts: the given labels, or the published ones of that number.

    >>> class_names({2: ("calm", "bored")}, 2, None)
    ('calm', 'bored')
    """
    if labels is None:
        if num_classes and num_classes not in known:
            raise InputError(
                f"This model tells classes apart by texts, and {num_classes} classes have none: give labels=[...], and "
                "prompts=[...] that describe a face of each."
            )
        return known[num_classes] if num_classes else ()
    check_labels(labels)
    if num_classes not in (None, len(labels)):
        raise InputError(f"num_classes is {num_classes} and there are {len(labels)} labels.")
    return tuple(labels)


def class_texts(
    labels: Sequence[str], prompts: Sequence[str] | None, published: Mapping[str, str], pattern: str = "{}"
) -> tuple[str, ...]:
    """One text per class: the user's own; else the published ones, where every label has one; else the pattern.

    >>> class_texts(("calm", "bored"), None, {"calm": "a resting face."}, "an expression of {}.")
    ('an expression of calm.', 'an expression of bored.')
    """
    if prompts is None:
        known = all(label in published for label in labels)  # never half of them: descriptions and bare names differ
        return tuple(published[label] if known else pattern.format(label) for label in labels)
    prompts = check_texts("prompts", prompts, ", one for each label")
    if len(prompts) != len(labels):
        raise InputError(f"There are {len(prompts)} prompts and {len(labels)} labels ({', '.join(labels)}).")
    return prompts


def check_texts(name: str, texts: Any, what: str = "") -> tuple[str, ...]:
    """Texts in an order. A single text would be taken for its letters, and a mapping for its keys."""
    if isinstance(texts, Iterable) and not isinstance(texts, (str, Mapping, Set)):
        found = tuple(texts)
        if all(isinstance(text, str) for text in found):
            return found
    raise InputError(f"{name} must be a list of texts{what}, got {texts!r}.")


def tokenize(texts: Sequence[str], context_length: int = CONTEXT_LENGTH) -> tuple[Tensor, Tensor]:
    """Texts -> (ids (N, context_length), padded with 0; the position (N,) of every text's end mark).

    >>> ids, ends = tokenize(["happiness."])
    >>> ids[0, :5].tolist(), ends.tolist()
    ([49406, 5096, 269, 49407, 0], [3])
    """
    # open_clip cuts long texts in silence, so it gets room, and the length is looked at here
    ids = open_clip.tokenize(list(texts), context_length=max(1024, context_length))
    ends = ids.argmax(dim=1)  # the end mark has the largest id of all
    for text, end in zip(texts, ends.tolist()):
        if end >= context_length:
            raise InputError(
                f"A text of {end + 1} tokens does not fit into {context_length}: {text[:60]!r}... Shorten it."
            )
    return ids[:, :context_length].contiguous(), ends


# -- towers ------------------------------------------------------------------------------------------------------------


def clip_config(clip_model: str | Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of CLIP, as open_clip writes them, from one of its model names or given outright."""
    if isinstance(clip_model, str):
        if (
            clip_model not in open_clip.list_models()
        ):  # "hf-hub:" names, which would ask the network, are not among them
            names = [name for name in open_clip.list_models() if name.endswith("-quickgelu")]
            raise InputError(f"open_clip has no model '{clip_model}'.{suggest(clip_model, names)}")
        config = open_clip.get_model_config(clip_model)
    else:
        config = dict(clip_model)
    if missing := sorted({"embed_dim", "vision_cfg", "text_cfg"} - config.keys()):
        raise InputError(f"The configuration of CLIP lacks {', '.join(missing)}; it has {sorted(config)}.")
    if not config.get("quick_gelu"):
        raise InputError(
            f"{clip_model!r} is CLIP with the exact GELU; OpenAI's weights were trained with QuickGELU and load into "
            "either without a word. Take the open_clip model whose name ends in '-quickgelu', or set quick_gelu=True."
        )
    return config


def build_clip(clip_model: str | Mapping[str, Any], *, vision: bool = True) -> open_clip.CLIP:
    """open_clip's CLIP with random weights; without ``vision`` its image tower is a stub for whoever has their own."""
    config = clip_config(clip_model)
    image_sizes = config["vision_cfg"] if vision else {"image_size": 8, "patch_size": 8, "width": 64, "layers": 1}
    clip = open_clip.CLIP(config["embed_dim"], image_sizes, config["text_cfg"], quick_gelu=True)
    if not hasattr(clip.visual, "class_embedding"):
        raise InputError(f"The image tower of {clip_model!r} is a {type(clip.visual).__name__}; expected CLIP's ViT.")
    probe = torch.linspace(-3, 3, 13)
    for block in [*clip.visual.transformer.resblocks, *clip.transformer.resblocks]:
        if not torch.allclose(block.mlp[1](probe), probe * torch.sigmoid(1.702 * probe), atol=1e-6):
            raise InputError(f"{clip_model!r} was built with {block.mlp[1]} for an activation; expected QuickGELU.")
        block.mlp = ClipMlp(OrderedDict(block.mlp.named_children()))
    return clip


def block_at(block: nn.Module, tokens: Tensor, places: Tensor, mask: Tensor | None = None) -> Tensor:
    """What one of CLIP's blocks gives at a few places, without computing the rest.

    tokens (N, L, W), the tokens at the places (N, P, W) -> (N, P, W)
    """
    context = block.ln_1(tokens)
    attended = block.attn(block.ln_1(places), context, context, attn_mask=mask, need_weights=False)[0]
    places = places + attended
    return places + block.mlp(block.ln_2(places))


def l2_normalize(vectors: Tensor) -> Tensor:
    """Divided by their norms; as published without a floor."""
    return vectors / vectors.norm(dim=-1, keepdim=True)


class TextTower(nn.Module):
    """CLIP's text transformer, from embedded words on: between the words there may be learned vectors."""

    causal_mask: Tensor

    def __init__(self, clip: open_clip.CLIP) -> None:
        super().__init__()
        self.token_embedding = clip.token_embedding
        self.positional_embedding = clip.positional_embedding
        self.transformer = clip.transformer
        self.ln_final = clip.ln_final
        self.text_projection = clip.text_projection
        length = len(self.positional_embedding)
        mask = torch.full((length, length), float("-inf")).triu_(1)  # a word sees itself and what is before it
        self.register_buffer("causal_mask", mask, persistent=False)

    @property
    def width(self) -> int:
        return self.token_embedding.embedding_dim

    @property
    def heads(self) -> int:
        return self.transformer.resblocks[0].attn.num_heads

    def forward(self, words: Tensor, ends: Tensor, run_block: Callable = call) -> Tensor:
        """Embedded words (N, L, width), positions (N,) of the end marks -> features (N, embed_dim), not normalised.

        What stands behind an end mark has no effect, so L may be anything above the largest of them.
        ``run_block`` is the model's `run_block`, if it shall checkpoint.
        """
        length = words.shape[1]
        tokens = words + self.positional_embedding[:length].to(words.dtype)
        mask = self.causal_mask[:length, :length].to(tokens.dtype)
        *blocks, last = self.transformer.resblocks
        for block in blocks:
            tokens = run_block(block, tokens, None, None, mask)
        # nothing but the end marks is read, so the last block computes them alone
        each = torch.arange(len(ends), device=ends.device)
        seen_by_ends = mask[ends][:, None].repeat_interleave(self.heads, dim=0)  # (N * heads, 1, L)
        marks = run_block(block_at, last, tokens, tokens[each, ends][:, None], seen_by_ends)
        return self.ln_final(marks[:, 0]) @ self.text_projection

    def encode_ids(self, ids: Tensor, ends: Tensor, run_block: Callable = call, *, length: int | None = None) -> Tensor:
        """Token ids (N, L) and end positions as `tokenize` gives them -> features (N, embed_dim), not normalised.
        Whoever knows the longest text's ``length`` says it: looking for it cannot be traced."""
        length = int(ends.max()) + 1 if length is None else length
        return self(self.token_embedding(ids[:, :length]), ends, run_block)


class PromptLearner(nn.Module):
    """Learned vectors ("contexts") beside the words of every class text: ``[start] X X X X a smiling mouth. [end]``.

    The contexts stand before the words (``class_token_position="end"``), behind them ("front"), or half and half
    ("middle"). There is one set for every class, or one for all.
    """

    token_ids: Tensor  # (C, 77), as tokenised: contexts in front
    words: Tensor  # (C, 77), as arranged
    slots: Tensor  # (C, 77), the number of the context that stands there, or -1
    ends: Tensor  # (C,), where the end marks are, the same in every arrangement

    def __init__(
        self,
        prompts: Sequence[str],
        width: int,
        num_contexts: int,
        *,
        class_token_position: str = "end",
        class_specific: bool = True,
        context_length: int = CONTEXT_LENGTH,
    ) -> None:
        super().__init__()
        if class_token_position not in CLASS_TOKEN_POSITIONS:
            raise InputError(
                f"class_token_position is '{class_token_position}'; expected one of {', '.join(CLASS_TOKEN_POSITIONS)}."
            )
        if num_contexts < 0:
            raise InputError(f"The number of contexts is {num_contexts}; expected 0 or more.")
        self.num_contexts = num_contexts
        shape = (len(prompts), num_contexts, width) if class_specific else (num_contexts, width)
        self.contexts = nn.Parameter(torch.empty(shape))
        self.init_weights()

        placeholders = "X " * num_contexts
        token_ids, ends = tokenize([placeholders + text for text in prompts], context_length)
        order, slots = _arrangement(ends, num_contexts, class_token_position, context_length)
        self.length = int(ends.max()) + 1 if len(prompts) else 1  # causal attention: nothing behind an end mark matters
        # not in the files: they follow from the texts
        self.register_buffer("token_ids", token_ids, persistent=False)
        self.register_buffer("words", token_ids.gather(1, order), persistent=False)
        self.register_buffer(
            "slots", slots, persistent=False
        )  # (C, 77), number of the context that stands there, or -1
        self.register_buffer("ends", ends, persistent=False)

    def init_weights(self) -> None:
        nn.init.normal_(self.contexts, std=0.02)

    def forward(self, token_embedding: nn.Module, length: int | None = None) -> Tensor:
        """The embedded prompts (C, length, width); by default as long as the longest."""
        length = self.length if length is None else length
        words = token_embedding(self.words[:, :length])
        if not self.num_contexts:
            return words
        slots = self.slots[:, :length]
        contexts = self.contexts.expand(len(words), -1, -1)
        each = torch.arange(len(words), device=slots.device)[:, None]
        return torch.where(slots[..., None] >= 0, contexts[each, slots.clamp(min=0)], words)


def _arrangement(ends: Tensor, num_contexts: int, position: str, length: int) -> tuple[Tensor, Tensor]:
    """For every place of every prompt: which token of the tokenised text stands there, and which context (or -1)."""
    behind = {"end": 0, "middle": num_contexts - num_contexts // 2, "front": num_contexts}[position]
    ahead = num_contexts - behind
    order = torch.arange(length).repeat(len(ends), 1)
    slots = torch.full_like(order, -1)
    for row, end in enumerate(ends.tolist()):
        text = torch.arange(1 + num_contexts, end)  # the words between the placeholders and the end mark
        first, last = 1 + ahead, 1 + ahead + len(text)
        order[row, first:last] = text
        slots[row, 1:first] = torch.arange(ahead)
        slots[row, last:end] = torch.arange(ahead, num_contexts)
    return order, slots


# -- features that depend on weights only ------------------------------------------------------------------------------


class FeatureCache:
    """Keeps a tensor that is computed from parameters alone, for as long as their values stay the same.

    Every call compares a checksum of all values, because no cheaper rule is right: version counters do not see
    ``parameter.data.mul_()``. A checksum of CLIP's text tower takes about 25 ms on a CPU, encoding the texts several
    times that. On other devices the texts are encoded in a few milliseconds, so nothing is kept there.

    >>> features = FeatureCache()
    >>> weight = torch.ones(2)
    >>> features([weight], lambda: weight * 2)
    tensor([2., 2.])
    >>> weight.data.mul_(3)
    tensor([3., 3.])
    >>> features([weight], lambda: weight * 2)
    tensor([6., 6.])
    """

    def __init__(self) -> None:
        self._kept: tuple[Any, Tensor] | None = None

    def drop(self) -> None:
        self._kept = None

    def __call__(self, parameters: Iterable[Tensor], compute: Callable[[], Tensor]) -> Tensor:
        """A copy of the kept features. They are computed if a value changed, if a gradient is required, and in traces."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return compute()
        values = _checksums(list(parameters))
        if values is None:
            return compute()
        values = _autocast_state(), values
        kept = self._kept
        if kept is not None and kept[0] == values:
            return _copied(kept[1])
        # not as inference tensors: those could not be used in a backward pass later
        with torch.inference_mode(False), torch.no_grad():
            features = compute()
            if type(features) is not Tensor:  # a fake tensor, from a mode that computes shapes only
                return features
            self._kept = values, features
        return _copied(features)

    def __reduce__(self) -> tuple[type[FeatureCache], tuple[()]]:
        return FeatureCache, ()  # copies and pickles of a model start empty


def _copied(features: Tensor) -> Tensor:
    """A copy that the caller may write to."""
    with torch.inference_mode(False), torch.no_grad():
        return features.clone()


def _autocast_state() -> Any:
    return torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")


def _checksums(parameters: Sequence[Tensor]) -> Any:
    """What the values are, or None where they are not on the CPU, or where a gradient of them is required."""
    if not parameters or (torch.is_grad_enabled() and any(p.requires_grad for p in parameters)):
        return None  # a replica of DataParallel has no parameters
    if not all(type(p) in (nn.Parameter, Tensor) and p.device.type == "cpu" for p in parameters):
        return None
    try:
        data = [p.detach().contiguous() for p in parameters]
        return [(p.shape, p.dtype, zlib.crc32(p.flatten().view(torch.uint8).numpy().data)) for p in data]
    except RuntimeError:  # inside a transform of torch.func or a mode of fake tensors there are no values
        return None
