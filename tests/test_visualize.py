"""The picture of what an answer stands on: a model that looks at one place and one moment is found out."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from dfer_zoo.data.puppets import Puppet
from dfer_zoo.factory import create_model
from dfer_zoo.models.base import DferModel
from dfer_zoo.transforms import create_transform
from dfer_zoo.weights.record import VideoSpec
from tests.scripts import load_script
from tests.tiny import TINY

visualize = load_script("examples/visualize.py")


class OneEyed(DferModel):
    """Its first label is as likely as the upper left corner of the third frame is bright."""

    default_labels: ClassVar = {2: ("bright", "dark")}

    def __init__(self) -> None:
        super().__init__(num_classes=2, num_features=1, video_spec=VideoSpec(4, 8, "segment_centres"))
        self.classifier = nn.Linear(1, 2)

    def forward(self, video: Tensor) -> Tensor:
        corner = video[:, 2, :, :4, :4].mean((1, 2, 3))
        return torch.stack([corner, -corner], -1)


def test_the_place_and_the_moment_that_count_are_found():
    model, video = OneEyed(), torch.zeros(1, 4, 3, 8, 8)
    video[:, :, :, :4, :4] = 1
    inputs = {"video": video}
    places = [visualize.covered(model, inputs, "video", box) for box in visualize.boxes(video, 2)]
    moments = [visualize.covered(model, inputs, "video", (t,)) for t in range(4)]
    whole = visualize.odds(model, inputs)
    assert torch.allclose(whole, torch.tensor([2.0, -2.0], dtype=torch.float64), atol=1e-6)
    # the mean colour, a quarter, comes in place of 1
    lost = torch.stack([whole - answer for answer in places])[:, 0]
    assert torch.allclose(lost, torch.tensor([1.5, 0, 0, 0], dtype=torch.float64), atol=1e-6)
    lost = torch.stack([whole - answer for answer in moments])[:, 0]
    assert torch.allclose(lost, torch.tensor([0, 0, 1.5, 0], dtype=torch.float64), atol=1e-6)


def test_colours_are_those_of_the_clip():
    model = create_model("av_fusion", pretrained="puppets")
    clip = Puppet("fear", size=112).clip()
    transform = create_transform(model, faces="none")
    seen = visualize.colours(model, transform.batch([clip])["video"])
    taken = [frame for frame in clip.take(transform.plan(clip).views[0])]
    small = [np.asarray(Image.fromarray(f).resize(seen.shape[1:3], Image.Resampling.BOX), float) for f in taken]
    assert np.abs(seen - np.stack(small)).mean() < 4
    assert np.abs(seen[..., ::-1] - np.stack(small)).mean() > 20  # red and blue are not exchanged


def test_a_picture_is_drawn_for_a_file_and_for_every_kind_of_model(tmp_path, monkeypatch, capsys):
    pytest.importorskip("av")
    monkeypatch.chdir(tmp_path)
    path = Puppet("happiness", size=112).write(tmp_path / "happy.mp4")
    picture = visualize.main(["av_fusion.puppets", str(path), "--cells", "2"])
    assert picture.name == "happy.png" and len(np.unique(np.asarray(Image.open(picture)))) > 100
    with pytest.raises(SystemExit):
        visualize.main(["av_fusion.puppets", str(path), "--label", "bored"])
    assert "There is no label 'bored'" in capsys.readouterr().err


def test_a_masked_autoencoder_shows_what_it_guessed():
    model = create_model("mae_dfer_pretrain", **TINY["mae_dfer_pretrain"])
    inputs = create_transform(model, faces="none").batch([Puppet("anger").clip()])
    picture = np.asarray(visualize.guessed(model, inputs))
    rows, step = 3, visualize.SIDE + visualize.GAP
    assert picture.shape[0] == visualize.GAP + rows * step
    given, made = picture[:step], picture[step : 2 * step]
    assert (given == 128).all(-1).mean() > 0.3  # grey where it is masked
    assert (made == 128).all(-1).mean() < 0.05
