"""Worker processes: a file that kills the decoder costs itself and nothing else."""

import os
import signal

import numpy as np
import pytest

from dfer_zoo import read_clip
from dfer_zoo.errors import InputError, MediaError
from dfer_zoo.media.clip import in_order
from dfer_zoo.media.worker import ClipReader, Worker, WorkerDied
from tests.media_files import test_pattern

pytest.importorskip("av")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return test_pattern(tmp_path_factory.mktemp("worker") / "clip.mp4", "-c:v", "libx264", "-c:a", "aac", seconds=2)


def die():
    os.kill(os.getpid(), signal.SIGSEGV)


def refuse(what):
    raise InputError(f"no {what}")


def test_a_worker_returns_results_and_errors_and_is_replaced_when_it_dies():
    with Worker() as worker:
        assert worker.run(max, 3, 7) == 7
        first = worker.run(os.getpid)
        assert first != os.getpid()
        with pytest.raises(InputError, match="no such thing"):
            worker.run(refuse, "such thing")
        with pytest.raises(MediaError, match="ZeroDivisionError"):
            worker.run(divmod, 1, 0)
        assert worker.run(os.getpid) == first
        with pytest.raises(WorkerDied, match="SIGSEGV"):
            worker.run(die)
        assert worker.run(os.getpid) != first


def test_a_clip_from_a_worker_is_the_clip_itself(video):
    here = read_clip(video)
    with ClipReader() as reader:
        clip = reader.read(video, stream=True)
        assert clip.num_frames == here.num_frames == 60 and clip.fps == here.fps
        assert all(np.array_equal(a, b) for a, b in zip(clip.take([59, 0, 3]), here.take([59, 0, 3])))
        walk = in_order(clip.frames, range(60))
        for number in range(20):
            assert np.array_equal(next(walk), here.take([number])[0])
            if number == 9:  # sound between two frames
                assert np.array_equal(clip.waveform.cut(100, 900), here.waveform[:, 100:900])
        assert clip.waveform.shape == here.waveform.shape
        assert np.array_equal(np.asarray(clip.waveform), here.waveform)
        assert np.array_equal(reader.read(video).waveform, here.waveform)
        with pytest.raises(MediaError, match=r"nothing\.mp4: no such file"):
            reader.read("nothing.mp4")


def test_a_dead_worker_costs_the_file_it_was_reading(video):
    with ClipReader() as reader:
        clip = reader.read(video)
        walk = in_order(clip.frames, range(60))
        next(walk)
        os.kill(reader.worker._process.pid, signal.SIGKILL)
        with pytest.raises(MediaError, match=r"clip\.mp4: .*(worker process died|in between)"):
            list(walk)
        assert reader.read(video).num_frames == 60


def test_a_worker_with_little_memory_gives_an_error_and_not_the_machine_s_memory():
    with Worker(memory=1 << 30) as worker, pytest.raises(MediaError, match="memory"):
        worker.run(bytearray, 4 << 30)
