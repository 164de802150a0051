"""Reading clips: frames and sound match ffmpeg exactly, and every broken file is a one-line error."""

import copy
import hashlib
import pickle
import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dfer_zoo import Clip, read_clip
from dfer_zoo.errors import InputError, MediaError
from dfer_zoo.media.clip import in_order
from dfer_zoo.media.images import ImageFiles, numeric_order
from dfer_zoo.media.sound import SoundCursor, SoundFile
from dfer_zoo.media.video import _rate
from tests.media_files import ffmpeg, frames_by_ffmpeg, sound_by_ffmpeg, test_pattern

av = pytest.importorskip("av")
H264 = ("-c:v", "libx264", "-bf", 3, "-g", 30, "-pix_fmt", "yuv420p", "-c:a", "aac", "-ac", 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def plain(folder):
    return test_pattern(folder / "plain.mp4", *H264)


def converted(folder, plain, kind):
    """Convert the plain file with ffmpeg to this kind of file. Returns its path."""
    path = folder / kind
    if not path.exists():
        before, after = {
            "b_frames.mp4": ((), ("-c", "copy")),
            "stream_copied_cut.mp4": (("-ss", 1.35), ("-c", "copy")),
            "variable_rate.mp4": ((), ("-vf", "select='not(mod(n,3))+lt(n,40)'", "-fps_mode", "vfr", "-an")),
            "rotated_90.mp4": (("-display_rotation", 90), ("-c", "copy")),
            "rotated_180.mp4": (("-display_rotation", 180), ("-c", "copy")),
            "rotated_270.mp4": (("-display_rotation", -90), ("-c", "copy")),
            "mirrored.mp4": (("-display_hflip",), ("-c", "copy")),
            "upside_down.mp4": (("-display_vflip",), ("-c", "copy")),
            "mirrored_and_rotated.mp4": (("-display_rotation", 90, "-display_hflip"), ("-c", "copy")),
            "odd.mkv": ((), ("-vf", "format=rgb24,crop=191:127,format=yuv420p", "-c:v", "ffv1", "-an")),
            "vp8.webm": ((), ("-c:v", "libvpx", "-auto-alt-ref", 1, "-lag-in-frames", 16, "-b:v", "200k")),
            "vp9.webm": ((), ("-c:v", "libvpx-vp9", "-b:v", "200k")),
            "h264.mkv": ((), ("-c", "copy")),
            "h264.avi": ((), ("-c", "copy")),
            "mpeg4.avi": ((), ("-c:v", "mpeg4", "-bf", 2)),
            "transport.ts": ((), ("-c", "copy")),
            "raw.h264": ((), ("-c:v", "copy", "-an")),
            "one_frame.mp4": ((), ("-frames:v", 1, "-an")),
            "picture.gif": ((), ("-frames:v", 12)),
        }[kind]
        ffmpeg(*before, "-i", plain, *after, path)
    return path


KINDS = [
    "b_frames.mp4",
    "stream_copied_cut.mp4",
    "variable_rate.mp4",
    "rotated_90.mp4",
    "rotated_180.mp4",
    "rotated_270.mp4",
    "mirrored.mp4",
    "upside_down.mp4",
    "mirrored_and_rotated.mp4",
    "odd.mkv",
    "vp8.webm",
    "vp9.webm",
    "h264.mkv",
    "h264.avi",
    "mpeg4.avi",
    "transport.ts",
    "raw.h264",
    "one_frame.mp4",
    "picture.gif",
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_matches_ffmpeg(folder, plain, kind):
    path = converted(folder, plain, kind)
    clip = read_clip(path)
    height, width = clip.take([0])[0].shape[:2]
    on_its_side = ("rotated_90.mp4", "rotated_270.mp4", "mirrored_and_rotated.mp4")
    expected = (127, 191) if kind == "odd.mkv" else (192, 128) if kind in on_its_side else (128, 192)
    assert (height, width) == expected
    shown = frames_by_ffmpeg(path, height, width)
    assert clip.num_frames == len(shown)
    frames = np.stack(clip.take(range(len(shown))))
    if kind == "mpeg4.avi":  # this codec's standard leaves rounding open, and ffmpeg's versions differ in single pixels
        assert np.abs(frames.astype(int) - shown).max() <= 1
        shown = frames
    assert list(map(digest, frames)) == list(map(digest, shown))
    wanted = [len(shown) - 1, 0, len(shown) // 2, 0]
    assert all(np.array_equal(frame, shown[i]) for frame, i in zip(clip.take(wanted), wanted))


def digest(frame):
    return hashlib.sha256(frame.tobytes()).hexdigest()


@pytest.mark.parametrize("kind", ["b_frames.mp4", "stream_copied_cut.mp4", "vp9.webm", "mpeg4.avi", "transport.ts"])
def test_the_waveform_matches_ffmpeg(folder, plain, kind):
    path = converted(folder, plain, kind)
    clip = read_clip(path)
    written = sound_by_ffmpeg(path, clip.waveform.shape[0])
    assert clip.waveform.dtype == np.float32 and clip.sample_rate == (48000 if kind == "vp9.webm" else 44100)
    # versions of ffmpeg differ in the padding of the last packet, less than 1024 samples
    assert 0 <= clip.waveform.shape[1] - written.shape[1] < 1024
    np.testing.assert_allclose(clip.waveform[:, : written.shape[1]], written, rtol=0, atol=1e-6)


def test_16_bit_sound_keeps_every_bit(folder, plain):
    path = folder / "sound.wav"
    ffmpeg("-i", plain, "-vn", "-c:a", "pcm_s16le", path)
    integers = np.frombuffer(ffmpeg("-i", path, "-f", "s16le", "-"), np.int16).reshape(-1, 2).T
    clip = read_clip(path)
    assert clip.num_frames == 0 and clip.sample_rate == 44100
    assert np.array_equal(clip.waveform, integers.astype(np.float32) / 32768)


def test_rates_and_times_come_from_the_time_stamps(folder, plain):
    clip = read_clip(plain)
    assert clip.fps == 30 and clip.duration == pytest.approx(3)
    varied = read_clip(converted(folder, plain, "variable_rate.mp4"))
    assert varied.num_frames == 56
    np.testing.assert_allclose(varied.times[:40], np.arange(40) / 30, atol=1e-4)
    np.testing.assert_allclose(np.diff(varied.times[40:]), 0.1, atol=1e-4)
    assert varied.frame_range(2.0, 3.0) == (46, 56)
    raw = read_clip(converted(folder, plain, "raw.h264"))
    assert raw.fps is None and raw.duration is None
    with pytest.raises(MediaError, match="give fps"):
        raw.cut(0, 1)
    assert read_clip(converted(folder, plain, "raw.h264"), fps=30).duration == 3


def test_a_cut_holds_the_frames_and_the_sound_of_its_seconds(plain):
    clip = read_clip(plain)
    part = clip.cut(1.0, 1.5)
    assert part.num_frames == 15 and part.times[0] == 0
    assert np.array_equal(part.take([0, 14])[1], clip.take([44])[0])
    assert np.array_equal(part.waveform, clip.waveform[:, 44100:66150])
    assert clip.cut(7, 8).num_frames == 0 and clip.cut(7, 8).waveform is None


def test_a_frame_is_shown_until_the_next_one_and_the_last_one_until_the_end():
    frames = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    clip = Clip.from_arrays(frames, fps=1)
    for start, shown in [(0.5, 0), (1.5, 1), (2.5, 2)]:
        (frame,) = clip.cut(start, start + 0.25).take([0])
        assert frame.max() == shown
    assert clip.cut(3.5, 4).num_frames == 0


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_sound_that_begins_late_is_cut_with_the_picture_of_its_time(folder, suffix):
    path = folder / f"late{suffix}"
    tone = ("-itsoffset", 1.5, "-f", "lavfi", "-i", "sine=440:r=44100:d=1")
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=10:d=3", *tone, "-c:v", "libx264", "-c:a", "aac", path)
    clip = read_clip(path)
    assert clip.sound_start == pytest.approx(1.5, abs=0.03)  # a codec's priming is heard where the container keeps it
    assert clip.waveform.shape[1] == pytest.approx(44100, abs=4000)
    assert clip.cut(0.5, 1.4).waveform is None
    assert np.abs(clip.cut(1.6, 1.8).waveform).std() > 0.01
    half = clip.cut(1.0, 2.0)
    assert half.sound_start == pytest.approx(0.5, abs=0.03)
    assert np.array_equal(half.cut(0.8, 1.0).waveform, clip.cut(1.8, 2.0).waveform)


@pytest.mark.parametrize("kind", ["b_frames.mp4", "stream_copied_cut.mp4", "vp9.webm", "mpeg4.avi", "transport.ts"])
def test_codec_priming_does_not_delay_the_sound(folder, plain, kind):
    assert abs(read_clip(converted(folder, plain, kind)).sound_start) < 0.03


def test_a_sound_stream_with_an_unknown_codec_is_skipped(folder, plain):
    path = folder / "two_sounds.mkv"
    ffmpeg("-i", plain, "-map", "0:a", "-map", "0:a", "-c:a:0", "libvorbis", "-c:a:1", "pcm_s16le", path)
    path.write_bytes(path.read_bytes().replace(b"A_VORBIS", b"A_XORBIS"))
    clip = read_clip(path)
    assert np.abs(clip.waveform).max() > 0.01


def test_sound_is_resampled_on_request_only(plain):
    clip = read_clip(plain, sample_rate=16000)
    assert clip.sample_rate == 16000 and clip.waveform.shape[1] == pytest.approx(16000 * 3, rel=0.02)
    tone = np.abs(np.fft.rfft(clip.waveform[0, 4000:20000])).argmax()
    assert tone == 440
    with pytest.raises(InputError, match="sample_rate is 0"):
        read_clip(plain, sample_rate=0)
    with pytest.raises(InputError, match="from a file"):
        read_clip(read_clip(plain), sample_rate=8000)


def test_sound_can_be_left_out_or_come_from_another_file(folder, plain):
    assert read_clip(plain, audio=False).waveform is None
    silent = converted(folder, plain, "variable_rate.mp4")
    assert read_clip(silent).waveform is None
    assert np.array_equal(read_clip(silent, audio=plain).waveform, read_clip(plain).waveform)
    with pytest.raises(MediaError, match="no sound"):
        read_clip(plain, audio=silent)


def test_a_song_with_cover_art_has_no_frames(folder, plain):
    cover, song = folder / "cover.png", folder / "song.m4a"
    Image.new("RGB", (64, 64)).save(cover)
    ffmpeg("-i", plain, "-i", cover, "-map", "0:a", "-map", "1", "-c:v", "png", "-disposition:v", "attached_pic", song)
    clip = read_clip(song)
    assert clip.num_frames == 0 and clip.waveform is not None
    with pytest.raises(MediaError, match="has no frames"):
        clip.take([0])


def test_a_file_source_can_be_pickled(plain):
    clip = read_clip(plain, stream=True)
    again = pickle.loads(pickle.dumps(copy.deepcopy(clip)))
    assert np.array_equal(again.take([3])[0], clip.take([3])[0])
    assert np.array_equal(np.asarray(again.waveform), np.asarray(clip.waveform))


@given(cuts=st.lists(st.tuples(st.integers(0, 140_000), st.integers(0, 5000)), max_size=8), rising=st.booleans())
@settings(max_examples=20, deadline=None)
def test_a_sound_cursor_returns_slices_of_the_whole_sound(plain_sound, cuts, rising):
    sound, everything = plain_sound
    cursor = SoundCursor(sound)
    for start, length in sorted(cuts) if rising else cuts:
        assert np.array_equal(cursor.cut(start, start + length), everything[:, start : start + length])


@pytest.fixture(scope="module")
def plain_sound(plain):
    sound = SoundFile.of(plain)
    everything = np.asarray(sound)
    assert sound.shape == everything.shape
    return sound, everything


# -- folders and arrays ------------------------------------------------------------------------------------------------


def write_frames(folder, count):
    folder.mkdir()
    frames = np.random.default_rng(0).integers(0, 256, (count, 16, 20, 3), dtype=np.uint8)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number}.png")
    (folder / "notes.txt").write_text("not a frame")
    return frames


def test_a_folder_is_read_in_numeric_or_in_string_order(tmp_path):
    frames = write_frames(tmp_path / "clip", 12)
    clip = read_clip(tmp_path / "clip", fps=25)
    assert clip.num_frames == 12 and clip.fps == 25 and clip.waveform is None
    assert all(np.array_equal(a, b) for a, b in zip(clip.take(range(12)), frames))
    as_text = read_clip(tmp_path / "clip", order="string")
    assert as_text.fps is None
    assert [int(path.stem) for path in as_text.frames.paths] == [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]
    with pytest.raises(InputError, match="order is 'random'"):
        read_clip(tmp_path / "clip", order="random")


@given(st.lists(st.integers(0, 10**6), unique=True), st.text("ab_-", max_size=3))
def test_numeric_order_is_the_order_of_the_numbers(numbers, prefix):
    names = sorted((f"{prefix}{n}.jpg" for n in numbers), key=numeric_order)
    assert names == [f"{prefix}{n}.jpg" for n in sorted(numbers)]


@given(st.lists(st.text(max_size=8)))
def test_numeric_order_takes_any_names(names):
    assert sorted(sorted(names, key=numeric_order)) == sorted(names)


def test_one_image_and_a_list_of_images_are_clips(tmp_path):
    frames = write_frames(tmp_path / "clip", 3)
    assert np.array_equal(read_clip(tmp_path / "clip" / "1.png").take([0])[0], frames[1])
    listed = read_clip([tmp_path / "clip" / "2.png", str(tmp_path / "clip" / "0.png")])
    assert np.array_equal(listed.take([0])[0], frames[2]) and listed.num_frames == 2


def test_grey_and_transparent_images_become_rgb(tmp_path):
    Image.new("LA", (16, 16), (200, 10)).save(tmp_path / "a.png")
    assert (read_clip(tmp_path / "a.png").take([0])[0] == 200).all()


def test_arrays_and_clips_pass_through():
    frames = np.zeros((5, 16, 16, 3), np.uint8)
    clip = read_clip(frames, fps=10)
    assert clip.num_frames == 5 and clip.fps == 10
    assert read_clip(clip) is clip
    assert read_clip(list(frames)).num_frames == 5


def test_samples_that_are_integers_are_refused():
    samples = np.zeros(1600, np.int16)
    with pytest.raises(MediaError, match=r"waveform is int16;.*32768"):
        Clip.from_arrays(waveform=samples, sample_rate=16000)
    clip = Clip.from_arrays(waveform=samples / 32768, sample_rate=16000)
    assert clip.waveform.dtype == np.float32 and clip.waveform.shape == (1, 1600)


@given(st.integers(1, 10_000), st.sampled_from([24.0, 25.0, 30.0, 30000 / 1001, 60.0, 12.5, 16.6]))
def test_the_frame_rate_is_found_from_times_in_milliseconds(count, rate):
    stamps = np.round(np.arange(count + 60) / rate, 3)
    found = _rate(len(stamps), float(stamps[-1]))
    assert found == pytest.approx(rate, rel=2e-3 / stamps[-1])


@given(st.integers(1, 300), st.floats(1, 100), st.floats(0, 10), st.floats(0, 10))
def test_adjacent_windows_share_no_frame_and_lose_none(count, fps, first, second):
    clip = Clip.from_arrays(np.zeros((count, 8, 8, 3), np.uint8), fps=fps)
    middle, end = sorted((first, second))
    assert clip.frame_range(0, middle)[1] == clip.frame_range(middle, end)[0]
    assert clip.frame_range(0, count / fps + 1) == (0, count)


# -- what is no clip ---------------------------------------------------------------------------------------------------


def bad_file(folder, plain, kind):
    path = folder / kind
    content = plain.read_bytes()
    if kind == "zero.mp4":
        path.write_bytes(b"")
    elif kind == "random.mp4":
        path.write_bytes(np.random.default_rng(0).bytes(50_000))
    elif kind == "text.mp4":
        path.write_text("This is a text and no video.\n" * 50)
    elif kind == "list_of_addresses.mp4":
        path.write_text("#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/clip.ts\n#EXT-X-ENDLIST\n")
    elif kind == "list_of_files.mp4":
        path.write_text(f"ffconcat version 1.0\nfile {plain.name}\n")
    elif kind == "cut_off.mp4":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "cut_off_at_the_end.mp4":
        ffmpeg("-i", plain, "-c", "copy", "-movflags", "+faststart", folder / "fast.mp4")
        whole = (folder / "fast.mp4").read_bytes()
        path.write_bytes(whole[: int(len(whole) * 0.6)])
    elif kind == "cut_off.mkv":
        ffmpeg("-i", plain, "-c", "copy", folder / "whole.mkv")
        whole = (folder / "whole.mkv").read_bytes()
        path.write_bytes(whole[: int(len(whole) * 0.6)])
    elif kind == "tiny.mkv":
        ffmpeg("-f", "lavfi", "-i", "color=s=1x1:d=1", "-c:v", "ffv1", "-pix_fmt", "bgr0", path)
    elif kind == "huge.mov":
        ffmpeg("-f", "lavfi", "-i", "color=s=10000x10000:d=0.05:r=20", "-c:v", "qtrle", "-pix_fmt", "gray", path)
    elif kind == "not_a_number.wav":
        ffmpeg("-f", "f32le", "-ar", 16000, "-ac", 1, "-i", "-", "-c:a", "pcm_f32le", path,
               stdin=np.full(16000, np.nan, np.float32).tobytes())  # fmt: skip
    elif kind == "zero_rate.wav":
        wav = bytearray(44) + bytes(3200)
        ffmpeg("-f", "s16le", "-ar", 16000, "-ac", 1, "-i", "-", path, stdin=bytes(wav))
        content = bytearray(path.read_bytes())
        content[24:28] = bytes(4)
        path.write_bytes(content)
    elif kind == "many_channels.wav":
        ffmpeg("-f", "s16le", "-ar", 16000, "-ac", 1, "-i", "-", path, stdin=bytes(100_000))
        content = bytearray(path.read_bytes())
        content[22:24], content[32:34] = (500).to_bytes(2, "little"), (1000).to_bytes(2, "little")
        path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nothing.mp4", "no such file"),
        ("zero.mp4", "the file is empty"),
        ("random.mp4", "cannot be decoded"),
        ("text.mp4", "cannot be decoded|not a video"),
        ("list_of_addresses.mp4", "cannot be decoded|not a video"),
        ("list_of_files.mp4", "not a video or sound file"),
        ("cut_off.mp4", "cannot be decoded"),
        ("cut_off_at_the_end.mp4", r"3\.0 s.* 1\.\d s"),
        ("cut_off.mkv", r"3\.0 s.* 1\.\d s"),
        ("tiny.mkv", "1 x 1"),
        ("huge.mov", "10000 x 10000.*100000000.*67108864"),
        ("not_a_number.wav", "not finite"),
        ("zero_rate.wav", "cannot be decoded|sample rate"),
        ("many_channels.wav", "500.* 64|cannot be decoded"),
    ],
)
def test_a_broken_file_is_a_one_line_error_within_seconds(folder, plain, kind, message):
    path = bad_file(folder, plain, kind)
    begin = time.monotonic()
    with pytest.raises(MediaError, match=message) as caught:
        read_clip(path)
    assert kind in str(caught.value) and "\n" not in str(caught.value)
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize("kind", ["cut_off_at_the_end.mp4", "cut_off.mkv"])
def test_recover_reads_the_intact_part_of_a_damaged_file(folder, plain, kind):
    clip = read_clip(bad_file(folder, plain, kind), recover=True)
    assert 30 < clip.num_frames < 80
    whole = read_clip(plain).take(range(clip.num_frames - 5))
    assert all(np.array_equal(a, b) for a, b in zip(clip.take(range(clip.num_frames - 5)), whole))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi"])
def test_damaged_bytes_give_a_clip_or_a_media_error(folder, plain, tmp_path, suffix):
    whole, random = folder / f"fuzzed{suffix}", np.random.default_rng(0)
    ffmpeg("-i", plain, "-c", "copy", whole)
    content = np.frombuffer(whole.read_bytes(), np.uint8)
    path = tmp_path / f"damaged{suffix}"
    outcomes = set()
    for trial in range(12):
        damaged = content.copy()
        reach = len(content) if trial % 2 else 2000
        damaged[random.integers(0, reach, size=random.integers(1, 100))] = random.integers(0, 256)
        path.write_bytes(damaged.tobytes())
        for recover in (False, True):
            try:
                clip = read_clip(path, recover=recover)
                if clip.num_frames:
                    clip.take([0, clip.num_frames - 1])
                outcomes.add("read")
            except MediaError:
                outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_a_log_level_that_deadlocks_decoders_is_reset(plain):
    """Old versions of torchvision set it on import. A level set by the user is kept."""
    for level, left in [(av.logging.ERROR, None), (av.logging.INFO, av.logging.INFO), (None, None)]:
        av.logging.set_level(level)
        try:
            read_clip(plain)
            assert av.logging.get_level() == left
        finally:
            av.logging.set_level(None)


def test_other_wrong_inputs_are_one_line_errors(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    Image.new("L", (10_000, 10_000)).save(tmp_path / "huge.png")
    Image.new("L", (1, 1)).save(tmp_path / "tiny.png")
    cases = [
        (tmp_path / "empty", MediaError, "empty: .*no images"),
        (3, InputError, "clip from int"),
        ([], InputError, "clip from list"),
        (np.zeros((0, 8, 8, 3), np.uint8), MediaError, "no frames"),
        (np.zeros((2, 8, 8, 3)), MediaError, "frame 0 is float64"),
        (np.zeros((2, 1, 1, 3), np.uint8), MediaError, "1 x 1"),
    ]
    for source, kind, message in cases:
        with pytest.raises(kind, match=message):
            read_clip(source)
    for name, message in [("broken.png", "cannot be read"), ("huge.png", "10000 x 10000"), ("tiny.png", "1 x 1")]:
        with pytest.raises(MediaError, match=message), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own, about large images
            read_clip(tmp_path / name).take([0])
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="fps is "):
            read_clip(np.zeros((2, 8, 8, 3), np.uint8), fps=fps)


def test_a_picture_with_more_bits_is_refused_and_a_turned_one_is_upright(tmp_path):
    Image.fromarray(np.full((16, 16), 32768, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(MediaError, match="more than 8 bits"):
        read_clip(tmp_path / "deep.png").take([0])
    turned = Image.new("RGB", (40, 48))
    turned.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise shows it upright
    turned.save(tmp_path / "phone.png", exif=exif)
    (frame,) = read_clip(tmp_path / "phone.png").take([0])
    assert frame.shape == (40, 48, 3) and frame[0, 47].min() == 255


def test_invalid_arrays_are_one_line_errors(plain):
    frames, tone = np.zeros((3, 16, 16, 3), np.uint8), np.zeros(800, np.float32)
    for fps in (0, -5, float("nan"), float("inf"), 1e9, "25"):
        with pytest.raises(InputError, match="fps is "):
            Clip.from_arrays(frames, fps=fps)
    for shape in ((1, 1), (0, 64), (10_000, 10_000)):
        with pytest.raises(MediaError, match=f"{shape[1]} x {shape[0]}"):
            Clip.from_arrays([np.broadcast_to(np.uint8(0), (*shape, 3))])
    for rate in (None, 0, 0.5, float("nan"), float("inf"), 1e12, "16000"):
        with pytest.raises(MediaError, match="sample rate is"):
            Clip.from_arrays(None, tone, sample_rate=rate)
    for waveform, message in [
        (np.zeros((0, 800), np.float32), r"\(channels, samples\)"),
        (["a", "b"], "floating point"),
        ([[1.0], [1.0, 2.0]], "length"),
    ]:
        with pytest.raises(MediaError, match=message):
            Clip.from_arrays(None, waveform, sample_rate=16000)
    for start, stop in [(float("nan"), 1), (2, 1), (0, float("inf"))]:
        with pytest.raises(InputError, match="cannot be cut"):
            Clip.from_arrays(frames, tone, fps=25, sample_rate=16000).cut(start, stop)
    for audio in (tone, True):
        with pytest.raises(InputError, match="expected a file"):
            read_clip(plain, audio=audio)


def test_a_frame_index_out_of_range_is_an_error(plain):
    clip = read_clip(plain)
    with pytest.raises(MediaError, match=r"frame 90;.*90 frames"):
        clip.take([90])
    with pytest.raises(MediaError, match="frame -1"):
        clip.take([-1])


def test_in_order_yields_frames_one_by_one(plain):
    walk = in_order(read_clip(plain).frames, iter([2, 2, 5]))
    first, second, third = walk
    assert np.array_equal(first, second) and not np.array_equal(second, third)
    images = ImageFiles(())
    assert list(in_order(images, [])) == []
