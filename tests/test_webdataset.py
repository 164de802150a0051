"""`examples/webdataset_train.py`: train on video shards with webdataset, and use the model."""

import io
import tarfile

import pytest

pytest.importorskip("webdataset")

from dfer_zoo import Recognizer
from dfer_zoo.data.puppets import Puppet
from dfer_zoo.media.write import write_mp4
from tests.scripts import load_script
from tests.tiny import TINY

LABELS = ["happy", "sad"]


def add(shard, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    shard.addfile(member, io.BytesIO(content))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Write two shards of four videos each with tarfile; one video is damaged."""
    folder = tmp_path_factory.mktemp("shards")
    for number in range(2):
        with tarfile.open(folder / f"{number:04d}.tar", "w") as shard:
            for clip in range(4):
                puppet = Puppet(("happiness", "sadness")[clip % 2], seed=4 * number + clip, size=48)
                path = write_mp4(puppet.clip().cut(1.0, 2.2), folder / "clip.mp4")
                content = path.read_bytes() if (number, clip) != (1, 3) else b"not a video"
                add(shard, f"{number}_{clip}.mp4", content)
                add(shard, f"{number}_{clip}.cls", str(clip % 2).encode())
    return str(folder / "{0000..0001}.tar")


@pytest.mark.parametrize("workers", [0, 2])
def test_every_usable_clip_of_the_shards_is_in_a_batch(shards, workers, capfd):
    example = load_script("examples/webdataset_train.py")
    import dfer_zoo

    model = dfer_zoo.create_model("av_fusion", labels=LABELS, **TINY["av_fusion"])
    sample = example.Sample(dfer_zoo.create_transform(model, faces="none"), "none")
    found = list(example.batches(shards, sample, batch_size=2, workers=workers))
    classes = [int(label) for _, labels in found for label in labels]
    assert sorted(classes) == [0] * 4 + [1] * 3
    assert all(inputs["video"].shape[0] == len(labels) for inputs, labels in found)
    assert "1_3" in capfd.readouterr().err  # names the damaged clip


def test_a_model_learns_from_shards_and_is_used(shards, tmp_path, capsys):
    example = load_script("examples/webdataset_train.py")
    import torch

    torch.manual_seed(0)
    history = example.train(
        shards, tmp_path / "run", LABELS, faces="none", epochs=8, batch_size=4, rate=3e-3, **TINY["av_fusion"]
    )
    assert len(history) == 8 and min(history[-3:]) < history[0]
    assert "epoch 8: loss" in capsys.readouterr().out
    answer = Recognizer(f"local-dir:{tmp_path / 'run'}", faces="none")(Puppet("happiness", seed=0, size=48).clip())
    assert answer.labels == tuple(LABELS)
