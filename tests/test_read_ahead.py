"""Frames are decoded ahead in a thread: the same frames and errors, in bounded memory, and no thread is left."""

import contextvars
import itertools
import threading
import time

import numpy as np
import pytest

from dfer_zoo import Clip, read_clip
from dfer_zoo.media import ahead
from dfer_zoo.media.ahead import FRAMES, read_ahead
from dfer_zoo.media.write import write_mp4


def decoders():
    return [thread for thread in threading.enumerate() if thread.name == "dfer-zoo-decoder"]


class Source:
    """Frames with their number, which counts how many were taken."""

    def __init__(self, count, side=1, error=None):
        self.count, self.side, self.error = count, side, error
        self.taken = 0
        self.closed = False

    def frames(self):
        try:
            for number in range(self.count):
                self.taken += 1
                yield np.full((self.side, self.side), number, np.uint8)
            if self.error:
                raise self.error
        finally:
            self.closed = True


def settled(condition):
    """Wait until a condition holds."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_the_frames_are_the_same_in_the_same_order():
    source = Source(100)
    assert [int(frame[0, 0]) for frame in read_ahead(source.frames())] == list(range(100))
    assert source.closed and not decoders()


def test_an_error_comes_after_the_frames_before_it():
    found = []
    with pytest.raises(OSError, match="damaged"):
        for frame in read_ahead(Source(5, error=OSError("damaged")).frames()):
            found.append(int(frame[0, 0]))
    assert found == [0, 1, 2, 3, 4] and not decoders()


def test_few_frames_are_decoded_ahead():
    source = Source(100)
    frames = read_ahead(source.frames())
    next(frames)
    settled(lambda: source.taken == 1 + FRAMES + 1)  # taken, ready, and one that waits for space
    time.sleep(0.05)
    assert source.taken == 1 + FRAMES + 1
    frames.close()


def test_fewer_large_frames_are_decoded_ahead(monkeypatch):
    monkeypatch.setattr(ahead, "BYTES", 2 * 64 * 64)
    source = Source(100, side=64)
    frames = read_ahead(source.frames())
    next(frames)
    settled(lambda: source.taken == 1 + 2 + 1)
    time.sleep(0.05)
    assert source.taken == 1 + 2 + 1
    monkeypatch.setattr(ahead, "BYTES", 1)  # every frame is too large: one after the other
    assert len(list(frames)) == 99


def test_a_closed_generator_closes_its_source():
    source = Source(100)
    frames = read_ahead(source.frames())
    next(frames)
    frames.close()
    assert source.closed and not decoders()


def test_nothing_is_read_before_the_first_frame_is_wanted():
    source = Source(10)
    frames = read_ahead(source.frames())
    assert not source.taken and not decoders()
    frames.close()


def test_context_variables_are_those_of_the_reader():
    limit = contextvars.ContextVar("limit", default=0)
    limit.set(7)
    assert list(read_ahead(limit.get() for _ in range(1))) == [7]


def test_a_video_file_is_decoded_in_a_thread(tmp_path):
    rng = np.random.default_rng(0)
    clip = Clip.from_arrays(rng.integers(0, 256, (40, 48, 64, 3), np.uint8), fps=25)
    path = write_mp4(clip, tmp_path / "clip.mp4")
    frames = read_clip(path).frames
    some = frames.in_order(range(0, 40, 3))
    first = next(some)
    assert len(decoders()) == 1
    rest = list(itertools.islice(some, 2))
    some.close()
    assert not decoders()
    for number, frame in zip((0, 3, 6), (first, *rest), strict=True):
        assert np.array_equal(frame, frames.take([number])[0])
