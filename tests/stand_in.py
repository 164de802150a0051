"""A network of a few thousand numbers with the model contract: for tests of what is around models."""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

from dfer_zoo import registry
from dfer_zoo.models.base import DferModel
from dfer_zoo.weights.record import AudioSpec, VideoSpec


class StandIn(DferModel):
    """No batch statistics, so that a batch may be cut; dropout, so that draws matter."""

    inputs = ("video", "audio")
    optional_inputs = ("video", "audio")

    def __init__(self, *, num_classes: int = 8, size: int = 32, dropout: float = 0.1) -> None:
        super().__init__(
            num_classes=num_classes,
            num_features=64,
            video_spec=VideoSpec(num_frames=2, img_size=size, sampling="segment_centres"),
            audio_spec=AudioSpec(front_end="mfcc", shape=(10, 156), sample_rate=22050, seconds=3.6),
        )
        self.look = nn.Sequential(nn.Linear(2 * 3 * size * size, 32), nn.GELU(), nn.Dropout(dropout))
        self.listen = nn.Sequential(nn.Linear(10 * 156, 32), nn.GELU(), nn.Dropout(dropout))
        self.classifier = self.build_classifier(num_classes)
        self.init_unless_loading()

    def forward_features(self, video: Tensor | None = None, audio: Tensor | None = None) -> Tensor:
        seen = self.look(video.flatten(1)) if video is not None else audio.new_zeros(len(audio), 32)
        heard = self.listen(audio.flatten(1) / 100) if audio is not None else video.new_zeros(len(video), 32)
        return torch.cat([seen, heard], 1)

    def forward(self, video: Tensor | None = None, audio: Tensor | None = None) -> Tensor:
        return self.forward_head(self.forward_features(video, audio))


def register() -> None:
    """Put it into the registry of this process under the name "stand_in"."""
    sys.modules["dfer_zoo.models.stand_in"] = sys.modules[__name__]
    StandIn.__module__ = "dfer_zoo.models.stand_in"
    registry.MODELS["stand_in"] = "stand_in:StandIn"


if __name__ == "__main__":  # `dfer-zoo train`, with the stand-in in the registry
    from dfer_zoo.cli import main

    sys.modules["tests.stand_in"] = sys.modules["__main__"]
    register()
    sys.exit(main(["train", *sys.argv[1:]]))
