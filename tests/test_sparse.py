"""Frames that no wanted frame depends on are not decoded, and the wanted ones stay the same."""

import dataclasses
import random

import numpy as np
import pytest

from dfer_zoo.errors import MediaError
from dfer_zoo.media import h264, video
from dfer_zoo.media.video import VideoFile
from tests.media_files import test_pattern as pattern

pytest.importorskip("av")
X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-an")
FILES = {  # options -> whether frames can be skipped
    ("-g", 12): True,
    ("-g", 250, "-bf", 0): True,
    ("-bf", 5, "-g", 24, "-x264-params", "b-pyramid=strict"): True,
    ("-flags", "+ildct+ilme", "-x264-params", "tff=1", "-g", 20): True,
    ("-x264-params", "slices=4:keyint=15"): True,
    ("-x264-params", "open-gop=1:keyint=12:bframes=3"): False,
    ("-x264-params", "intra-refresh=1:keyint=12"): False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sparse")


def encoded(folder, options):
    return VideoFile.of(pattern(folder / f"{list(FILES).index(options)}.mp4", *X264, *options))


@pytest.mark.parametrize("options", FILES, ids=str)
def test_some_frames_equal_those_of_a_full_decode(folder, options):
    file = encoded(folder, options)
    assert (file.groups is not None) == FILES[options]
    every = list(dataclasses.replace(file, groups=None).in_order(range(len(file))))
    for count, seed in ((1, 0), (1, 1), (2, 2), (5, 3), (20, 4), (len(file), 5)):
        some = sorted(random.Random(seed).sample(range(len(file)), count))
        found = list(file.in_order(some))
        assert len(found) == count
        for number, frame in zip(some, found):
            np.testing.assert_array_equal(frame, every[number])


def test_a_group_without_wanted_frames_is_not_decoded(folder, monkeypatch):
    file = encoded(folder, ("-g", 12))
    decoded = []
    number_of = VideoFile._number

    def number(self, timed, stream):
        found = number_of(self, timed, stream)
        if type(timed).__name__ == "VideoFrame":
            decoded.append(found)
        return found

    monkeypatch.setattr(VideoFile, "_number", number)
    first = int(np.flatnonzero(file.groups == 2)[0])
    last = int(np.flatnonzero(file.groups == 4)[0])
    assert len(list(file.in_order([first, first + 3, last]))) == 3
    assert {int(file.groups[n]) for n in decoded} == {2, 4} and len(decoded) < 12


def test_repeated_frames_and_wrong_numbers_are_as_in_a_full_decode(folder):
    file = encoded(folder, ("-g", 12))
    one, two = file.in_order([5, 5])
    np.testing.assert_array_equal(one, two)
    with pytest.raises(MediaError, match=f"no frame {len(file)}; the file has {len(file)} frames"):
        list(file.in_order([3, len(file)]))


def test_damage_in_a_wanted_frame_is_the_error_of_a_full_decode(folder):
    file = encoded(folder, ("-g", 12))
    content = bytearray(file.path.read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    damaged = dataclasses.replace(file, path=folder / "damaged.mp4")
    damaged.path.write_bytes(content)
    with pytest.raises(Exception) as plain:
        list(dataclasses.replace(damaged, groups=None).in_order(range(len(file))))
    with pytest.raises(type(plain.value)) as sparse:
        list(damaged.in_order(range(len(file))))
    assert str(sparse.value) == str(plain.value)


def test_a_file_that_ends_early_is_the_error_of_a_full_decode(folder, monkeypatch):
    file = encoded(folder, ("-g", 12))
    monkeypatch.setattr(video, "_picture", lambda frame, *_: frame)
    longer = dataclasses.replace(
        file,
        count=file.count + 1,
        times=np.append(file.times, file.times[-1] + 1),
        groups=np.append(file.groups, file.groups[-1]),
    )
    with pytest.raises(MediaError, match="are announced, but only"):
        list(longer.in_order([3, file.count]))


def test_headers_of_damaged_packets_count_as_referenced():
    assert not h264.is_unreferenced(bytes([0, 0, 9, 1, 0x01]))
    assert not h264.is_restart(bytes([0, 0, 0, 2, 0x65, 0, 0, 0, 9, 0x65, 0]))
    assert h264.is_restart(bytes([0, 0, 0, 1, 0x67, 0, 0, 0, 2, 0x65, 0]))
