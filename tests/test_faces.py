"""Faces: the published crop rules, tracking, and detectors on real pictures."""

import concurrent.futures
import itertools
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfer_zoo import Clip, read_clip
from dfer_zoo.data.puppets import Puppet
from dfer_zoo.errors import InputError, MediaError
from dfer_zoo.media import faces
from dfer_zoo.media.faces import detect, follow, overlap, smooth_track
from dfer_zoo.media.faces.crops import aligned_square, union_square

side = st.integers(20, 400)
corner = st.floats(-100, 500)
box = st.tuples(corner, corner, st.floats(1, 300), st.floats(1, 300)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


# -- rules -------------------------------------------------------------------------------------------------------------


def test_mafw_crops_are_a_square_around_all_faces():
    assert tuple(union_square([(30.4, 20.6, 50.2, 80.9)], 200, 150)) == (10, 21, 60, 60)  # widened by 20 on both sides
    assert tuple(union_square([(30, 20, 50, 40), (90, 25, 110, 45)], 200, 150)) == (30, 0, 80, 72)  # cut at the top
    assert tuple(union_square([], 201, 150)) == (63, 37, 75, 75)
    assert tuple(union_square([(-9.0, -3.0, 41.0, 40.0)], 200, 150)) == (0, 0, 41, 40)


@given(st.lists(box, max_size=4), side, side)
def test_a_mafw_crop_lies_in_the_frame(boxes, width, height):
    inside = [b for b in boxes if b[2] > 1 and b[3] > 1 and b[0] < width - 1 and b[1] < height - 1]
    left, top, columns, rows = union_square(inside, width, height)
    assert 0 <= left < left + columns <= width and 0 <= top < top + rows <= height
    if not inside:
        assert columns == rows == min(width, height) // 2


@given(box, side, side)
def test_an_aligned_crop_lies_in_the_frame_and_is_square_where_it_fits(corners, width, height):
    left, top, columns, rows = aligned_square(corners, width, height)
    assert 0 <= left < left + columns <= width and 0 <= top < top + rows <= height
    wanted = max(1, round(max(corners[2] - corners[0], corners[3] - corners[1]) * 1.2))
    assert (columns, rows) == (min(wanted, width), min(wanted, height))


# -- tracks ------------------------------------------------------------------------------------------------------------


def still(left, top, size, count):
    return [np.array([[left + i, top, left + size + i, top + size]], dtype=float) for i in range(count)]


def test_a_passer_by_is_not_followed():
    frames = still(50, 50, 60, 20)
    for i in range(8, 11):  # larger for a moment
        frames[i] = np.concatenate([np.array([[200.0, 0, 290, 90]]), frames[i]])
    assert all(box[0] < 100 for _, box in follow(frames))


def test_a_false_detection_is_not_part_of_the_track():
    frames = still(50, 50, 60, 20)
    frames[7] = np.array([[200.0, 200, 220, 220]])
    frames[12] = np.zeros((0, 4))
    assert [number for number, _ in follow(frames)] == [i for i in range(20) if i not in (7, 12)]


def test_a_track_follows_a_cut_without_smoothing_over_it():
    frames = still(0, 0, 50, 10) + still(300, 200, 50, 10)
    path = follow(frames)
    assert len(path) == 20
    track = smooth_track(path, range(20))
    assert (track[:10, 0] < 60).all() and (track[10:, 0] >= 299).all()


def test_of_two_faces_the_larger_one_is_followed():
    frames = [np.concatenate([a, b]) for a, b in zip(still(0, 0, 40, 12), still(200, 50, 80, 12))]
    assert all(box[0] >= 200 for _, box in follow(frames))


def test_no_detection_gives_no_track():
    assert follow([np.zeros((0, 4))] * 5) == [] and follow([]) == []


@given(st.lists(st.lists(box, max_size=3), max_size=12))
@settings(deadline=None)
def test_a_track_consists_of_detected_boxes_in_order(found):
    found = [np.array(boxes, dtype=float).reshape(-1, 4) for boxes in found]
    path = follow(found)
    assert [number for number, _ in path] == sorted({number for number, _ in path})
    assert bool(path) == any(len(boxes) for boxes in found)
    for number, chosen in path:
        assert any(np.array_equal(chosen, other) for other in found[number])
    if path:
        track = smooth_track(path, range(len(found)))
        chosen = np.stack([b for _, b in path])
        assert (track >= chosen.min(0) - 1e-6).all() and (track <= chosen.max(0) + 1e-6).all()


@given(st.lists(box, min_size=1, max_size=4))
def test_overlap_is_symmetric_and_full_with_itself(boxes):
    array = np.array(boxes)
    pairs = overlap(array, array)
    np.testing.assert_allclose(pairs, pairs.T)
    np.testing.assert_allclose(np.diag(pairs), 1, rtol=1e-6)
    assert ((pairs >= 0) & (pairs <= 1 + 1e-9)).all()


def test_boxes_between_searches_are_interpolated():
    path = [(0, np.array([0.0, 0, 100, 100])), (10, np.array([10.0, 0, 110, 100]))]
    track = smooth_track(path, [0, 5, 10, 99])
    assert track[1, 0] == pytest.approx((track[0, 0] + track[2, 0]) / 2)
    assert np.array_equal(track[2], track[3])


# -- clips -------------------------------------------------------------------------------------------------------------


def numbered(count=12, height=60, width=80):
    """Frames whose pixels encode their place: red is the column, green the row, blue the frame."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[..., 0], frames[..., 1] = np.arange(width), np.arange(height)[:, None]
    frames[..., 2] = np.arange(count)[:, None, None]
    return frames


def find(frames, *arguments, **options):
    return faces.find(Clip.from_arrays(frames), *arguments, **options)


def place_of(crop):
    return int(crop[0, 0, 0]), int(crop[0, 0, 1]), crop.shape[1], crop.shape[0]


def test_given_boxes_are_cropped_exactly():
    clip = find(numbered(), (10, 5, 30, 25))
    assert [place_of(c) for c in clip.take([0, 3])] == [(10, 5, 20, 20)] * 2
    moving = [(i, 0, i + 10, 12) for i in range(12)]
    assert [place_of(c) for c in find(numbered(), moving).take([7, 2])] == [(7, 0, 10, 12), (2, 0, 10, 12)]
    assert clip.notes["faces"]["detector"] == "given boxes"
    for wrong in ([1, 2, 3], [[1, 2, 3, 4]] * 5, (0, 0, np.nan, 4), object()):
        with pytest.raises(InputError, match=r"expected \(4,\)|expected a detector|not finite"):
            find(numbered(), wrong)


class Scripted:
    """A detector that returns the boxes listed for the number of the frame."""

    __name__ = "scripted"

    def __init__(self, boxes):
        self.boxes, self.asked = boxes, []

    def __call__(self, frame):
        self.asked.append(int(frame[0, 0, 2]))
        return self.boxes.get(self.asked[-1])


def test_ravdess_crops_reuse_the_last_box_if_no_face_is_found():
    detector = Scripted({3: [(10, 10, 20, 20)], 6: [(30, 10, 40, 30), (0, 0, 5, 5)]})
    clip = find(numbered(), detector, crop="largest")
    assert detector.asked == []
    places = [place_of(c) for c in clip.take([0, 3, 5, 6, 9])]
    assert places == [(10, 10, 10, 10)] * 3 + [(30, 10, 10, 20)] * 2
    assert detector.asked == [0, 3, 5, 6, 9]
    report = clip.notes["faces"]
    assert (report["detector"], report["crop"], report["searched"], report["found"]) == ("scripted", "largest", 5, 2)
    clip.take([3, 9])
    assert len(detector.asked) == 5  # nothing is searched twice


def test_mafw_crops_use_each_frame_alone():
    detector = Scripted({0: [(10, 10, 20, 20), (30, 10, 40, 20)]})
    clip = find(numbered(), detector, crop="union_square")
    assert [place_of(c) for c in clip.take([0, 1])] == [(10, 0, 30, 30), (25, 15, 30, 30)]


def test_a_tracked_crop_moves_smoothly():
    boxes = {i: [(10 + i + (2 if i == 5 else 0), 10, 30 + i + (2 if i == 5 else 0), 30)] for i in range(12)}
    clip = find(numbered(), Scripted(boxes), crop="aligned")
    places = [place_of(c) for c in clip.take(range(12))]
    assert {(w, h) for _, _, w, h in places} == {(24, 24)}
    assert all(0 <= b[0] - a[0] <= 2 for a, b in itertools.pairwise(places))


def test_a_clip_without_a_face_is_an_error_or_the_whole_frame():
    nobody = Scripted({})
    for crop in ("aligned", "largest", "union_square"):
        clip = find(numbered(), nobody, crop=crop)
        with pytest.raises(MediaError, match=r"no face was found in \d+ frames .*scripted"):
            clip.take([0, 1])
        clip = find(numbered(), nobody, crop=crop, no_face="frame")
        shape = (
            (30, 30, 3) if crop == "union_square" else (60, 80, 3)
        )  # the middle of the frame is the published answer
        assert clip.take([1])[0].shape == shape
        assert clip.notes["faces"]["whole_frame"] == (crop != "union_square")


def test_unknown_options_are_one_line_errors():
    clip = Clip.from_arrays(numbered())
    for options, message in [
        ({"faces": "magic"}, "'magic'"),
        ({"crop": "round"}, "'round'"),
        ({"no_face": "cry"}, "no_face is 'cry'"),
    ]:
        with pytest.raises(InputError, match=message):
            faces.find(clip, **options)
    with pytest.raises(InputError, match=r"returned \(3,\)"):
        faces.find(clip, lambda frame: [1, 2, 3]).take([0])
    for answer in (3, "left"):
        with pytest.raises(InputError, match=r"returned (int|str)"):
            faces.find(clip, lambda frame, answer=answer: answer).take([0])
    with pytest.raises(InputError, match="not finite"):
        faces.find(clip, (0, 0, float("nan"), 1))
    with pytest.raises(MediaError, match=r"nothing\.onnx"):
        pytest.importorskip("cv2")
        faces.find(clip, "yunet:nothing.onnx").take([0])
    with pytest.raises(InputError, match="hf-hub:opencv"):
        faces.find(clip, "yunet:hf-hub:opencv").take([0])


def test_yunet_gets_bgr_and_returns_corner_boxes(tmp_path, monkeypatch):
    cv2 = pytest.importorskip("cv2")
    model = tmp_path / "yunet.onnx"
    model.write_bytes(b"model")

    class Network:
        def setInputSize(self, size):
            assert size == (80, 60)

        def detect(self, picture):
            assert picture[0, 7, 2] == 7  # the red channel comes last
            return 1, np.array([[5, 6, 10, 10, *[0] * 10, 0.9], [20, 10, 30, 20, *[0] * 10, 0.8]], np.float32)

    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *arguments: Network())
    boxes = faces.YuNet(str(model))(numbered()[0])
    assert boxes.tolist() == [[20, 10, 50, 30], [5, 6, 15, 16]]


# -- real pictures -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def astronaut():
    return pytest.importorskip("skimage.data").astronaut()


def test_the_cascade_finds_a_photographed_face(astronaut):
    pytest.importorskip("cv2")
    found = faces.Cascade()(astronaut)
    assert overlap(found[:1], np.array([[181.0, 62, 268, 172]]))[0, 0] > 0.6
    larger = np.kron(astronaut, np.ones((2, 2, 1), np.uint8))
    np.testing.assert_allclose(faces.Cascade()(larger)[0], 2 * found[0], atol=20)
    assert len(faces.Cascade()(np.zeros((100, 100, 3), np.uint8))) == 0
    turned = np.ascontiguousarray(astronaut[..., ::-1])[..., ::-1]  # as a camera's BGR becomes RGB
    np.testing.assert_array_equal(faces.Cascade()(turned), found)


def test_mtcnn_finds_a_photographed_face_as_published(astronaut):
    pytest.importorskip("facenet_pytorch")
    found = faces.MTCNN()(astronaut)
    np.testing.assert_allclose(found, [[181.05, 62.16, 267.75, 172.05]], atol=0.1)
    for size in (8, 40):
        assert faces.MTCNN()(np.zeros((size, size, 3), np.uint8)).shape == (0, 4)


@pytest.mark.parametrize("detector", ["cascade", "mtcnn"])
def test_a_drawn_face_is_found_where_it_was_drawn(detector):
    pytest.importorskip("cv2" if detector == "cascade" else "facenet_pytorch")
    drawn = Puppet("happiness", identity=1, seed=4, size=160).clip().take([0, 30, 60])
    room = np.full((3, 240, 400, 3), 128, np.uint8)
    room[:, 60:220, 200:360] = drawn
    clip = faces.find(read_clip(room, fps=30), detector)
    for cut in clip.take(range(3)):
        assert 60 < cut.shape[0] < 220
    left, top, right, bottom = clip.notes["faces"]["median_box"]
    assert 200 < (left + right) / 2 < 360 and 60 < (top + bottom) / 2 < 220


def test_auto_uses_the_published_detector_if_it_is_installed(monkeypatch):
    monkeypatch.setattr(detect.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(detect, "_mtcnn", lambda: None)
    assert faces.find_detector("auto").name == "mtcnn"
    monkeypatch.setattr(detect.importlib.util, "find_spec", lambda name: None)
    assert faces.find_detector("auto").name == "opencv cascade"


def test_four_threads_get_the_boxes_of_one_thread(astronaut):
    pytest.importorskip("cv2")
    pictures = [np.roll(astronaut, 11 * shift, axis=1)[:: 1 + shift % 2, :: 1 + shift % 2] for shift in range(6)] * 3
    alone = [faces.Cascade()(picture).tolist() for picture in pictures]
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        together = [boxes.tolist() for boxes in threads.map(faces.Cascade(), pictures)]
    assert together == alone and any(alone)


def test_a_missing_opencv_is_a_one_line_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MediaError, match="OpenCV: pip install"):
        faces.Cascade()(np.zeros((64, 64, 3), np.uint8))


def test_auto_prefers_the_detector_of_the_training_and_reports_its_absence(monkeypatch):
    monkeypatch.setattr(detect.importlib.util, "find_spec", lambda name: None)
    assert detect.find_detector("auto:cascade") == detect.Cascade()
    for name, reason in (("mtcnn", "needs facenet-pytorch"), ("yunet", "faces='yunet:FILE'")):
        found = detect.find_detector(f"auto:{name}")
        assert isinstance(found, detect.Cascade)
        assert f"were found by {name}" in found.fallback and reason in found.fallback
