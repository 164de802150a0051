"""Prepared clips: same pixels as from whole files, resuming, worker processes, reports."""

from __future__ import annotations

import csv
import json
import re
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dfer_zoo.cli import main
from dfer_zoo.data import prepare
from dfer_zoo.data.annotations import read_row, read_rows
from dfer_zoo.data.puppets import Puppet
from dfer_zoo.errors import DferZooError, InputError
from dfer_zoo.media.files import read_clip
from dfer_zoo.registry import get_weights
from dfer_zoo.transforms import create_transform
from tests.media_files import test_pattern

pytest.importorskip("av")


def detect_two_faces(frame):
    """Detect two faces, one of which moves with the brightness of the frame."""
    shift = int(frame.mean()) % 5
    return np.array([[20 + shift, 12, 70 + shift, 72], [80, 30, 96, 50]], float)


def detect_nothing(frame):
    return None


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Two drawn clips with sound, one per class."""
    root = tmp_path_factory.mktemp("films")
    for number, emotion in enumerate(("happiness", "anger")):
        (root / emotion).mkdir()
        Puppet(emotion, seed=number, size=112).write(root / emotion / f"{number}.mp4")
    return root


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("rule", ["union_square", "largest", "aligned", "mma_dfer.mafw_fold1"])
def test_prepared_frames_give_the_pixels_of_the_whole_file(films, tmp_path, rule):
    report = prepare.faces(films, tmp_path, rule=rule, detector=detect_two_faces, kind="png")
    assert [r.status for r in report.results] == ["written"] * 2
    record = get_weights("mma_dfer.mafw_fold1" if "mafw" in rule else "mma_dfer.dfew_fold1")
    crop = record.video.face_crop if "." in rule else rule
    transform = create_transform(record, faces=detect_two_faces, face_crop=crop)
    ready = create_transform(record, faces="none")
    labels = ["anger", "happiness"]
    prepared = read_rows(tmp_path / "annotations.csv", labels)
    assert [row.label for row in prepared] == [0, 1]
    for row, film in zip(prepared, sorted(films.rglob("*.mp4"))):
        assert torch.equal(ready(read_row(row))["video"], transform(film)["video"])


def test_prepared_arrays_give_the_pixels_of_the_whole_file(tmp_path):
    """RAVDESS: 15 faces in BGR, black after the end of the video, and 3.6 seconds of sound."""
    root = tmp_path / "RAVDESS" / "ACTOR05"
    root.mkdir(parents=True)
    Puppet("sadness", size=112).write(root / "01-01-04-01-01-01-05.mp4")
    faces = prepare.faces(
        root.parent, tmp_path / "faces", rule="largest", detector=detect_two_faces, kind="npy", preview=True
    )
    sound = prepare.audio(root.parent, tmp_path / "sound", rule="ravdess")
    saved = np.load(tmp_path / "faces/ACTOR05/01-01-04-01-01-01-05_facecroppad.npy")
    assert saved.shape == (15, 224, 224, 3) and saved.dtype == np.uint8
    assert len(read_clip(tmp_path / "faces/ACTOR05/01-01-04-01-01-01-05_facecroppad.avi").frames) == 15
    assert [r.output for r in sound.results] == ["ACTOR05/03-01-04-01-01-01-05_croppad.wav"]
    with wave.open(str(tmp_path / "sound" / sound.results[0].output)) as stream:
        assert (stream.getframerate(), stream.getnchannels(), stream.getnframes()) == (22050, 1, 79380)
    lists = tmp_path / "lists"
    command = (
        f"prepare annotations ravdess {root.parent} --frames {tmp_path}/faces --sounds {tmp_path}/sound --out {lists}"
    )
    assert main(command.split()) == 0
    (row,) = read_rows(lists / "annotations.txt", get_weights("av_fusion.ravdess_ia").labels)
    assert (row.label, row.subset) == (3, "testing") and len(faces.results) == 1
    record = get_weights("av_fusion.ravdess_ia")
    whole = create_transform(record, faces=detect_two_faces)(root / "01-01-04-01-01-01-05.mp4")
    ready = create_transform(record, faces="none")(read_row(row))
    assert torch.equal(whole["video"], ready["video"])
    assert torch.equal(whole["audio"], ready["audio"])


def test_the_sound_keeps_its_rate_and_channels(tmp_path):
    film = test_pattern(tmp_path / "a.mkv", "-c:a", "pcm_s16le", seconds=1)
    report = prepare.audio(film, tmp_path / "out")
    whole = read_clip(film)
    ready = read_clip(tmp_path / "out" / "a.wav")
    assert ready.sample_rate == whole.sample_rate == 44100
    assert np.array_equal(ready.waveform, whole.waveform) and report.results[0].frames == whole.waveform.shape[1]


def test_a_file_without_sound_is_reported_with_status_1(tmp_path, capsys):
    (tmp_path / "films").mkdir()
    silent = test_pattern(tmp_path / "films" / "a.mp4", "-an", seconds=0.2)
    assert main(f"prepare audio {silent.parent} --out {tmp_path}/out --workers 0".split()) == 1
    assert "1 clips: 1 failed" in (out := capsys.readouterr().out) and "no sound in this file" in out


def test_frames_are_written_at_a_rate(tmp_path, capsys):
    film = test_pattern(tmp_path / "a.mp4", "-an", seconds=2, rate=30)
    assert main(f"prepare frames {film} --fps 5 --format png --out {tmp_path}/out --workers 0".split()) == 0
    names = sorted(path.name for path in (tmp_path / "out" / "a").iterdir())
    assert names == [f"{number:05d}.png" for number in range(10)]
    whole = read_clip(film).take([6 * number for number in range(10)])
    for name, frame in zip(names, whole):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "a" / name)), frame)
    assert "1 clips: 1 written" in capsys.readouterr().out


def test_frames_are_repeated_above_the_rate_of_the_file(tmp_path):
    film = test_pattern(tmp_path / "a.mp4", "-an", seconds=0.4, rate=10)
    assert prepare.frames(film, tmp_path / "all").results[0].frames == 4
    assert prepare.frames(film, tmp_path / "more", fps=20, kind="png").results[0].frames == 8
    first, second = (np.asarray(Image.open(tmp_path / f"more/a/0000{k}.png")) for k in (0, 1))
    assert np.array_equal(first, second)


def test_clips_without_a_face_are_reported(films, tmp_path):
    report = prepare.faces(films, tmp_path / "out", rule="largest", detector=detect_nothing)
    assert len(report.without_face) == 2 and not list((tmp_path / "out").rglob("*.jpg"))
    lines = rows_of(tmp_path / "out" / "report.csv")
    assert [line["status"] for line in lines] == ["no face"] * 2 and int(lines[0]["searched"]) > 0
    assert "no face was found" in lines[0]["reason"]
    # the published rule of MAFW writes the center of the frame; such clips are reported too
    report = prepare.faces(films, tmp_path / "middle", rule="union_square", detector=detect_nothing, no_face="frame")
    assert len(report.without_face) == 2 and (tmp_path / "middle" / "anger" / "1" / "0.jpg").is_file()
    prepare.write_report(report, tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["counts"] == {"no face": 2}


def test_an_interrupted_run_is_resumed(films, tmp_path, monkeypatch):
    from dfer_zoo.data import prepare_clips

    calls = []
    real = prepare_clips.prepare_faces

    def once(source, **options):
        calls.append(source.output)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(source, **options)

    monkeypatch.setattr(prepare_clips, "prepare_faces", once)
    with pytest.raises(KeyboardInterrupt):
        prepare.faces(films, tmp_path, rule="largest", detector=detect_two_faces)
    with (tmp_path / prepare.JOURNAL).open("a") as journal:
        journal.write('{"clip": "half a li')
    report = prepare.faces(films, tmp_path, rule="largest", detector=detect_two_faces)
    assert calls == ["anger/1", "happiness/0", "happiness/0"] and report.resumed == 1
    assert [r.status for r in report.results] == ["written", "written"]
    assert not [path for path in tmp_path.rglob(".*") if path.is_dir()]
    with pytest.raises(InputError, match=r"crop=largest .*aligned"):
        prepare.faces(films, tmp_path, rule="aligned", detector=detect_two_faces)


def test_worker_processes_write_the_same_files(films, tmp_path, capsys):
    box = "--faces 10,10,60,60 --rule largest --format png"
    assert main(f"prepare faces {films} {box} --out {tmp_path}/one --workers 0".split()) == 0
    assert main(f"prepare faces {films} {box} --out {tmp_path}/two --workers 2".split()) == 0
    one, two = (sorted(p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*.png")) for n in ("one", "two"))
    assert one == two and len(one) > 20
    assert all((tmp_path / "one" / p).read_bytes() == (tmp_path / "two" / p).read_bytes() for p in one)
    assert rows_of(tmp_path / "one" / "report.csv") == rows_of(tmp_path / "two" / "report.csv")


def test_a_list_keeps_its_labels_and_a_damaged_file_fails_alone(films, tmp_path, capsys):
    clips = tmp_path / "clips.csv"
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(b"no film")
    film = next(films.rglob("0.mp4"))
    clips.write_text(f"path,label,subset\n{film},joy,training\n{damaged},anger,testing\n")
    assert main(f"prepare faces {clips} --rule whole --out {tmp_path}/out --workers 0".split()) == 1
    out = capsys.readouterr().out
    assert "2 clips: 1 written, 1 failed" in out and "damaged.mp4" in out
    (line,) = rows_of(tmp_path / "out" / "annotations.csv")
    assert (line["path"], line["label"], line["subset"]) == ("0", "joy", "training")


@pytest.mark.parametrize(
    "command, sentence",
    [
        ("faces {films} --rule square --out {out}", "'square';.*aligned, largest"),
        ("faces {films} --rule mae_face.nothing --out {out}", "'mae_face.nothing'"),
        ("faces {films} --rule largest --avi --out {out}", ".avi .*.npy"),
        ("faces {empty} --rule largest --out {out}", "empty"),
        ("faces {twins} --rule whole --out {out}", "2 clips of .*twins.csv.*--root DIR"),
        ("frames {films} --fps 0 --out {out}", "fps is 0.0;"),
        (
            "frames {films} --root {out} --subset testing --out {out}",
            "films0 .*--root, --subset",
        ),
        ("audio {films} --workers -1 --out {out}", "--workers is -1;"),
        ("annotations dfew {films} --fold 6 --out {out}", "DFEW .*1 to 5.*--fold"),
        ("annotations ferv39k {films} --fold 2 --out {out}", "FERV39k .*no folds"),
        ("annotations dfew {films} --fold 1-2 --out {out}", "{{fold}} .*--out"),
        ("annotations dfew {films} --fold 1 --out {out}", "set_1.csv"),
        ("annotations dfew {films} --fold 1 --system hicmae --out {out}", "hicmae .*DFEW"),
        ("annotations folders {films} --fold 9 --out {out}", "5 folds.*--fold 1 to 5"),
        ("annotations folders {films} --fold 1 --group x(.) --out {out}", "does not match"),
        ("annotations ravdess {films} --out {out}", "dfer-zoo prepare faces"),
    ],
)
def test_wrong_commands_are_one_line_errors(films, tmp_path, capsys, command, sentence):
    (tmp_path / "empty").mkdir()
    film = next(films.rglob("0.mp4"))
    (tmp_path / "twins.csv").write_text(f"path,label\n{film},0\n{film},1\n")
    places = {"films": films, "empty": tmp_path / "empty", "twins": tmp_path / "twins.csv", "out": tmp_path / "out"}
    assert main(["prepare", *command.format(**places).split()]) == 2
    error = capsys.readouterr().err
    assert re.search(sentence.replace("{{fold}}", r"\{fold\}"), error) and error.count("\n") == 1, error


# -- lists -------------------------------------------------------------------------------------------------------------


def frame_folder(folder: Path, count: int = 3) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / f"{number}.jpg")


def prepared(out, command):
    """Run the command. Returns {name of a list: its lines}."""
    assert main(["prepare", "annotations", *command.split(), "--out", str(out)]) == 0
    return {path.stem: path.read_text().splitlines() for path in sorted(Path(out).iterdir())}


@pytest.fixture
def dfew(tmp_path):
    root = tmp_path / "DFEW"
    for name, rows in (("train", "12,1\n7,3"), ("test", "345,7")):
        folder = root / "EmoLabel_DataSplit" / f"{name}(single-labeled)"
        folder.mkdir(parents=True)
        (folder / "set_2.csv").write_text(f"video_name,label\n{rows}\n")
    for place in ("clip_224x224", "jpg_256", "clip_224x224_16f"):
        for name in ("00012", "00007", "00345"):
            frame_folder(root / "Clip" / place / name)
    return root


@pytest.mark.parametrize(
    "system, train, test",
    [
        (
            "mma_dfer",
            ["{}/Clip/clip_224x224/00012 3 0", "{}/Clip/clip_224x224/00007 3 2"],
            ["{}/Clip/clip_224x224/00345 3 6"],
        ),
        ("mae_dfer", ["{}/Clip/jpg_256/00012 0", "{}/Clip/jpg_256/00007 2"], ["{}/Clip/jpg_256/00345 6"]),
        ("s2d", ["path,label", "00012,0", "00007,2"], ["path,label", "00345,6"]),
    ],
)
def test_lists_of_dfew(dfew, tmp_path, system, train, test):
    lists = prepared(tmp_path / "out", f"dfew {dfew} --fold 2 --system {system}")
    assert lists == {"train": [line.format(dfew) for line in train], "test": [line.format(dfew) for line in test]}
    root = {"root": dfew / "Clip" / "clip_224x224_16f"} if system == "s2d" else {}
    (only,) = read_rows(next((tmp_path / "out").glob("test.*")), list("abcdefg"), **root)
    assert only.label == 6 and len(read_row(only).frames) == 3


def test_a_clip_without_frames_is_an_error_or_is_left_out(dfew, tmp_path, capsys):
    shutil.rmtree(dfew / "Clip" / "clip_224x224" / "00007")
    command = ["prepare", "annotations", "dfew", str(dfew), "--fold", "2", "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "1 of 2 clips of the train list have no frames" in capsys.readouterr().err
    assert main([*command, "--skip-missing"]) == 0
    assert "train.txt: 1 clips" in capsys.readouterr().out
    header = dfew / "EmoLabel_DataSplit" / "train(single-labeled)" / "set_2.csv"
    header.write_text("name,emotion\n12,1\n")
    assert main(command) == 2
    assert "name, emotion" in capsys.readouterr().err


@pytest.fixture
def mafw(tmp_path):
    root = tmp_path / "MAFW"
    folder = root / "split" / "single" / "no_caption" / "set_1"
    folder.mkdir(parents=True)
    (folder / "train.txt").write_text("00025.mp4 anger\n00903.mp4 happiness\n")
    (folder / "test.txt").write_text("00030.mp4 disappointment\n")
    for name in ("00025", "00903", "00030"):
        frame_folder(root / "data" / "frames" / name)
        frame_folder(root / "data" / "frames" / "frames_crop_align_224" / name)
    return root


@pytest.mark.parametrize(
    "system, labels",
    [
        ("mma_dfer", [3, 0, 10]),  # happiness first
        ("dfer_clip", [3, 0, 10]),
        ("dk_clip", [3, 0, 10]),
        ("mae_dfer", [0, 3, 10]),  # MAFW's own order
        ("s2d", [0, 6, 3]),  # alphabetical
    ],
)
def test_lists_of_mafw_have_the_order_of_each_system(mafw, tmp_path, system, labels):
    lists = prepared(tmp_path / "out", f"mafw {mafw} --fold 1 --system {system}")
    lines = [line for name in ("train", "test") for line in lists[name] if not line.startswith("path,")]
    assert [int(line.replace(",", " ").split()[-1]) for line in lines] == labels
    if system in ("mma_dfer", "dfer_clip"):  # the former counts one less
        assert [line.split()[-2] for line in lines] == [["2"] * 3, ["3"] * 3][system == "dfer_clip"]


def test_label_orders_match_the_records():
    from dfer_zoo.data.lists import SAME, label_order

    compared = set()
    for dataset, tag in (("dfew", "dfew_fold1"), ("mafw", "mafw_fold1"), ("ferv39k", "ferv39k")):
        for system in ("mma_dfer", "dfer_clip", "mae_dfer", "s2d", "hicmae"):
            try:
                record = get_weights(f"{system}.{tag}")
            except DferZooError:
                continue
            compared.add((dataset, system))
            assert tuple(SAME.get(label, label) for label in record.labels) == label_order(dataset, system)
    assert len(compared) >= 12


def test_hicmae_lists_skip_clips_without_sound(mafw, tmp_path):
    lists = prepared(tmp_path / "out", f"mafw {mafw} --fold 1 --system hicmae --sounds {mafw}/wav")
    assert lists["train"] == [f"{mafw}/data/frames/00025 {mafw}/wav/00025.wav 0"]
    lists = prepared(tmp_path / "all", f"mafw {mafw} --fold 1 --system hicmae --sounds {mafw}/wav --all")
    assert len(lists["train"]) == 2


def test_lists_of_ferv39k(tmp_path):
    root = tmp_path / "FERV39k"
    (root / "4_setups" / "All_scenes").mkdir(parents=True)
    for name, line in (("train", "Action/Happy/0001 Happy"), ("test", "Crisis/Fear/0002 Fear")):
        (root / "4_setups" / "All_scenes" / f"{name}_All.csv").write_text(f"{line}\n")
        frame_folder(root / "2_ClipsforFaceCrop" / line.split()[0])
    assert prepared(tmp_path / "a", f"ferv39k {root}")["test"] == [f"{root}/2_ClipsforFaceCrop/Crisis/Fear/0002 3 6"]
    assert prepared(tmp_path / "b", f"ferv39k {root} --system s2d")["test"] == ["path,label", "Crisis/Fear/0002,2"]


def test_lists_of_crema_d_and_enterface_are_split_by_people(tmp_path):
    for name in ("1001_DFA_ANG_XX", "1019_DFA_SAD_XX", "1040_ITH_SAD_XX"):
        frame_folder(tmp_path / "crema" / name)
    lists = prepared(tmp_path / "a", f"crema_d {tmp_path}/crema --system mae_dfer --fold 1")
    assert [line.split()[-1] for line in lists["test"]] == ["0"] and len(lists["train"]) == 2
    for subject, emotion in ((1, "anger"), (11, "surprise"), (44, "fear")):
        frame_folder(tmp_path / "enterface" / f"subject_{subject}" / emotion / "sentence_1" / "clip")
    lists = prepared(tmp_path / "b", f"enterface {tmp_path}/enterface --fold 2")
    assert lists["test"] == [f"{tmp_path}/enterface/subject_11/surprise/sentence_1/clip 5"] and len(lists["train"]) == 2


def test_ravdess_is_cross_validated_by_actors(tmp_path):
    for actor in range(1, 25):
        frame_folder(tmp_path / "faces" / f"Actor_{actor:02d}" / f"02-01-03-01-01-01-{actor:02d}", 1)
        frame_folder(tmp_path / "faces" / f"Actor_{actor:02d}" / f"02-02-03-01-01-01-{actor:02d}", 1)  # a song
        for path in (f"02-01-03-01-01-01-{actor:02d}_facecroppad.npy", f"03-01-03-01-01-01-{actor:02d}_croppad.wav"):
            (tmp_path / "faces" / path).touch()
    command = f"ravdess {tmp_path}/faces --fold 1-6 --out {tmp_path}/av/fold{{fold}}".split()
    assert main(["prepare", "annotations", *command]) == 0
    tested = []
    for fold in range(1, 7):
        rows = read_rows(tmp_path / f"av/fold{fold}/annotations.txt")
        parts = {
            s: {int(Path(r.path).name[18:20]) for r in rows if r.subset == s}
            for s in ("training", "validation", "testing")
        }
        assert [len(parts[name]) for name in ("training", "validation", "testing")] == [16, 4, 4]
        tested += sorted(parts["testing"])
    assert tested == list(range(1, 25))
    lists = prepared(tmp_path / "mae", f"ravdess {tmp_path}/faces --system mae_dfer --fold 6")
    assert len(lists["train"]) == 20 and lists["test"][-1].endswith("02-01-03-01-01-01-24 2")


def test_your_own_clips_are_split_by_class_or_by_person(tmp_path):
    for emotion in ("calm", "tense"):
        for person in "abcde":
            for take in range(2):
                frame_folder(tmp_path / "own" / emotion / f"{person}_{take}", 1)
    seen = []
    for fold in range(1, 6):
        lists = prepared(tmp_path / f"{fold}", f"folders {tmp_path}/own --fold {fold} --parts 5")
        assert lists["test"][0] == "path,label" and len(lists["test"]) == 5
        assert sum(line.endswith(",calm") for line in lists["test"]) == 2
        seen += lists["test"][1:]
    assert len(set(seen)) == 20
    lists = prepared(tmp_path / "people", f"folders {tmp_path}/own --fold 1 --parts 5 --group ^([a-z])_")
    people = [{Path(line.split(",")[0]).name[0] for line in lists[name][1:]} for name in ("train", "test")]
    assert len(people[1]) == 1 and not people[0] & people[1]
    assert [row.label for row in read_rows(tmp_path / "people" / "test.csv", ["calm", "tense"])] == [0, 0, 1, 1]
