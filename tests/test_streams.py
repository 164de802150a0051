"""Streams: caching does not change predictions, and late predictions are dropped."""

import dataclasses

import numpy as np
import pytest

import dfer_zoo
from dfer_zoo import Recognizer
from dfer_zoo.inference import stream as streams
from dfer_zoo.media import faces
from tests import small
from tests.test_contract import build
from tests.test_face_search import Squares

FPS = 10


def textured(count, jump=50):
    """Draw a textured square on black that moves, and jumps at one frame."""
    frames = np.zeros((count, 120, 320, 3), np.uint8)
    draw = np.random.default_rng(0)
    for number in range(count):
        left = 20 + number if number < jump else 240 - number
        frames[number, 40:90, left : left + 50] = draw.integers(128, 256, (50, 50, 3))
    return frames


def answers(recognizer, frames, **options):
    live = recognizer.stream(fps=FPS, sample_rate=None, **options)
    return [answer for frame in frames if (answer := live.push(frame))]


@pytest.fixture
def squares(monkeypatch):
    detector = Squares()
    monkeypatch.setattr(faces.detect, "find_detector", lambda name: detector)
    return detector


def crop_rule(model, rule):
    object.__setattr__(model.video_spec, "face_crop", rule)
    return model


@pytest.mark.parametrize(
    "arch, rule",
    [(arch, "aligned") for arch in ("av_fusion", "dfer_clip", "mini_xception", "emo_affectnet", "mae_dfer", "mma_dfer")]
    + [("dfer_clip", rule) for rule in ("largest", "detector_box", "gray_square", "union_square")],
)
def test_answers_are_those_without_memory(squares, arch, rule):
    model = crop_rule(build(arch), rule)
    if arch == "mini_xception":
        published = dfer_zoo.get_weights("mini_xception.fer2013").video
        model.video_spec = dataclasses.replace(published, face_crop=rule, img_size=model.video_spec.img_size)
    frames = textured(90)
    recognizer = Recognizer(model, faces="cascade", window=4.0, stride=1.0)
    with_memory = answers(recognizer, frames)
    looked = len(squares.whole) + len(squares.nearby)
    without = answers(recognizer, frames, remember=False)
    assert len(with_memory) == len(without) == 6
    for ours, expected in zip(with_memory, without):
        np.testing.assert_allclose(ours.probabilities, expected.probabilities, rtol=0, atol=1e-6)
    assert looked < (len(squares.whole) + len(squares.nearby)) * 0.55


@pytest.mark.parametrize("given", ["none", (20, 10, 100, 90)])
def test_frames_as_they_are_and_given_boxes_are_remembered_too(given):
    model = build("dfer_clip")
    recognizer = Recognizer(model, faces=given, window=4.0, stride=1.0)
    for ours, expected in zip(answers(recognizer, textured(70)), answers(recognizer, textured(70), remember=False)):
        np.testing.assert_allclose(ours.probabilities, expected.probabilities, rtol=0, atol=1e-6)


def test_no_frame_is_encoded_twice(monkeypatch):
    model, encoded = build("dfer_clip"), []
    encode = model.encode_frames
    monkeypatch.setattr(model, "encode_frames", lambda video: encoded.append(video.shape[1]) or encode(video))
    recognizer = Recognizer(model, faces="none", window=4.0, stride=1.0)  # 4 frames of 40, one new frame per second
    assert len(answers(recognizer, textured(90))) == 6
    assert encoded == [4, 1, 1, 1, 1, 1]


def test_memory_does_not_grow_with_the_stream(squares):
    recognizer = Recognizer(build("dfer_clip"), faces="cascade", window=2.0, stride=1.0)
    live = recognizer.stream(fps=FPS)
    sizes = []
    for frame in textured(150):
        if live.push(frame):
            memory = live._memory
            sizes.append((len(memory.ring.frames), len(memory.cropped.search.found), len(memory.transforms[0].kept)))
    assert sizes[-1] == sizes[-2] and max(size[0] for size in sizes) < 50


def test_everybody_in_a_stream_is_answered_for():
    recognizer = Recognizer(
        build("dfer_clip"), faces=lambda frame: [(20, 40, 70, 90)], window=2.0, stride=1.0, people="all"
    )
    assert [len(answer.people) for answer in answers(recognizer, textured(40))] == [1, 1, 1]


def test_a_stream_without_a_face_says_so_and_goes_on(squares):
    live = Recognizer(build("dfer_clip"), faces="cascade", window=1.0, stride=1.0).stream(fps=FPS)
    for frame in np.zeros((9, 120, 320, 3), np.uint8):
        assert live.push(frame) is None
    with pytest.raises(dfer_zoo.MediaError, match="no face was found"):
        live.push(np.zeros((120, 320, 3), np.uint8))
    assert [live.push(frame) for frame in textured(10)][-1] is not None


def test_a_late_answer_is_dropped_and_counted(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(streams.time, "perf_counter", lambda: now[0])

    class Slow(streams.Stream):
        def _answer(self):
            now[0] += 1.7  # seconds per prediction; one is due every second
            return super()._answer()

    recognizer = Recognizer(small.build(), faces="none", window=1.0, stride=1.0)
    for live, answered in ((False, 10), (True, 5)):
        stream = Slow(recognizer, FPS, live=live)
        found = [stream.push(frame) is not None for frame in textured(100)]
        assert sum(found) == answered and stream.dropped == 10 - answered
