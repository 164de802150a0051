"""One small network for the tests of everything around models: names, files, downloads, training, prediction.

`Small` has weights, key maps and backbones; `open_zoo` replaces the registry and the manifest by it for one test.
`StandIn` also takes sound and has dropout; `python -m tests.small` is `dfer-zoo train` with both in the registry.
"""

import dataclasses
import math
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from dfer_zoo import registry
from dfer_zoo.convert import KEY_MAPS, Conversion
from dfer_zoo.models.base import DferModel, LoadReport, check_shape
from dfer_zoo.weights.record import AudioSpec, Origin, VideoSpec, Weights

LABELS = ("happiness", "sadness", "neutral")
MFCC = AudioSpec(front_end="mfcc", shape=(10, 156), sample_rate=22050, seconds=3.6)


class Network(DferModel):
    """One linear layer for frames, one for sound, and the classifier.

    The sum over time depends on the order of the frames. Frames are encoded one at a time, so that a frame gives the
    same bits in every batch.
    """

    default_labels: ClassVar = {3: LABELS}
    frame_independent = True

    def __init__(
        self,
        *,
        num_classes: int = 3,
        width: int = 8,
        num_frames: int = 2,
        img_size: int = 4,
        segments: int = 1,
        audio: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            num_features=width,
            video_spec=VideoSpec(num_frames, img_size, "segment_centres", segments=segments),
            audio_spec=MFCC if audio else None,
        )
        self.body = nn.Linear(3 * img_size**2, width)
        if audio:
            self.inputs = self.optional_inputs = ("video", "audio")
            self.sound = nn.Linear(math.prod(MFCC.shape), width)
        self.dropout = nn.Dropout(dropout)
        self.classifier = self.build_classifier(num_classes)
        self.init_unless_loading()

    def encode_frames(self, video: Tensor) -> Tensor:
        size = self.video_spec.img_size
        check_shape("video", video, "(B, T, 3, H, W)", (None, None, 3, size, size))
        frames = [self.body(frame) for frame in video.flatten(2).flatten(0, 1)]
        return torch.stack(frames).unflatten(0, video.shape[:2])

    def mix(self, frames: Tensor | None, audio: Tensor | None) -> Tensor:
        parts = [] if frames is None else [frames.cumsum(1).mean(1)]
        if audio is not None:
            parts.append(self.sound(audio.flatten(1) / 100))
        return self.dropout(sum(parts))

    def forward_features(self, video: Tensor | None = None, audio: Tensor | None = None) -> Tensor:
        return self.mix(None if video is None else self.encode_frames(video), audio)

    def forward_frames(self, frames: Tensor, audio: Tensor | None = None) -> Tensor:
        return self.forward_head(self.mix(frames, audio))

    def forward(self, video: Tensor | None = None, audio: Tensor | None = None) -> Tensor:
        return self.forward_head(self.forward_features(video, audio))


class Small(Network):
    """Frames only, with an integer entry in its state dict, and a body that can be filled from a backbone."""

    def __init__(self, *, num_classes: int = 3, width: int = 8, num_frames: int = 2) -> None:
        super().__init__(num_classes=num_classes, width=width, num_frames=num_frames)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def load_backbones(self, states):
        self.body.load_state_dict({"weight": states["body"]["body.weight"], "bias": states["body"]["body.bias"]})
        return LoadReport(
            loaded=("body.weight", "body.bias"), initialized=("classifier.weight", "classifier.bias"), ignored=()
        )


class Other(Small):
    """The same shapes under another name."""


class StandIn(Network):
    """Frames and sound. No batch statistics, so that a batch can be split; dropout, so that random numbers matter."""

    def __init__(self, *, num_classes: int = 8, img_size: int = 32, dropout: float = 0.1) -> None:
        super().__init__(num_classes=num_classes, width=32, img_size=img_size, audio=True, dropout=dropout)


def build(seed: int = 0, **arguments) -> Network:
    """A network with sound for frames of 16 x 16 pixels, in eval mode."""
    torch.manual_seed(seed)
    return Network(**{"num_frames": 4, "img_size": 16, "audio": True, **arguments}).eval()


def convert_small(state):
    """The authors call the body "encoder", and store a weight that is not used."""
    renamed = {
        "body.weight": state["encoder.weight"],
        "body.bias": state["encoder.bias"],
        "steps": state["encoder.steps"],
        "classifier.weight": state["fc.weight"],
        "classifier.bias": state["fc.bias"],
    }
    args = {"num_classes": len(state["fc.bias"]), "width": len(state["encoder.bias"])}
    return Conversion(renamed, args, dropped=tuple(k for k in state if k == "unused"))


def authors_state(num_classes: int = 3, seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "encoder.weight": torch.randn(8, 48, generator=draw),
        "encoder.bias": torch.randn(8, generator=draw),
        "encoder.steps": torch.tensor(seed),
        "fc.weight": torch.randn(num_classes, 8, generator=draw),
        "fc.bias": torch.randn(num_classes, generator=draw),
        "unused": torch.randn(2, generator=draw),
    }


def record(tag: str = "converted", **changes) -> Weights:
    plain = Weights(
        arch="small",
        tag=tag,
        distribution="manual",
        repo_id=None,
        revision=None,
        filename=None,
        sha256=None,
        size=None,
        params=48 * 8 + 8 + 8 * 3 + 3,
        model_args={},
        labels=LABELS,
        video=VideoSpec(2, 4, "strided", rate=3),
        audio=None,
        dataset="DFEW",
        fold=1,
        metrics=(),
        license="CC BY-NC 4.0",
        license_source="the authors' page",
        origin=(Origin("page", "https://example.org/weights"),),
    )
    return dataclasses.replace(plain, **changes)


def register(patch: pytest.MonkeyPatch) -> None:
    """Add the small architectures to the registry until ``patch`` is undone."""
    here = sys.modules[__name__]
    for package in ("models", "convert"):
        patch.setitem(sys.modules, f"dfer_zoo.{package}.small", here)
    for name, kind in (("small", "Small"), ("other", "Other"), ("stand_in", "StandIn")):
        patch.setitem(registry.MODELS, name, f"small:{kind}")
    patch.setitem(KEY_MAPS, "small", "small:convert_small")


def open_zoo(monkeypatch: pytest.MonkeyPatch, folder: Path, *records: Weights) -> Path:
    """Replace the manifest by these records, with the store and the caches in ``folder``. Returns the store."""
    register(monkeypatch)
    monkeypatch.setattr(registry, "manifest", lambda: {(r.arch, r.tag): r for r in records})
    monkeypatch.setenv("DFER_ZOO_WEIGHTS", str(folder / "store"))
    return folder / "store"


if __name__ == "__main__":
    from dfer_zoo.cli import main
    from tests import small  # under the name that the registry expects

    small.register(pytest.MonkeyPatch())
    sys.exit(main(["train", *sys.argv[1:]]))
