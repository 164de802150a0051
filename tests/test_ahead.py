"""Worker processes that decode ahead of the model: same predictions, same order, and a file that kills its worker."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from dfer_zoo import Clip, MediaError, Recognizer
from dfer_zoo.data.puppets import Puppet
from dfer_zoo.inference.batch import predict_table
from dfer_zoo.inference.inputs import expand
from dfer_zoo.media.clip import ArrayFrames
from dfer_zoo.media.faces.boxes import BoxFile
from dfer_zoo.media.write import write_mp4

pytest.importorskip("av")


def detector(frame):
    """Detect the whole frame as a face, and crash on a black frame, as a decoder may."""
    if frame.mean() < 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return [(4, 4, frame.shape[1] - 4, frame.shape[0] - 4)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ahead")
    for number, emotion in enumerate(("happiness", "sadness", "anger", "fear")):
        Puppet(emotion, seed=number, size=64).write(folder / f"{number}.mp4")
    (folder / "1_broken.mp4").write_bytes(b"not a video")
    write_mp4(Clip.from_arrays(np.zeros((60, 64, 64, 3), np.uint8), fps=30), folder / "2_killer.mp4")
    return folder


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer("av_fusion", "puppets", faces=detector, window=1.5)


@pytest.mark.slow
def test_workers_give_the_same_predictions_and_a_crashing_file_fails_alone(corpus, recognizer, tmp_path):
    files = [corpus / name for name in ("0.mp4", "1_broken.mp4", "1.mp4", "2_killer.mp4", "2.mp4", "3.mp4")]
    answers = list(recognizer.many(files, workers=2, on_error="return", progress=False))
    for file, answer in zip(files, answers, strict=True):
        if file.name == "2_killer.mp4":
            assert isinstance(answer, MediaError)
            assert str(file) in str(answer) and "SIGKILL" in str(answer)
            continue
        (alone,) = recognizer.many([file], on_error="return", progress=False)
        if file.name == "1_broken.mp4":
            assert str(answer) == str(alone)
            continue
        assert answer.source == str(file) and answer.faces == alone.faces and answer.windows[0].stop == 1.5
        np.testing.assert_allclose(answer.logits, alone.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_workers_write_a_table_and_stop_at_the_first_error_by_default(corpus, recognizer, tmp_path):
    report = predict_table(recognizer, expand([corpus]), tmp_path / "t.jsonl", workers=2)
    assert (report.clips, report.failed) == (6, 2)
    rows = (tmp_path / "t.jsonl").read_text().splitlines()
    assert "2_killer.mp4" in next(row for row in rows if "SIGKILL" in row)
    with pytest.raises(MediaError, match="1_broken"):
        list(recognizer.many([corpus / "1_broken.mp4", corpus / "0.mp4"], workers=1, progress=False))
    vectors = recognizer.embed([corpus / "0.mp4", corpus / "1.mp4"], workers=1, progress=False)
    assert vectors.shape == (2, recognizer.models[0].num_features)


class Counting:
    """Frames that record which ones are decoded."""

    def __init__(self, count=40):
        self.frames, self.decoded = ArrayFrames(np.zeros((count, 16, 16, 3), np.uint8)), []

    def __len__(self):
        return len(self.frames)

    def take(self, indices):
        self.decoded += indices
        return self.frames.take(indices)


@pytest.mark.parametrize("window", [None, 1.0])
def test_face_search_decodes_no_frame_twice(window):
    frames = Counting(120)
    recognizer = Recognizer("mini_xception", "fer2013", faces=lambda frame: [(2, 2, 14, 14)], window=window)
    answer = recognizer(Clip(frames, fps=30))
    assert answer.faces["searched"] >= 4
    assert len(frames.decoded) == len(set(frames.decoded)) and frames.decoded == sorted(frames.decoded)


def test_several_processes_add_to_one_file_of_boxes(corpus, tmp_path):
    """Every line is whole, and the next run searches nothing."""
    boxes = tmp_path / "boxes.jsonl"
    clips = [path for path in sorted(corpus.iterdir()) if "_" not in path.name]
    recognizer = Recognizer("av_fusion", "puppets", faces=f"cascade+boxes:{boxes}", window=1.5, no_face="frame")
    first = list(recognizer.many(clips, workers=2, progress=False))
    lines = [json.loads(line) for line in boxes.read_text().splitlines()]
    assert {Path(line["clip"]).name for line in lines} == {path.name for path in clips}
    again = list(recognizer.many(clips, workers=2, progress=False))
    assert [answer.probabilities for answer in again] == [answer.probabilities for answer in first]
    assert all(answer.faces["searched"] == 0 and answer.faces["recalled"] > 0 for answer in again)


def append_many(path, writer, count):
    file = BoxFile(Path(path))
    for number in range(count):
        file.add(
            (os.path.dirname(path), number, f"writer {writer}", "full"), {0: ((0.0, 1.0, 2.0, 3.0),) * 300}
        )  # over 4 kB


def test_lines_of_many_writers_do_not_mix_and_a_cut_off_line_is_ended(tmp_path):
    path = tmp_path / "boxes.jsonl"
    append_many(str(path), "first", 1)
    whole = path.read_bytes()
    append_many(str(path), "cut off", 1)
    path.write_bytes(path.read_bytes()[:-50])
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=append_many, args=(str(path), n, 40)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert path.read_bytes().startswith(whole)
    file = BoxFile(path)
    assert all(
        len(file.boxes((str(tmp_path), n, f"writer {w}", "full"))[0]) == 300 for w in range(4) for n in range(40)
    )
    assert file.boxes((str(tmp_path), 0, "writer cut off", "full")) == {}
