"""mini-Xception: four residual modules of depthwise separable convolutions on a small gray face.

Arriaga, Valdenegro-Toro, Plöger: Real-time convolutional neural networks for emotion and gender classification. 2017,
arXiv 1710.07557.

Two plain convolutions, four modules that halve height and width, and a convolution to one map per class, whose mean is
the logit. With 57,000 parameters it is the zoo's frame-wise baseline.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..weights.record import VideoSpec
from .base import ImageModel, check_shape
from .parts import call

FER2013 = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
WIDTHS = (8, 16, 32, 64, 128)
SMALLEST_IMAGE = 5  # pixels: two convolutions without padding remove four


def norm(width: int) -> nn.BatchNorm2d:
    """Batch norm with the constants of Keras; its momentum of 0.99 is torch's 0.01."""
    return nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)


def same_max_pool(x: Tensor) -> Tensor:
    """Max pooling, 3 x 3 with stride 2, with TensorFlow's "same" padding.

    An even side is padded at its end only, an odd one at both ends, with minus infinity.
    """
    height, width = x.shape[-2:]
    return F.max_pool2d(x, 3, 2, padding=(height % 2, width % 2), ceil_mode=True)


class SeparableConv(nn.Module):
    """A 3 x 3 filter per channel, then a 1 x 1 convolution to the new width."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width_in, width_in, 3, padding=1, groups=width_in, bias=False)
        self.pointwise = nn.Conv2d(width_in, width_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class ResidualModule(nn.Module):
    """Two separable convolutions and a pooling, added to a 1 x 1 convolution of stride 2. No ReLU after the sum."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(width_in, width_out, 1, stride=2, bias=False)
        self.shortcut_norm = norm(width_out)
        self.conv1 = SeparableConv(width_in, width_out)
        self.norm1 = norm(width_out)
        self.conv2 = SeparableConv(width_out, width_out)
        self.norm2 = norm(width_out)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut_norm(self.shortcut(x))
        x = F.relu(self.norm1(self.conv1(x)))
        x = self.norm2(self.conv2(x))
        return same_max_pool(x) + shortcut


class GrayEncoder(nn.Module):
    """Gray images (N, 1, H, W) -> maps (N, 128, h, w), a sixteenth of the size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, WIDTHS[0], 3, bias=False)
        self.norm1 = norm(WIDTHS[0])
        self.conv2 = nn.Conv2d(WIDTHS[0], WIDTHS[0], 3, bias=False)
        self.norm2 = norm(WIDTHS[0])
        self.blocks = nn.ModuleList(ResidualModule(a, b) for a, b in itertools.pairwise(WIDTHS))

    def forward(self, image: Tensor, run: Callable = call) -> Tensor:
        """``run`` calls the blocks; pass `DferModel.run_block` to support gradient checkpointing."""
        x = F.relu(self.norm1(self.conv1(image)))
        x = F.relu(self.norm2(self.conv2(x)))
        for block in self.blocks:
            x = run(block, x)
        return x


class MiniXception(ImageModel):
    """Gray images of faces (B, 1, 64, 64) in [-1, 1] -> logits.

    Args:
        num_classes: Number of classes; 7 as published.
        img_size: Height and width of the input; 64 as published.

    >>> model = MiniXception(num_classes=7)
    >>> model(torch.rand(2, 1, 64, 64)).shape
    torch.Size([2, 7])
    """

    default_labels: ClassVar = {7: FER2013}

    def __init__(self, *, num_classes: int = 7, img_size: int = 64) -> None:
        if img_size < SMALLEST_IMAGE:
            raise InputError(f"img_size is {img_size}; expected {SMALLEST_IMAGE} or more (published: 64).")
        super().__init__(
            num_classes=num_classes,
            num_features=WIDTHS[-1],
            video_spec=VideoSpec(
                num_frames=1,
                img_size=img_size,
                sampling="windows",  # of one frame each; the mean over frames is the zoo's rule, not the authors'
                fps=5.0,
                resize="opencv_bilinear",
                channel_order="gray",
                mean=(0.5, 0.5, 0.5),
                std=(0.5, 0.5, 0.5),
                face_crop="gray_square",
            ),
        )
        self.img_size = img_size
        self.encoder = GrayEncoder()
        self.classifier = self.build_classifier(num_classes)
        self.init_unless_loading()

    def forward_features(self, image: Tensor) -> Tensor:  # type: ignore[override]
        """(B, 1, H, W) -> maps (B, 128, h, w)."""
        check_shape("image", image, "(B, 1, H, W)", (None, 1, self.img_size, self.img_size))
        return self.encoder(image, self.run_block)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Maps -> logits, the mean of each class map. With ``pre_logits`` the mean of the 128 maps: an embedding of the
        face that does not determine the logits, because the classifier is a 3 x 3 convolution."""
        maps = x if pre_logits else self.classifier(x)
        return maps.mean((2, 3))

    def build_classifier(self, num_classes: int) -> nn.Module:
        if not num_classes:
            return nn.Identity()
        head = nn.Conv2d(self.num_features, num_classes, 3, padding=1)
        _glorot(head)
        return head

    def init_weights(self) -> None:
        """Glorot uniform, Keras' default."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _glorot(module)

    def weight_penalty(self) -> Tensor:
        """The published L2 penalty, on the first two convolutions only."""
        kernels = (self.encoder.conv1.weight, self.encoder.conv2.weight)
        return 0.01 * torch.stack([kernel.square().sum() for kernel in kernels]).sum()

    def training_loss(
        self, inputs: Mapping[str, Tensor | None], targets: Tensor, criterion: Callable, *, epoch: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy and the published weight penalty."""
        loss, logits = super().training_loss(inputs, targets, criterion, epoch=epoch)
        return loss + self.weight_penalty(), logits

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"stem": r"^encoder\.(?:conv|norm)\d", "blocks": r"^encoder\.blocks\.(\d+)"}


def _glorot(conv: nn.Conv2d) -> None:
    """Keras defines the fan-in of a depthwise kernel as 9 * channels, and its fan-out as 9."""
    area = conv.kernel_size[0] * conv.kernel_size[1]
    depthwise = conv.groups > 1
    fan_in, fan_out = area * conv.in_channels, area * (1 if depthwise else conv.out_channels)
    bound = (6 / (fan_in + fan_out)) ** 0.5
    nn.init.uniform_(conv.weight, -bound, bound)
    if conv.bias is not None:
        nn.init.constant_(conv.bias, 0.0)
