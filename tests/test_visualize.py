"""Plots of what a model uses: occlusion finds the one place and frame that matter, and no text is cut off."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from dfer_zoo.cli import main
from dfer_zoo.data.puppets import Puppet
from dfer_zoo.errors import InputError
from dfer_zoo.factory import create_model
from dfer_zoo.inference import visualize
from dfer_zoo.inference.plots import confusion_figure, write_figure
from dfer_zoo.models.base import DferModel
from dfer_zoo.saving import save_pretrained
from dfer_zoo.transforms import create_transform
from dfer_zoo.weights.record import VideoSpec
from tests.tiny import TINY

pytest.importorskip("matplotlib")


class OneEyed(DferModel):
    """The probability of its first label rises with the brightness of the upper left corner of the third frame."""

    default_labels: ClassVar = {2: ("bright", "dark")}

    def __init__(self) -> None:
        super().__init__(num_classes=2, num_features=1, video_spec=VideoSpec(4, 8, "segment_centres"))
        self.classifier = nn.Linear(1, 2)

    def forward(self, video: Tensor) -> Tensor:
        corner = video[:, 2, :, :4, :4].mean((1, 2, 3))
        return torch.stack([corner, -corner], -1)


def test_occlusion_finds_the_place_and_the_frame_that_matter():
    video = torch.zeros(1, 4, 3, 8, 8)
    video[:, :, :, :4, :4] = 1
    found = visualize.occlusion(OneEyed(), {"video": video}, cells=2)
    assert (found.label, found.without) == ("bright", {})
    assert found.probability == pytest.approx(1 / (1 + np.exp(-2)))
    # the mean color, a quarter, replaces 1
    assert np.allclose(found.places, [[1.5, 0], [0, 0]], atol=1e-6)
    assert np.allclose(found.moments, [0, 0, 1.5, 0], atol=1e-6)
    other = visualize.occlusion(OneEyed(), {"video": video}, cells=2, label="dark")
    assert np.allclose(other.places, -found.places)


@pytest.mark.parametrize("options, message", [({"cells": 0}, "cells is 0"), ({"label": "bored"}, "'bored'")])
def test_a_wrong_option_of_an_occlusion_is_an_error(options, message):
    with pytest.raises(InputError, match=message):
        visualize.occlusion(OneEyed(), {"video": torch.zeros(1, 4, 3, 8, 8)}, **options)
    with pytest.raises(InputError, match="no frames"):
        visualize.occlusion(OneEyed(), {"video": None})


def test_displayed_colors_match_the_clip():
    model = create_model("av_fusion", pretrained="puppets")
    clip = Puppet("fear", size=112).clip()
    transform = create_transform(model, faces="none")
    seen = visualize.colors(model, transform.batch([clip])["video"])
    taken = [frame for frame in clip.take(transform.plan(clip).views[0])]
    small = [np.asarray(Image.fromarray(f).resize(seen.shape[1:3], Image.Resampling.BOX), float) for f in taken]
    assert np.abs(seen - np.stack(small)).mean() < 4
    assert np.abs(seen[..., ::-1] - np.stack(small)).mean() > 20  # red and blue are not exchanged


@pytest.fixture
def place(tmp_path, monkeypatch):
    pytest.importorskip("av")
    monkeypatch.chdir(tmp_path)
    Puppet("happiness", size=64).write(tmp_path / "happy.mp4")
    return tmp_path


def saved(name: str, folder) -> str:
    torch.manual_seed(0)
    save_pretrained(create_model(name, **TINY[name]), folder / name, tag="tiny", dataset="none")
    return f"local-dir:{folder / name}"


def check_nothing_is_cut_off(figure) -> None:
    """Check that every artist is inside the figure."""
    figure.draw_without_rendering()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0) >= -0.02 and box.x1 <= width + 0.02 and box.y1 <= height + 0.02, box


def test_occlusion_is_drawn(place, capsys):
    assert main(["visualize", "occlusion", "av_fusion.puppets", "happy.mp4", "--cells", "2", "--faces", "none"]) == 0
    assert capsys.readouterr().out == "happy_occlusion.png\n"
    assert len(np.unique(np.asarray(Image.open("happy_occlusion.png")))) > 100
    command = ["visualize", "occlusion", "av_fusion.puppets", "happy.mp4", "--faces", "none", "--label", "bored"]
    assert main(command) == 2 and "'bored'" in capsys.readouterr().err


@pytest.mark.parametrize("flag, rows", [("--difference", 5), ("--no-difference", 3)])
def test_a_reconstruction_is_drawn_with_and_without_frame_difference(place, capsys, flag, rows):
    model = create_model("mae_dfer_pretrain", **TINY["mae_dfer_pretrain"])
    video = create_transform(model, faces="none").batch([Puppet("anger").clip()])["video"]
    figure = visualize.reconstruction_figure(model, video, difference=flag == "--difference", title="a clip")
    pictures = [axes.images[0].get_array() for axes in figure.axes]
    columns = len(pictures) // rows
    assert len(pictures) == rows * columns and columns == 8
    visible, made = pictures[columns], pictures[2 * columns]
    assert (visible == 128).all(-1).mean() > 0.3  # grey where it is masked
    assert (made == 128).all(-1).mean() < 0.05
    check_nothing_is_cut_off(figure)
    name = saved("mae_dfer_pretrain", place)
    assert main(["visualize", "reconstruct", name, "happy.mp4", "--faces", "none", flag, "--seed", "3"]) == 0
    assert main(["visualize", "reconstruct", "av_fusion.puppets", "happy.mp4", "--faces", "none"]) == 2
    assert "mae_dfer_pretrain" in capsys.readouterr().err


def test_snippets_are_drawn_with_their_weights(place, capsys):
    name = saved("dk_clip", place)
    assert main(["visualize", "snippets", name, "happy.mp4", "--faces", "none", "--out", "snippets.svg"]) == 0
    drawn = (place / "snippets.svg").read_text()
    assert "<svg" in drawn
    model = create_model(name)
    video = create_transform(model, faces="none").batch(["happy.mp4"])["video"]
    figure = visualize.snippets_figure(model, video, title="a title that is as long as those of real files may be " * 2)
    weights = model.explain(video).snippet_weights[0].tolist()
    texts = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert any(text.startswith(f"{weights[0]:.2f}") for text in texts)
    check_nothing_is_cut_off(figure)
    assert main(["visualize", "snippets", "av_fusion.puppets", "happy.mp4", "--faces", "none"]) == 2
    assert "dk_clip" in capsys.readouterr().err


def test_embeddings_are_drawn_by_tsne(place, capsys):
    pytest.importorskip("sklearn")
    data = "puppets:clips=16,size=64,split=test"
    assert main(["visualize", "tsne", "av_fusion.puppets", data, "--out", "tsne.png", "--csv", "tsne.csv"]) == 0
    lines = (place / "tsne.csv").read_text().splitlines()
    assert lines[0] == "clip,label,x,y" and len(lines) == 17
    assert main(["visualize", "tsne", "av_fusion.puppets", data, "--out", "tsne.png", "--csv", "again.csv"]) == 0
    assert (place / "again.csv").read_text().splitlines() == lines
    assert main(["visualize", "tsne", "av_fusion.puppets", "puppets:clips=2,size=64"]) == 2
    assert "there are 2" in capsys.readouterr().err


def test_all_texts_are_inside_the_figure(tmp_path):
    labels = ["anger", "contempt", "helplessness", "disappointment", "a very long label of somebody"]
    points = np.random.default_rng(0).normal(size=(40, 2))
    check_nothing_is_cut_off(
        visualize.tsne_figure(points, np.arange(40) % 5, labels, "local-dir:runs/a/long/path/best on a list " * 3)
    )
    table = np.random.default_rng(0).integers(0, 2000, (5, 5))
    check_nothing_is_cut_off(
        confusion_figure(table, labels, "local-dir:runs/a/long/path/best on lists/mafw_fold1_test.csv, folds 1, 2, 3")
    )
    check_nothing_is_cut_off(
        confusion_figure(table[:2, :2], labels[:2], "local-dir:runs/a/long/path/best on lists/mafw_fold1_test.csv")
    )
    write_figure(tmp_path / "confusion.pdf", confusion_figure(table, labels, "a title"))
