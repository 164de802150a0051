"""Raise every message of docs/troubleshooting.md, and compare it with the page."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch

import dfer_zoo
from dfer_zoo.cli import main
from dfer_zoo.data.puppets import Puppet
from tests.scripts import ROOT
from tests.tiny import TINY

pytest.importorskip("av")

PAGE = ROOT / "docs" / "troubleshooting.md"
ENTRY = re.compile(r"<!-- error: (\w+) -->\n> (.+)\n")


def entries() -> dict[str, str]:
    return dict(ENTRY.findall(PAGE.read_text(encoding="utf-8")))


def create(*arguments, **options) -> Callable[[], object]:
    return lambda: dfer_zoo.create_model(*arguments, **options)


def clip(fps: float | None = 25.0) -> dfer_zoo.Clip:
    return dfer_zoo.Clip.from_arrays(np.zeros((40, 96, 96, 3), np.uint8), fps=fps)


def puppets(**options) -> dfer_zoo.Recognizer:
    return dfer_zoo.Recognizer("av_fusion.puppets", **{"faces": "none", **options})


def hearing() -> dfer_zoo.Recognizer:
    return dfer_zoo.Recognizer(dfer_zoo.create_model("hicmae", **TINY["hicmae"]), faces="none")


def command(text: str) -> Callable[[], None]:
    """Return a function that raises the message of a command."""

    def run() -> None:
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            assert main(text.split()) != 0
        raise dfer_zoo.DferZooError(said.getvalue().strip().splitlines()[-1].partition(": ")[2])

    return run


def another_model() -> None:
    dfer_zoo.save_pretrained(dfer_zoo.create_model("efficient_face", img_size=64), "faces")
    dfer_zoo.load_weights(
        dfer_zoo.create_model("efficient_face", num_classes=8, img_size=64), "faces/model.safetensors"
    )


RAISED: dict[str, Callable[[], object]] = {
    "unknown_model": create("mma_dfr"),
    "unknown_tag": create("mma_dfer", "dfew"),
    "pretrained_true": create("mma_dfer", True),
    "no_weights": command("predict puppet.mp4 --model av_fusion --faces none"),
    "two_names": create("mma_dfer.dfew_fold1", "mafw_fold1"),
    "looks_like_a_path": create("runs/best"),
    "not_on_this_machine": create("mma_dfer", "dfew_fold1"),
    "backbone_offline": create("dfer_clip", "backbone", cache_dir="cache", local_files_only=True),
    "no_model_file": create("local-dir:nothing"),
    "not_safetensors": create("mma_dfer", checkpoint_path="puppet.mp4"),
    "not_a_checkpoint": command("convert mma_dfer dfew_fold1 puppet.mp4"),
    "other_options": another_model,
    "publish_name": command("publish av_fusion.puppets --to me"),
    "no_such_file": lambda: dfer_zoo.read_clip("missing.mp4"),
    "empty_file": lambda: dfer_zoo.read_clip("empty.mp4"),
    "cannot_be_decoded": lambda: dfer_zoo.read_clip("text.mp4"),
    "no_face": lambda: puppets(faces=lambda frame: np.zeros((0, 4)))("puppet.mp4"),
    "no_detector": lambda: puppets(faces="mtcn")("puppet.mp4"),
    "no_sound": lambda: hearing()(clip()),
    "no_frame_rate": lambda: puppets(window=2.0)(clip(fps=None)),
    "bad_window": lambda: puppets(window=0),
    "unknown_argument": create("mma_dfer", num_clases=3),
    "wrong_shape": lambda: dfer_zoo.create_model("av_fusion")(video=torch.zeros(1, 15, 3, 112, 112)),
    "no_gpu": create("mini_xception", device="cuda:99"),
    "labels_and_count": create("mma_dfer", num_classes=3, labels=["calm", "tense"]),
    "unknown_format": command("evaluate av_fusion.puppets own.csv --without audio"),
    "no_data_set": command("evaluate av_fusion.puppets nothing.txt"),
    "none_has_sound": command("evaluate av_fusion.puppets list.txt"),
    "none_can_be_read": command("evaluate av_fusion.puppets list.txt --without audio"),
    "unknown_field": command("train puppets_demo --out runs --set train.epoch=3"),
    "unknown_rule": command("prepare faces puppet.mp4 --rule alligned --out faces"),
    "table_suffix": command("predict puppet.mp4 --faces none --out table.txt"),
    "no_snippets": command("visualize snippets av_fusion.puppets puppet.mp4"),
}


@pytest.fixture(scope="module")
def puppet_file(tmp_path_factory):
    return Puppet("happiness", size=64).write(tmp_path_factory.mktemp("puppet") / "puppet.mp4")


@pytest.fixture
def folder(tmp_path, puppet_file, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DFER_ZOO_DOWNLOAD", "never")
    (tmp_path / "puppet.mp4").symlink_to(puppet_file)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "list.txt").write_text("clips/0001 16 3\n")
    (tmp_path / "own.csv").write_text("file;emotion\na;b\n")


def test_every_message_of_the_page_is_raised_here():
    assert set(entries()) == set(RAISED)


@pytest.mark.parametrize("name", entries())
def test_the_page_has_the_words_of_the_message(name, folder):
    with pytest.raises(dfer_zoo.DferZooError) as raised:
        RAISED[name]()
    said = " ".join(str(raised.value).split())
    pattern = ".*".join(re.escape(part) for part in entries()[name].replace("\\", "").split("..."))
    assert re.fullmatch(pattern + ".*", said), f"the page says: {entries()[name]}\nthe error says: {said}"
