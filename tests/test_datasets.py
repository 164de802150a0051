"""Data sets of every kind become rows, clips and rates."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from dfer_zoo.data.annotations import Row, read_row, read_rows
from dfer_zoo.data.formats import read_audiovisual_list, read_clip_list, read_frame_list
from dfer_zoo.data.puppets import Puppet
from dfer_zoo.errors import InputError, MediaError
from dfer_zoo.inference import evaluate as evaluation
from dfer_zoo.inference import plots
from dfer_zoo.media.faces import find
from tests.small import StandIn

LABELS = ("happy", "sad")


def folder_with(tmp_path, *files):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def test_a_folder_per_class_is_read_in_the_order_of_the_labels(tmp_path):
    folder_with(tmp_path, "sad/b.mp4", "sad/a.mp4", "sad/notes.txt", "happy/c/0001.jpg", ".cache/x.mp4")
    rows = read_rows(tmp_path, ("happy", "sad"))
    assert [(row.path[len(str(tmp_path)) :], row.label) for row in rows] == [
        ("/happy/c", 0),
        ("/sad/a.mp4", 1),
        ("/sad/b.mp4", 1),
    ]
    assert {row.label for row in read_rows(tmp_path, ("sad", "neutral", "happy"))} == {0, 2}
    assert len(read_rows(tmp_path)) == 3  # without labels the folders are in alphabetical order


def test_a_folder_that_is_not_a_label_is_an_error(tmp_path):
    folder_with(tmp_path, "happy/a.mp4", "hapy/b.mp4")
    with pytest.raises(InputError, match=r"happy, sad; .*hapy"):
        read_rows(tmp_path, LABELS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="found no folder"):
        read_rows(tmp_path / "empty", LABELS)


def test_the_first_line_determines_the_format_of_a_list(tmp_path):
    (tmp_path / "three.txt").write_text("/data/clip one 30 1\n/data/two 12 0\n")
    assert [(r.path, r.num_frames, r.label) for r in read_rows(tmp_path / "three.txt", LABELS)] == [
        ("/data/clip one", 30, 1),
        ("/data/two", 12, 0),
    ]
    (tmp_path / "four.txt").write_text("a.npy;a.wav;1;training\nb.npy;b.wav;2;testing\n")
    assert [r.label for r in read_rows(tmp_path / "four.txt", LABELS)] == [0, 1]
    assert [r.path for r in read_rows(tmp_path / "four.txt", LABELS, subset="testing")] == ["b.npy"]
    (tmp_path / "other.csv").write_text("name,emotion\n")
    with pytest.raises(InputError, match=r"'path' .*name, emotion"):
        read_rows(tmp_path / "other.csv", LABELS)
    with pytest.raises(InputError, match=r"'nowhere.txt'"):
        read_rows("nowhere.txt", LABELS)


def test_labels_out_of_range_are_errors_before_any_computation(tmp_path):
    (tmp_path / "four.txt").write_text("a.npy;a.wav;1;training\nb.npy;b.wav;3;testing\n")
    with pytest.raises(InputError, match=r"b\.npy has the class index 2 .*happy, sad"):
        read_rows(tmp_path / "four.txt", LABELS)
    assert [row.label for row in read_rows(tmp_path / "four.txt")] == [0, 2]
    with pytest.raises(InputError, match=r"0\.\.1.*\[0, 1, 2\]"):
        _ = evaluation.Evaluation((Row("a", 0), Row("b", 2)), np.eye(2)).confusion


def test_unknown_reader_options_are_errors(tmp_path):
    (tmp_path / "four.txt").write_text("a.npy;a.wav;1;training\n")
    (tmp_path / "speech").mkdir()
    folder_with(tmp_path / "speech", "ACTOR05/01-01-03-02-01-01-05.mp4")
    folder_with(tmp_path / "classes", "happy/a.mp4")
    for source, option in (
        ("puppets", "root"),
        (tmp_path / "four.txt", "audio"),
        (tmp_path / "speech", "root"),
        (tmp_path / "classes", "root"),
    ):
        with pytest.raises(InputError, match=f"no option '{option}'"):
            read_rows(source, **{option: "dfew"})


@pytest.mark.parametrize("line", ["a.npy;ton_ü.wav;1;training\n", "/gefühl/1 12 0\n", "/gefühl/1 0\n"])
def test_an_unreadable_list_is_a_one_line_error(tmp_path, line):
    (tmp_path / "list.txt").write_bytes(line.encode("latin-1"))
    for reader in (read_rows, read_frame_list, read_clip_list, read_audiovisual_list):
        with pytest.raises(InputError, match="is not UTF-8"):
            reader(tmp_path / "list.txt")
        with pytest.raises(InputError, match="no data set" if reader is read_rows else "No such file"):
            reader(tmp_path / "none.txt")


def test_the_error_names_unreadable_prepared_faces(tmp_path):
    path = tmp_path / "faces.npy"
    np.save(path, np.zeros((2, 4, 4, 3), np.uint8))
    whole = path.read_bytes()
    np.save(path, np.array([None]), allow_pickle=True)
    for content in (whole[:-1], whole[:20], b"", path.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(MediaError, match=r"faces\.npy: .*cannot be read"):
            read_row(Row(str(path), 0))
    np.save(path, np.zeros(3, np.uint8))
    with pytest.raises(MediaError, match=r"\(frames, height, width, 3\).*\(3,\)"):
        read_row(Row(str(path), 0))
    with pytest.raises(MediaError, match="no such file"):
        read_row(Row(str(tmp_path / "none.npy"), 0))


def test_ravdess_is_recognised_by_its_file_names(tmp_path):
    folder_with(tmp_path, "ACTOR05/01-01-03-02-01-01-05.mp4", "ACTOR01/01-01-01-01-01-01-01.mp4")
    assert [(row.label, row.subset) for row in read_rows(tmp_path)] == [(0, "training"), (2, "testing")]
    assert [row.label for row in read_rows(tmp_path, subset="testing")] == [2]
    with pytest.raises(InputError, match=r"'validation';.*testing, training"):
        read_rows(tmp_path, subset="validation")


def test_songs_of_ravdess_are_left_out(tmp_path):
    folder_with(tmp_path, "ACTOR01/01-02-04-01-01-01-01.mp4", "ACTOR01/01-01-05-01-01-01-01.mp4")
    assert [row.label for row in read_rows(tmp_path)] == [4]
    (tmp_path / "ACTOR01" / "01-01-05-01-01-01-01.mp4").unlink()
    with pytest.raises(InputError, match=r"no \.mp4 file of speech"):
        read_rows(tmp_path)


def test_puppets_are_a_data_set():
    rows = read_rows("puppets:clips=6,seed=2,split=test,size=32,disagree=0.5", LABELS)
    assert [row.label for row in rows] == [0, 1] * 3
    assert sum(Puppet.parse(row.path).voice != "" for row in rows) == 3
    clip = read_row(rows[0])
    assert clip.take([0])[0].shape == (32, 32, 3) and clip.waveform is not None
    with pytest.raises(InputError, match=r"'clip'.*Did you mean clips"):
        read_rows("puppets:clip=3", LABELS)
    with pytest.raises(InputError, match="expected a number"):
        read_rows("puppets:clips=few", LABELS)


def test_batched_probabilities_match_single_clips():
    torch.manual_seed(0)
    model = StandIn(num_classes=2).eval()
    rows = read_rows("puppets:clips=5,size=32", LABELS)
    transform = evaluation.create_transform(model, faces="none")
    together = evaluation.evaluate(model, rows, batch_size=2, strict=True).answers
    with torch.no_grad():
        alone = [model(**transform.batch([read_row(row)])).softmax(-1)[0].numpy() for row in rows]
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-4, atol=1e-6)
    mute = evaluation.evaluate(model, rows, batch_size=2, without=("audio",), strict=True).answers
    assert not np.allclose(mute, together)
    with pytest.raises(InputError, match="batch_size is 0;"):
        evaluation.evaluate(model, rows, batch_size=0)
    with pytest.raises(InputError, match="needs image"):
        evaluation.evaluate(model, rows, without=("image",))


@pytest.fixture
def room_row(tmp_path):
    """A folder of frames. The red value of a pixel is its column, the green value its row."""
    frame = np.zeros((60, 80, 3), np.uint8)
    frame[..., 0], frame[..., 1] = np.arange(80), np.arange(60)[:, None]
    (tmp_path / "room_row").mkdir()
    for number in range(4):
        Image.fromarray(frame).save(tmp_path / "room_row" / f"{number}.png")
    return Row(str(tmp_path / "room_row"), 0, num_frames=3)


def detect_one_face(frame):
    return [(10.4, 5.0, 30.0, 35.0)]


def test_the_transform_crops_the_frames_of_a_row(room_row):
    assert read_row(room_row).take([0])[0].shape == (60, 80, 3)
    model = StandIn(num_classes=2)
    clip = evaluation.create_transform(model, faces=detect_one_face, face_crop="largest").crop(read_row(room_row))
    (face,) = clip.take([0])
    assert clip.num_frames == 3 and face.shape == (30, 20, 3) and tuple(face[0, 0, :2]) == (10, 5)
    with pytest.raises(MediaError, match="no face was found"):
        evaluation.create_transform(model, faces=lambda frame: []).crop(read_row(room_row)).take([0])
    whole = evaluation.create_transform(model, faces=lambda frame: [], no_face="frame").crop(read_row(room_row))
    assert whole.take([0])[0].shape == (60, 80, 3)


def test_puppets_and_prepared_faces_are_not_searched_for_faces(tmp_path):
    np.save(tmp_path / "faces.npy", np.full((3, 8, 8, 3), 9, np.uint8))
    transform = evaluation.create_transform(StandIn(num_classes=2), faces=lambda frame: pytest.fail("searched"))
    for row in (Row(str(tmp_path / "faces.npy"), 0), *read_rows("puppets:clips=1,size=32", LABELS)):
        assert transform.crop(read_row(row)).take([0])[0].shape[0] in (8, 32)


@pytest.mark.parametrize("crop", ["aligned", "largest"])
def test_evaluation_crops_faces_by_the_rule_of_the_weights(room_row, crop):
    model = StandIn(num_classes=2).eval()
    model.video_spec = dataclasses.replace(model.video_spec, face_crop=crop)
    transform = evaluation.create_transform(model, faces=detect_one_face)
    found = evaluation.evaluate(model, [room_row], transform=transform, strict=True).answers
    uncropped = evaluation.evaluate(model, [room_row], strict=True).answers
    with torch.no_grad():
        (expected,) = (
            model(**transform.batch([find(read_row(room_row), detect_one_face, crop=crop)])).softmax(-1).numpy()
        )
        (whole,) = (
            model(**evaluation.create_transform(model, faces="none").batch([read_row(room_row)])).softmax(-1).numpy()
        )
    np.testing.assert_allclose(uncropped[0], whole, rtol=1e-5)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    assert not np.allclose(found[0], whole)


def test_a_report_counts_the_clips_of_every_class():
    rows = read_rows("puppets:clips=4,size=32", LABELS)
    answers = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9]])
    text = evaluation.report(evaluation.Evaluation(tuple(rows), answers), LABELS)
    assert text.startswith("UAR 75.00   WAR 75.00   4 clips")
    assert "sad        2   50.00" in text and "no clip" not in text


def test_a_report_names_classes_without_clips():
    rows = read_rows("puppets:clips=4,size=32", LABELS)[::2]
    text = evaluation.report(evaluation.Evaluation(tuple(rows), np.array([[0.9, 0.1], [0.2, 0.8]])), LABELS)
    assert text.startswith("UAR nan") and "no clip of sad;" in text


def test_a_confusion_table_is_plotted(tmp_path):
    pytest.importorskip("matplotlib")
    figure = plots.confusion_figure(np.array([[3, 1], [0, 4]]), LABELS, "a title with a $")
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["3", "1", "0", "4"]
    assert axes.images[0].get_array().tolist() == [[0.75, 0.25], [0.0, 1.0]]
    assert Image.open(plots.write_figure(tmp_path / "table.png", figure)).size[0] > 100
