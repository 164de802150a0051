"""Untrusted files: no crash, no access to other files, no hang, and no memory above the limits."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfer_zoo import read_clip
from dfer_zoo.data.annotations import Row, read_row, read_rows
from dfer_zoo.data.puppets import Puppet
from dfer_zoo.errors import InputError, MediaError
from dfer_zoo.media.limits import LIMITS, check_limit, limit
from dfer_zoo.media.sound import SoundCursor, SoundFile
from tests.media_files import ffmpeg, test_pattern

pytest.importorskip("av")
ROOT = Path(__file__).resolve().parent.parent


def wav(path, channels=1, rate=16000, samples=16000):
    """A .wav file whose channel number c holds the value (c + 1) / 100."""
    content = np.repeat(np.arange(1, channels + 1, dtype="<f4")[None] / 100, samples, axis=0).tobytes()
    ffmpeg("-f", "f32le", "-ar", rate, "-ac", channels, "-i", "-", "-c:a", "pcm_f32le", path, stdin=content)
    return path


@pytest.mark.parametrize("channels", [1, 2, 6, 8, 9, 12, 16, 24, 64])
def test_every_channel_of_a_wav_file_is_read(tmp_path, channels):
    clip = read_clip(wav(tmp_path / "sound.wav", channels))
    assert clip.waveform.shape == (channels, 16000) and clip.waveform.flags.c_contiguous
    np.testing.assert_allclose(clip.waveform[:, 99], np.arange(1, channels + 1) / 100, atol=1e-6)


@pytest.mark.parametrize(("name", "codec"), [("a.flac", "flac"), ("a.m4a", "aac"), ("a.opus", "libopus")])
def test_compressed_sound_with_8_channels_is_read(tmp_path, name, codec):
    ffmpeg("-i", wav(tmp_path / "8.wav", 8, 48000, 48000), "-c:a", codec, tmp_path / name)
    clip = read_clip(tmp_path / name)
    assert clip.waveform.shape[0] == 8 and clip.waveform.shape[1] >= 48000


def test_sound_whose_channels_change_in_the_middle_is_refused(tmp_path):
    parts = []
    for channels in (1, 2):
        source = wav(tmp_path / f"{channels}.wav", channels, 44100, 44100)
        ffmpeg("-i", source, "-c:a", "aac", "-f", "adts", tmp_path / f"{channels}.aac")
        parts.append((tmp_path / f"{channels}.aac").read_bytes())
    (tmp_path / "joined.aac").write_bytes(b"".join(parts))
    with pytest.raises(MediaError, match="the sound changes from 1 to 2 channels"):
        read_clip(tmp_path / "joined.aac")


@pytest.mark.parametrize("rate", [999_983, 11_000_000])
def test_a_sample_rate_above_the_limit_is_refused(tmp_path, rate):
    with pytest.raises(MediaError, match=f"sample rate is {rate}; at most 384000.*DFER_ZOO_MAX_SAMPLE_RATE"):
        read_clip(wav(tmp_path / "fast.wav", rate=rate, samples=1000))


def test_every_limit_can_be_raised_by_its_environment_variable(monkeypatch, tmp_path):
    for name in LIMITS:
        monkeypatch.setenv(f"DFER_ZOO_MAX_{name.upper()}", "7")
        assert limit(name) == 7
        with pytest.raises(InputError, match="thing is 8; at most 7"):
            check_limit(name, 8, "thing", InputError)
        monkeypatch.setenv(f"DFER_ZOO_MAX_{name.upper()}", "many")
        with pytest.raises(InputError, match="expected a positive integer"):
            limit(name)
        monkeypatch.delenv(f"DFER_ZOO_MAX_{name.upper()}")
    with pytest.raises(MediaError, match=r"is above 10\^\d+"):
        check_limit("label", 10**5000, "the label")
    monkeypatch.setenv("DFER_ZOO_MAX_SAMPLE_RATE", "1000000")
    assert read_clip(wav(tmp_path / "fast.wav", rate=999_983, samples=1000)).sample_rate == 999_983


def test_decoded_sound_and_frames_are_limited(monkeypatch, tmp_path):
    video = test_pattern(tmp_path / "clip.mp4", "-c:v", "libx264", "-c:a", "aac", seconds=1)
    monkeypatch.setenv("DFER_ZOO_MAX_SOUND_BYTES", "100000")
    with pytest.raises(MediaError, match=r"decoded sound.*DFER_ZOO_MAX_SOUND_BYTES"):
        read_clip(video)
    assert SoundFile.of(video).cut(0, 4410).shape == (1, 4410)
    monkeypatch.setenv("DFER_ZOO_MAX_FRAMES", "20")
    for recover in (False, True):
        with pytest.raises(MediaError, match="the number of frames is 21"):
            read_clip(video, audio=False, recover=recover)
    for number in range(21):
        Image.new("RGB", (16, 16)).save(tmp_path / f"{number}.png")
    with pytest.raises(MediaError, match="the number of images is 21"):
        read_clip(tmp_path)


# -- nothing but the file itself ---------------------------------------------------------------------------------------


def test_formats_that_open_other_files_are_refused(tmp_path):
    secret = wav(tmp_path / "secret.wav")
    for number in range(3):
        Image.new("RGB", (32, 32), (200, 0, 0)).save(tmp_path / f"s{number}.tga")
    lists = {
        "s%d.tga": (tmp_path / "s0.tga").read_bytes(),
        "list.m3u8": b"#EXTM3U\n#EXTINF:10,\nsecret.wav\n#EXT-X-ENDLIST\n",
        "list.mp4": f"ffconcat version 1.0\nfile {secret}\n".encode(),
        "list.idx": b"# VobSub index file, v7 (do not modify this line!)\nid: en, index: 0\n",
        "drone.sbg": b"-SE\nts: 300+10/20\nNOW ts\n+99:00:00 ts\n",
        "text.tty": b"\x1b[31mtext\x1b[0m" * 100,
    }
    for name, content in lists.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(MediaError, match=r"decoded|not a video"):
            read_clip(path)


def test_an_image_is_read_as_one_of_the_listed_formats_only(tmp_path):
    (tmp_path / "page.png").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"
    )
    Image.new("RGB", (32, 32)).save(tmp_path / "picture.tga")
    (tmp_path / "picture.tga").rename(tmp_path / "picture.png")
    for name in ("page.png", "picture.png"):
        with pytest.raises(MediaError, match="not one of the formats"):
            read_clip(tmp_path / name).take([0])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes on this system")
def test_named_pipes_are_refused_at_once(tmp_path):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "pipe.mp4", tmp_path / "pipe.png", tmp_path / "folder" / "1.png"):
        os.mkfifo(path)
    begin = time.monotonic()
    for source in (tmp_path / "pipe.mp4", tmp_path / "pipe.png", tmp_path / "folder"):
        with pytest.raises(MediaError, match="not a file"):
            read_clip(source).take([0])
    assert time.monotonic() - begin < 5


@pytest.mark.skipif(os.name == "nt", reason="names are text on Windows")
def test_a_name_that_is_not_utf_8_is_read(tmp_path):
    video = test_pattern(tmp_path / "clip.mp4", "-c:v", "libx264", "-an", seconds=0.5)
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4")
    try:
        os.rename(video, odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert read_clip(odd).num_frames == 15


# -- long windows ------------------------------------------------------------------------------------------------------


def test_a_sound_cursor_copies_a_linear_number_of_samples(monkeypatch):
    class Tone:
        channels, path = 1, "tone"

        def pieces(self):
            return (np.full((1, 1024), number, np.float32) for number in range(3000))

    copied = []
    concatenate = np.concatenate
    monkeypatch.setattr(
        np, "concatenate", lambda parts, axis=0: copied.append(sum(p.size for p in parts)) or concatenate(parts, axis)
    )
    cursor, window, stride = SoundCursor(Tone()), 1024 * 1000, 1024 * 500
    for number in range(5):
        part = cursor.cut(number * stride, number * stride + window)
        assert part.shape == (1, window) and part[0, 0] == number * 500
    assert sum(copied) <= 5 * (window + 2 * 1024)


# -- lists, arrays, puppets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["/data/1 " + "9" * 5000 + " 0", "/data/1 16 123456789", "/data/1 " + "9" * 30])
def test_numbers_of_a_list_are_limited(tmp_path, line):
    (tmp_path / "list.txt").write_text(line + "\n")
    with pytest.raises(InputError, match=r"the (frames|label) is .*; at most") as caught:
        read_rows(tmp_path / "list.txt")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 8000, 8000, 3)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (90, 8, 8, 3)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (90, 8, 8",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1, 8, 8, 3)}",
    ],
)
def test_an_npy_header_allocates_no_more_than_its_file(tmp_path, header):
    text = header.encode().ljust(117) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(1000))
    with pytest.raises(MediaError, match=r"a\.npy"):
        read_row(Row(str(tmp_path / "a.npy"), 0))


def test_puppets_are_limited():
    with pytest.raises(InputError, match="DFER_ZOO_MAX_PUPPET_SIZE"):
        Puppet("happiness", size=1_000_000)
    with pytest.raises(InputError, match="DFER_ZOO_MAX_PUPPETS"):
        read_rows("puppets:clips=100000000000", ["happy", "sad"])


# -- the command line --------------------------------------------------------------------------------------------------


def test_names_reach_a_terminal_escaped_and_messages_are_bounded(tmp_path):
    names = ["\x1b[31mred.mp4", os.fsdecode(b"caf\xe9.mp4"), "n" * 20_000 + ".mp4"]
    program = "import sys; from dfer_zoo.cli import main; sys.exit(main(sys.argv[1:]))"
    for name in names:
        command = [sys.executable, "-c", program, "evaluate", "--model", "av_fusion", "--data", name]
        done = subprocess.run(command, capture_output=True, cwd=ROOT, env={**os.environ, "PYTHONIOENCODING": "ascii"})
        assert done.returncode == 2 and b"Traceback" not in done.stderr
        assert b"\x1b" not in done.stderr and len(done.stderr) < 5000 and done.stderr.isascii()
