"""MMA-DFER: two frozen ViTs, one for face frames and one for the sound, adapted to each other in every block.

Chumachenko, Iosifidis, Gabbouj. "MMA-DFER: MultiModal Adaptation of Unimodal Models for Dynamic Facial Expression
Recognition In-the-wild", CVPR Workshops 2024, arXiv 2404.09010.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor, nn

from ..errors import InputError
from ..weights.record import AudioSpec, VideoSpec
from .audio_mae import MEL_BANDS, SILENT_FRAME
from .base import DferModel, LoadReport, check_shape
from .layers import TemporalTransformer
from .parts import DropPath
from .shortcuts import call_linear, in_chunks
from .vit import Encoder, find_preset, load_encoders, square_grid

FRAMES = 16
SPECTRUM_FRAMES = 512
PROMPTS = 3  # per group; a group starts every PROMPT_STRIDE blocks
PROMPT_STRIDE = 6

LABELS = ("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear")
MORE_LABELS = ("contempt", "anxiety", "helplessness", "disappointment")


class Adapter(nn.Module):
    """Projects one modality to a narrow space and back, through a gate that starts at zero."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.norm = nn.LayerNorm(bottleneck)
        self.up = nn.Linear(bottleneck, width)
        self.act = nn.GELU()
        self.gate = nn.Parameter(torch.zeros(1))

    def narrow(self, tokens: Tensor) -> Tensor:
        return self.norm(call_linear(self.down, tokens))

    def forward(self, tokens: Tensor, own: Tensor, other: Tensor) -> Tensor:
        """(B, N, width), (B, N, bottleneck) and the other modality's mean (B, 1, bottleneck) -> (B, N, width)."""
        return tokens + self.gate.tanh() * self.act(call_linear(self.up, own + other))


class Exchange(nn.Module):
    """After a pair of blocks, each modality adds the mean of the other's tokens to its own."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.face = Adapter(width, bottleneck)
        self.sound = Adapter(width, bottleneck)

    def forward(self, frames: Tensor, sound: Tensor) -> tuple[Tensor, Tensor]:
        """(B * T, N, width), the frames of a clip in a row, and (B, M, width) -> the same shapes"""
        face_narrow, sound_narrow = self.face.narrow(frames), self.sound.narrow(sound)
        # means over all tokens: class token, patches and prompts
        face_mean = reduce(face_narrow, "(b t) n c -> b 1 c", "mean", t=FRAMES)
        sound_mean = reduce(sound_narrow, "b m c -> b 1 c", "mean")
        sound_mean = repeat(sound_mean, "b 1 c -> (b t) 1 c", t=FRAMES)
        return self.face(frames, face_narrow, sound_mean), self.sound(sound, sound_narrow, face_mean)


class Prompts(nn.Module):
    """Learned tokens of one encoder. All enter at the start; a second set is added later, group by group."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.initial = nn.Parameter(torch.empty(groups * PROMPTS, width))
        self.progressive = nn.ParameterList(torch.empty(PROMPTS, width) for _ in range(groups))

    def init_weights(self) -> None:
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)

    def add_group(self, tokens: Tensor, group: int) -> Tensor:
        """Add the second set of this group. The prompts are the last tokens."""
        before = len(self.initial) - group * PROMPTS
        behind = before - PROMPTS
        return tokens + nn.functional.pad(self.progressive[group], (0, 0, tokens.shape[1] - before, behind))


class MMADFER(DferModel):
    """16 face frames and a log-mel spectrogram -> logits. ``audio=None`` means a clip without sound.

    >>> model = MMADFER(preset="tiny", img_size=32)
    >>> model(video=torch.rand(1, 16, 3, 32, 32), audio=None).shape
    torch.Size([1, 7])
    """

    inputs: ClassVar[tuple[str, ...]] = ("video", "audio")
    optional_inputs: ClassVar[tuple[str, ...]] = ("audio",)
    default_labels: ClassVar[Mapping[int, tuple[str, ...]]] = {7: LABELS, 11: LABELS + MORE_LABELS}
    # without the positions: the published training updates both tables
    frozen_parameters: ClassVar[tuple[str, ...]] = tuple(
        f"{encoder}.{part}"
        for encoder in ("face", "sound")
        for part in ("patch_embed.*", "class_token", "blocks.*", "norm.*")
    )

    def __init__(
        self,
        *,
        num_classes: int = 7,
        img_size: int = 224,
        temporal_depth: int = 1,
        preset: str = "base",
        drop_path_rate: float = 0.1,
        drop_path_when_frozen: bool = False,
    ) -> None:
        if temporal_depth < 1:
            raise InputError(
                f"temporal_depth is {temporal_depth}; expected 1 or more: without it the output ignores the frames."
            )
        shape = find_preset(preset, patch=16)
        super().__init__(
            num_classes=num_classes,
            num_features=512,
            video_spec=VideoSpec(num_frames=FRAMES, img_size=img_size, sampling="segment_centres"),
            audio_spec=AudioSpec(
                front_end="kaldi_fbank", shape=(1, SPECTRUM_FRAMES, MEL_BANDS), silence_value=SILENT_FRAME
            ),
        )
        groups = shape.depth // PROMPT_STRIDE
        options: dict[str, Any] = {"extra_tokens": groups * PROMPTS, "drop_path_rate": drop_path_rate}
        sound_grid = (SPECTRUM_FRAMES // shape.patch, MEL_BANDS // shape.patch)
        self.face = Encoder(shape, grid=square_grid(img_size, shape), channels=3, **options)
        self.sound = Encoder(shape, grid=sound_grid, channels=1, **options)
        self.face_prompts = Prompts(shape.width, groups)
        self.sound_prompts = Prompts(shape.width, groups)
        self.exchanges = nn.ModuleList(Exchange(shape.width, bottleneck=128) for _ in range(shape.depth))
        self.projection = nn.Linear(shape.width, self.num_features)
        self.temporal = TemporalTransformer(self.num_features, temporal_depth, num_frames=FRAMES)
        self.classifier = self.build_classifier(num_classes)
        self.drop_path_when_frozen = drop_path_when_frozen
        self.init_unless_loading()

    def init_weights(self) -> None:
        for encoder, prompts in ((self.face, self.face_prompts), (self.sound, self.sound_prompts)):
            encoder.init_weights()
            prompts.init_weights()
            # as published: position rows of prompts start far larger than the prompts
            nn.init.normal_(encoder.positions[:, -len(prompts.initial) :])
        self.temporal.init_weights()

    def forward_features(self, video: Tensor, audio: Tensor | None = None) -> Tensor:
        """(B, 16, 3, S, S) and (B, 1, 512, 128) -> (B, 512)"""
        audio = self._checked(video, audio)
        frames = self.face.embed(rearrange(video, "b t c h w -> (b t) c h w"), self.face_prompts.initial)
        sound = self.sound.embed(audio, self.sound_prompts.initial)
        for i, exchange in enumerate(self.exchanges):
            frames = in_chunks(self.run_block, self.face.blocks[i], frames)
            sound = self.run_block(self.sound.blocks[i], sound)
            frames, sound = self.run_block(exchange, frames, sound)
            if i % PROMPT_STRIDE == 0:
                frames = self.face_prompts.add_group(frames, i // PROMPT_STRIDE)
                sound = self.sound_prompts.add_group(sound, i // PROMPT_STRIDE)
        frames, sound = self.face.norm(frames)[:, 0], self.sound.norm(sound)[:, 0]
        # the sound is added to every frame
        fused = rearrange(frames, "(b t) d -> b t d", t=FRAMES) + sound[:, None]
        return self.temporal(self.projection(fused), self.run_block)

    def _checked(self, video: Tensor, audio: Tensor | None) -> Tensor:
        side = self.video_spec.img_size
        check_shape("video", video, "(B, T, 3, H, W)", (None, FRAMES, 3, side, side))
        if audio is None:
            return video.new_full((video.shape[0], *self.audio_spec.shape), self.audio_spec.silence_value)
        check_shape("audio", audio, "(B, 1, frames, mel)", (video.shape[0], *self.audio_spec.shape))
        return audio

    # -- training ------------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> MMADFER:
        """Frozen blocks stay in eval mode. The published training left them in train mode with active stochastic depth;
        with ``drop_path_when_frozen`` only their drop paths follow the mode."""
        super().train(mode)
        if self.drop_path_when_frozen:
            for module in self.modules():
                if isinstance(module, DropPath):
                    module.train(mode)
        return self

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {
            "stem": r"^(?:face|sound)(?:_prompts|\.patch_embed|\.class_token|\.positions)",
            "blocks": [
                (r"^(?:face\.blocks|sound\.blocks|exchanges)\.(\d+)\.", None),
                (r"^(?:face\.norm|sound\.norm|projection|temporal)\.", (99999,)),
            ],
        }

    def load_backbones(self, states: Mapping[str, Mapping[str, Tensor]]) -> LoadReport:
        """Load MAE-Face as "face" and the pre-trained AudioMAE as "sound"."""
        return load_encoders(self, {"face": self.face, "sound": self.sound}, states)
