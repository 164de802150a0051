import numpy as np
import pytest
from PIL import Image

from dfer_zoo.data.annotations import Row, read_row, read_rows
from dfer_zoo.data.formats import audio_path, read_clip_list, read_frame_list
from dfer_zoo.errors import InputError, MediaError
from dfer_zoo.transforms.sampling import indices
from dfer_zoo.weights.record import VideoSpec


def write(folder, text):
    path = folder / "list.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_frame_list_line_is_folder_count_and_label(tmp_path):
    path = write(tmp_path, "/data/dfew/clip_224x224/01234 57 3\n\n/data/FERV39k/Interview/Sad/0123 28 1")
    assert read_frame_list(path) == [
        Row("/data/dfew/clip_224x224/01234", 3, None, 57, order="string", upright=False),
        Row("/data/FERV39k/Interview/Sad/0123", 1, None, 28, order="string", upright=False),
    ]


def test_frame_lists_take_spaces_a_root_and_a_minimum_length(tmp_path):
    path = write(tmp_path, "DFEW/a clip 41 3\nDFEW/short 2 0\n")
    assert read_frame_list(path, root="/mine", min_frames=3) == [
        Row("/mine/DFEW/a clip", 3, None, 41, order="string", upright=False)
    ]


def test_replace_changes_the_start_of_every_path_or_fails(tmp_path):
    path = write(tmp_path, "/theirs/clip_224x224/00001 20 0\n")
    rows = read_frame_list(path, replace=("/theirs", "/mine"), audio="dfew")
    assert rows == [Row("/mine/clip_224x224/00001", 0, "/mine/raw_wav/1.wav", 20, order="string", upright=False)]
    with pytest.raises(InputError, match="'/other'"):
        read_frame_list(path, replace=("/other", "/mine"))


def test_the_audio_rule_finds_the_sound_file(tmp_path):
    folder = "/data/mfaw/clips_faces/04321"
    assert audio_path(folder, None) is None
    assert audio_path(folder, "mafw") == "/data/mfaw/clips_wav/04321.wav"
    assert audio_path(folder, "{parent}/{name}.flac") == "/data/mfaw/clips_faces/04321.flac"
    assert audio_path(folder, lambda place: place[-5:]) == "04321"
    with pytest.raises(InputError, match=r"'mafv'.*mafw"):
        audio_path(folder, "mafv")
    with pytest.raises(InputError, match="named by a number"):
        audio_path("/data/clips/anna", "dfew")
    with pytest.raises(InputError, match="cannot be filled in"):
        audio_path(folder, "{speaker}.wav")


def test_missing_sound_files_are_kept_dropped_or_an_error(tmp_path):
    (tmp_path / "clips_wav").mkdir()
    (tmp_path / "clips_wav" / "00001.wav").touch()
    path = write(tmp_path, "clips_faces/00001 9 0\nclips_faces/00002 9 0\n")
    there, absent = (str(tmp_path / "clips_wav" / f"0000{i}.wav") for i in (1, 2))

    def sounds(**options):
        return [row.audio for row in read_frame_list(path, root=tmp_path, audio="mafw", **options)]

    assert sounds() == [there, absent]
    assert sounds(without_audio="none") == [there, None]
    with pytest.raises(InputError, match=r"line 2: .*sound file"):
        sounds(without_audio="error")


def test_clips_without_frames_are_errors_unless_min_frames_is_set(tmp_path):
    path = write(tmp_path, "fine 12 3\nempty 0 3\n")
    with pytest.raises(InputError, match=r"line 2: .*empty has 0 frames"):
        read_frame_list(path)
    assert [row.path for row in read_frame_list(path, min_frames=1)] == ["fine"]
    assert [row.path for row in read_frame_list(path, min_frames=3)] == ["fine"]  # DK-CLIP's rule


@pytest.mark.parametrize("line", ["folder 12", "folder twelve 3", "folder 12 -1", "folder 12 3.0"])
def test_the_error_names_a_malformed_line(tmp_path, line):
    with pytest.raises(InputError, match=r"line 2: .*'folder count label'"):
        read_frame_list(write(tmp_path, f"fine 20 0\n{line}\n"))


def test_the_error_names_a_label_out_of_range(tmp_path):
    with pytest.raises(InputError, match=r"line 1: .*label is 7"):
        read_frame_list(write(tmp_path, "folder 20 7\n"), num_classes=7)


def frames_folder(folder, count):
    """Frames named without leading zeros. The gray level is ten times the number."""
    folder.mkdir()
    for number in range(count):
        Image.fromarray(np.full((8, 8, 3), 10 * number, np.uint8)).save(folder / f"{number}.png")
    return folder


def test_the_list_sets_the_order_and_the_number_of_frames(tmp_path):
    folder = frames_folder(tmp_path / "00001", 12)
    path = write(tmp_path, f"{folder} 11 0\n")

    def levels(**options):
        (row,) = read_frame_list(path, **options)
        clip = read_row(row)
        return [int(frame[0, 0, 0]) // 10 for frame in clip.take(range(clip.num_frames))]

    assert levels() == [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8]  # as texts, as published
    assert levels(order="numeric") == list(range(11))


def test_a_listed_frame_missing_on_disk_is_an_error_only_when_read(tmp_path):
    folder = frames_folder(tmp_path / "00001", 3)
    (row,) = read_frame_list(write(tmp_path, f"{folder} 4 0\n"))
    clip = read_row(row)
    assert clip.num_frames == 4 and len(clip.take([0, 2])) == 2 and clip.notes["short"] == (4, 3)
    with pytest.raises(MediaError, match=r"4 frames.* 3.*frame 3"):
        clip.take([3])
    assert read_row(row, frame_count="folder").num_frames == 3


def test_every_prepared_face_is_used_once(tmp_path):
    for count in range(1, 109):
        np.save(
            tmp_path / "faces.npy", np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((8, 8, 3), np.uint8)
        )
        clip = read_row(Row(str(tmp_path / "faces.npy"), 0))
        spec = VideoSpec(num_frames=count, img_size=8, sampling="leading_window", window=108, fps=30.0)
        assert indices(clip.num_frames, clip.fps, spec) == list(range(count))


def test_a_clip_list_line_is_folder_and_label(tmp_path):
    path = write(tmp_path, "/theirs/jpg_256/00017 3\n\n/theirs/a clip/00018 0\n")
    rows = [
        Row("/mine/jpg_256/00017", 3, order="string", upright=False),
        Row("/mine/a clip/00018", 0, order="string", upright=False),
    ]
    assert read_clip_list(path, replace=("/theirs", "/mine"), num_classes=7) == rows
    assert read_rows(path, replace=("/theirs", "/mine")) == rows
    with pytest.raises(InputError, match=r"line 1: .*label is 3"):
        read_clip_list(path, num_classes=3)
    with pytest.raises(InputError, match=r"line 2: .*'folder label'.*'/data/00002 happy'"):
        read_clip_list(write(tmp_path, "/data/00001 0\n/data/00002 happy\n"))
