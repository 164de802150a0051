"""A zoo with one small architecture, for tests of what happens around models: names, files, downloads.

`open_zoo` puts it in the place of the real registry, manifest and key maps for the time of a test.
"""

import dataclasses
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from dfer_zoo import registry
from dfer_zoo.convert import KEY_MAPS, Conversion
from dfer_zoo.models.base import DferModel, LoadReport, check_shape
from dfer_zoo.weights.record import Origin, VideoSpec, Weights

LABELS = ("happiness", "sadness", "neutral")


class Small(DferModel):
    """Frames are averaged, then two linear layers."""

    default_labels: ClassVar = {3: LABELS}

    def __init__(self, *, num_classes: int = 3, width: int = 8, num_frames: int = 2):
        spec = VideoSpec(num_frames, 4, "segment_centres")
        super().__init__(num_classes=num_classes, num_features=width, video_spec=spec)
        self.body = nn.Linear(48, width)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.classifier = self.build_classifier(num_classes)
        self.init_unless_loading()

    def forward_features(self, video: Tensor, audio: Tensor | None = None) -> Tensor:
        check_shape("video", video, "(B, T, 3, H, W)", (None, None, 3, 4, 4))
        return self.body(video.mean(1).flatten(1))

    def load_backbones(self, states):
        self.body.load_state_dict({"weight": states["body"]["body.weight"], "bias": states["body"]["body.bias"]})
        return LoadReport(
            loaded=("body.weight", "body.bias"), initialized=("classifier.weight", "classifier.bias"), ignored=()
        )


class Other(Small):
    """The same shapes under another name."""


def convert_small(state):
    """The authors call the body "encoder", and keep a weight that nothing uses."""
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


def open_zoo(monkeypatch: pytest.MonkeyPatch, folder: Path, *records: Weights) -> Path:
    """The small zoo with these records; its store and caches are in ``folder``. Returns the store."""
    here = sys.modules[__name__]
    for package in ("models", "convert"):
        monkeypatch.setitem(sys.modules, f"dfer_zoo.{package}.small", here)
    monkeypatch.setitem(registry.MODELS, "small", "small:Small")
    monkeypatch.setitem(registry.MODELS, "other", "small:Other")
    monkeypatch.setitem(KEY_MAPS, "small", "small:convert_small")
    monkeypatch.setattr(registry, "manifest", lambda: {(r.arch, r.tag): r for r in records})
    monkeypatch.setenv("DFER_ZOO_WEIGHTS", str(folder / "store"))
    return folder / "store"
