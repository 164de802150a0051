"""Overlay videos keep frames, times and sound, and have boxes and bars at the right places."""

import dataclasses
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfer_zoo import Clip, InputError, MediaError, Recognizer
from dfer_zoo.cli import main
from dfer_zoo.data.puppets import FPS, Puppet
from dfer_zoo.inference.inputs import Item, expand
from dfer_zoo.inference.overlay import drawn_frames, overlay_paths, write_overlay
from dfer_zoo.inference.prediction import Prediction, Window
from dfer_zoo.media.files import read_clip
from dfer_zoo.media.write import write_mp4
from tests.media_files import ffmpeg, sound_by_ffmpeg, test_pattern

av = pytest.importorskip("av")
LABELS = ("happy", "sad", "angry")
SIZE = 90


def answer(*chances, track=(), duration=3.0, source="clip", **facts):
    """Return a prediction with one window per set of probabilities."""
    step = duration / len(chances)
    windows = tuple(Window(step * n, step * (n + 1), p) for n, p in enumerate(chances))
    return Prediction(source, LABELS, chances[0], windows, (), track=tuple(track), **facts)


def gray(count=30, height=480, width=640, fps=10):
    return Clip.from_arrays(np.full((count, height, width, 3), 128, np.uint8), fps=fps, source="gray")


def is_drawn(frame, box):
    left, top, right, bottom = box
    return bool((frame[top:bottom, left:right] != 128).any())


@pytest.fixture(scope="module")
def pattern(tmp_path_factory):
    return test_pattern(tmp_path_factory.mktemp("pattern") / "a.mp4", "-c:v", "libx264", "-c:a", "aac", size="640x360")


BOX = (200, 60, 300, 180)
SEEN = [(second / 5, BOX) for second in range(16)]


def test_frames_times_and_sound_are_those_of_the_file(pattern, tmp_path):
    target = write_overlay(pattern, answer((0.7, 0.2, 0.1), track=SEEN), tmp_path / "o.mp4")
    before, after = read_clip(pattern), read_clip(target)
    assert after.num_frames == before.num_frames == 90
    assert after.duration == pytest.approx(before.duration) and after.sound_start == pytest.approx(before.sound_start)
    np.testing.assert_allclose(after.times, before.times, atol=1e-3)
    np.testing.assert_array_equal(sound_by_ffmpeg(target, 1), sound_by_ffmpeg(pattern, 1))  # copied, not encoded again
    left, top, right, bottom = BOX
    for number in (0, 45, 89):
        changed = np.abs(after.take([number])[0].astype(int) - before.take([number])[0]).max(2) > 60
        assert changed[top : top + 2, left:right].mean() > 0.8  # the upper edge of the box
        assert changed[top + 8 : bottom - 8, left + 8 : right - 8].mean() < 0.05  # the face inside is unchanged
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    "name, codec",
    [
        ("a.avi", ("-c:v", "mpeg4", "-c:a", "pcm_s16le")),
        ("a.mkv", ("-c:v", "libx264", "-c:a", "flac", "-ac", "2")),
        ("a.ts", ("-c:v", "libx264", "-c:a", "aac")),
        ("a.mp4", ("-c:v", "libx264", "-c:a", "mp3")),
        ("a.webm", ("-c:v", "libvpx", "-c:a", "libopus", "-ac", "6")),
    ],
)
def test_sound_of_any_kind_is_kept_in_step(tmp_path, name, codec):
    """A click at 1.5 s keeps its time, even if the sound starts later than the video."""
    tone = "aevalsrc='if(between(t,1.5,1.51),0.9,0)':s=48000:d=3"
    path = tmp_path / name
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=640x360:r=25:d=3", "-f", "lavfi", "-i", tone, *codec, path)
    target = write_overlay(path, answer((0.7, 0.2, 0.1)), tmp_path / "o" / "o.mp4")
    before, after = read_clip(path), read_clip(target)
    assert after.num_frames == before.num_frames
    assert click(after) == pytest.approx(click(before), abs=0.03) == pytest.approx(1.5, abs=0.05)
    assert after.waveform.shape[1] / after.sample_rate == pytest.approx(3, abs=0.15)


def click(clip):
    """Return the time of the loudest sample in seconds after the first frame."""
    loudness = np.abs(np.asarray(clip.waveform)).max(0)
    return int((loudness > 0.5 * loudness.max()).argmax()) / clip.sample_rate + clip.sound_start


def test_sound_that_begins_later_begins_later(tmp_path, pattern):
    late = tmp_path / "late.mkv"
    ffmpeg("-i", pattern, "-itsoffset", "0.7", "-i", pattern, "-map", "0:v", "-map", "1:a", "-c", "copy", late)
    target = write_overlay(late, answer((0.7, 0.2, 0.1)), tmp_path / "o.mp4")
    assert read_clip(late).sound_start == pytest.approx(0.7, abs=0.05)
    assert read_clip(target).sound_start == pytest.approx(read_clip(late).sound_start, abs=0.03)


def test_frames_of_uneven_times_keep_them(tmp_path):
    path = tmp_path / "uneven.mkv"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=400x400:r=20:d=2", "-vf", "select='not(mod(n,3))+gt(n,20)'",
           "-fps_mode", "vfr", path)  # fmt: skip
    before, after = read_clip(path), read_clip(write_overlay(path, answer((0.7, 0.2, 0.1)), tmp_path / "o.mp4"))
    np.testing.assert_allclose(after.times, before.times, atol=2e-3)
    assert after.waveform is None and np.diff(before.times).std() > 0.02


def test_a_phone_held_upright_gives_an_upright_video(pattern, tmp_path):
    path = tmp_path / "phone.mp4"
    ffmpeg("-display_rotation", 90, "-i", pattern, "-c", "copy", path)
    target = write_overlay(path, answer((0.7, 0.2, 0.1)), tmp_path / "o.mp4")
    before, after = read_clip(path).take([10])[0], read_clip(target).take([10])[0]
    assert before.shape[:2] == (640, 360) and after.shape[0] == 640
    assert np.abs(after[:600, 200:360].astype(int) - before[:600, 200:360]).mean() < 8


def test_pixels_that_are_not_square_stay_so(tmp_path):
    path = tmp_path / "dv.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=360x576:r=25:d=1", "-vf", "setsar=16/11", path)
    target = write_overlay(path, answer((0.7, 0.2, 0.1)), tmp_path / "o.mp4")
    with av.open(str(target)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(16, 11)


# -- what is drawn -----------------------------------------------------------------------------------------------------


def test_boxes_are_drawn_only_near_where_a_face_was_seen():
    box = (300, 200, 380, 300)
    clip = gray(count=60)
    frames = list(drawn_frames(clip, answer((0.7, 0.2, 0.1), track=[(0.0, box), (0.5, box)], duration=6.0)))
    assert [is_drawn(frames[n], (298, 240, 304, 260)) for n in (0, 5, 14, 17, 59)] == [True, True, True, False, False]


def test_the_bars_follow_the_windows_and_do_not_cover_the_face():
    faces = {"left": (40, 20, 280, 460), "right": (360, 20, 600, 460)}
    for side, box in faces.items():
        track = [(second / 5, box) for second in range(16)]
        clip = gray()
        first, last = (
            list(drawn_frames(clip, answer((0.9, 0.05, 0.05), (0.1, 0.1, 0.8), track=track)))[n] for n in (5, 25)
        )
        assert first.shape == (480, 640, 3)
        other = slice(320, 640) if side == "left" else slice(0, 320)
        assert (first[:, other] != 128).any() and (first[:, other] != last[:, other]).any()
        left, top, right, bottom = box
        assert (first[top + 30 : bottom - 30, left + 8 : right - 8] == 128).all()
    # a face that fills the picture: the bars are next to it
    wide = next(drawn_frames(gray(), answer((0.9, 0.05, 0.05), track=[(0.0, (0, 0, 640, 480))])))
    assert wide.shape[0] == 480 and wide.shape[1] > 640 and (wide[40:-10, 10:630] == 128).all()


def test_a_small_video_is_enlarged_so_that_texts_can_be_read():
    assert next(drawn_frames(gray(height=112, width=112), answer((0.9, 0.05, 0.05)))).shape[0] == 448


@pytest.mark.parametrize("count", [2, 12])
def test_every_person_has_a_number_and_a_color(count):
    columns = [(20 + 50 * n, 360, 60 + 50 * n, 420) for n in range(count)]
    people = tuple(
        answer((0.7, 0.2, 0.1), track=[(0.0, box), (1.0, box), (2.0, box)], faces={"person": n})
        for n, box in enumerate(columns)
    )
    frame = next(drawn_frames(gray(), dataclasses.replace(people[0], people=people)))
    edges = [tuple(frame[390, box[0]]) for box in columns]
    assert (128, 128, 128) not in edges and len(set(edges)) >= min(count, 11)


def test_one_who_leaves_has_no_bars_afterwards():
    stay = answer((0.7, 0.2, 0.1), track=[(s / 5, (40, 300, 90, 360)) for s in range(16)])
    gone = Prediction("clip", LABELS, (0.1, 0.8, 0.1), (Window(0.0, 1.0, (0.1, 0.8, 0.1)),), (),
                      track=((0.0, (140, 300, 190, 360)), (0.9, (140, 300, 190, 360))))  # fmt: skip
    frames = list(drawn_frames(gray(), dataclasses.replace(stay, people=(stay, gone))))
    assert is_drawn(frames[5], (138, 320, 144, 340)) and not is_drawn(frames[25], (138, 320, 144, 340))
    assert (frames[5][:270] != frames[25][:270]).any()


def test_a_photograph_becomes_a_picture(tmp_path):
    Image.fromarray(gray(1).take([0])[0]).save(tmp_path / "p.png")
    target = write_overlay(tmp_path / "p.png", answer((0.7, 0.2, 0.1), track=[(0.0, BOX)]), tmp_path / "o.png")
    assert is_drawn(np.asarray(Image.open(target)), (198, 100, 204, 120))


# -- in runs -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Write a clip of two puppets and a clip of one, in two folders."""
    folder = tmp_path_factory.mktemp("corpus")
    left, right = (Puppet(e, identity=n, seed=n, size=SIZE).clip() for n, e in enumerate(("happiness", "anger")))
    frames = [np.concatenate(both, 1) for both in zip(left.take(range(36)), right.take(range(36)))]
    pair = Clip.from_arrays(frames, np.asarray(left.waveform)[:, :26460], fps=FPS, sample_rate=left.sample_rate)
    for name in ("a", "b"):
        (folder / name).mkdir()
        write_mp4(pair, folder / name / "pair.mp4")
    return folder


def halves(frame):
    return [(5, 5, SIZE - 5, SIZE - 5), (SIZE + 8, 8, 2 * SIZE - 8, SIZE - 8)]


def test_two_people_are_drawn_with_the_tracks_of_the_recognizer(corpus, tmp_path):
    recognizer = Recognizer("av_fusion", "puppets", faces=halves, people="all", window=1.0)
    found = recognizer(corpus / "a" / "pair.mp4")
    assert [len(person.track) > 5 for person in found.people] == [True, True] and "track" not in found.to_dict()
    target = write_overlay(corpus / "a" / "pair.mp4", found, tmp_path / "o.mp4")
    before, after = read_clip(corpus / "a" / "pair.mp4"), read_clip(target)
    assert after.num_frames == 36 and after.duration == pytest.approx(1.2)
    frame = after.take([18])[0]
    large = np.asarray(Image.fromarray(before.take([18])[0]).resize((4 * 2 * SIZE, 4 * SIZE), Image.Resampling.BICUBIC))
    changed = np.abs(frame[:, : 8 * SIZE].astype(int) - large).max(2) > 50
    for left, top, _, bottom in halves(None):
        assert changed[4 * top + 60 : 4 * bottom - 8, 4 * left : 4 * left + 2].mean() > 0.6
    inside = changed[4 * 30 : 4 * 70, 4 * 20 : 4 * 70]
    assert inside.mean() < 0.02


@pytest.mark.parametrize("how", ["searched", "given", "per frame"])
def test_the_recognizer_says_where_the_face_was(corpus, how):
    faces = {"searched": lambda frame: [(5, 5, 85, 85)], "given": (5, 5, 85, 85), "per frame": [(5, 5, 85, 85)] * 36}
    found = Recognizer("av_fusion", "puppets", faces=faces[how], window=1.0)(corpus / "a" / "pair.mp4")
    assert {tuple(map(round, box)) for _, box in found.track} == {(5, 5, 85, 85)}
    assert found.track[-1][0] - found.track[0][0] > (0.1 if how == "searched" else 1.1)


def test_the_command_writes_a_folder_of_overlays_and_goes_on_after_a_kill(corpus, tmp_path, capsys):
    out, videos = tmp_path / "t.csv", tmp_path / "videos"
    command = ["predict", str(corpus), "--model", "av_fusion.puppets", "--faces", "none", "--out", str(out)]
    script = (
        "import os, sys, dfer_zoo.inference.overlay as o, dfer_zoo.media.write as w\n"
        "from dfer_zoo.cli import main\n"
        "timed, calls = w._timed, []\n"
        "def dying(*given):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 50: os.kill(os.getpid(), 9)\n"
        "    return timed(*given)\n"
        "w._timed = dying\n"
        "main(sys.argv[1:])\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, *command, "--overlay", str(videos)], env=dict(os.environ))
    assert killed.returncode == -9
    assert (videos / "a" / "pair.overlay.mp4").exists() and not (videos / "b" / "pair.overlay.mp4").exists()
    assert main([*command, "--resume", "--overlay", str(videos)]) == 0
    assert sorted(str(p.relative_to(videos)) for p in videos.rglob("*") if p.is_file()) == [
        "a/pair.overlay.mp4",
        "b/pair.overlay.mp4",
    ]
    assert read_clip(videos / "b" / "pair.overlay.mp4").num_frames == 36


def test_one_clip_without_a_table(corpus, tmp_path, capsys):
    target = tmp_path / "o.mp4"
    clip = str(corpus / "a" / "pair.mp4")
    command = ["predict", clip, "--model", "av_fusion.puppets", "--faces", "none", "--window", "1"]
    assert main([*command, "--overlay", str(target)]) == 0
    assert read_clip(target).num_frames == 36
    content = Path(clip).read_bytes()
    assert main([*command, "--overlay", clip]) == 1
    assert "is the clip itself" in capsys.readouterr().err and Path(clip).read_bytes() == content


def test_a_part_of_a_file_is_drawn_in_its_own_time(corpus, tmp_path):
    (tmp_path / "clips.csv").write_text(f"path,start,stop\n{corpus / 'a' / 'pair.mp4'},0.4,1.0\n")
    command = ["predict", str(tmp_path / "clips.csv"), "--model", "av_fusion.puppets", "--faces", "none"]
    assert main([*command, "--overlay", str(tmp_path / "o")]) == 0
    part = read_clip(tmp_path / "o" / "pair.0.4-1.overlay.mp4")
    assert part.num_frames == 18 and part.waveform is not None
    assert part.waveform.shape[1] / part.sample_rate == pytest.approx(0.6, abs=0.1)


def test_paths_are_the_same_in_every_run_and_never_twice(tmp_path):
    for name in ("a/x.mp4", "a/x.avi", "b/x.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    items = list(expand([tmp_path]))
    beside = overlay_paths(items, "beside")
    assert beside == overlay_paths(items, "beside") and len(set(beside)) == 3
    assert {path.parent for path in beside} == {tmp_path / "a", tmp_path / "b"}
    assert overlay_paths([Item(b"", "s3/clip.mp4")], "o")[0].as_posix() == "o/clip.overlay.mp4"


def test_what_cannot_be_done_is_one_sentence(pattern, tmp_path, monkeypatch):
    found = answer((0.7, 0.2, 0.1))
    with pytest.raises(MediaError, match="no frames in this clip"):
        sound = tmp_path / "s.wav"
        ffmpeg("-i", pattern, "-vn", sound)
        write_overlay(sound, found, tmp_path / "o.mp4")
    with pytest.raises(InputError, match=r"expected a file name with \.mp4"):
        write_overlay(pattern, found, tmp_path / "o.gif")
    with pytest.raises(InputError, match="Give fps"):
        write_overlay(np.zeros((3, 64, 64, 3), np.uint8), found, tmp_path / "o.mp4")
    with pytest.raises(InputError, match="one file cannot hold the overlays of 2 clips"):
        overlay_paths([Item("a.mp4", "a.mp4"), Item("b.mp4", "b.mp4")], "o.mp4")
    with pytest.raises(InputError, match="name a folder"):
        overlay_paths([Item(b"", "bytes")], "beside")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MediaError, match="this video cannot be written"):
        write_overlay(gray(3), found, tmp_path / "file" / "o.mp4")

    def no_encoder(self, name, *given, **options):
        raise av.codec.codec.UnknownCodecError(name)

    monkeypatch.setattr("dfer_zoo.media.write._add_stream", no_encoder, raising=True)
    with pytest.raises(MediaError, match=r"no H\.264 encoder"):
        write_overlay(gray(3), found, tmp_path / "o.mp4")
    assert not list(tmp_path.glob("*o.mp4*"))
