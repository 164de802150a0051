"""Inputs of the command line: files, folders, globs, lists, tables, standard input."""

import io

import numpy as np
import pytest

from dfer_zoo import Clip
from dfer_zoo.errors import InputError
from dfer_zoo.inference.inputs import Item, expand


@pytest.fixture
def corpus(tmp_path):
    for name in ("a.mp4", "sub/b.AVI", "sub/c.wav", "sub/notes.txt", "frames/1.jpg", "frames/2.jpg", "mixed/x.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "mixed" / "d.mp4").write_bytes(b"x")
    (tmp_path / "sub" / "._b.AVI").write_bytes(b"x")
    return tmp_path


def names(corpus, *given, **options):
    return [item.name.removeprefix(f"{corpus}/") for item in expand(given, **options)]


def test_a_folder_gives_its_media_files_and_a_folder_of_frames_is_one_clip(corpus):
    assert names(corpus, str(corpus)) == ["a.mp4", "frames", "mixed/d.mp4", "sub/b.AVI", "sub/c.wav"]
    assert names(corpus, corpus / "frames") == ["frames"]


def test_treat_as_decides_what_a_folder_is(corpus):
    assert names(corpus, corpus / "frames", treat_as="files") == ["frames/1.jpg", "frames/2.jpg"]
    assert names(corpus, corpus / "mixed", treat_as="clip") == ["mixed"]
    with pytest.raises(InputError, match="auto, clip, files"):
        names(corpus, corpus, treat_as="both")


def test_globs_are_expanded(corpus):
    assert names(corpus, f"{corpus}/**/*.mp4") == ["a.mp4", "mixed/d.mp4"]
    with pytest.raises(InputError, match="mkv"):
        names(corpus, f"{corpus}/*.mkv")


def test_a_file_whose_name_looks_like_a_glob_is_that_file(corpus):
    odd = corpus / "take[1].mp4"
    odd.write_bytes(b"x")
    assert names(corpus, str(odd)) == ["take[1].mp4"]


def test_lists_and_the_standard_input_hold_one_path_per_line(corpus):
    listed = corpus / "list.txt"
    listed.write_text(f"# a comment\n{corpus}/a.mp4\n\n{corpus}/frames\n")
    assert names(corpus, f"@{listed}") == ["a.mp4", "frames"]
    assert names(corpus, "-", stdin=io.StringIO(f"{corpus}/a.mp4\n")) == ["a.mp4"]
    with pytest.raises(InputError, match=r"nowhere.txt"):
        names(corpus, "@nowhere.txt")


def test_a_table_names_parts_of_files(corpus):
    table = corpus / "clips.csv"
    table.write_text('path,start,stop,audio,box,id\na.mp4,1.5,3,sub/c.wav,"1,2,30,40",x7\nsub/b.AVI,,,,,\n')
    first, second = expand([table])
    assert first == Item(f"{corpus}/a.mp4", "a.mp4", 1.5, 3.0, f"{corpus}/sub/c.wav", (1.0, 2.0, 30.0, 40.0), "x7")
    assert second == Item(f"{corpus}/sub/b.AVI", "sub/b.AVI")


def test_a_parquet_table_is_read_like_a_csv(corpus):
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame({"path": ["a.mp4"], "start": [0.5], "stop": [2.0], "other": [1]}).to_parquet(corpus / "t.parquet")
    (item,) = expand([corpus / "t.parquet"])
    assert (item.source, item.start, item.stop) == (f"{corpus}/a.mp4", 0.5, 2.0)


@pytest.mark.parametrize(
    "content, sentence",
    [
        ("file\na.mp4\n", "`path`"),
        ("path,start,stop\na.mp4,3,1\n", "start < stop"),
        ("path,start\na.mp4,soon\n", "'soon'"),
        ("path,start\na.mp4,nan\n", "not a finite number"),
        ("path,box\na.mp4,1 2 3\n", "left, top, right, bottom"),
    ],
)
def test_the_error_names_the_wrong_row_of_a_table(corpus, content, sentence):
    (corpus / "t.csv").write_text(content)
    with pytest.raises(InputError, match=f"row 1.*{sentence}"):
        list(expand([corpus / "t.csv"]))


def test_clips_and_items_pass_through():
    clip = Clip.from_arrays(np.zeros((2, 16, 16, 3), np.uint8), source="arrays")
    assert list(expand([clip, Item("a.mp4", "a")])) == [Item(clip, "arrays"), Item("a.mp4", "a")]
