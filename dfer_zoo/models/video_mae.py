"""VideoMAE: the plain video ViT of the MAE-DFER paper, with the layers that MAE-DFER and HiCMAE share.

Sun, Lian, Liu, Tao. ACM Multimedia 2023, arXiv 2307.02227.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..errors import InputError
from ..weights.record import VideoSpec, check_count
from .base import DferModel, LoadReport, check_backbones, check_shape, fill
from .parts import DropPath, Mlp, init_linears
from .shortcuts import applies, are_linear, attention_of_few, attention_to_few, call_linear, linear

EPS = 1e-6  # of every LayerNorm

VIDEO = VideoSpec(
    num_frames=16,
    img_size=160,
    sampling="strided",
    rate=4,
    segments=2,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)

LABELS = {
    7: ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear"),  # DFEW, FERV39k
    11: (  # MAFW
        "anger",
        "disgust",
        "fear",
        "happiness",
        "neutral",
        "sadness",
        "surprise",
        "contempt",
        "anxiety",
        "helplessness",
        "disappointment",
    ),
}

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "sigmoid": nn.Sigmoid,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
}

# -- tokens ------------------------------------------------------------------------------------------------------------


class Grid(NamedTuple):
    """The size of a clip in tokens."""

    frames: int
    rows: int
    columns: int

    @property
    def tokens(self) -> int:
        return self.frames * self.rows * self.columns

    @classmethod
    def of(cls, num_frames: int, img_size: int | Sequence[int], tubelet: int, patch_size: int) -> Grid:
        height, width = sides(img_size)
        for name, value in (("num_frames", num_frames), ("tubelet", tubelet), ("patch_size", patch_size)):
            check_count(name, value)
        if num_frames % tubelet or height % patch_size or width % patch_size:
            raise InputError(
                f"{num_frames} frames of {height}x{width} cannot be cut into tubelets of {tubelet} frames and "
                f"{patch_size}x{patch_size} pixels."
            )
        return cls(num_frames // tubelet, height // patch_size, width // patch_size)

    def in_regions(self, region: Sequence[int]) -> Grid:
        """The size of the clip in regions of (frames, rows, columns) tokens."""
        if not are_counts(region, 3) or any(have % side for have, side in zip(self, region)):
            raise InputError(
                f"region is {region!r}; expected (frames, rows, columns) that divide a clip of {tuple(self)} tokens."
            )
        return Grid(*(have // side for have, side in zip(self, region)))


def sides(img_size: int | Sequence[int]) -> tuple[int, int]:
    """Return (height, width) from one number or two."""
    pair = (img_size, img_size) if isinstance(img_size, int) else img_size
    if not are_counts(pair, 2):
        raise InputError(f"img_size is {img_size!r}; expected a number of pixels, or two: (height, width).")
    height, width = pair
    return height, width


def are_counts(values: Any, length: int) -> bool:
    return (
        isinstance(values, list | tuple)
        and len(values) == length
        and all(isinstance(value, int) and value > 0 for value in values)
    )


class TubeletEmbedding(nn.Conv3d):
    """Embed tubelets as tokens (published size: 2 frames x 16 x 16 pixels)."""

    def __init__(self, channels: int, width: int, tubelet: int, patch_size: int) -> None:
        cut = (tubelet, patch_size, patch_size)
        super().__init__(channels, width, kernel_size=cut, stride=cut)

    def forward(self, video: Tensor) -> Tensor:  # (B, T, 3, H, W) -> (B, N, D), ordered by time, row, column
        tubelets = super().forward(video.transpose(1, 2))
        return rearrange(tubelets, "b d t h w -> b (t h w) d")


def sinusoidal_table(tokens: int, width: int) -> Tensor:
    """Return fixed position embeddings (1, N, D): sines in even columns, cosines in odd ones. Not in the state dict."""
    column = torch.arange(width, dtype=torch.float64)
    place = torch.arange(tokens, dtype=torch.float64)
    angle = place[:, None] / 10000 ** (2 * (column // 2) / width)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).float()[None]


# -- attention and blocks ----------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Queries attend to a context, by default to themselves. Keys have no bias."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        context_width: int | None = None,
        qkv_bias: bool = True,
        drop: float = 0.0,
        attn_drop: float = 0.0,
    ):
        super().__init__()
        check_heads(width, num_heads)
        self.num_heads, self.attn_drop = num_heads, attn_drop
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(context_width or width, 2 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(width)) if qkv_bias else None
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(drop)

    def forward(self, queries: Tensor, context: Tensor | None = None) -> Tensor:  # (B, N, D), (B, M, D) -> (B, N, D)
        if context is not None and self.is_cheaper_folded(queries, context):
            k, v = self.keys_values(context)
            return attention_to_few(queries, k, v, self.num_heads, self.q.weight, self.q_bias, self.proj)
        context = queries if context is None else context
        q = linear(queries, self.q.weight, self.q_bias)
        if queries.shape[1] == 1 and are_linear(self.kv, self.proj) and applies(self, queries):
            key, value = self.kv.weight.chunk(2)
            return call_linear(self.proj, attention_of_few(q, context, self.num_heads, key, value, self.v_bias))
        k, v = self.keys_values(context)
        seen = attend(q, k, v, self.num_heads, self.attn_drop if self.training else 0.0)
        return self.proj_drop(call_linear(self.proj, seen))

    def keys_values(self, context: Tensor) -> Sequence[Tensor]:
        bias = None if self.v_bias is None else torch.cat([torch.zeros_like(self.v_bias), self.v_bias])
        return linear(context, self.kv.weight, bias).chunk(2, dim=-1)

    def is_cheaper_folded(self, queries: Tensor, context: Tensor) -> bool:
        small = context.shape[1] * self.num_heads < queries.shape[-1] < queries.shape[1]
        return small and are_linear(self.q, self.kv, self.proj) and applies(self, queries)


class JointAttention(nn.Module):
    """Self-attention with one matrix for queries, keys and values, as in the checkpoints of the plain ViT."""

    def __init__(self, width: int, num_heads: int, *, qkv_bias: bool = True, drop: float = 0.0, attn_drop: float = 0.0):
        super().__init__()
        check_heads(width, num_heads)
        self.num_heads, self.attn_drop = num_heads, attn_drop
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(width)) if qkv_bias else None
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(drop)

    def forward(self, tokens: Tensor) -> Tensor:  # (B, N, D) -> (B, N, D)
        bias = None
        if self.q_bias is not None and self.v_bias is not None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        q, k, v = linear(tokens, self.qkv.weight, bias).chunk(3, dim=-1)
        seen = attend(q, k, v, self.num_heads, self.attn_drop if self.training else 0.0)
        return self.proj_drop(call_linear(self.proj, seen))


def check_heads(width: int, num_heads: int) -> None:
    check_count("num_heads", num_heads)
    if width % num_heads:
        raise InputError(f"width is {width}; expected a multiple of the {num_heads} heads.")


def attend(q: Tensor, k: Tensor, v: Tensor, num_heads: int, dropout: float) -> Tensor:
    q, k, v = (rearrange(x, "b n (h d) -> b h n d", h=num_heads) for x in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v, dropout_p=dropout), "b h n d -> b n (h d)")


class JointBlock(nn.Module):
    """The plain ViT block."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        layer_scale: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attn = JointAttention(width, num_heads, qkv_bias=qkv_bias, drop=drop, attn_drop=attn_drop)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = Mlp(width, int(width * mlp_ratio), drop=(0.0, drop))
        self.attn_scale = nn.Parameter(torch.full((width,), layer_scale)) if layer_scale > 0 else None
        self.mlp_scale = nn.Parameter(torch.full((width,), layer_scale)) if layer_scale > 0 else None
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor) -> Tensor:  # (B, N, D) -> (B, N, D)
        seen = self.attn(self.norm1(tokens))
        tokens = tokens + self.drop_path(seen if self.attn_scale is None else seen * self.attn_scale)
        thought = self.mlp(self.norm2(tokens))
        return tokens + self.drop_path(thought if self.mlp_scale is None else thought * self.mlp_scale)

    def forward_mean(self, tokens: Tensor) -> Tensor:  # (B, N, D) -> (B, 1, D)
        """Compute the mean of `forward` in eval mode; ``fc2`` is applied after the mean."""
        seen = self.attn(self.norm1(tokens))
        tokens = tokens + (seen if self.attn_scale is None else seen * self.attn_scale)
        hidden = self.mlp.act(call_linear(self.mlp.fc1, self.norm2(tokens))).mean(1, keepdim=True)
        thought = self.mlp.fc2(hidden)
        return tokens.mean(1, keepdim=True) + (thought if self.mlp_scale is None else thought * self.mlp_scale)


def drop_path_rates(highest: float, depth: int) -> list[float]:
    """Return rates that grow linearly from 0 to ``highest``."""
    check_count("depth", depth)
    return torch.linspace(0, highest, depth).tolist()


def check_option(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InputError(f"{name} is '{value}'; expected one of {', '.join(known)}.")


# -- encoders ----------------------------------------------------------------------------------------------------------


class Encoder(nn.Module):
    """Embed a clip as tokens with positions. `LGIFormer` and `JointEncoder` add the blocks."""

    def __init__(
        self,
        grid: Grid,
        *,
        channels: int,
        width: int,
        tubelet: int,
        patch_size: int,
        learned_position: bool,
        drop: float,
    ) -> None:
        super().__init__()
        check_count("width", width)
        check_count("channels", channels)
        self.grid, self.tubelet = grid, tubelet
        self.input_shape = (grid.frames * tubelet, channels, grid.rows * patch_size, grid.columns * patch_size)
        self.patch_embed = TubeletEmbedding(channels, width, tubelet, patch_size)
        if learned_position:
            self.position = nn.Parameter(torch.zeros(1, grid.tokens, width))
        else:
            self.register_buffer("position", sinusoidal_table(grid.tokens, width), persistent=False)
        self.position_drop = nn.Dropout(drop)

    def embed(self, video: Tensor) -> Tensor:  # (B, T, 3, H, W) -> (B, N, D)
        return self.position_drop(self.patch_embed(video) + self.position)


class JointEncoder(Encoder):
    """An encoder with full self-attention over all tokens of the clip."""

    def __init__(
        self, grid: Grid, *, width: int, depth: int, drop_path_rate: float, embedding: dict, block: dict
    ) -> None:
        super().__init__(grid, width=width, **embedding)
        self.blocks = nn.ModuleList(
            JointBlock(width, drop_path=rate, **block) for rate in drop_path_rates(drop_path_rate, depth)
        )

    def forward(self, tokens: Tensor, run: Callable, mean: bool = False) -> Tensor:
        """(B, N, D) -> (B, N, D). With ``mean``, the caller needs only the mean over N; (B, 1, D) may be returned."""
        *blocks, last = self.blocks
        for block in blocks:
            tokens = run(block, tokens)
        assert isinstance(last, JointBlock)
        if mean and applies(self, tokens) and are_linear(last.mlp.fc1, last.mlp.fc2):
            return last.forward_mean(tokens)
        return run(last, tokens)


# -- models ------------------------------------------------------------------------------------------------------------


class VideoTransformer(DferModel):
    """Pooling and the linear head of `VideoMAE` and `MAEDFER`."""

    default_labels = LABELS
    encoder: Encoder

    def __init__(
        self,
        encoder: Encoder,
        *,
        num_classes: int,
        mean_pooling: bool,
        per_frame: bool,
        head_activation: str,
        head_scale: float,
    ) -> None:
        num_frames, _, height, _ = encoder.input_shape
        width = encoder.position.shape[-1]
        super().__init__(
            num_classes=num_classes,
            num_features=width,
            video_spec=dataclasses.replace(VIDEO, num_frames=num_frames, img_size=height),
        )
        check_option("head_activation", head_activation, tuple(ACTIVATIONS))
        if per_frame and not mean_pooling:
            raise InputError("per_frame averages the tokens of each frame; it goes with mean_pooling=True only.")
        self.mean_pooling, self.per_frame, self.head_scale = mean_pooling, per_frame, head_scale
        self.encoder = encoder
        # as published: with mean pooling the norm comes after the mean, and the encoder has none
        self.token_norm = nn.Identity() if mean_pooling else nn.LayerNorm(width, eps=EPS)
        self.feature_norm = nn.LayerNorm(width, eps=EPS) if mean_pooling else nn.Identity()
        self.classifier = super().build_classifier(num_classes)
        self.activation = ACTIVATIONS[head_activation]()
        self.init_unless_loading()

    def tokens_to_pool(self, video: Tensor) -> Tensor:
        """(B, T, 3, H, W) -> (B, tokens, D)"""
        raise NotImplementedError

    def forward_features(self, video: Tensor) -> Tensor:  # type: ignore[override]
        """(B, T, 3, H, W) -> (B, D); with ``per_frame`` (B, T, D)"""
        shape = self.encoder.input_shape
        check_shape("video", video, f"(B, T, {shape[1]}, H, W)", (None, *shape))
        return self.pool(self.token_norm(self.tokens_to_pool(video)))

    def pool(self, tokens: Tensor) -> Tensor:
        if self.per_frame:
            steps = rearrange(tokens, "b (t s) d -> b t s d", t=self.encoder.grid.frames).mean(2)
            frames = F.interpolate(
                steps.transpose(1, 2), scale_factor=self.encoder.tubelet, mode="linear", align_corners=False
            )
            return self.feature_norm(frames.transpose(1, 2))
        # without mean pooling the first token represents the clip; there is no class token
        return self.feature_norm(tokens.mean(1) if self.mean_pooling else tokens[:, 0])

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features -> logits (B, C); with ``per_frame`` (B, T * C), frame by frame."""
        if pre_logits:
            return x
        logits = self.classifier(x)
        return self.activation(logits).flatten(1) if self.num_classes else logits

    def forward(self, video: Tensor) -> Tensor:  # type: ignore[override]
        return self.forward_head(self.forward_features(video))

    def example_inputs(self, batch: int = 1) -> dict[str, Tensor]:
        reference = self.encoder.patch_embed.weight
        return {"video": torch.rand(batch, *self.encoder.input_shape, device=reference.device, dtype=reference.dtype)}

    def build_classifier(self, num_classes: int) -> nn.Module:
        """The head starts close to zero (``head_scale``), as published."""
        head = super().build_classifier(num_classes)
        if isinstance(head, nn.Linear):
            nn.init.trunc_normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)
            with torch.no_grad():
                head.weight.mul_(self.head_scale)
        return head

    def init_weights(self) -> None:
        init_linears(self)
        self.classifier = self.build_classifier(self.num_classes)
        for name in ("region_tokens", "position"):
            learned = getattr(self.encoder, name, None)
            if isinstance(learned, nn.Parameter):
                nn.init.trunc_normal_(learned, std=0.02)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Group parameters by layer. Region tokens match no pattern and use the rate of the head, as published."""
        blocks = r"^encoder\.blocks" if coarse else r"^encoder\.blocks\.(\d+)"
        return {"stem": r"^encoder\.patch_embed", "blocks": [(blocks, None)]}

    def no_weight_decay(self) -> set[str]:
        return {"encoder.region_tokens", "encoder.position"}

    def load_backbones(self, states: Mapping[str, Mapping[str, Tensor]]) -> LoadReport:
        """Load the encoder of a pre-training model as "encoder", without its decoder and the norm after its encoder.
        Learned position embeddings keep their initial values if the file does not contain them."""
        check_backbones(self, states, "encoder")
        own, source = self.state_dict(), states["encoder"]
        wanted = {name for name in own if name.startswith("encoder.")} - ({"encoder.position"} - source.keys())
        given = {name: source[name] for name in wanted & source.keys()}
        what = f"The backbone does not fit the encoder of {type(self).__name__}"
        return fill(self, given, wanted, what=what, ignored=source.keys() - wanted)


class VideoMAE(VideoTransformer):
    """The plain video ViT with a linear head: MAE-DFER without regions.

    >>> model = VideoMAE(num_classes=7)
    >>> model(**model.example_inputs()).shape
    torch.Size([1, 7])
    """

    def __init__(
        self,
        *,
        num_classes: int = 7,
        img_size: int | Sequence[int] = 160,
        patch_size: int = 16,
        channels: int = 3,
        num_frames: int = 16,
        tubelet: int = 2,
        width: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        layer_scale: float = 0.0,
        mean_pooling: bool = True,
        per_frame: bool = False,
        head_activation: str = "none",
        learned_position: bool = False,
        head_scale: float = 0.001,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
    ) -> None:
        encoder = JointEncoder(
            Grid.of(num_frames, img_size, tubelet, patch_size),
            width=width,
            depth=depth,
            drop_path_rate=drop_path_rate,
            embedding={
                "channels": channels,
                "tubelet": tubelet,
                "patch_size": patch_size,
                "learned_position": learned_position,
                "drop": drop_rate,
            },
            block={
                "num_heads": num_heads,
                "mlp_ratio": mlp_ratio,
                "qkv_bias": qkv_bias,
                "layer_scale": layer_scale,
                "drop": drop_rate,
                "attn_drop": attn_drop_rate,
            },
        )
        super().__init__(
            encoder,
            num_classes=num_classes,
            mean_pooling=mean_pooling,
            per_frame=per_frame,
            head_activation=head_activation,
            head_scale=head_scale,
        )

    def tokens_to_pool(self, video: Tensor) -> Tensor:
        mean = self.mean_pooling and not self.per_frame
        return self.encoder(self.encoder.embed(video), self.run_block, mean)
