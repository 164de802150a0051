"""MAE-Face: a ViT pre-trained as a masked autoencoder on faces, for single face images.

Ma et al., "Facial Action Unit Detection and Intensity Estimation from Self-supervised Representation",
arXiv 2210.15878.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ..weights.record import VideoSpec
from .base import check_shape
from .vit import EncoderClassifier, find_preset, square_grid


class MAEFace(EncoderClassifier):
    """A face image, values in [0, 1] -> logits; without classes, the features.

    >>> import torch
    >>> model = MAEFace(preset="tiny", img_size=32, num_classes=5)
    >>> model(image=torch.rand(1, 3, 32, 32)).shape
    torch.Size([1, 5])
    """

    inputs: ClassVar[tuple[str, ...]] = ("image",)

    def __init__(
        self,
        *,
        num_classes: int = 0,
        img_size: int = 224,
        preset: str = "base",
        pooling: str = "mean",
        drop_path_rate: float = 0.0,
    ) -> None:
        shape = find_preset(preset)
        super().__init__(
            shape,
            num_classes=num_classes,
            grid=square_grid(img_size, shape),
            channels=3,
            pooling=pooling,
            drop_path_rate=drop_path_rate,
            video_spec=VideoSpec(num_frames=1, img_size=img_size, sampling="segment_centres"),
        )
        self.init_unless_loading()

    def forward_features(self, image: Tensor) -> Tensor:  # type: ignore[override]
        side = self.video_spec.img_size
        check_shape("image", image, "(B, 3, H, W)", (None, 3, side, side))
        return self.encode(image)

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
        return self.forward_head(self.forward_features(image))
