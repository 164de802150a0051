"""MobileFaceNet: a small network of depthwise convolutions that finds 68 landmarks in a face.

Chen, Liu, Gao, Han. "MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on Mobile Devices", CCBR 2018,
arXiv 1804.07573; trained for landmarks in the repository pytorch_face_landmark. S2D reads its features in front of the
third reduction, `LandmarkFeatures`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from ..weights.record import VideoSpec
from .base import DferModel, check_shape

IMAGE_SIZE = 112
LANDMARKS = 68
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ConvNorm(nn.Sequential):
    """Convolution, batch norm, and a PReLU unless ``linear``."""

    def __init__(
        self,
        width_in: int,
        width_out: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        parts: list[tuple[str, nn.Module]] = [
            ("conv", nn.Conv2d(width_in, width_out, kernel, stride, padding, groups=groups, bias=False)),
            ("norm", nn.BatchNorm2d(width_out)),
        ]
        if not linear:
            parts.append(("act", nn.PReLU(width_out)))
        super().__init__(OrderedDict(parts))


class Bottleneck(nn.Module):
    """An inverted bottleneck with a linear last layer; with a residual if the stride is 1 and the widths are equal."""

    def __init__(self, width_in: int, width_out: int, inner: int, *, stride: int = 1) -> None:
        super().__init__()
        self.is_residual = stride == 1 and width_in == width_out
        self.expand = ConvNorm(width_in, inner)
        self.depthwise = ConvNorm(inner, inner, 3, stride=stride, padding=1, groups=inner)
        self.project = ConvNorm(inner, width_out, linear=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.project(self.depthwise(self.expand(x)))
        return x + out if self.is_residual else out


def _stage(width: int, inner: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(Bottleneck(width, width, inner) for _ in range(blocks)))


class LandmarkFeatures(nn.Module):
    """The layers up to the features that S2D uses: (N, 3, 112, 112) -> (N, 128, 14, 14)."""

    num_features = 128

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 64, 3, stride=2, padding=1)
        self.stem_depthwise = ConvNorm(64, 64, 3, padding=1, groups=64)
        self.down1 = Bottleneck(64, 64, 128, stride=2)
        self.stage1 = _stage(64, 128, blocks=4)
        self.down2 = Bottleneck(64, 128, 256, stride=2)
        self.stage2 = _stage(128, 256, blocks=6)

    def forward(self, images: Tensor) -> Tensor:
        x = self.down1(self.stem_depthwise(self.stem(images)))
        return self.stage2(self.down2(self.stage1(x)))


def resize_for_landmarks(images: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, 3, 112, 112), with aligned corners and without antialiasing, as in the training of S2D's weights.

    Args:
        images: Normalised pictures of any size.

    Returns:
        The pictures at the network's size; those that have it already are left alone.

    Examples:
        >>> import torch
        >>> resize_for_landmarks(torch.rand(2, 3, 224, 224)).shape
        torch.Size([2, 3, 112, 112])
    """
    if images.shape[-2:] == (IMAGE_SIZE, IMAGE_SIZE):
        return images
    return F.interpolate(images, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=True)


class MobileFaceNet(DferModel):
    """Face images -> 68 landmarks (x, y), as fractions of the image's width and height.

    Examples:
        >>> import torch
        >>> model = MobileFaceNet().eval()
        >>> model(image=torch.rand(2, 3, 112, 112)).shape
        torch.Size([2, 68, 2])
    """

    inputs: ClassVar[tuple[str, ...]] = ("image",)
    head_prefixes: ClassVar[tuple[str, ...]] = ("head.",)
    has_classifier: ClassVar[bool] = False
    unused_parameters = ("pool.norm.bias",)  # in training, the batch norm of the head removes any shift

    def __init__(self) -> None:
        super().__init__(
            num_classes=0,
            num_features=512,
            video_spec=VideoSpec(
                num_frames=1, img_size=IMAGE_SIZE, sampling="segment_centres", mean=IMAGENET_MEAN, std=IMAGENET_STD
            ),
        )
        self.features = LandmarkFeatures()
        self.down3 = Bottleneck(128, 128, 512, stride=2)
        self.stage3 = _stage(128, 256, blocks=2)
        self.expand = ConvNorm(128, 512)
        self.pool = ConvNorm(512, 512, 7, groups=512, linear=True)  # a learned weighted mean over 7 x 7 positions
        self.head = nn.Sequential(
            OrderedDict(
                linear=nn.Linear(self.num_features, 2 * LANDMARKS, bias=False), norm=nn.BatchNorm1d(2 * LANDMARKS)
            )
        )
        self.init_unless_loading()

    def forward_features(self, image: Tensor) -> Tensor:  # type: ignore[override]
        """(B, 3, 112, 112) -> (B, 512)"""
        check_shape("image", image, "(B, 3, H, W)", (None, 3, IMAGE_SIZE, IMAGE_SIZE))
        x = self.run_block(self.features, image)
        x = self.run_block(self.stage3, self.down3(x))
        return self.pool(self.expand(x)).flatten(1)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features -> landmarks (B, 68, 2); with ``pre_logits`` the features."""
        return x if pre_logits else self.head(x).unflatten(1, (LANDMARKS, 2))

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
        """(B, 3, 112, 112) -> (B, 68, 2)"""
        return self.forward_head(self.forward_features(image))

    def get_classifier(self) -> nn.Module:
        """The layer that predicts the landmarks."""
        return self.head

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stages from the input to the head, for timm's layer decay."""
        stages = ("features.down1|features.stage1", "features.down2|features.stage2", "down3|stage3", "expand|pool")
        return {
            "stem": r"^features\.stem",
            "blocks": [
                (rf"^(?:{stage})\.".replace("features.", r"features\."), (i,)) for i, stage in enumerate(stages)
            ],
        }
