"""Clips from bytes, open files and URLs."""

import io
import os
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from dfer_zoo import InputError, MediaError, Recognizer
from dfer_zoo.atomic import SUFFIX, _host, temporary_file
from dfer_zoo.data.puppets import Puppet
from dfer_zoo.inference.batch import predict_table
from dfer_zoo.inference.inputs import Item, Remote, expand

pytest.importorskip("av")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return Puppet("happiness", size=64).write(tmp_path_factory.mktemp("sources") / "a.mp4")


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer("av_fusion", "puppets", faces="none", window=1.5)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A temporary folder for this test only."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_bytes_and_open_files_match_the_path(clip, recognizer, temporary):
    content, expected = clip.read_bytes(), recognizer(clip)
    with clip.open("rb") as stream:
        sources = [content, memoryview(content), bytearray(content), io.BytesIO(content), stream]
        answers = list(recognizer.many(sources, progress=False))
    for answer in answers:
        assert np.array_equal(answer.logits, expected.logits)
    assert [a.source for a in answers] == ["bytes"] * 4 + [str(clip)]
    assert not list(temporary.iterdir())


def test_an_image_may_come_as_bytes(temporary):
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(stream, "PNG")
    assert Recognizer("mini_xception", "fer2013", faces="none")(stream.getvalue()).source == "bytes"


def test_invalid_content_is_an_error_and_leaves_no_temporary_file(recognizer, temporary):
    error, text = recognizer.many([b"no video", io.StringIO("text")], on_error="return")
    assert str(error).startswith("bytes: ") and str(temporary) not in str(error)
    assert isinstance(text, InputError) and "binary mode" in str(text)
    with pytest.raises(InputError, match="takes a list"):
        recognizer.many(b"one")
    assert not list(temporary.iterdir())


def test_bytes_in_a_table_have_the_name_of_their_item(clip, recognizer, tmp_path):
    items = [Item(clip.read_bytes(), "first"), Item(b"?", "second")]
    report = predict_table(recognizer, items, tmp_path / "t.jsonl")
    lines = (tmp_path / "t.jsonl").read_text().splitlines()
    assert report.failed == 1 and '"file": "first"' in lines[0] and "second: " in lines[-1]


def test_urls_are_opened_only_for_allowed_schemes(clip, recognizer):
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://clips/a.mp4", "wb") as stream:
        stream.write(clip.read_bytes())
    (plain,) = expand(["memory://clips/a.mp4"])
    assert plain.source == "memory://clips/a.mp4"
    with pytest.raises(MediaError):
        recognizer(plain.source)
    asked = list(expand(["memory://clips/a.mp4", "memory://clips/none.mp4"], schemes=["memory"]))
    assert asked[0].source == Remote("memory://clips/a.mp4")
    answer, missing = recognizer.many([item.source for item in asked], on_error="return")
    assert answer.label == "happy" and answer.source == "memory://clips/a.mp4"
    assert "memory://clips/none.mp4" in str(missing)


def test_a_temporary_file_of_a_killed_run_is_removed_by_the_next_one(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / f".clip.{_host()}-{dead.pid}.abc{SUFFIX}"
    mine = tmp_path / f".clip.{_host()}-{os.getpid()}.abc{SUFFIX}"
    for path in (left, mine):
        path.write_bytes(b"x")
    code = "from dfer_zoo.atomic import temporary_file\nwith temporary_file('clip') as path: print(path)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True
    )
    assert str(tmp_path) in done.stdout, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [mine.name]
    with temporary_file("clip") as path:
        assert path.exists()
    assert not path.exists()
