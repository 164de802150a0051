"""The forward pass of EfficientFace's encoder with packed weights.

Between the units of a stage, the two halves of the channels are separate maps: each unit interleaves them into the two
halves that the next one reads. The four quadrants go through one grouped convolution.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .packed import LivePointwise, PackedConv, interleaved, relu_max_pool
from .shortcuts import folded

AT_ONCE = 16  # images; the activations of more do not fit in the cache of the processor


class PackedFace:
    """Images (N, 3, H, W) -> features (N, 1024)."""

    def __init__(self, encoder: Any) -> None:
        """``encoder``: a `FaceEncoder` with plain convolutions and batch norms."""
        self.stem = packed(encoder.stem)
        self.stage2, self.stage3, self.stage4 = map(PackedStage, (encoder.stage2, encoder.stage3, encoder.stage4))
        self.modulator = PackedModulator(encoder.modulator)
        self.local = PackedLocal(encoder.local)
        conv, norm, _ = encoder.expand
        self.expand = LivePointwise(conv, norm)
        self.live = (conv.weight,)

    def __call__(self, images: Tensor) -> Tensor:
        if len(images) <= AT_ONCE:
            return self.encode(images)
        return torch.cat([self.encode(some) for some in images.split(AT_ONCE)])

    def encode(self, images: Tensor) -> Tensor:
        fine = relu_max_pool(self.stem(images.contiguous(memory_format=torch.channels_last)))
        x = self.modulator(self.stage2(fine))
        for place, features in zip(_quadrants(x), self.local(fine)):
            place.add_(features)
        return self.expand(self.stage4(self.stage3(x))).mean((2, 3))


def packed(pair: Any) -> PackedConv:
    conv, norm, *relu = pair
    return PackedConv.of(conv, norm, bool(relu))


class PackedStage:
    """`ShuffleUnit`s."""

    def __init__(self, units: Any) -> None:
        first, *later = units
        self.left = [packed(pair) for pair in first.left]
        self.rights = [[packed(pair) for pair in unit.right] for unit in (first, *later)]

    def __call__(self, x: Tensor) -> Tensor:
        left, right = (_through(convs, x).permute(0, 2, 3, 1) for convs in (self.left, self.rights[0]))
        for convs in self.rights[1:]:
            (a, b), (c, d) = left.chunk(2, dim=3), right.chunk(2, dim=3)
            left, right = interleaved(a, c), interleaved(b, d)
            right = _through(convs, right.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return interleaved(left, right).permute(0, 3, 1, 2)


class PackedModulator:
    """`Modulator`"""

    def __init__(self, modulator: Any) -> None:
        first, norm, _, self.expand = modulator.channel_gate
        self.weight, self.bias = folded(first, norm)
        *pairs, self.last = modulator.spatial_gate
        self.convs = [packed(pair) for pair in pairs]

    def __call__(self, x: Tensor) -> Tensor:
        narrow = F.linear(x.mean((2, 3)), self.weight, self.bias).relu_()
        channels = F.linear(narrow, self.expand.weight, self.expand.bias)[:, :, None, None]
        rows = _through(self.convs, x).permute(0, 2, 3, 1)
        places = F.linear(rows, self.last.weight.flatten(1), self.last.bias).permute(0, 3, 1, 2)
        return (channels * places).sigmoid_().mul_(x)


class PackedLocal:
    """`LocalFeatures`"""

    def __init__(self, local: Any) -> None:
        self.convs = [
            PackedConv.side_by_side([packed(pair) for pair in pairs]) for pairs in zip(*local.quadrants, strict=True)
        ]

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the features of the quadrants."""
        return _through(self.convs, torch.cat(_quadrants(x), dim=1)).chunk(4, dim=1)


def _quadrants(x: Tensor) -> list[Tensor]:
    """Top left, bottom left, top right and bottom right."""
    return [part for column in x.chunk(2, dim=3) for part in column.chunk(2, dim=2)]


def _through(convs: list[PackedConv], x: Tensor) -> Tensor:
    for conv in convs:
        x = conv(x)
    return x
