"""DK-CLIP: CLIP as a video model whose classes are texts about facial action units.

"Domain Knowledge Enhanced Vision-Language Pretrained Model for Dynamic Facial Expression
Recognition", ACM Multimedia 2024, doi 10.1145/3664647.3681708.

Neighbouring frames exchange messages inside every block of CLIP's image tower; a small transformer merges snippets of
frames; snippets that differ from the clip are erased; the patches of the others condition the class texts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..errors import InputError
from ..weights.record import VideoSpec, check_count
from .base import DferModel, LoadReport, check_backbones, check_shape, fill, plain_count
from .clip_towers import (
    FeatureCache,
    TextTower,
    build_clip,
    class_names,
    class_texts,
    l2_normalize,
    read_prompts,
    tokenize,
)
from .layers import Block
from .message_towers import HEAD_WIDTH, LocalTower, SemanticTower, init_attention
from .parts import Mlp, QuickGELU, init_linears

TOKENS = 49408  # vocabulary of CLIP's tokenizer
PROMPTS = read_prompts("dk_clip")

# backbone -> pattern of the names that it fills
_TEXTS = r"text_tower\.|logit_scale$"
PARTS = {
    "clip": rf"{_TEXTS}|local_tower\.(?!.*\.message)",
    "x_clip": rf"{_TEXTS}|local_tower\.|semantic_norm\.|semantic_projection$|interaction\.blocks\.|conditioning\.",
}


class SnippetInteraction(nn.Module):
    """MSIM: attention among the snippets of a clip, then their mean."""

    def __init__(self, width: int, snippets: int, depth: int = 1) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.empty(1, snippets, width))
        self.blocks = nn.ModuleList(
            Block(width, width // HEAD_WIDTH, qkv_bias=True, act_layer=QuickGELU, norm_layer=nn.LayerNorm)
            for _ in range(depth)
        )

    def forward(self, snippets: Tensor) -> Tensor:
        """(B, S, E) -> (B, E)"""
        tokens = snippets + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        return (tokens + snippets).mean(1)  # the residual has no positions

    def attention(self, snippets: Tensor) -> Tensor:
        """The attention that each snippet receives in the last block, (B, S): the mean over heads and queries."""
        tokens = snippets + self.positions
        *blocks, last = self.blocks
        for block in blocks:
            tokens = block(tokens)
        queries_keys_values = last.attn.qkv(last.norm1(tokens))
        queries, keys, _ = rearrange(queries_keys_values, "b s (three h d) -> three b h s d", three=3, d=HEAD_WIDTH)
        return (queries @ keys.transpose(-2, -1) * HEAD_WIDTH**-0.5).softmax(-1).mean((1, 2))

    def init_weights(self) -> None:
        nn.init.trunc_normal_(self.positions, std=0.02)
        init_linears(self)
        init_attention(self, projection=False)


class CrossAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.proj = nn.Linear(width, width)

    def forward(self, texts: Tensor, patches: Tensor) -> Tensor:
        """(B, K, E), (B, P, E) -> (B, K, E)"""
        queries, keys, values = (
            rearrange(part, "b n (h d) -> b h n d", d=HEAD_WIDTH)
            for part in (self.query(texts), self.key(patches), self.value(patches))
        )
        attended = F.scaled_dot_product_attention(queries, keys, values)
        return self.proj(rearrange(attended, "b h n d -> b n (h d)"))


class ConditioningBlock(nn.Module):
    """Cross-attention from texts to patches, then an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = CrossAttention(width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, 4 * width, act_layer=QuickGELU)

    def forward(self, texts: Tensor, patches: Tensor) -> Tensor:
        texts = texts + self.attn(self.norm1(texts), patches)
        return texts + self.mlp(self.norm2(texts))


class TextConditioning(nn.Module):
    """Computes the update of the class texts for a clip."""

    def __init__(self, width: int, depth: int = 2, alpha: float = 0.1) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(ConditioningBlock(width) for _ in range(depth))
        self.alpha = nn.Parameter(torch.full((width,), alpha))

    def forward(self, texts: Tensor, patches: Tensor) -> Tensor:
        """texts (B, K, E), kept patch tokens (B, P, E) -> (B, K, E)"""
        patches = self.norm(patches)
        for block in self.blocks:
            texts = block(texts, patches)
        return self.alpha * texts  # includes the texts themselves: the blocks have residuals


class ClipDetails(NamedTuple):
    """The output of DK-CLIP for clips of S snippets, in detail."""

    logits: Tensor  # (B, K), of the whole clip: the model's output
    local_logits: (
        Tensor  # (B, S, K), of every snippet, weighted; zero if erased. The published logits are their sum over S
    )
    embedding: Tensor  # (B, E), of the clip, normalised
    snippet_weights: Tensor  # (B, S), sums to 1
    erased: Tensor  # (B, S), True: the snippet differs from its clip and is left out
    similarity: Tensor  # (B, S), cosine similarity of snippet and clip, times the logit scale
    attention: Tensor  # (B, S), attention that a snippet receives from the others


class VideoEmbedding(NamedTuple):
    clip: Tensor  # (B, E), normalised
    snippets: Tensor  # (B, S, E), normalised
    patches: Tensor  # (B, S, P, E), to condition the texts
    raw_snippets: Tensor  # (B, S, E), not normalised


def weigh_snippets(similarity: Tensor, erase_below: float = 0.15) -> tuple[Tensor, Tensor]:
    """Similarities of snippets to their clip (B, S) -> (weights (B, S), whether they are erased (B, S)).

    If all are equal, as in a static clip, all weights are equal and none is erased. The published formula divides by
    zero in this case.
    """
    low, high = similarity.amin(1, keepdim=True), similarity.amax(1, keepdim=True)
    spread = high - low
    moves = spread > 0
    scaled = (similarity - low) / torch.where(moves, spread, 1.0)
    weights = scaled.softmax(1)
    return weights, (weights < erase_below) & moves


def kept_mean(patches: Tensor, erased: Tensor) -> Tensor:
    """Mean of the patch tokens (B, S, P, E) over the snippets that are not erased; zeros if all are."""
    kept = (~erased).to(patches.dtype)
    return torch.einsum("bs,bspe->bpe", kept, patches) / kept.sum(1).clamp(min=1)[:, None, None]


def weighted_local_logits(local_logits: Tensor, weights: Tensor, erased: Tensor) -> Tensor:
    """(B, S, K). The weights of the kept snippets are not renormalised."""
    return local_logits * (weights * ~erased)[..., None]


def consistency(logits: Tensor, others: Tensor) -> Tensor:
    """Distance between the probabilities of two heads, as published: a cross entropy that takes the probabilities of the
    first as logits. Both receive gradients."""
    return F.cross_entropy(logits.softmax(-1), others.softmax(-1))


def global_local_loss(logits: Tensor, local_logits: Tensor, targets: Tensor, criterion: Callable) -> Tensor:
    """The criterion on the logits of the clip (B, K) and on the sum over snippets (B, S, K), plus their consistency."""
    local = local_logits.sum(1)
    return criterion(logits, targets) + criterion(local, targets) + consistency(local, logits)


class DKCLIP(DferModel):
    """Face frames -> logits, by comparison with class texts.

    >>> model = DKCLIP(labels=("calm", "bored"), prompts=("calm with a still face", "bored with drooping upper lids"))
    >>> model(torch.rand(1, 16, 3, 224, 224)).shape        # doctest: +SKIP
    torch.Size([1, 2])
    >>> model.explain(video).snippet_weights               # doctest: +SKIP
    """

    token_ids: Tensor
    text_ends: Tensor
    head_prefixes: ClassVar[tuple[str, ...]] = ()  # the head consists of texts, which are not parameters
    head_arguments = ("prompts",)
    default_labels: ClassVar[Mapping[int, tuple[str, ...]]] = {
        int(count): tuple(labels) for count, labels in PROMPTS["labels"].items()
    }
    # the published semantic tower embeds its class token and discards the result
    unused_parameters: tuple[str, ...] = ("semantic_tower.norm.*", "semantic_tower.projection")
    texts_and_scale: ClassVar[tuple[str, ...]] = ("text_tower.*", "logit_scale")
    # the released training freezes by parts of names, which include two modules that keep their random values
    frozen_parameters: ClassVar[tuple[str, ...]] = (*texts_and_scale, "interaction.*", "semantic_tower.*")
    consistency_epochs = 14  # epochs with the loss of snippets

    def __init__(
        self,
        *,
        labels: Sequence[str] | None = None,
        prompts: Sequence[str] | None = None,
        num_classes: int | None = None,
        num_frames: int = 16,
        frames_per_snippet: int = 4,
        img_size: int = 224,
        patch_size: int = 16,
        width: int = 768,
        depth: int = 12,
        embed_dim: int = 512,
        text_width: int = 512,
        text_depth: int = 12,
        vocab_size: int = TOKENS,
        context_length: int = 77,
        interaction_depth: int = 1,
        conditioning_depth: int = 2,
        alpha: float = 0.1,
        erase_below: float = 0.15,
        drop_path_rate: float = 0.0,
    ) -> None:
        labels = class_names(self.default_labels, 7 if num_classes is None and labels is None else num_classes, labels)
        widths = {"width": width, "embed_dim": embed_dim, "text_width": text_width}
        counts = {
            "num_frames": num_frames,
            "frames_per_snippet": frames_per_snippet,
            "img_size": img_size,
            "patch_size": patch_size,
            "depth": depth,
            "text_depth": text_depth,
            "interaction_depth": interaction_depth,
            "vocab_size": vocab_size,
            "context_length": context_length,
        }
        for name, count in (counts | widths).items():
            check_count(name, count)
        for name, size in widths.items():
            if size % HEAD_WIDTH:
                raise InputError(
                    f"{name} is {size}; expected a multiple of {HEAD_WIDTH}, the width of an attention head."
                )
        if num_frames % frames_per_snippet:
            raise InputError(f"{num_frames} frames cannot be cut into snippets of {frames_per_snippet}.")
        if img_size % patch_size:
            raise InputError(f"An image of {img_size} pixels cannot be cut into patches of {patch_size}.")
        if vocab_size < TOKENS:
            raise InputError(
                f"vocab_size is {vocab_size}; expected {TOKENS} or more, the vocabulary of CLIP's tokenizer."
            )
        super().__init__(num_classes=len(labels), num_features=embed_dim, video_spec=video_spec(num_frames, img_size))
        self.snippets = num_frames // frames_per_snippet
        self.context_length = context_length
        self.erase_below = erase_below

        self.local_tower = LocalTower(img_size, patch_size, width, depth, embed_dim, drop_path_rate)
        self.semantic_tower = SemanticTower(width, depth, (img_size // patch_size) ** 2, embed_dim, drop_path_rate)
        self.semantic_norm = nn.LayerNorm(width)
        self.semantic_projection = nn.Parameter(torch.empty(width, embed_dim))
        self.interaction = SnippetInteraction(embed_dim, self.snippets, interaction_depth)
        self.conditioning = TextConditioning(embed_dim, conditioning_depth, alpha)
        self.text_tower = TextTower(
            build_clip(clip_sizes(embed_dim, text_width, text_depth, vocab_size, context_length), vision=False)
        )
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.set_classes(labels, prompts)
        self.init_unless_loading()

    # -- classes ---------------------------------------------------------------------------------------------------

    def set_classes(self, labels: tuple[str, ...], prompts: Sequence[str] | None = None) -> None:
        """Set the classes and their texts. Default: the published texts, or the names if a label has none."""
        texts = class_texts(labels, prompts, PROMPTS["texts"][PROMPTS["published"]])
        ids, ends = tokenize(texts, self.context_length) if texts else (torch.zeros(0, 1).long(), torch.zeros(0).long())
        device = self.logit_scale.device
        self._text_length = int(ends.max()) + 1 if len(texts) else 1
        # computed from the texts, so files do not store them
        self.register_buffer("token_ids", ids.to(device), persistent=False)
        self.register_buffer("text_ends", ends.to(device), persistent=False)
        self._text_features = FeatureCache()
        self.prompts, self.labels, self.num_classes = texts, labels, len(texts)

    def reset_classifier(self, classes: int | Sequence[str], prompts: Sequence[str] | None = None) -> None:
        """Replace the classes and their texts.

        >>> model.reset_classifier(("calm", "bored"), prompts=("calm with ...", "bored with ..."))  # doctest: +SKIP
        """
        classes = plain_count(classes)
        count, names = (classes, None) if isinstance(classes, int) else (None, classes)
        labels = class_names(self.default_labels, count, names)
        self.set_classes(labels, prompts)

    def get_classifier(self) -> nn.Module:
        """The module that turns the texts into the classifier weights of a clip."""
        return self.conditioning

    def text_features(self) -> Tensor:
        """The encoded class texts (K, E), not conditioned on a clip. Cached until texts or weights change."""
        if not self.num_classes:
            return self.semantic_projection.new_zeros(0, self.num_features)
        return self._text_features(self.text_tower.parameters(), self._encode_texts)

    def _encode_texts(self) -> Tensor:
        # causal attention: tokens after the last end mark have no effect
        words = self.text_tower.token_embedding(self.token_ids[:, : self._text_length])
        return self.text_tower(words, self.text_ends, self.run_block)

    def train(self, mode: bool = True) -> DKCLIP:
        self._text_features.drop()
        super().train(mode)
        return self

    def _apply(self, *args: Any, **kwargs: Any) -> DKCLIP:
        self._text_features.drop()  # otherwise the old device keeps them until the next clip
        return super()._apply(*args, **kwargs)

    # -- forward ---------------------------------------------------------------------------------------------------

    def embed_video(self, video: Tensor) -> VideoEmbedding:
        spec = self.video_spec
        check_shape("video", video, "(B, T, 3, H, W)", (None, spec.num_frames, 3, spec.img_size, spec.img_size))
        batch, snippets = video.shape[0], self.snippets
        # as published: messages in groups of T // N frames, snippets of N frames; the same only if T = N * N
        tokens = self.local_tower(video.flatten(0, 1), snippets, self.run_block)
        frames = self.local_tower.embed(tokens[:, 0])
        clip_snippets = rearrange(frames, "(b s n) e -> b s n e", b=batch, s=snippets).mean(2)
        patches = rearrange(tokens[:, 1:], "(b s n) p d -> b s n p d", b=batch, s=snippets).mean(2)

        tokens = self.semantic_tower(patches, self.run_block)
        patches = self.semantic_norm(tokens[:, 1:]) @ self.semantic_projection
        patches = rearrange(patches, "(b s) p e -> b s p e", b=batch)

        clip = self.interaction(clip_snippets)
        return VideoEmbedding(l2_normalize(clip), l2_normalize(clip_snippets), patches, clip_snippets)

    def similarity(self, embedding: VideoEmbedding) -> Tensor:
        """Scaled cosine similarity of every snippet to its clip, (B, S). In float32 at least: the snippets of a clip are
        similar, and small differences decide which are erased."""
        kind = torch.promote_types(embedding.clip.dtype, torch.float32)
        clip, snippets = embedding.clip.to(kind), embedding.snippets.to(kind)
        return self.logit_scale.to(kind).exp() * (clip[:, None] * snippets).sum(-1)

    def forward_features(self, video: Tensor) -> Tensor:  # type: ignore[override]
        """(B, 1 + P, E): the clip embedding, then the mean patch tokens of its kept snippets"""
        embedding = self.embed_video(video)
        _, erased = weigh_snippets(self.similarity(embedding), self.erase_below)
        return torch.cat([embedding.clip[:, None], kept_mean(embedding.patches, erased)], dim=1)

    def conditioned_texts(self, patches: Tensor) -> Tensor:
        """The class texts conditioned on the kept patch tokens (B, P, E) -> (B, K, E), normalised"""
        texts = self.text_features().expand(patches.shape[0], -1, -1)
        return l2_normalize(texts + self.conditioning(texts, patches))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        clip, patches = x[:, 0], x[:, 1:]
        if pre_logits or not self.num_classes:
            return clip
        return self.logit_scale.exp() * torch.einsum("be,bke->bk", clip, self.conditioned_texts(patches))

    def forward(self, video: Tensor) -> Tensor:  # type: ignore[override]
        return self.forward_head(self.forward_features(video))

    def explain(self, video: Tensor) -> ClipDetails:
        """The logits with their origins: the logits, weight and erasure of every snippet."""
        embedding = self.embed_video(video)
        similarity = self.similarity(embedding)
        weights, erased = weigh_snippets(similarity, self.erase_below)
        texts = self.conditioned_texts(kept_mean(embedding.patches, erased))
        scale = self.logit_scale.exp()
        local_logits = scale * torch.einsum("bse,bke->bsk", embedding.snippets, texts)
        return ClipDetails(
            logits=scale * torch.einsum("be,bke->bk", embedding.clip, texts),
            local_logits=weighted_local_logits(local_logits, weights, erased),
            embedding=embedding.clip,
            snippet_weights=weights,
            erased=erased,
            similarity=similarity,
            attention=self.interaction.attention(embedding.raw_snippets),
        )

    # -- training --------------------------------------------------------------------------------------------------

    def training_loss(
        self, inputs: Mapping[str, Tensor | None], targets: Tensor, criterion: Callable, *, epoch: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Losses of the clip, the snippets and their consistency; from `consistency_epochs` on, of the clip only."""
        if epoch >= self.consistency_epochs:
            return super().training_loss(inputs, targets, criterion, epoch=epoch)
        details = self.explain(**inputs)  # type: ignore[arg-type]
        return global_local_loss(details.logits, details.local_logits, targets, criterion), details.logits

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {
            "stem": r"^local_tower\.(?:class_token|positions|patch_embed|norm_pre)",
            "blocks": [
                (r"^local_tower\.blocks\.(\d+)", None),
                # all modules on top of CLIP's image tower, and the texts
                (r"^(?!local_tower\.(?:class_token|positions|patch_embed|norm_pre|blocks)).*", (99999,)),
            ],
        }

    def no_weight_decay(self) -> set[str]:
        tables = {"local_tower.positions", "semantic_tower.positions", "interaction.positions"}
        return tables | {"text_tower.positional_embedding"}

    def config(self) -> dict[str, Any]:
        return {**super().config(), "labels": list(self.labels), "prompts": list(self.prompts)}

    # -- weights ---------------------------------------------------------------------------------------------------

    def init_weights(self) -> None:
        """The published initialisation, for training without CLIP's weights too."""
        for tower in (self.local_tower, self.semantic_tower):
            tower.init_weights()
        nn.init.normal_(self.semantic_projection)  # standard deviation 1, as published
        self.interaction.init_weights()
        init_linears(self.conditioning)

    def load_backbones(self, states: Mapping[str, Mapping[str, Tensor]]) -> LoadReport:
        """Load CLIP as "clip", or X-CLIP as "x_clip", under this model's names."""
        if len(states) != 1 or not states.keys() <= PARTS.keys():
            check_backbones(self, states, next((part for part in PARTS if part in states), "clip"))
        ((part, given),) = states.items()
        wanted = {name for name in self.state_dict() if re.match(PARTS[part], name)}
        return fill(self, given, wanted, what=f"The backbone '{part}' does not fit this dk_clip")


def video_spec(num_frames: int = 16, img_size: int = 224) -> VideoSpec:
    return VideoSpec(
        num_frames=num_frames,
        img_size=img_size,
        sampling="segment_centres",
        short_clip="stretch",
        resize="opencv_bilinear",
        resize_shorter=int(256 / 224 * img_size),
        mean=(0.485, 0.456, 0.406),  # ImageNet's, not CLIP's
        std=(0.229, 0.224, 0.225),
        frame_count="folder",
        min_frames=3,
        frame_size="first",
    )


def clip_sizes(embed_dim: int, width: int, depth: int, vocab_size: int, context_length: int) -> dict[str, Any]:
    """A configuration of open_clip for the text tower."""
    text = {
        "context_length": context_length,
        "vocab_size": vocab_size,
        "width": width,
        "heads": width // HEAD_WIDTH,
        "layers": depth,
    }
    return {"embed_dim": embed_dim, "vision_cfg": {}, "text_cfg": text, "quick_gelu": True}
