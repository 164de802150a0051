"""Predictions as table rows and annotation tiers, read back with the usual libraries."""

import json

import numpy as np
import pytest

from dfer_zoo.errors import InputError
from dfer_zoo.inference.prediction import Prediction, Window
from dfer_zoo.inference.tables import columns, error_row, prediction_rows, write_table
from dfer_zoo.inference.tiers import intervals, write_tiers

LABELS = ("happy", "sad & <shy>")
IDENTITY = {"model": "av_fusion", "weights": "tiny", "sha256": "0123456789abcdef" * 4}


def prediction(*spans, source="clips/a.mp4", person=None):
    """Spans are (start, stop, probability of the first label)."""
    windows = tuple(Window(start, stop, (p, 1 - p)) for start, stop, p in spans)
    mean = float(np.mean([w.probabilities[0] for w in windows]))
    faces = {"searched": 4, "found": 3, "median_box": [1.0, 2.0, 30.0, 40.0]}
    if person is not None:
        faces["person"] = person
    return Prediction(source, LABELS, (mean, 1 - mean), windows, (IDENTITY,), faces=faces)


@pytest.fixture
def answer():
    return prediction((0.0, 2.0, 0.9), (1.0, 3.0, 0.8), (2.0, 4.0, 0.3))


@pytest.fixture
def rows(answer):
    return [*prediction_rows(answer, id="7"), error_row("clips/b.mp4", "no frames", LABELS)]


def test_a_row_describes_a_window(rows):
    assert list(rows[0]) == list(rows[3]) == columns(LABELS)
    assert rows[2] == {
        "file": "clips/a.mp4",
        "id": "7",
        "person": 1,
        "window": 2,
        "start": 2.0,
        "stop": 4.0,
        "label": "sad & <shy>",
        "p_happy": 0.3,
        "p_sad & <shy>": 0.7,
        "face_share": 0.75,
        "left": 1.0,
        "top": 2.0,
        "right": 30.0,
        "bottom": 40.0,
        "missing": None,
        "weights": "av_fusion.tiny@0123456789ab",
        "error": None,
    }
    assert rows[3]["error"] == "no frames" and rows[3]["label"] is None


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_pandas_reads_back_what_was_written(rows, tmp_path, suffix):
    pandas = pytest.importorskip("pandas")
    path = write_table(tmp_path / f"t{suffix}", iter(rows), LABELS)
    read = {".csv": pandas.read_csv, ".parquet": pandas.read_parquet}.get(
        suffix, lambda p: pandas.DataFrame(map(json.loads, p.read_text().splitlines()))
    )(path)
    assert list(read.columns) == columns(LABELS)
    assert read["label"].tolist()[:3] == ["happy", "happy", "sad & <shy>"]
    assert read["p_happy"].tolist()[:3] == [0.9, 0.8, 0.3]
    assert read["error"].tolist()[3] == "no frames"
    assert read["start"].isna().tolist() == [False, False, False, True]


def test_an_unknown_table_format_is_a_one_line_error(rows, tmp_path):
    with pytest.raises(InputError, match=r"\.csv, \.jsonl, \.parquet"):
        write_table(tmp_path / "t.xlsx", rows, LABELS)


def test_a_name_that_is_not_utf8_can_be_written(answer, tmp_path):
    name = b"caf\xe9.mp4".decode("utf-8", "surrogateescape")
    for suffix in (".csv", ".jsonl", ".parquet"):
        assert write_table(tmp_path / f"t{suffix}", prediction_rows(answer, file=name), LABELS).stat().st_size


# -- tiers -------------------------------------------------------------------------------------------------------------


def test_overlapping_windows_become_intervals_without_overlap(answer):
    assert intervals(answer) == [
        (0.0, 2.5, "happy", pytest.approx(0.9 * 0.6 + 0.8 * 0.4)),
        (2.5, 4.0, "sad & <shy>", pytest.approx(0.7)),
    ]


def test_a_gap_between_windows_stays_a_gap():
    apart = prediction((0.0, 1.0, 0.9), (3.0, 4.0, 0.9))
    assert [part[:2] for part in intervals(apart)] == [(0.0, 1.0), (3.0, 4.0)]


def test_elan_opens_the_annotation_file(answer, tmp_path):
    elan = pytest.importorskip("pympi.Elan")
    media = tmp_path / "a b.mp4"
    (path,) = write_tiers([answer, answer], ["eaf"], tmp_path / "a", str(media))
    file = elan.Eaf(str(path))
    assert sorted(file.get_tier_names()) == ["expression of person 1", "expression of person 2"]
    found = sorted(part[:3] for part in file.get_annotation_data_for_tier("expression of person 1"))
    assert found == [(0, 2500, "happy"), (2500, 4000, "sad & <shy>")]
    assert file.get_linked_files()[0]["MEDIA_URL"] == media.absolute().as_uri()


def test_praat_opens_the_textgrid(tmp_path):
    textgrid = pytest.importorskip("praatio.textgrid")
    apart = prediction((0.5, 1.0, 0.9), (3.0, 4.0, 0.2))
    (path,) = write_tiers([apart], ["textgrid"], tmp_path / "a")
    tier = textgrid.openTextgrid(str(path), includeEmptyIntervals=True).getTier("expression")
    assert [tuple(entry) for entry in tier.entries] == [
        (0.0, 0.5, ""),
        (0.5, 1.0, "happy"),
        (1.0, 3.0, ""),
        (3.0, 4.0, "sad & <shy>"),
    ]


@pytest.mark.parametrize("kind", ["vtt", "srt"])
def test_players_open_the_subtitles(answer, tmp_path, kind):
    webvtt = pytest.importorskip("webvtt")
    (path,) = write_tiers([answer], [kind], tmp_path / "a")
    captions = list((webvtt.read if kind == "vtt" else webvtt.from_srt)(str(path)))
    assert [(c.start, c.end) for c in captions] == [("00:00:00.000", "00:00:02.500"), ("00:00:02.500", "00:00:04.000")]
    assert captions[0].text == "happy 86%"


def test_an_unknown_tier_format_and_a_clip_without_times_are_one_line_errors(answer, tmp_path):
    with pytest.raises(InputError, match="eaf, textgrid, vtt, srt"):
        write_tiers([answer], ["ass"], tmp_path / "a")
    with pytest.raises(InputError, match="fps"):
        write_tiers([prediction((0.0, None, 0.5))], ["vtt"], tmp_path / "a")
