"""AudioMAE: a ViT pre-trained as a masked autoencoder on spectrograms.

Huang, Xu, Li, Baevski, Auli, Galuba, Metze, Feichtenhofer. "Masked Autoencoders that Listen", NeurIPS 2022,
arXiv 2207.06405.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import InputError
from ..weights.record import AudioSpec
from .base import check_shape
from .vit import EncoderClassifier, find_preset

MEL_BANDS = 128
SILENT_FRAME = 0.46703237295150757  # no energy, after the scaling that both published front ends end with


class AudioMAE(EncoderClassifier):
    """A log-mel spectrogram (1, frames, 128) -> logits; without classes, the features.

    >>> model = AudioMAE(preset="small", num_frames=64, num_classes=5)
    >>> model(audio=torch.rand(1, 1, 64, 128)).shape
    torch.Size([1, 5])
    """

    inputs: ClassVar[tuple[str, ...]] = ("audio",)
    # AudioSet's classes by their index: what the indices mean is in the data set's own list
    default_labels: ClassVar[Mapping[int, tuple[str, ...]]] = {527: tuple(f"audioset_{i}" for i in range(527))}
    frozen_parameters: ClassVar[tuple[str, ...]] = ("encoder.positions",)  # a fixed table in the published training

    def __init__(
        self,
        *,
        num_classes: int = 527,
        num_frames: int = 1024,
        preset: str = "base",
        pooling: str = "mean",
        drop_path_rate: float = 0.0,
    ) -> None:
        shape = find_preset(preset)
        if num_frames < shape.patch:
            raise InputError(f"num_frames is {num_frames}; expected at least {shape.patch}, the side of a patch.")
        super().__init__(
            shape,
            num_classes=num_classes,
            grid=(num_frames // shape.patch, MEL_BANDS // shape.patch),  # token 8 * time + band
            channels=1,
            pooling=pooling,
            drop_path_rate=drop_path_rate,
            audio_spec=AudioSpec(
                front_end="kaldi_fbank", shape=(1, num_frames, MEL_BANDS), sample_rate=16000, silence_value=SILENT_FRAME
            ),
        )
        self.init_unless_loading()

    def init_weights(self) -> None:
        super().init_weights()
        with torch.no_grad():
            self.encoder.positions.copy_(published_positions(self.encoder.grid, self.num_features))

    def forward_features(self, audio: Tensor) -> Tensor:  # type: ignore[override]
        self._check(audio)
        return self.encode(audio)

    def forward(self, audio: Tensor) -> Tensor:  # type: ignore[override]
        return self.forward_head(self.forward_features(audio))

    def contextual_tokens(self, audio: Tensor) -> Tensor:
        """The pre-training model's own read-out of an unmasked spectrogram: all tokens, normed and averaged over the
        last three blocks, (B, 1 + N, width). For ``pooling="class"``, whose norm it needs."""
        if self.pooling != "class":
            raise InputError("contextual_tokens needs the encoder's norm, which only pooling='class' has.")
        self._check(audio)
        tokens = self.encoder.embed(audio)
        last: list[Tensor] = []
        for block in self.encoder.blocks:
            tokens = self.run_block(block, tokens)
            last = [*last, self.encoder.norm(tokens)][-3:]
        return torch.stack(last).mean(0)

    def _check(self, audio: Tensor) -> None:
        check_shape("audio", audio, "(B, 1, frames, mel)", (None, *self.audio_spec.shape))


def published_positions(grid: tuple[int, int], width: int) -> Tensor:
    """The fixed sine-cosine table that pre-training from scratch starts with, zeros for the class token.

    The published constructor hands the grid over as (width, height) to a function that takes (height, width): the
    rows are made for a grid of 8 x 64 while the tokens stand in one of 64 x 8. The released weights were trained so.
    """
    time, bands = grid
    row, column = torch.meshgrid(torch.arange(bands), torch.arange(time), indexing="ij")
    rates = 10000 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    parts = []
    for coordinate in (column, row):
        angles = coordinate.flatten().double()[:, None] * rates
        parts += [angles.sin(), angles.cos()]
    table = torch.cat([torch.zeros(1, width, dtype=torch.float64), torch.cat(parts, dim=1)])
    return table.float()[None]
