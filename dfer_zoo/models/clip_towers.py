"""CLIP's towers, tokenizer and class texts, for the systems that are based on CLIP.

All parts of open_clip are imported here, by public names. open_clip reads the word lists of its tokenizer when it is
imported, so constructors read no file.
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
from .parts import call
from .shortcuts import ClipAttention, ClipMlp, QuickGELU

CONTEXT_LENGTH = 77  # rows of the published position table
CLASS_TOKEN_POSITIONS = ("end", "middle", "front")


# -- texts -------------------------------------------------------------------------------------------------------------


def read_prompts(name: str) -> dict[str, Any]:
    """Read the class texts of a system, ``models/prompts/NAME.json``."""
    source = importlib.resources.files(__package__) / "prompts" / f"{name}.json"
    return json.loads(source.read_text(encoding="utf-8"))


def class_names(
    known: Mapping[int, tuple[str, ...]], num_classes: int | None, labels: Sequence[str] | None
) -> tuple[str, ...]:
    """The class names of a system that classifies by texts: the given labels, or the published ones of that number.

    >>> class_names({2: ("calm", "bored")}, 2, None)
    ('calm', 'bored')
    """
    if labels is None:
        if num_classes and num_classes not in known:
            raise InputError(
                f"This model classifies by texts, and there are no published ones for {num_classes} classes: pass "
                "labels=[...], and prompts=[...] with a description of the face for each label."
            )
        return known[num_classes] if num_classes else ()
    check_labels(labels)
    if num_classes not in (None, len(labels)):
        raise InputError(f"num_classes is {num_classes} but there are {len(labels)} labels.")
    return tuple(labels)


def class_texts(
    labels: Sequence[str], prompts: Sequence[str] | None, published: Mapping[str, str], pattern: str = "{}"
) -> tuple[str, ...]:
    """One text per class: the given prompts, or the published texts if every label has one, or the pattern.

    >>> class_texts(("calm", "bored"), None, {"calm": "a resting face."}, "an expression of {}.")
    ('an expression of calm.', 'an expression of bored.')
    """
    if prompts is None:
        known = all(
            label in published for label in labels
        )  # all or none: descriptions and bare names are not comparable
        return tuple(published[label] if known else pattern.format(label) for label in labels)
    prompts = check_texts("prompts", prompts, ", one for each label")
    if len(prompts) != len(labels):
        raise InputError(f"There are {len(prompts)} prompts and {len(labels)} labels ({', '.join(labels)}).")
    return prompts


def check_texts(name: str, texts: Any, what: str = "") -> tuple[str, ...]:
    """Check for a list of texts: iterating over a single text gives letters, over a mapping its keys."""
    if isinstance(texts, Iterable) and not isinstance(texts, (str, Mapping, Set)):
        found = tuple(texts)
        if all(isinstance(text, str) for text in found):
            return found
    raise InputError(f"{name} must be a list of texts{what}, got {texts!r}.")


def tokenize(texts: Sequence[str], context_length: int = CONTEXT_LENGTH) -> tuple[Tensor, Tensor]:
    """Texts -> (token ids (N, context_length), padded with 0; position (N,) of the end mark of every text).

    >>> ids, ends = tokenize(["happiness."])
    >>> ids[0, :5].tolist(), ends.tolist()
    ([49406, 5096, 269, 49407, 0], [3])
    """
    # open_clip truncates long texts silently, so it gets a long context, and the length is checked here
    ids = open_clip.tokenize(list(texts), context_length=max(1024, context_length))
    ends = ids.argmax(dim=1)  # the end mark has the largest id
    for text, end in zip(texts, ends.tolist()):
        if end >= context_length:
            raise InputError(
                f"A text of {end + 1} tokens does not fit into {context_length}: {text[:60]!r}... Shorten it."
            )
    return ids[:, :context_length].contiguous(), ends


# -- towers ------------------------------------------------------------------------------------------------------------


def clip_config(clip_model: str | Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of CLIP in the format of open_clip, by one of its model names or given directly."""
    if isinstance(clip_model, str):
        if clip_model not in open_clip.list_models():  # excludes "hf-hub:" names, which need the network
            names = [name for name in open_clip.list_models() if name.endswith("-quickgelu")]
            raise InputError(f"open_clip has no model '{clip_model}'.{suggest(clip_model, names)}")
        config = open_clip.get_model_config(clip_model)
    else:
        config = dict(clip_model)
    if missing := sorted({"embed_dim", "vision_cfg", "text_cfg"} - config.keys()):
        raise InputError(f"The configuration of CLIP lacks {', '.join(missing)}; it has {sorted(config)}.")
    if not config.get("quick_gelu"):
        raise InputError(
            f"{clip_model!r} is CLIP with the exact GELU. OpenAI's weights were trained with QuickGELU but load into both. "
            "Use the open_clip model whose name ends in '-quickgelu', or set quick_gelu=True."
        )
    return config


def build_clip(clip_model: str | Mapping[str, Any], *, vision: bool = True) -> open_clip.CLIP:
    """open_clip's CLIP with random weights. Without ``vision`` its image tower is a small stub."""
    config = clip_config(clip_model)
    image_sizes = config["vision_cfg"] if vision else {"image_size": 8, "patch_size": 8, "width": 64, "layers": 1}
    clip = open_clip.CLIP(config["embed_dim"], image_sizes, config["text_cfg"], quick_gelu=True)
    if not hasattr(clip.visual, "class_embedding"):
        raise InputError(f"The image tower of {clip_model!r} is a {type(clip.visual).__name__}; expected CLIP's ViT.")
    probe = torch.linspace(-3, 3, 13)
    for block in [*clip.visual.transformer.resblocks, *clip.transformer.resblocks]:
        if not torch.allclose(block.mlp[1](probe), probe * torch.sigmoid(1.702 * probe), atol=1e-6):
            raise InputError(f"{clip_model!r} was built with the activation {block.mlp[1]}; expected QuickGELU.")
        fc1, (act, _), fc2 = block.mlp.named_children()
        block.attn.__class__ = ClipAttention
        block.mlp = ClipMlp(OrderedDict([fc1, (act, QuickGELU()), fc2]))
    return clip


def block_at(block: nn.Module, tokens: Tensor, places: Tensor, mask: Tensor | None = None) -> Tensor:
    """The output of one of CLIP's blocks at some positions only.

    tokens (N, L, W), the tokens at these positions (N, P, W) -> (N, P, W)
    """
    context = block.ln_1(tokens)
    attended = block.attn(block.ln_1(places), context, context, attn_mask=mask, need_weights=False)[0]
    places = places + attended
    return places + block.mlp(block.ln_2(places))


def l2_normalize(vectors: Tensor) -> Tensor:
    """Divide vectors by their L2 norms, without an epsilon, as published."""
    return vectors / vectors.norm(dim=-1, keepdim=True)


class TextTower(nn.Module):
    """CLIP's text transformer. It takes embedded words, so that learned vectors can be inserted."""

    causal_mask: Tensor

    def __init__(self, clip: open_clip.CLIP) -> None:
        super().__init__()
        self.token_embedding = clip.token_embedding
        self.positional_embedding = clip.positional_embedding
        self.transformer = clip.transformer
        self.ln_final = clip.ln_final
        self.text_projection = clip.text_projection
        length = len(self.positional_embedding)
        mask = torch.full((length, length), float("-inf")).triu_(
            1
        )  # causal: a token attends to itself and to earlier ones
        self.register_buffer("causal_mask", mask, persistent=False)

    @property
    def width(self) -> int:
        return self.token_embedding.embedding_dim

    @property
    def heads(self) -> int:
        return self.transformer.resblocks[0].attn.num_heads

    def forward(self, words: Tensor, ends: Tensor, run_block: Callable = call) -> Tensor:
        """Embedded words (N, L, width), positions (N,) of the end marks -> features (N, embed_dim), not normalised.

        Tokens after an end mark have no effect, so any L above the largest position works. Pass the model's `run_block`
        to support gradient checkpointing.
        """
        length = words.shape[1]
        tokens = words + self.positional_embedding[:length].to(words.dtype)
        mask = self.causal_mask[:length, :length].to(tokens.dtype)
        *blocks, last = self.transformer.resblocks
        for block in blocks:
            tokens = run_block(block, tokens, None, None, mask)
        # only the end marks are used, so the last block computes only them
        each = torch.arange(len(ends), device=ends.device)
        seen_by_ends = mask[ends][:, None].repeat_interleave(self.heads, dim=0)  # (N * heads, 1, L)
        marks = run_block(block_at, last, tokens, tokens[each, ends][:, None], seen_by_ends)
        return self.ln_final(marks[:, 0]) @ self.text_projection

    def encode_ids(self, ids: Tensor, ends: Tensor, run_block: Callable = call, *, length: int | None = None) -> Tensor:
        """Token ids (N, L) and end positions of `tokenize` -> features (N, embed_dim), not normalised.

        Pass the ``length`` of the longest text when exporting: computing it is data-dependent and breaks tracing.
        """
        length = int(ends.max()) + 1 if length is None else length
        return self(self.token_embedding(ids[:, :length]), ends, run_block)


class PromptLearner(nn.Module):
    """Learned vectors ("contexts") next to the words of every class text: ``[start] X X X X a smiling mouth. [end]``.

    The contexts are before the words (``class_token_position="end"``), after them ("front"), or half before and half
    after ("middle"). Each class has its own contexts, or all classes share one set.
    """

    token_ids: Tensor  # (C, 77), as tokenised: contexts first
    words: Tensor  # (C, 77), as arranged
    slots: Tensor  # (C, 77), number of the context at this position, or -1
    ends: Tensor  # (C,), positions of the end marks, the same in every arrangement

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
        self.length = (
            int(ends.max()) + 1 if len(prompts) else 1
        )  # causal attention: tokens after an end mark have no effect
        # computed from the texts, so files do not store them
        self.register_buffer("token_ids", token_ids, persistent=False)
        self.register_buffer("words", token_ids.gather(1, order), persistent=False)
        self.register_buffer(
            "slots", slots, persistent=False
        )  # (C, 77), number of the context that stands there, or -1
        self.register_buffer("ends", ends, persistent=False)

    def init_weights(self) -> None:
        nn.init.normal_(self.contexts, std=0.02)

    def forward(self, token_embedding: nn.Module, length: int | None = None) -> Tensor:
        """The embedded prompts (C, length, width); default length: the longest prompt."""
        length = self.length if length is None else length
        words = token_embedding(self.words[:, :length])
        if not self.num_contexts:
            return words
        slots = self.slots[:, :length]
        contexts = self.contexts.expand(len(words), -1, -1)
        each = torch.arange(len(words), device=slots.device)[:, None]
        return torch.where(slots[..., None] >= 0, contexts[each, slots.clamp(min=0)], words)


def _arrangement(ends: Tensor, num_contexts: int, position: str, length: int) -> tuple[Tensor, Tensor]:
    """For every position of every prompt: the index of the token of the tokenised text, and of the context (or -1)."""
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
    """Caches a tensor that depends on parameters only, until their values change.

    Every call compares a checksum of all values, because cheaper rules fail: version counters do not notice
    ``parameter.data.mul_()``. A checksum of CLIP's text tower takes about 25 ms on a CPU, and encoding the texts several
    times that. On other devices the texts are encoded in a few milliseconds, so nothing is cached there.

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
        """A copy of the cached tensor. It is computed if a value changed, if gradients are required, and in traces."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return compute()
        values = _checksums(list(parameters))
        if values is None:
            return compute()
        values = _autocast_state(), values
        kept = self._kept
        if kept is not None and kept[0] == values:
            return _copied(kept[1])
        # not as inference tensors, which cannot take part in a backward pass
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
    """Checksums of the values. None if they are not on the CPU or if their gradients are required."""
    if not parameters or (torch.is_grad_enabled() and any(p.requires_grad for p in parameters)):
        return None  # a replica of DataParallel has no parameters
    if not all(type(p) in (nn.Parameter, Tensor) and p.device.type == "cpu" for p in parameters):
        return None
    try:
        data = [p.detach().contiguous() for p in parameters]
        return [(p.shape, p.dtype, zlib.crc32(p.flatten().view(torch.uint8).numpy().data)) for p in data]
    except RuntimeError:  # no values inside a torch.func transform or with fake tensors
        return None
