"""EMO-AffectNet: a ResNet50 for single faces, and two LSTM layers over the features of ten faces.

Ryumina, Dresvyanskiy, Karpov: In search of a robust facial expressions recognition model: a large-scale visual
cross-corpus study. Neurocomputing 2022, doi 10.1016/j.neucom.2022.10.013.

The image network was trained on AffectNet. Its 512 features of ten faces, sampled at five frames per second, go through
the temporal network, which was trained on five of six video corpora and tested on the sixth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..weights.record import VideoSpec
from .base import DferModel, ImageModel, check_shape
from .parts import call

LABELS = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger")
MEANS_BGR = (91.4953, 103.8827, 131.0912)  # VGGFace2's, subtracted from values 0 to 255
DEPTHS = (3, 4, 6, 3)
WIDTHS = (64, 128, 256, 512)
EXPANSION = 4
FACE_FEATURES = 512
CLIP_FEATURES = 256
SMALLEST_IMAGE = 5


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut. The stride is in the first, not in the second as in torchvision."""

    def __init__(self, width_in: int, width: int, stride: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        width_out = width * EXPANSION
        self.conv1 = nn.Conv2d(width_in, width, 1, stride, bias=False)
        self.norm1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = norm(width)
        self.conv3 = nn.Conv2d(width, width_out, 1, bias=False)
        self.norm3 = norm(width_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width_out:
            self.shortcut = nn.Sequential(nn.Conv2d(width_in, width_out, 1, stride, bias=False), norm(width_out))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut(x)
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        return F.relu(self.norm3(self.conv3(x)) + shortcut)


class FaceEncoder(nn.Module):
    """Images (N, 3, H, W) -> features (N, 512)."""

    def __init__(self, norm_momentum: float = 0.01, width_factor: float = 1.0) -> None:
        super().__init__()

        def norm(width: int) -> nn.BatchNorm2d:
            return nn.BatchNorm2d(width, eps=1e-3, momentum=norm_momentum)

        widths = [max(1, round(width * width_factor)) for width in WIDTHS]
        self.stem = nn.Conv2d(3, widths[0], 7, stride=2, bias=False)
        self.stem_norm = norm(widths[0])
        self.stages = nn.ModuleList()
        entering = widths[0]
        for number, (width, depth) in enumerate(zip(widths, DEPTHS)):
            blocks = []
            for place in range(depth):
                blocks.append(Bottleneck(entering, width, 2 if number and not place else 1, norm))
                entering = width * EXPANSION
            self.stages.append(nn.Sequential(*blocks))
        self.embed = nn.Linear(entering, FACE_FEATURES)

    def forward(self, images: Tensor, run: Callable = call) -> Tensor:
        """``run`` calls the stages; pass `DferModel.run_block` to support gradient checkpointing."""
        x = F.relu(self.stem_norm(self.stem(same_padding(images))))
        x = F.max_pool2d(x, 3, 2)
        for stage in self.stages:
            x = run(stage, x)
        return F.relu(self.embed(x.mean((2, 3))))


def same_padding(images: Tensor) -> Tensor:
    """TensorFlow's "same" padding for a 7 x 7 convolution of stride 2: an even side gets 2 zeros before and 3 after."""
    (top, bottom), (left, right) = (_same_padding(side) for side in images.shape[-2:])
    return F.pad(images, (left, right, top, bottom))


def _same_padding(side: int) -> tuple[int, int]:
    total = max((-(-side // 2) - 1) * 2 + 7 - side, 0)
    return total // 2, total - total // 2


class LSTM(nn.Module):
    """torch.nn.LSTM with one layer, (B, T, width_in) -> (B, T, width), written out so that `torch.compile` can trace it.

    Gates are in the order input, forget, cell, output; the two biases are added.
    """

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(4 * width, width_in))
        self.weight_hh = nn.Parameter(torch.empty(4 * width, width))
        self.bias_ih = nn.Parameter(torch.empty(4 * width))
        self.bias_hh = nn.Parameter(torch.empty(4 * width))
        self.init_weights()

    def init_weights(self) -> None:
        """Keras' defaults: Glorot uniform, orthogonal recurrent weights, a forget gate bias of 1."""
        width = self.weight_hh.shape[1]
        nn.init.xavier_uniform_(self.weight_ih)
        nn.init.orthogonal_(self.weight_hh)
        nn.init.constant_(self.bias_ih, 0.0)
        nn.init.constant_(self.bias_hh, 0.0)
        with torch.no_grad():
            self.bias_ih[width : 2 * width] = 1.0

    def forward(self, steps: Tensor) -> Tensor:
        entering = F.linear(steps, self.weight_ih, self.bias_ih + self.bias_hh)  # (B, T, 4 * width)
        state = entering.new_zeros(steps.shape[0], self.weight_hh.shape[1])
        cell, states = state, []
        for now in entering.unbind(1):
            write, forget, new, read = (now + F.linear(state, self.weight_hh)).chunk(4, dim=1)
            cell = forget.sigmoid() * cell + write.sigmoid() * new.tanh()
            state = read.sigmoid() * cell.tanh()
            states.append(state)
        return torch.stack(states, dim=1)


def _spec(frames: int, size: int) -> VideoSpec:
    return VideoSpec(
        num_frames=frames,
        img_size=size,
        sampling="windows",
        rate=1 if frames == 1 else max(1, frames // 2),  # windows overlap by half, as published
        fps=5.0,
        resize="pillow_nearest",
        channel_order="bgr",
        mean=tuple(value / 255 for value in MEANS_BGR),  # type: ignore[arg-type]
        std=(1 / 255, 1 / 255, 1 / 255),
        face_crop="detector_box",
    )


def _init_like_keras(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.constant_(module.bias, 0.0)


class EmoAffectNetStatic(ImageModel):
    """Images of faces (B, 3, 224, 224) -> logits. ``forward_features`` gives the 512 features after their ReLU.

    Args:
        num_classes: Number of classes; 7 as published.
        img_size: Height and width of the input; 224 as published.
        norm_momentum: Momentum of the batch norms, as torch defines it. The network was trained with 0.01; the released
            torch class has 0.99, which keeps almost only the last batch.
        width_factor: Scales the widths of the trunk; 1 as published.

    >>> model = EmoAffectNetStatic(num_classes=7, img_size=64)
    >>> model(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 7])
    """

    default_labels: ClassVar = {7: LABELS}

    def __init__(
        self,
        *,
        num_classes: int = 7,
        img_size: int = 224,
        norm_momentum: float = 0.01,
        width_factor: float = 1.0,
    ) -> None:
        check_img_size(img_size)
        super().__init__(num_classes=num_classes, num_features=FACE_FEATURES, video_spec=_spec(1, img_size))
        self.img_size = img_size
        self.encoder = FaceEncoder(norm_momentum, width_factor)
        self.classifier = self.build_classifier(num_classes)
        self.init_unless_loading()

    def forward_features(self, image: Tensor) -> Tensor:  # type: ignore[override]
        """(B, 3, H, W) -> (B, 512)."""
        check_shape("image", image, "(B, 3, H, W)", (None, 3, self.img_size, self.img_size))
        return self.encoder(image, self.run_block)

    def init_weights(self) -> None:
        _init_like_keras(self)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"stem": r"^encoder\.stem", "blocks": face_layers()}


class EmoAffectNet(DferModel):
    """Ten faces (B, 10, 3, 224, 224), sampled at five frames per second -> logits.

    Args:
        num_classes: Number of classes; 7 as published.
        img_size: Height and width of the input; 224 as published.
        num_frames: Faces in a window; 10 as published. Any number from 1 on runs.
        norm_momentum: Momentum of the batch norms, as in `EmoAffectNetStatic`.
        width_factor: Scales the widths of the trunk; 1 as published.

    >>> model = EmoAffectNet(num_classes=7, img_size=64)
    >>> model(torch.rand(2, 10, 3, 64, 64)).shape
    torch.Size([2, 7])
    """

    default_labels: ClassVar = {7: LABELS}
    frame_independent = True
    frozen_parameters = ("encoder.*",)  # only the temporal network was trained on video

    def __init__(
        self,
        *,
        num_classes: int = 7,
        img_size: int = 224,
        num_frames: int = 10,
        norm_momentum: float = 0.01,
        width_factor: float = 1.0,
    ) -> None:
        check_img_size(img_size)
        if num_frames < 1:
            raise InputError(f"num_frames is {num_frames}; expected 1 or more (published: 10).")
        super().__init__(num_classes=num_classes, num_features=CLIP_FEATURES, video_spec=_spec(num_frames, img_size))
        self.img_size = img_size
        self.encoder = FaceEncoder(norm_momentum, width_factor)
        self.lstm1 = LSTM(FACE_FEATURES, FACE_FEATURES)
        self.lstm2 = LSTM(FACE_FEATURES, CLIP_FEATURES)
        self.classifier = self.build_classifier(num_classes)
        self.init_unless_loading()

    def forward_features(self, video: Tensor, audio: Tensor | None = None) -> Tensor:
        """(B, T, 3, H, W) -> (B, 256)."""
        return self.mix_frames(self.encode_frames(video))

    def encode_frames(self, video: Tensor) -> Tensor:
        """(B, T, 3, H, W) -> (B, T, 512)."""
        size = self.img_size
        check_shape("video", video, "(B, T, 3, H, W)", (None, None, 3, size, size))
        return self.encoder(video.flatten(0, 1), self.run_block).unflatten(0, video.shape[:2])

    def mix_frames(self, frames: Tensor) -> Tensor:
        """Features of faces (B, T, 512) -> the last state (B, 256)"""
        return self.run_block(self.lstm2, self.run_block(self.lstm1, frames))[:, -1]

    def forward_frames(self, frames: Tensor, audio: Tensor | None = None) -> Tensor:
        return self.forward_head(self.mix_frames(frames))

    def init_weights(self) -> None:
        _init_like_keras(self)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"stem": r"^encoder\.stem", "blocks": [*face_layers(), (r"^lstm(\d)\.", None)]}


def face_layers() -> list[tuple[str, Any]]:
    """Patterns of the encoder's layers after the stem, for `group_matcher`."""
    return [*((rf"^encoder\.stages\.{n}\.", (n,)) for n in range(len(DEPTHS))), (r"^encoder\.embed\.", (len(DEPTHS),))]


def check_img_size(size: int) -> None:
    if size < SMALLEST_IMAGE:
        raise InputError(f"img_size is {size}; expected {SMALLEST_IMAGE} or more (published: 224).")
