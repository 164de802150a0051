"""HiCMAE: two ViTs, for face clips and for sound, and a fusion encoder with cross-attention in both directions.

Sun, Lian, Liu, Tao. "HiCMAE: Hierarchical Contrastive Masked Autoencoder for Self-Supervised Audio-Visual Emotion
Recognition", Information Fusion 2024, arXiv 2401.05698. Tubelets, attention and plain blocks are those of MAE-DFER.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..weights.record import AudioSpec
from .audio_mae import SILENT_FRAME
from .base import DferModel, LoadReport, check_backbones, check_shape, fill
from .parts import init_linears
from .video_mae import (
    ACTIVATIONS,
    EPS,
    LABELS,
    VIDEO,
    Attention,
    Grid,
    JointBlock,
    JointEncoder,
    are_counts,
    check_option,
    drop_path_rates,
    sides,
)

PRESETS = {"tiny": 256, "small": 384, "base": 512}  # width of both encoders
HEAD_WIDTH = 64  # channels per attention head, in every preset
COLOURS = 3

AUDIO = AudioSpec(front_end="kaldi_fbank_window", shape=(1, 256, 128), sample_rate=16000, silence_value=SILENT_FRAME)

CREMA_D_LABELS = ("anger", "disgust", "fear", "happiness", "neutral", "sadness")


class CrossBlock(JointBlock):
    """The plain ViT block with a cross-attention before it. The context may have another width."""

    def __init__(self, width: int, num_heads: int, *, context_width: int, cross_heads: int | None = None, **block: Any):
        super().__init__(width, num_heads, **block)
        attention = {name: block[name] for name in ("qkv_bias", "drop", "attn_drop") if name in block}
        layer_scale = block.get("layer_scale", 0.0)
        self.cross_norm = nn.LayerNorm(width, eps=EPS)
        self.context_norm = nn.LayerNorm(context_width, eps=EPS)
        self.cross_attn = Attention(width, cross_heads or num_heads, context_width=context_width, **attention)
        self.cross_scale = nn.Parameter(torch.full((width,), layer_scale)) if layer_scale > 0 else None

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:  # type: ignore[override]
        """(B, N, width), (B, M, context_width) -> (B, N, width)"""
        seen = self.cross_attn(self.cross_norm(tokens), self.context_norm(context))
        tokens = tokens + self.drop_path(seen if self.cross_scale is None else seen * self.cross_scale)
        return super().forward(tokens)


class HierarchicalEncoder(JointEncoder):
    """A plain ViT with outputs at several depths. The norm after the last block is applied to all of them."""

    def __init__(self, grid: Grid, *, width: int, **options: Any) -> None:
        super().__init__(grid, width=width, **options)
        self.norm = nn.LayerNorm(width, eps=EPS)

    def layer_means(self, tokens: Tensor, run: Callable) -> tuple[Tensor, Tensor]:
        """(B, N, D) -> the mean token of every layer (B, L, D), and the tokens of the last layer (B, N, D)"""
        means = []
        for block in self.blocks:
            tokens = run(block, tokens)
            normed = self.norm(tokens)
            means.append(normed.mean(1))
        return torch.stack(means, 1), normed

    def levels(self, tokens: Tensor, run: Callable, levels: Sequence[int]) -> tuple[list[Tensor], Tensor]:
        """(B, N, D) -> the tokens after the blocks with these numbers (from 0), and those after the last block."""
        seen = []
        for number, block in enumerate(self.blocks):
            tokens = run(block, tokens)
            if number in levels:
                seen.append(self.norm(tokens))
        return seen, self.norm(tokens)


class Fusion(nn.Module):
    """Pairs of cross blocks, one per modality. Both blocks of a pair take the tokens from before the pair."""

    def __init__(
        self,
        width: int,
        audio_width: int,
        *,
        depth: int,
        num_heads: int,
        drop_path_rate: float,
        block: Mapping[str, Any],
    ) -> None:
        super().__init__()
        rates = drop_path_rates(drop_path_rate, depth)

        def blocks(own: int, other: int) -> nn.ModuleList:
            return nn.ModuleList(CrossBlock(own, num_heads, context_width=other, drop_path=r, **block) for r in rates)

        self.video_blocks = blocks(width, audio_width)
        self.audio_blocks = blocks(audio_width, width)
        self.video_norm = nn.LayerNorm(width, eps=EPS)
        self.audio_norm = nn.LayerNorm(audio_width, eps=EPS)

    def forward(self, video: Tensor, audio: Tensor, run: Callable) -> tuple[Tensor, Tensor]:
        """(B, N, D), (B, M, A) -> the same shapes"""
        for video_block, audio_block in zip(self.video_blocks, self.audio_blocks):
            video, audio = run(video_block, video, audio), run(audio_block, audio, video)
        return self.video_norm(video), self.audio_norm(audio)


class AudioVisualModel(DferModel):
    """The part that pre-training and fine-tuning share: an encoder per modality, and their fusion.

    The audio encoder treats a spectrogram as a clip of one frame with one channel.
    """

    inputs: ClassVar[tuple[str, ...]] = ("video", "audio")
    vectors_per_modality: ClassVar[int] = 1  # concatenated in the features

    def __init__(
        self,
        *,
        num_classes: int,
        preset: str,
        img_size: int | Sequence[int],
        patch_size: int,
        num_frames: int,
        tubelet: int,
        width: int | None,
        depth: int,
        num_heads: int | None,
        audio_size: Sequence[int],
        audio_patch_size: int,
        audio_width: int | None,
        audio_depth: int,
        audio_heads: int | None,
        fusion_depth: int,
        fusion_heads: int | None,
        mlp_ratio: float,
        qkv_bias: bool,
        layer_scale: float,
        drop_rate: float,
        attn_drop_rate: float,
        drop_path_rate: float,
    ) -> None:
        width, audio_width = widths(preset, width, audio_width)
        num_heads = num_heads or one_per_head_width(width)
        height, _ = sides(img_size)
        if not are_counts(audio_size, 2):
            raise InputError(f"audio_size is {audio_size!r}; expected two whole numbers: (time, mel bands).")
        super().__init__(
            num_classes=num_classes,
            num_features=self.vectors_per_modality * (width + audio_width),
            video_spec=dataclasses.replace(VIDEO, num_frames=num_frames, img_size=height),
            audio_spec=dataclasses.replace(AUDIO, shape=(1, *audio_size)),
        )
        block = {
            "mlp_ratio": mlp_ratio,
            "qkv_bias": qkv_bias,
            "layer_scale": layer_scale,
            "drop": drop_rate,
            "attn_drop": attn_drop_rate,
        }

        def encoder(grid: Grid, cut: Mapping[str, int], width: int, depth: int, num_heads: int) -> HierarchicalEncoder:
            embedding = {**cut, "learned_position": False, "drop": drop_rate}
            options = {"depth": depth, "drop_path_rate": drop_path_rate, "embedding": embedding}
            return HierarchicalEncoder(grid, width=width, block={"num_heads": num_heads, **block}, **options)

        video_grid = Grid.of(num_frames, img_size, tubelet, patch_size)
        audio_grid = Grid.of(1, audio_size, 1, audio_patch_size)
        video_cut = {"channels": COLOURS, "tubelet": tubelet, "patch_size": patch_size}
        audio_cut = {"channels": 1, "tubelet": 1, "patch_size": audio_patch_size}
        self.video_encoder = encoder(video_grid, video_cut, width, depth, num_heads)
        audio_heads = audio_heads or one_per_head_width(audio_width)
        self.audio_encoder = encoder(audio_grid, audio_cut, audio_width, audio_depth, audio_heads)
        self.fusion = Fusion(
            width,
            audio_width,
            depth=fusion_depth,
            num_heads=fusion_heads or num_heads,
            drop_path_rate=drop_path_rate,
            block=block,
        )
        self.video_shape, self.audio_shape = self.video_encoder.input_shape, self.audio_encoder.input_shape[1:]

    def embed(self, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, 3, H, W), (B, 1, time, mel) -> tokens with positions, (B, N, D) and (B, M, A)"""
        check_shape("video", video, "(B, T, 3, H, W)", (None, *self.video_shape))
        check_shape("audio", audio, "(B, 1, time, mel)", (None, *self.audio_shape))
        return self.video_encoder.embed(video), self.audio_encoder.embed(audio[:, None])

    def example_inputs(self, batch: int = 1) -> dict[str, Tensor]:
        like = self.video_encoder.patch_embed.weight
        return {
            "video": torch.rand(batch, *self.video_shape, device=like.device, dtype=like.dtype),
            "audio": torch.rand(batch, *self.audio_shape, device=like.device, dtype=like.dtype),
        }

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Fusion blocks follow the last block of the deeper encoder; all norms train at the rate of the head."""
        number = "" if coarse else r"\.(\d+)"
        return {
            "stem": r"^(?:video|audio)_encoder\.patch_embed",
            "blocks": [(r"^(?:video|audio)_encoder\.blocks" + number, None)],
            "fusion": [(r"^fusion\.(?:video|audio)_blocks" + number, None)],
        }


class HiCMAE(AudioVisualModel):
    """16 face frames and the log-mel spectrogram of their sound -> logits, as fine-tuned on MAFW and CREMA-D.

    The classifier takes four vectors: for each encoder a learned weighted mean over its layers, and from the fusion the
    mean token of each modality.

    Args:
        preset: "tiny", "small" or "base": the width of both encoders.
        width: Overrides the preset. `audio_width` defaults to the same.
        num_heads: Defaults to one per 64 channels; likewise `audio_heads`. `fusion_heads` defaults to `num_heads` and
            must divide both widths.
        audio_size: (time, mel bands) of the spectrogram.
        head_activation: "none", "sigmoid", "relu" or "tanh"; for regression.

    >>> model = HiCMAE(preset="tiny", num_classes=6)
    >>> model(**model.example_inputs()).shape
    torch.Size([1, 6])
    """

    vectors_per_modality = 2
    default_labels: ClassVar[Mapping[int, tuple[str, ...]]] = {**LABELS, 6: CREMA_D_LABELS}

    def __init__(
        self,
        *,
        num_classes: int = 11,
        preset: str = "base",
        img_size: int | Sequence[int] = 160,
        patch_size: int = 16,
        num_frames: int = 16,
        tubelet: int = 2,
        width: int | None = None,
        depth: int = 10,
        num_heads: int | None = None,
        audio_size: Sequence[int] = (256, 128),
        audio_patch_size: int = 16,
        audio_width: int | None = None,
        audio_depth: int = 10,
        audio_heads: int | None = None,
        fusion_depth: int = 2,
        fusion_heads: int | None = None,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        layer_scale: float = 0.0,
        head_activation: str = "none",
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
    ) -> None:
        check_option("head_activation", head_activation, tuple(ACTIVATIONS))
        super().__init__(
            num_classes=num_classes,
            preset=preset,
            img_size=img_size,
            patch_size=patch_size,
            num_frames=num_frames,
            tubelet=tubelet,
            width=width,
            depth=depth,
            num_heads=num_heads,
            audio_size=audio_size,
            audio_patch_size=audio_patch_size,
            audio_width=audio_width,
            audio_depth=audio_depth,
            audio_heads=audio_heads,
            fusion_depth=fusion_depth,
            fusion_heads=fusion_heads,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            layer_scale=layer_scale,
            drop_rate=drop_rate,
            attn_drop_rate=attn_drop_rate,
            drop_path_rate=drop_path_rate,
        )
        self.video_layer_weights = nn.Parameter(torch.full((depth,), 1 / depth))
        self.audio_layer_weights = nn.Parameter(torch.full((audio_depth,), 1 / audio_depth))
        self.feature_norm = nn.LayerNorm(self.num_features, eps=EPS)
        self.classifier = self.build_classifier(num_classes)
        self.activation = ACTIVATIONS[head_activation]()
        self.init_unless_loading()

    def init_weights(self) -> None:
        for encoder in (self.video_encoder, self.audio_encoder):
            init_linears(encoder)
        init_linears(self.fusion, nn.init.xavier_uniform_)

    def forward_features(self, video: Tensor, audio: Tensor) -> Tensor:  # type: ignore[override]
        """(B, T, 3, H, W) and (B, 1, time, mel) -> (B, 2 D + 2 A)"""
        frames, sound = self.embed(video, audio)
        frame_means, frames = self.video_encoder.layer_means(frames, self.run_block)
        sound_means, sound = self.audio_encoder.layer_means(sound, self.run_block)
        fused_frames, fused_sound = self.fusion(frames, sound, self.run_block)
        features = [
            weighted_mean(frame_means, self.video_layer_weights),
            weighted_mean(sound_means, self.audio_layer_weights),
            fused_frames.mean(1),
            fused_sound.mean(1),
        ]
        return self.feature_norm(torch.cat(features, dim=1))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        if pre_logits or not self.num_classes:
            return x
        return self.activation(self.classifier(x))

    def forward(self, video: Tensor, audio: Tensor) -> Tensor:  # type: ignore[override]
        return self.forward_head(self.forward_features(video, audio))

    def load_backbones(self, states: Mapping[str, Mapping[str, Tensor]]) -> LoadReport:
        """Load both encoders and the fusion of a pre-training model, with their norms. Its decoders are ignored."""
        check_backbones(self, states, "encoders")
        source = states["encoders"]
        parts = ("video_encoder.", "audio_encoder.", "fusion.")
        wanted = {name for name in self.state_dict() if name.startswith(parts)}
        given = {name: source[name] for name in wanted & source.keys()}
        what = "The backbone does not fit the encoders of HiCMAE"
        return fill(self, given, wanted, what=what, ignored=source.keys() - wanted)


def weighted_mean(means: Tensor, weights: Tensor) -> Tensor:
    """(B, L, D), (L,) -> (B, D)"""
    return (means * weights.softmax(0)[:, None]).sum(1)


def widths(preset: str, width: int | None, audio_width: int | None) -> tuple[int, int]:
    """The widths of the video and the audio encoder."""
    check_option("preset", preset, tuple(PRESETS))
    width = PRESETS[preset] if width is None else width
    return width, width if audio_width is None else audio_width


def one_per_head_width(width: int) -> int:
    return max(1, width // HEAD_WIDTH)
