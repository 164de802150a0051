"""Self-attention fusion of face and voice, which also works if one of them is missing.

Chumachenko, Iosifidis, Gabbouj: Self-attention fusion for audiovisual emotion recognition with incomplete data.
ICPR 2022, arXiv 2201.11095.

Two branches of two stages each: frames, encoded by EfficientFace, and MFCCs go through convolutions along time. They are
fused in one of three ways: transformer blocks after both stages ("lt", late transformer), transformer blocks between the
stages ("it", intermediate transformer), or, between the stages, attention scores that weight the time steps of each
modality ("ia", intermediate attention).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..weights.record import AudioSpec, VideoSpec
from .base import DferModel, LoadReport, check_backbones, check_shape, fill
from .efficient_face import FaceEncoder, check_img_size, face_layers
from .parts import Mlp

EIGHT = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
FUSIONS = ("ia", "it", "lt")
SAMPLE_RATE = 22050


def mfcc_steps(seconds: float) -> int:
    """The number of MFCC frames: one every 512 samples."""
    return 1 + round(seconds * SAMPLE_RATE) // 512


class FrameConv(nn.Sequential):
    """(B, C, T) -> (B, C', T)"""

    def __init__(self, width_in: int, width_out: int) -> None:
        parts = {
            "conv": nn.Conv1d(width_in, width_out, 3, padding=1),
            "norm": nn.BatchNorm1d(width_out),
            "relu": nn.ReLU(),
        }
        super().__init__(OrderedDict(parts))


class SoundConv(nn.Sequential):
    """(B, C, L) -> (B, C', L - 3): no padding, and max pooling with stride 1."""

    def __init__(self, width_in: int, width_out: int) -> None:
        parts = {
            "conv": nn.Conv1d(width_in, width_out, 3),
            "norm": nn.BatchNorm1d(width_out),
            "relu": nn.ReLU(),
            "pool": nn.MaxPool1d(2, stride=1),
        }
        super().__init__(OrderedDict(parts))


class CrossScores(nn.Module):
    """The attention scores of every query and key, per head."""

    def __init__(self, key_width: int, query_width: int, width: int, num_heads: int) -> None:
        super().__init__()
        if not isinstance(num_heads, int) or num_heads < 1 or width % num_heads:
            raise InputError(f"num_heads is {num_heads!r}; it must divide the width of the fusion, {width}.")
        self.num_heads = num_heads
        self.query = nn.Linear(query_width, width, bias=False)
        self.key_value = nn.Linear(key_width, 2 * width, bias=False)  # the first half makes keys, the second values

    def heads(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, N, D) -> (B, heads, N, D / heads)

    def scores(self, keys: Tensor, queries: Tensor) -> Tensor:
        # values are not used; their weights stay for the files and for weight decay
        width = self.query.out_features
        key = self.heads(F.linear(keys, self.key_value.weight[:width]))
        query = self.heads(self.query(queries))
        return (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(-1)

    def forward(self, keys: Tensor, queries: Tensor) -> Tensor:
        """(B, Nk, Ck), (B, Nq, Cq) -> (B, heads, Nq, Nk)"""
        return self.scores(keys, queries)


def attention_received(scores: Tensor) -> Tensor:
    """(B, heads, Nq, Nk) -> (B, Nk): the mean over heads, summed over the queries (a sum, as published)."""
    return scores.mean(1).sum(1)


class CrossAttention(CrossScores):
    """Cross-attention with separate keys and queries."""

    def __init__(self, key_width: int, query_width: int, width: int, num_heads: int) -> None:
        super().__init__(key_width, query_width, width, num_heads)
        self.project = nn.Linear(width, width)

    def forward(self, keys: Tensor, queries: Tensor) -> Tensor:
        """(B, Nk, Ck), (B, Nq, Cq) -> (B, Nq, width)"""
        key, value = self.key_value(keys).chunk(2, dim=-1)
        mixed = F.scaled_dot_product_attention(
            self.heads(self.query(queries)), self.heads(key), self.heads(value)
        )  # (B, heads, Nq, width / heads)
        return self.project(mixed.transpose(1, 2).flatten(2))


class CrossBlock(nn.Module):
    """A transformer block with queries from one modality, keys and values from the other.

    The attention has no residual: the output depends on the queries only through the attention scores.
    """

    def __init__(self, key_width: int, query_width: int, width: int, num_heads: int) -> None:
        super().__init__()
        self.key_norm = nn.LayerNorm(key_width)
        self.query_norm = nn.LayerNorm(query_width)
        self.attention = CrossAttention(key_width, query_width, width, num_heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = Mlp(width, 2 * width)

    def forward(self, keys: Tensor, queries: Tensor) -> Tensor:
        x = self.attention(self.key_norm(keys), self.query_norm(queries))
        return x + self.mlp(self.mlp_norm(x))


class AVFusion(DferModel):
    """Frames of a face (B, T, 3, 224, 224), in BGR and [0, 1], and MFCCs (B, 10, L) -> logits.

    >>> model = AVFusion(fusion="ia")
    >>> model(video=torch.rand(2, 15, 3, 224, 224), audio=None).shape
    torch.Size([2, 8])
    """

    inputs = ("video", "audio")
    optional_inputs = ("video", "audio")
    frame_independent = True
    default_labels: ClassVar = {8: EIGHT}

    def __init__(
        self,
        *,
        fusion: str = "ia",
        num_heads: int = 1,
        num_classes: int = 8,
        num_frames: int = 15,
        seconds: float = 3.6,
        img_size: int = 224,
    ) -> None:
        """``seconds`` is the length of the sound; the published 3.6 give L = 156 MFCC frames."""
        check_img_size(img_size)
        num_steps = mfcc_steps(seconds) if math.isfinite(seconds) else 0
        if fusion not in FUSIONS:
            raise InputError(
                f"fusion is '{fusion}'; expected 'ia' (intermediate attention), 'it' or 'lt' (transformers)."
            )
        if num_steps < 13 or num_frames < 1:
            raise InputError(
                f"num_frames is {num_frames}, and {seconds} seconds are {num_steps} MFCC frames; "
                "expected at least 1, and at least 13."
            )
        super().__init__(
            num_classes=num_classes,
            num_features=256,
            video_spec=VideoSpec(
                num_frames=num_frames,
                img_size=img_size,
                sampling="leading_window",
                window=108,
                short_clip="black",
                fps=30.0,
                resize="opencv_bilinear",
                channel_order="bgr",
                face_crop="largest",
            ),
            audio_spec=AudioSpec(front_end="mfcc", shape=(10, num_steps), sample_rate=SAMPLE_RATE, seconds=seconds),
        )
        self.fusion = fusion
        self.face = FaceEncoder()
        self.video_stage1 = nn.Sequential(FrameConv(FaceEncoder.num_features, 64), FrameConv(64, 64))
        self.video_stage2 = nn.Sequential(FrameConv(64, 128), FrameConv(128, 128))
        self.audio_stage1 = nn.Sequential(SoundConv(10, 64), SoundConv(64, 128))
        self.audio_stage2 = nn.Sequential(SoundConv(128, 256), SoundConv(256, 128))

        meeting = CrossScores if fusion == "ia" else CrossBlock
        video_width = 128 if fusion == "lt" else 64
        self.audio_asks = meeting(key_width=video_width, query_width=128, width=128, num_heads=num_heads)
        self.video_asks = meeting(key_width=128, query_width=video_width, width=video_width, num_heads=num_heads)

        self.classifier = self.build_classifier(num_classes)
        self.init_unless_loading()

    def forward_features(self, video: Tensor | None = None, audio: Tensor | None = None) -> Tensor:
        """(B, 256): the mean over time of the sound features, then of the frame features"""
        frames, sound = self._batch(video, audio)
        return self.fuse(self.encode_frames(frames) if video is not None else self.encode_no_frames(frames), sound)

    def forward(self, video: Tensor | None = None, audio: Tensor | None = None) -> Tensor:
        return self.forward_head(self.forward_features(video, audio))

    def encode_frames(self, video: Tensor) -> Tensor:
        """(B, T, 3, H, W) -> (B, T, 1024); frames are independent, so overlapping windows can share them."""
        return self.face(video.flatten(0, 1), self.run_block).unflatten(0, video.shape[:2])

    def forward_frames(self, frames: Tensor, audio: Tensor | None = None) -> Tensor:
        """Encoded frames (B, T, 1024) and MFCCs -> logits."""
        if audio is None:
            assert self.audio_spec is not None
            audio = frames.new_zeros(frames.shape[0], *self.audio_spec.shape)
        return self.forward_head(self.fuse(frames, audio))

    def fuse(self, frames: Tensor, sound: Tensor) -> Tensor:
        """Encoded frames (B, T, 1024) and MFCCs (B, 10, L) -> (B, 256)."""
        frames, sound = (
            self.video_stage1(frames.transpose(1, 2)),
            self.audio_stage1(sound),
        )  # (B, 64, T), (B, 128, L - 6)
        if self.fusion == "ia":
            frames, sound = self.gate(frames, sound)
        elif self.fusion == "it":
            asked_by_sound, asked_by_frames = self.exchange(frames, sound)
            frames, sound = frames + asked_by_frames.transpose(1, 2), sound + asked_by_sound.transpose(1, 2)
        frames, sound = self.video_stage2(frames), self.audio_stage2(sound)  # (B, 128, T), (B, 128, L - 12)
        if self.fusion == "lt":
            asked_by_sound, asked_by_frames = self.exchange(frames, sound)
            return torch.cat([asked_by_sound.mean(1), asked_by_frames.mean(1)], dim=1)
        return torch.cat([sound.mean(2), frames.mean(2)], dim=1)

    def exchange(self, frames: Tensor, sound: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-attention in both directions: (B, steps, C) with the time steps of the sound, and of the frames."""
        frames, sound = frames.transpose(1, 2), sound.transpose(1, 2)
        return self.run_block(self.audio_asks, frames, sound), self.run_block(self.video_asks, sound, frames)

    def gate(self, frames: Tensor, sound: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply each time step of a modality by the attention that it receives from the other modality."""
        frame_tokens, sound_tokens = frames.transpose(1, 2), sound.transpose(1, 2)
        to_frames = attention_received(self.audio_asks(frame_tokens, sound_tokens))  # (B, T), sums to L - 6
        to_sound = attention_received(self.video_asks(sound_tokens, frame_tokens))  # (B, L - 6), sums to T
        return frames * to_frames[:, None], sound * to_sound[:, None]

    # -- missing modalities ----------------------------------------------------------------------------------------

    def _batch(self, video: Tensor | None, audio: Tensor | None) -> tuple[Tensor, Tensor]:
        """Check both tensors. Zeros replace a missing one, as in the modality dropout of the training."""
        assert self.video_spec is not None and self.audio_spec is not None
        video_shape = (self.video_spec.num_frames, 3, self.video_spec.img_size, self.video_spec.img_size)
        if video is not None:
            check_shape("video", video, "(B, T, 3, H, W)", (None, *video_shape))
        if audio is not None:
            check_shape("audio", audio, "(B, 10, L)", (None, *self.audio_spec.shape))
        if video is None and audio is None:
            raise InputError("video and audio are both None; pass at least one of them.")
        if video is None:
            assert audio is not None
            video = audio.new_zeros(1, 1, 1, 1, 1).expand(audio.shape[0], *video_shape)
        elif audio is None:
            audio = video.new_zeros(video.shape[0], *self.audio_spec.shape)
        elif video.shape[0] != audio.shape[0]:  # not len(): it would fix the batch size of an exported graph
            raise InputError(
                f"video and audio must have the same batch size, got {video.shape[0]} and {audio.shape[0]} clips."
            )
        return video, audio

    def encode_no_frames(self, zeros: Tensor) -> Tensor:
        """`encode_frames` for zeros: once in eval mode; in training they are part of the batch statistics."""
        if self.training:
            return self.encode_frames(zeros)
        return self.encode_frames(zeros[:1, :1]).expand(*zeros.shape[:2], -1)

    # -- training and weights --------------------------------------------------------------------------------------

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        later = [r"^(?:video|audio)_stage1\.", r"^(?:audio|video)_asks\.", r"^(?:video|audio)_stage2\."]
        if self.fusion == "lt":
            later[1:] = later[:0:-1]
        faces = face_layers("face")
        return {"stem": r"^face\.stem\.", "blocks": faces + [(p, (len(faces) + i,)) for i, p in enumerate(later)]}

    def load_backbones(self, states: Mapping[str, Mapping[str, Tensor]]) -> LoadReport:
        """Load an EfficientFace as "face" into the frame encoder. Its classifier is ignored."""
        check_backbones(self, states, "face")
        state = states["face"]
        face = {name: f"face.{name.removeprefix('encoder.')}" for name in state if name.startswith("encoder.")}
        given = {ours: state[name] for name, ours in face.items()}
        wanted = {name for name in self.state_dict() if name.startswith("face.")}
        what = "The backbone 'face' is not a state of efficient_face"
        return fill(self, given, wanted, what=what, ignored=state.keys() - face.keys())
