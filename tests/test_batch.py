"""Many clips into one table: parts, errors, shards, annotation files, and runs that are killed."""

import csv
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from dfer_zoo import Recognizer
from dfer_zoo.cli import main
from dfer_zoo.data.puppets import Puppet
from dfer_zoo.errors import InputError
from dfer_zoo.inference.batch import Batch, predict_table
from dfer_zoo.inference.inputs import Item, expand

MODEL = ("--model", "av_fusion.puppets", "--faces", "none", "--window", "1.5")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for number, emotion in enumerate(("happiness", "sadness", "anger", "fear")):
        Puppet(emotion, seed=number, size=64).write(folder / f"{number}.mp4")
    (folder / "broken.mp4").write_bytes(b"not a video")
    return folder


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer("av_fusion", "puppets", faces="none", window=1.5)


def read(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_folder_becomes_a_table_with_a_row_per_window_and_per_error(corpus, tmp_path, capsys):
    out = tmp_path / "t.csv"
    assert main(["predict", str(corpus), *MODEL, "--out", str(out)]) == 1
    rows = read(out)
    files = [row["file"] for row in rows]
    assert files == sorted(files) and len(set(files)) == 5
    assert [row["error"] != "" for row in rows] == [f.endswith("broken.mp4") for f in files]
    assert "5 clips, 1 with errors" in capsys.readouterr().out
    assert not out.with_name("t.csv.journal").exists()


def test_the_rows_are_the_answers_of_the_recognizer(corpus, recognizer, tmp_path):
    path = str(corpus / "0.mp4")
    predict_table(recognizer, [Item(path, "zero", id="x")], tmp_path / "t.csv")
    answer = recognizer(path)
    rows = read(tmp_path / "t.csv")
    assert [(float(r["start"]), float(r["stop"])) for r in rows] == [(w.start, w.stop) for w in answer.windows]
    assert [float(r["p_happy"]) for r in rows] == [
        w.probabilities[answer.labels.index("happy")] for w in answer.windows
    ]
    assert {(r["file"], r["id"], r["weights"][:17]) for r in rows} == {("zero", "x", "av_fusion.puppets")}


def test_a_part_of_a_file_has_the_times_of_the_file(corpus, recognizer, tmp_path):
    path = str(corpus / "1.mp4")
    predict_table(recognizer, [Item(path, path, start=1.0, stop=2.5), Item(path, path, start=9.0)], tmp_path / "t.csv")
    part, beyond = read(tmp_path / "t.csv")
    assert (float(part["start"]), float(part["stop"])) == (1.0, pytest.approx(2.5, abs=0.05))
    assert "9 s is after the end" in beyond["error"]


def test_annotation_files_lie_beside_the_clip(corpus, recognizer, tmp_path):
    clip = tmp_path / "a.mp4"
    clip.write_bytes((corpus / "0.mp4").read_bytes())
    predict_table(recognizer, expand([clip]), tmp_path / "t.csv", tiers=("eaf", "vtt"))
    assert (tmp_path / "a.eaf").read_text().startswith("<?xml") and (tmp_path / "a.vtt").read_text()[:6] == "WEBVTT"


def test_shards_are_disjoint_and_complete(corpus, recognizer, tmp_path):
    items = list(expand([corpus]))
    parts = []
    for number in (1, 2):
        predict_table(recognizer, items, tmp_path / f"{number}.csv", shard=(number, 2))
        parts.append({row["file"] for row in read(tmp_path / f"{number}.csv")})
    assert not parts[0] & parts[1] and parts[0] | parts[1] == {item.name for item in items}


def test_errors_are_tried_again_only_when_asked(corpus, recognizer, tmp_path, monkeypatch):
    items, tried = list(expand([corpus])), []
    monkeypatch.setattr("dfer_zoo.inference.batch.write_table", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))

    def run(**options):
        tried.clear()
        with pytest.raises(KeyboardInterrupt):
            predict_table(
                recognizer, items, tmp_path / "t.csv", told=lambda item, _: tried.append(item.name), **options
            )
        return len(tried)

    assert run() == 5
    with pytest.raises(InputError, match="--resume"):
        predict_table(recognizer, items, tmp_path / "t.csv")
    assert run(resume=True) == 0
    assert run(resume=True, retry_errors=True) == 1


def test_a_run_killed_several_times_ends_in_the_table_of_an_undisturbed_one(corpus, recognizer, tmp_path):
    predict_table(recognizer, expand([corpus]), tmp_path / "whole.csv")
    out = tmp_path / "killed.csv"
    journal = out.with_name("killed.csv.journal")
    command = [sys.executable, "-m", "dfer_zoo", "predict", str(corpus), *MODEL, "--out", str(out), "--workers", "2"]
    kills = 0
    for lines in (2, 4):  # the header and so many clips
        process = subprocess.Popen([*command, "--resume"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") >= lines):
            time.sleep(0.01)
        kills += process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert kills >= 1 and journal.exists()
    assert subprocess.run([*command, "--resume"], capture_output=True).returncode == 1
    found, expected = read(out), read(tmp_path / "whole.csv")
    assert [(r["file"], r["window"], r["label"], r["error"]) for r in found] == [
        (r["file"], r["window"], r["label"], r["error"]) for r in expected
    ]
    for one, other in zip(found, expected):
        if one["p_happy"]:
            assert np.isclose(float(one["p_happy"]), float(other["p_happy"]), atol=1e-5)


@pytest.mark.parametrize(
    "options, sentence",
    [
        (("--resume",), "--resume belongs to --out"),
        (("--out", "t.xlsx"), "expected one of .csv, .jsonl, .parquet"),
        (("--out", "t.csv", "--plot", "p.png"), "--plot cannot be used with --out"),
        (("--out", "t.csv", "--tiers", "ass"), "expected eaf, textgrid, vtt, srt"),
    ],
)
def test_options_that_do_not_go_together_are_one_sentence(corpus, capsys, options, sentence):
    assert main(["predict", str(corpus / "0.mp4"), *MODEL, *options]) == 2
    assert sentence in capsys.readouterr().err


# -- for engines -------------------------------------------------------------------------------------------------------


def test_a_batch_of_columns_gives_the_rows_of_the_table(corpus, recognizer, tmp_path):
    paths = sorted(str(path) for path in corpus.iterdir())
    predict_table(recognizer, [Item(path, path) for path in paths], tmp_path / "t.csv")
    expected = read(tmp_path / "t.csv")
    found = Batch("av_fusion", "puppets", faces="none", window=1.5)({"path": np.array(paths)})
    assert found["file"] == [row["file"] for row in expected]
    assert [text or "" for text in found["label"]] == [row["label"] for row in expected]
    assert [text or "" for text in found["error"]] == [row["error"] for row in expected]


def test_a_batch_is_pickled_without_its_model_and_takes_the_content_of_files(corpus):
    batch = Batch("av_fusion", "puppets", path="video", id="name", faces="none", window=1.5)
    content = [(corpus / "0.mp4").read_bytes(), b"not a video"]
    columns = {"video": content, "name": ["zero", "broken"]}
    before = batch(columns)
    small = pickle.dumps(batch)
    assert len(small) < 2000
    assert pickle.loads(small)(columns) == before
    assert set(before["file"]) == {"zero", "broken"}
    assert [error is not None for error in before["error"]] == [name == "broken" for name in before["file"]]


def test_a_column_that_is_missing_is_named():
    with pytest.raises(InputError, match="no column 'path'; it has video"):
        Batch("av_fusion", "puppets")({"video": []})
