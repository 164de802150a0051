"""Your own data: a folder per class, CSV files, lists in the five published formats, and one-line errors."""

import numpy as np
import pytest
from PIL import Image

from dfer_zoo.cli import main
from dfer_zoo.data.rows import Row, read_row
from dfer_zoo.errors import MediaError
from tests.drawn_data import draw_dfew, draw_frames, draw_sound

LABELS = "neutral,calm,happy,sad,angry,fearful,disgust,surprised"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Three clips of frames, a sound, and prepared faces."""
    monkeypatch.chdir(tmp_path)
    for name in ("happy/a", "sad/b", "sad/c d"):
        draw_frames(tmp_path / "clips" / name, 20, size=(64, 64))
    draw_sound(tmp_path / "clips" / "a.wav", 1.0)
    np.save(tmp_path / "clips" / "a.npy", np.zeros((15, 64, 64, 3), np.uint8))
    return tmp_path


def evaluated(place, capsys, data, *options):
    status = main(["evaluate", "av_fusion.puppets", str(data), "--without", "audio", *options])
    return status, *capsys.readouterr()


GOOD = {
    "a folder per class": ("clips", None),
    "a CSV file": ("own.csv", "path,label\nclips/happy/a,happy\nclips/sad/b,3\n"),
    "a CSV file with other columns": ("own.csv", "Split,Emotion,Video\ntest,happy,clips/happy/a\n"),
    "folder count label": ("own.txt", "clips/happy/a 20 2\nclips/sad/c d 20 3\n"),
    "folder label": ("own.txt", "clips/happy/a 2\nclips/sad/c d 3\n"),
    "folder wav label": ("own.txt", "clips/happy/a clips/a.wav 2\n"),
    "faces;sound;label;subset": ("own.txt", "clips/a.npy;clips/a.wav;3;testing\n"),
    "the csv of S2D": ("own.csv", "video_name,label\nclips/happy/a,2\n"),
}


@pytest.mark.parametrize("what", GOOD)
def test_your_own_data_are_read_in_every_format(place, capsys, what):
    name, text = GOOD[what]
    if text is None:
        for stray in ("a.wav", "a.npy"):
            (place / "clips" / stray).unlink()
    else:
        (place / name).write_text(text)
    status, out, err = evaluated(place, capsys, name)
    assert status == 0, err
    assert f"{3 if text is None else len(text.splitlines()) - name.endswith('csv')} clips" in out


WRONG = {
    "path,emotion2\na,happy\n": "'label' .*path, emotion2",
    "file,label\n,happy\n": "line 2: .*path",
    "path,label\nclips/happy/a\n": "line 2: .*2 values.* 1",
    "path,label\nclips/happy/a,hapy\n": f"'hapy' .*{LABELS.replace(',', ', ')}. Did you mean happy",
    "path,label\nclips/happy/a,8\n": "clips/happy/a has the class index 8 .*8 labels",
    "path,label,frames\nclips/happy/a,happy,many\n": "num_frames is 'many';",
    "clips/happy/a twenty happy\n": "'clips/happy/a twenty happy'",
    "clips/happy/a 20 2\nclips/sad/b 20\n": "line 2: .*'folder count label'",
    "clips/a.npy;clips/a.wav;0;testing\n": "'faces;sound;label;subset'",
    "\n": "the first line, ''",
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_lists_are_one_line_errors(place, capsys, text):
    import re

    (place / "own.csv").write_text(text)
    status, out, err = evaluated(place, capsys, "own.csv")
    assert status == 2 and err.count("\n") == 1 and not out
    assert re.search(WRONG[text], err), err


def test_the_error_for_a_missing_clip_suggests_root_and_replace(place, capsys):
    (place / "own.csv").write_text("path,label\n/theirs/happy/a,happy\nclips/sad/b,sad\n")
    status, out, _ = evaluated(place, capsys, "own.csv")
    assert status == 1 and "--root DIR" in out
    (place / "own.csv").write_text("path,label\n/theirs/happy/a,happy\n")
    assert evaluated(place, capsys, "own.csv", "--root", "clips")[0] == 0
    assert evaluated(place, capsys, "own.csv", "--replace", "/theirs=clips")[0] == 0
    status, _, err = evaluated(place, capsys, "own.csv", "--root", "nowhere")
    assert status == 2 and "nowhere/theirs/happy/a" in err


def test_the_error_names_a_folder_that_is_not_a_class(place, capsys):
    (place / "clips" / "bored").mkdir()
    Image.new("RGB", (32, 32)).save(place / "clips" / "bored" / "0.png")
    status, _, err = evaluated(place, capsys, "clips")
    assert status == 2 and "found bored" in err


def test_the_error_for_a_missing_sound_file_suggests_a_rule(tmp_path):
    draw_dfew(tmp_path, counts=(3,))
    row = Row(str(tmp_path / "dfew" / "clip_224x224" / "00001"), 0, audio=str(tmp_path / "elsewhere.wav"))
    with pytest.raises(MediaError, match=r"elsewhere\.wav: .*--audio dfew .*raw_wav/1\.wav"):
        read_row(row)


def test_the_error_for_a_missing_clip_suggests_a_root_that_works(tmp_path, monkeypatch):
    draw_dfew(tmp_path, counts=(3,))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MediaError, match=r"--root \. .*dfew/clip_224x224/00001"):
        read_row(Row("/theirs/dfew/clip_224x224/00001", 0))
