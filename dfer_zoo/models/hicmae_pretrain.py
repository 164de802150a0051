"""HiCMAE's pre-training: reconstruct a clip from a tenth of its tokens and its sound from a fifth, with a contrastive
loss between both encoders at three depths.

Sun, Lian, Liu, Tao. Information Fusion 2024, arXiv 2401.05698.
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
from ..weights.record import check_count
from .hicmae import COLOURS, AudioVisualModel, CrossBlock, one_per_head_width, widths
from .masked_video import (
    TubeletTargets,
    check_difference,
    count_visible,
    draw_masked,
    masked_numbers,
    pick,
    visible_numbers,
)
from .parts import init_linears
from .video_mae import EPS, Grid, JointBlock, sinusoidal_table

DECODER_WIDTHS = {"small": 192, "base": 384}  # by preset; there is no published decoder for "tiny"


class Encoded(NamedTuple):
    """The visible tokens after the encoders and the fusion."""

    video: Tensor  # (B, visible, D), fused
    audio: Tensor  # (B, visible, A), fused
    video_levels: list[Tensor]  # (B, visible, D) each, from the shallowest level to the deepest
    audio_levels: list[Tensor]


class Guess(NamedTuple):
    """The predicted values of the masked tokens, in the order of the tokens."""

    video: Tensor  # (B, masked tubelets, 1536): frame, row, column, colour
    audio: Tensor  # (B, masked patches, 256): time, mel band


class Masks(NamedTuple):
    """(B, N) booleans, True = masked, and the number of visible tokens per clip."""

    video: Tensor
    audio: Tensor
    video_visible: int
    audio_visible: int


class SkipDecoder(nn.Module):
    """A plain block, then one cross block per level of the encoder, the deepest level first."""

    position: Tensor

    def __init__(
        self,
        grid: Grid,
        encoder_width: int,
        *,
        width: int,
        num_heads: int,
        levels: int,
        out: int,
        block: Mapping[str, Any],
    ) -> None:
        super().__init__()
        check_count("decoder_width", width)
        self.embed = nn.Linear(encoder_width, width, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("position", sinusoidal_table(grid.tokens, width), persistent=False)
        self.blocks = nn.ModuleList([JointBlock(width, num_heads, **block)])
        self.blocks.extend(CrossBlock(width, num_heads, context_width=width, **block) for _ in range(levels))
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.head = nn.Linear(width, out)

    def forward(self, fused: Tensor, levels: Sequence[Tensor], mask: Tensor, run: Callable) -> Tensor:
        """(B, visible, D) and the levels' tokens, of the same shape -> (B, masked, values)"""
        count = fused.shape[1]
        position = self.position[0]
        places = position[visible_numbers(mask, count)]
        asked = self.mask_token + position[masked_numbers(mask, count)]
        tokens = torch.cat([self.embed(fused) + places, asked], dim=1)
        first, *rest = self.blocks
        tokens = run(first, tokens)
        for block, level in zip(rest, reversed(levels)):
            tokens = run(block, tokens, self.embed(level) + places)
        return self.head(self.norm(tokens[:, count:]))

    def init_weights(self) -> None:
        for name, module in self.named_children():
            if name != "embed":  # keeps torch's own initialisation
                init_linears(module, nn.init.xavier_uniform_)
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)


class HiCMAEPretrain(TubeletTargets, AudioVisualModel):
    """The masked autoencoder of clips and their sound. It has no classes.

    Forward returns the predictions for all masked tokens as one vector per clip, video first; `guess` returns both
    modalities separately. Without given masks, training draws new ones from torch's generator, and evaluation always
    uses the same ones. The video mask is the same in all frames.

    Args:
        preset: "small" or "base"; "tiny" needs a `decoder_width`, as none was published.
        levels: Numbers (from 0) of the encoder blocks whose tokens enter the contrastive loss and the decoders. A
            decoder has one block more than there are levels.
        temperature: Of the contrastive loss, which needs encoders of equal width.
        contrast_weight: Weight of the contrastive loss, which is computed over the clips of the batch.
        difference_group: As in `MAEDFERPretrain`; likewise `motion_weight`.

    >>> model = HiCMAEPretrain(preset="small")
    >>> guess = model.guess(**model.example_inputs())
    >>> guess.video.shape, guess.audio.shape
    (torch.Size([1, 720, 1536]), torch.Size([1, 102, 256]))
    """

    fixed_video_mask: Tensor
    fixed_audio_mask: Tensor
    has_classifier = False
    head_prefixes = ("video_decoder.", "audio_decoder.")

    def __init__(
        self,
        *,
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
        decoder_width: int | None = None,
        decoder_heads: int | None = None,
        audio_decoder_width: int | None = None,
        audio_decoder_heads: int | None = None,
        levels: Sequence[int] = (3, 6, 9),
        temperature: float = 0.07,
        mask_ratio: float = 0.9,
        audio_mask_ratio: float = 0.8,
        normalize_target: bool = True,
        normalize_audio_target: bool = True,
        difference_group: int = 2,
        motion_weight: float | None = None,
        contrast_weight: float = 0.0025,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        layer_scale: float = 0.0,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        decoder_width = decoder_width or DECODER_WIDTHS.get(preset)
        if decoder_width is None:
            raise InputError(f"The preset '{preset}' has no published decoder; pass decoder_width.")
        width, audio_width = widths(preset, width, audio_width)
        if width != audio_width:
            raise InputError(
                f"The contrastive loss needs encoders of equal width; width is {width}, audio_width is {audio_width}."
            )
        if list(levels) != sorted(set(levels)) or not all(0 <= level < min(depth, audio_depth) for level in levels):
            raise InputError(
                f"levels is {tuple(levels)}; expected ascending block numbers from 0 to {min(depth, audio_depth) - 1}."
            )
        super().__init__(
            num_classes=0,
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
        assert self.video_spec is not None
        self.video_spec = dataclasses.replace(self.video_spec, segments=1)
        self.cut = {"p0": tubelet, "p1": patch_size, "p2": patch_size}
        self.audio_patch_size = audio_patch_size
        self.grid = self.video_encoder.grid
        self.levels, self.temperature, self.contrast_weight = tuple(levels), temperature, contrast_weight
        self.normalize_target, self.normalize_audio_target = normalize_target, normalize_audio_target
        self.difference_group, self.motion_weight = difference_group, motion_weight
        check_difference(num_frames, tubelet, difference_group, motion_weight)

        def decoder(grid: Grid, own_width: int, heads: int | None, out: int) -> SkipDecoder:
            heads = heads or one_per_head_width(own_width)
            plain = {"mlp_ratio": mlp_ratio, "qkv_bias": qkv_bias, "layer_scale": layer_scale}
            return SkipDecoder(grid, width, width=own_width, num_heads=heads, levels=len(levels), out=out, block=plain)

        self.video_decoder = decoder(self.grid, decoder_width, decoder_heads, COLOURS * tubelet * patch_size**2)
        self.audio_decoder = decoder(
            self.audio_encoder.grid, audio_decoder_width or decoder_width, audio_decoder_heads, audio_patch_size**2
        )
        self.classifier = nn.Identity()
        self.video_masked = masked_of("mask_ratio", mask_ratio, self.grid.rows * self.grid.columns)
        self.audio_masked = masked_of("audio_mask_ratio", audio_mask_ratio, self.audio_encoder.grid.tokens)
        for name, mask in zip(("video", "audio"), self.draw_masks(1, torch.Generator().manual_seed(0))):
            self.register_buffer(f"fixed_{name}_mask", mask, persistent=False)
        self.init_unless_loading()

    def init_weights(self) -> None:
        for module in (self.video_encoder, self.audio_encoder, self.fusion):
            init_linears(module, nn.init.xavier_uniform_)
        for decoder in (self.video_decoder, self.audio_decoder):
            decoder.init_weights()

    # -- masks -----------------------------------------------------------------------------------------------------

    def draw_masks(self, batch: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """(B, N) and (B, M), True = masked. The video mask is the same in all frames."""
        device = generator.device if generator is not None else self.video_decoder.mask_token.device
        places = self.grid.rows * self.grid.columns
        video = draw_masked((batch, places), self.video_masked, generator, device).repeat(1, self.grid.frames)
        audio = draw_masked((batch, self.audio_encoder.grid.tokens), self.audio_masked, generator, device)
        return video, audio

    def _masks(self, video_mask: Tensor | None, audio_mask: Tensor | None, batch: int) -> Masks:
        """The given masks; missing ones are drawn."""
        if self.training and (video_mask is None or audio_mask is None):
            video, audio = self.draw_masks(batch)
        else:
            video, audio = self.fixed_video_mask.expand(batch, -1), self.fixed_audio_mask.expand(batch, -1)
        video = video if video_mask is None else video_mask
        audio = audio if audio_mask is None else audio_mask
        tokens, audio_tokens = self.grid.tokens, self.audio_encoder.grid.tokens
        visible = tokens - self.video_masked * self.grid.frames
        visible = count_visible("video_mask", video, (batch, tokens), visible)
        audio_visible = count_visible("audio_mask", audio, (batch, audio_tokens), audio_tokens - self.audio_masked)
        return Masks(video, audio, visible, audio_visible)

    # -- forward ---------------------------------------------------------------------------------------------------

    def forward(  # type: ignore[override]
        self, video: Tensor, audio: Tensor, video_mask: Tensor | None = None, audio_mask: Tensor | None = None
    ) -> Tensor:
        return flat(self.guess(video, audio, video_mask, audio_mask))

    def guess(
        self, video: Tensor, audio: Tensor, video_mask: Tensor | None = None, audio_mask: Tensor | None = None
    ) -> Guess:
        """Predict the masked tokens of both modalities.

        Args:
            video: (B, T, 3, H, W)
            audio: (B, 1, time, mel)
            video_mask: (B, N) booleans, True where masked; the same number in every clip.
            audio_mask: (B, M) likewise.
        """
        masks = self._masks(video_mask, audio_mask, video.shape[0])
        return self._decode(self._encode(video, audio, masks), masks)

    def forward_features(  # type: ignore[override]
        self, video: Tensor, audio: Tensor, video_mask: Tensor | None = None, audio_mask: Tensor | None = None
    ) -> Encoded:
        """The visible tokens, fused and at every level. Masks of zeros return all tokens."""
        return self._encode(video, audio, self._masks(video_mask, audio_mask, video.shape[0]))

    def forward_head(  # type: ignore[override]
        self,
        x: Encoded,
        pre_logits: bool = False,
        video_mask: Tensor | None = None,
        audio_mask: Tensor | None = None,
    ) -> Tensor:
        """The output of `forward_features` -> that of `forward`; with ``pre_logits`` the mean tokens (B, D + A)."""
        if pre_logits:
            return torch.cat([x.video.mean(1), x.audio.mean(1)], dim=1)
        if self.training and (video_mask is None or audio_mask is None):
            raise InputError(
                "Training draws new masks in every call; pass forward_head the masks that the features were computed with."
            )
        return flat(self._decode(x, self._masks(video_mask, audio_mask, x.video.shape[0])))

    def _encode(self, video: Tensor, audio: Tensor, masks: Masks) -> Encoded:
        frames, sound = self.embed(video, audio)
        frames = pick(frames, visible_numbers(masks.video, masks.video_visible))
        sound = pick(sound, visible_numbers(masks.audio, masks.audio_visible))
        frame_levels, frames = self.video_encoder.levels(frames, self.run_block, self.levels)
        sound_levels, sound = self.audio_encoder.levels(sound, self.run_block, self.levels)
        fused_frames, fused_sound = self.fusion(frames, sound, self.run_block)
        return Encoded(fused_frames, fused_sound, frame_levels, sound_levels)

    def _decode(self, encoded: Encoded, masks: Masks) -> Guess:
        return Guess(
            self.video_decoder(encoded.video, encoded.video_levels, masks.video, self.run_block),
            self.audio_decoder(encoded.audio, encoded.audio_levels, masks.audio, self.run_block),
        )

    # -- target and loss -------------------------------------------------------------------------------------------

    def audio_targets(self, audio: Tensor) -> Tensor:
        """(B, 1, time, mel) -> the targets of all patches (B, M, 256)"""
        side = self.audio_patch_size
        patches = rearrange(audio, "b 1 (t p) (m q) -> b (t m) (p q)", p=side, q=side)
        if not self.normalize_audio_target:
            return patches
        return (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True).sqrt() + 1e-6)

    def errors(self, guess: Guess, video: Tensor, audio: Tensor, masks: Masks) -> Guess:
        """Squared errors, in float32 even under autocast."""
        targets = Guess(
            pick(self.targets(video.float()), masked_numbers(masks.video, masks.video_visible)),
            pick(self.audio_targets(audio.float()), masked_numbers(masks.audio, masks.audio_visible)),
        )
        for name, target in targets._asdict().items():
            if not target.numel():
                raise InputError(f"The {name} mask hides no token, so there is no loss.")
        return Guess(*(F.mse_loss(own.float(), target, reduction="none") for own, target in zip(guess, targets)))

    def similarities(self, encoded: Encoded) -> Tensor:
        """(levels, B, B): cosine similarities of clips (rows) and sounds (columns), divided by the temperature."""
        tables = []
        for frames, sound in zip(encoded.video_levels, encoded.audio_levels):
            frames, sound = (level.float().mean(1) for level in (frames, sound))
            frames, sound = (mean / mean.norm(dim=-1, keepdim=True) for mean in (frames, sound))
            tables.append(frames @ sound.T / self.temperature)
        return torch.stack(tables)

    def contrast(self, encoded: Encoded) -> Tensor:
        """(levels, 2): the contrastive losses, from video to audio and from audio to video."""
        own = torch.arange(encoded.video.shape[0], device=encoded.video.device)
        tables = self.similarities(encoded)
        return torch.stack(
            [torch.stack([F.cross_entropy(table, own), F.cross_entropy(table.T, own)]) for table in tables]
        )

    def training_loss(
        self, inputs: Mapping[str, Tensor | None], targets: Any = None, criterion: Any = None, *, epoch: int = 0
    ) -> tuple[Tensor, Tensor]:
        """(loss, predictions as `forward` returns them). There are no labels: targets and criterion are ignored."""
        video, audio = inputs["video"], inputs["audio"]
        assert video is not None and audio is not None
        masks = self._masks(inputs.get("video_mask"), inputs.get("audio_mask"), video.shape[0])
        encoded = self._encode(video, audio, masks)
        guess = self._decode(encoded, masks)
        errors = self.errors(guess, video, audio, masks)
        contrast = self.contrast(encoded).mean(1).sum() if self.levels else 0.0
        loss = self.mean_error(errors.video) + errors.audio.mean() + self.contrast_weight * contrast
        return loss, flat(guess)

    # -- other methods of models ----------------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        return {name: value for name, value in super().config().items() if name != "num_classes"}

    def no_weight_decay(self) -> set[str]:
        """The mask token of the audio decoder is decayed: as published, probably by oversight."""
        return {"video_decoder.mask_token"}


def flat(guess: Guess) -> Tensor:
    """(B, all predicted values)"""
    return torch.cat([guess.video.flatten(1), guess.audio.flatten(1)], dim=1)


def masked_of(name: str, ratio: float, places: int) -> int:
    masked = int(ratio * places)
    if not 0 < masked < places:
        raise InputError(
            f"{name} {ratio} hides {masked} of {places} tokens; expected a ratio that leaves some masked and some visible."
        )
    return masked
