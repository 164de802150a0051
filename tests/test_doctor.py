"""`dfer-zoo doctor`: it compares an annotation file with the files on disk and with the label order."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from dfer_zoo import Clip
from dfer_zoo.cli import main
from dfer_zoo.data.annotations import read_rows
from dfer_zoo.inference.doctor import MOST_CLIPS, examine, examine_rows, uncropped
from dfer_zoo.registry import get_weights
from tests.drawn_data import draw_dfew, write_list

LABELS = get_weights("mma_dfer.dfew_fold1").labels


def detector_with_share(share):
    """A detector whose box covers this share of every frame."""

    def detect(frame):
        height, width = np.array(frame.shape[:2]) * np.sqrt(share)
        return [(0.0, 0.0, float(width), float(height))]

    return detect


def detect_nothing(frame):
    return []


def clip_of(size=(60, 80), sound=False):
    frames = np.zeros((20, *size, 3), np.uint8)
    waveform = np.zeros(16000, np.float32) if sound else None
    return Clip.from_arrays(frames, fps=25, waveform=waveform, sample_rate=16000 if sound else None)


@pytest.mark.parametrize(
    "share, verdict", [(0.04, "whole"), (0.29, "whole"), (0.31, "cropped"), (0.9, "cropped"), (1.5, "too tight")]
)
def test_the_face_share_separates_whole_frames_from_crops(share, verdict):
    found = examine(clip_of(), faces=detector_with_share(share))
    assert found.verdict == verdict
    assert found.cover == pytest.approx(share, rel=1e-6)
    assert found.searched == found.with_face == 16


def test_the_report_mentions_missing_faces_and_sound():
    found = examine(clip_of(), faces=detect_nothing)
    assert found.verdict == "no face" and found.face is None
    assert "in 0 of 16 frames" in found.report() and "sound: none" in found.report()
    assert "sound: 16000 Hz" in examine(clip_of(sound=True), faces=detect_nothing).report()


def test_a_list_is_compared_with_the_files_on_disk(tmp_path):
    listed = draw_dfew(tmp_path, counts=(20, 20, 18), short=2)  # two frames more in the list than in the folders
    (tmp_path / "dfew" / "raw_wav" / "1.wav").unlink()
    shutil.rmtree(tmp_path / "dfew" / "clip_224x224" / "00003")
    rows = read_rows(listed, LABELS, replace=("/theirs", str(tmp_path)), audio="dfew")
    said = "\n".join(examine_rows(rows, LABELS))
    assert "3 clips" in said
    assert "1 of 3 clips" in said and "00003" in said
    assert "1 of 3 sound files" in said and "1.wav" in said
    assert "2 of 3 folders" in said
    assert "00001 (20 in the folder, 22 in the list)" in said  # hidden files are no frames
    absent = ", ".join(name for number, name in enumerate(LABELS) if number not in (1, 2, 3))
    assert f"no clip of {absent}" in said


def test_doctor_checks_the_list_and_a_sample_of_its_clips(tmp_path, capsys):
    listed = draw_dfew(tmp_path, counts=(20,) * (2 * MOST_CLIPS))
    moved = write_list(
        tmp_path / "list.txt", [line.replace("/theirs/", "") for line in listed.read_text().splitlines()]
    )
    status = main(["doctor", "--data", str(moved), "--model", "mma_dfer.dfew_fold1", "--root", str(tmp_path)])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    assert "0 of 16 clips" in printed.out
    assert printed.out.count("frames of 40 x 40") == MOST_CLIPS


def test_doctor_needs_a_model_for_a_list(tmp_path, capsys):
    assert main(["doctor", "--data", str(tmp_path / "list.txt")]) == 2
    assert "--data needs --model" in capsys.readouterr().err


def test_doctor_prints_a_clip_as_json(tmp_path, capsys):
    draw_dfew(tmp_path, counts=(5,))
    assert main(["doctor", str(tmp_path / "dfew" / "clip_224x224" / "00001"), "--json", "--faces", "cascade"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["frames"] == 5 and facts["verdict"] == "no face" and facts["sample_rate"] is None


def test_data_sets_of_whole_frames_are_detected(tmp_path):
    rows = read_rows(draw_dfew(tmp_path, counts=(20, 20, 18)), LABELS, replace=("/theirs", str(tmp_path)))
    assert len(uncropped(rows, faces=detector_with_share(0.1))) == 3
    assert uncropped(rows, faces=detector_with_share(0.6)) == []
