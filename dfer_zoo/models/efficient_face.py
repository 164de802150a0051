"""EfficientFace: a ShuffleNet V2 with local features and a channel-spatial modulator.

Zhao, Liu, Zhou: Robust lightweight facial expression recognition network with label distribution training. AAAI 2021.

An image goes through three stages of shuffle units. The output of the first stage is multiplied by gates over channels
and positions, and added to local features, which four small networks compute from the quadrants of its input.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..weights.record import VideoSpec
from .base import ImageModel, check_shape
from .packed import Packed
from .packed_face import PackedFace
from .parts import call
from .shortcuts import applies, folded

AFFECTNET_MEAN = (0.55391484, 0.43522123, 0.3821877)
AFFECTNET_STD = (0.24837189, 0.21625527, 0.20221159)

SEVEN = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger")


class ConvNorm(nn.Sequential):
    """Convolution with "same" padding, batch norm, and an optional ReLU."""

    def __init__(
        self,
        width_in: int,
        width_out: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        bias: bool = False,
        relu: bool = True,
    ) -> None:
        padding = kernel // 2 * dilation
        parts: list[tuple[str, nn.Module]] = [
            ("conv", nn.Conv2d(width_in, width_out, kernel, stride, padding, dilation, groups, bias)),
            ("norm", nn.BatchNorm2d(width_out)),
        ]
        if relu:
            parts.append(("relu", nn.ReLU(inplace=True)))
        super().__init__(OrderedDict(parts))

    def forward(self, x: Tensor) -> Tensor:
        parts: list[Any] = list(self)
        conv, norm, *relu = parts
        if not x.is_cpu or not applies(self, x) or not self.is_plain():
            return super().forward(x)
        # one convolution instead of two passes; on a GPU, folding takes longer than it saves
        x = nn.functional.conv2d(x, *folded(conv, norm), conv.stride, conv.padding, conv.dilation, conv.groups)
        return x.relu_() if relu else x

    def is_plain(self) -> bool:
        """Return whether the layers can be replaced by one convolution."""
        kinds = [type(part) for part in self]
        if kinds not in ([nn.Conv2d, nn.BatchNorm2d], [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]):
            return False
        conv, norm = cast(nn.Conv2d, self.conv), cast(nn.BatchNorm2d, self.norm)
        constant = norm.affine and norm.track_running_stats and not norm.training
        return constant and conv.padding_mode == "zeros"


class ShuffleUnit(nn.Module):
    """One half of the channels is passed on, the other half transformed; then both are interleaved.

    The first unit of a stage halves height and width and sends all channels both ways.
    """

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        half = width_out // 2
        self.splits = stride == 1
        entering = half if self.splits else width_in
        self.left = (
            nn.Identity()
            if self.splits
            else nn.Sequential(
                ConvNorm(width_in, width_in, 3, stride=stride, groups=width_in, relu=False),
                ConvNorm(width_in, half, 1),
            )
        )
        self.right = nn.Sequential(
            ConvNorm(entering, half, 1),
            ConvNorm(half, half, 3, stride=stride, groups=half, relu=False),
            ConvNorm(half, half, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1) if self.splits else (x, x)
        left, right = self.left(left), self.right(right)
        # interleave left and right channels
        if left.is_contiguous(memory_format=torch.channels_last) or right.is_contiguous(
            memory_format=torch.channels_last
        ):
            return (
                torch.stack([left.permute(0, 2, 3, 1), right.permute(0, 2, 3, 1)], dim=-1)
                .flatten(3)
                .permute(0, 3, 1, 2)
            )
        return torch.stack([left, right], dim=2).flatten(1, 2)  # (N, C / 2, 2, H, W)


class Modulator(nn.Module):
    """Multiplies the map by sigmoid(channel gate * spatial gate). The gates themselves are linear."""

    def __init__(self, width: int, reduction: int = 16) -> None:
        super().__init__()
        narrow = width // reduction
        self.channel_gate = nn.Sequential(
            nn.Linear(width, narrow), nn.BatchNorm1d(narrow), nn.ReLU(inplace=True), nn.Linear(narrow, width)
        )
        self.spatial_gate = nn.Sequential(
            ConvNorm(width, narrow, 1, bias=True),
            ConvNorm(narrow, narrow, 3, dilation=4, bias=True),
            ConvNorm(narrow, narrow, 3, dilation=4, bias=True),
            nn.Conv2d(narrow, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        channels = self.channel_gate(x.mean((2, 3)))[:, :, None, None]  # (N, C, 1, 1)
        places = self.spatial_gate(x)  # (N, 1, H, W)
        return torch.sigmoid(channels * places) * x


class LocalFeatures(nn.Module):
    """A separate network per quadrant, without padding from its neighbours.

    The quadrants go down the left column first: top left, bottom left, top right, bottom right.
    """

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.quadrants = nn.ModuleList(
            nn.Sequential(
                ConvNorm(width_in, width_out, 3, stride=2, groups=width_in),
                ConvNorm(width_out, width_out, 3, groups=width_out),
            )
            for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2] // 2, x.shape[3] // 2
        columns = []
        for side, first, second in ((slice(None, width), 0, 1), (slice(width, None), 2, 3)):
            top, bottom = x[:, :, :height, side], x[:, :, height:, side]
            columns.append(torch.cat([self.quadrants[first](top), self.quadrants[second](bottom)], dim=2))
        return torch.cat(columns, dim=3)


def _stage(width_in: int, width_out: int, units: int) -> nn.Sequential:
    return nn.Sequential(
        ShuffleUnit(width_in, width_out, stride=2),
        *(ShuffleUnit(width_out, width_out, stride=1) for _ in range(units - 1)),
    )


class FaceEncoder(nn.Module):
    """Images (N, 3, H, W) -> features (N, 1024)."""

    num_features = 1024

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 29, 3, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stage2 = _stage(29, 116, units=4)
        self.modulator = Modulator(116)
        self.local = LocalFeatures(29, 116)
        self.stage3 = _stage(116, 232, units=8)
        self.stage4 = _stage(232, 464, units=4)
        self.expand = ConvNorm(464, self.num_features, 1)
        self.packed = Packed(_program)

    def forward(self, images: Tensor, run: Callable = call) -> Tensor:
        """``run`` calls the large blocks; pass `DferModel.run_block` to support gradient checkpointing."""
        if program := self.packed.program(self, images):
            return program(images)
        if images.is_cpu and applies(self.stem, images):
            images = images.contiguous(memory_format=torch.channels_last)
        fine = self.pool(self.stem(images))  # a quarter of the size
        coarse = run(self.stage2, fine)  # an eighth
        x = run(self.modulator, coarse) + run(self.local, fine)
        x = run(self.stage4, run(self.stage3, x))  # a thirty-second
        return self.expand(x).mean((2, 3))


def _program(encoder: FaceEncoder) -> PackedFace | None:
    """The encoder with packed weights; None if a part was replaced by one of another kind."""
    parts = list(encoder.modules())
    stages = (encoder.stage2, encoder.stage3, encoder.stage4)
    is_usual = (
        {type(part) for part in parts} <= _KINDS
        and all(part.is_plain() for part in parts if isinstance(part, ConvNorm))
        and all(_is_usual_stage(stage) for stage in stages)
        and encoder.modulator.channel_gate[1].affine
    )
    return PackedFace(encoder) if is_usual else None


def _is_usual_stage(units: Iterable[nn.Module]) -> bool:
    return all(isinstance(unit, ShuffleUnit) and unit.splits == bool(place) for place, unit in enumerate(units))


_OWN_KINDS = {FaceEncoder, ConvNorm, ShuffleUnit, Modulator, LocalFeatures}
_CONTAINERS = {nn.Sequential, nn.ModuleList}
_LAYERS = {nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Identity, nn.MaxPool2d, nn.Linear, nn.BatchNorm1d}
_KINDS = _OWN_KINDS | _CONTAINERS | _LAYERS


class EfficientFace(ImageModel):
    """Images of faces (B, 3, 224, 224) -> logits.

    >>> model = EfficientFace(num_classes=7)
    >>> model(torch.rand(2, 3, 224, 224)).shape
    torch.Size([2, 7])
    """

    default_labels: ClassVar = {7: SEVEN, 8: (*SEVEN, "contempt")}

    def __init__(self, *, num_classes: int = 7, img_size: int = 224) -> None:
        check_img_size(img_size)
        super().__init__(
            num_classes=num_classes,
            num_features=FaceEncoder.num_features,
            video_spec=VideoSpec(
                num_frames=1,
                img_size=img_size,
                sampling="windows",
                fps=5.0,
                mean=AFFECTNET_MEAN,
                std=AFFECTNET_STD,
            ),
        )
        self.img_size = img_size
        self.encoder = FaceEncoder()
        self.classifier = self.build_classifier(num_classes)
        self.init_unless_loading()

    def forward_features(self, image: Tensor) -> Tensor:  # type: ignore[override]
        check_shape("image", image, "(B, 3, H, W)", (None, 3, self.img_size, self.img_size))
        return self.encoder(image, self.run_block)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"stem": r"^encoder\.stem\.", "blocks": face_layers("encoder")}


def face_layers(prefix: str) -> list[tuple[str, tuple[int, ...]]]:
    """Patterns of the encoder's layers after the stem, for `group_matcher`."""
    parts = ("stage2", "modulator|local", "stage3", "stage4", "expand")
    return [(rf"^{prefix}\.(?:{part})\.", (number,)) for number, part in enumerate(parts)]


def check_img_size(size: int) -> None:
    """The size must be a multiple of 16: quadrants of a quarter of it are halved."""
    if size < 32 or size % 16:
        raise InputError(f"img_size is {size}; expected a multiple of 16 from 32 on (published: 224).")
