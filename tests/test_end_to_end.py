"""Evaluations from the command line, on drawn data sets with the published layouts and their pitfalls."""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dfer_zoo.checkpoints import convert_own
from dfer_zoo.cli import main
from dfer_zoo.data.annotations import read_row, read_rows
from dfer_zoo.errors import WeightsError
from dfer_zoo.factory import create_model
from dfer_zoo.media.clip import Clip
from dfer_zoo.registry import get_weights
from dfer_zoo.saving import save_pretrained
from dfer_zoo.transforms import create_transform
from tests.drawn_data import (
    SEVEN,
    draw_dfew,
    draw_ferv39k,
    draw_frames,
    draw_hidden_files,
    draw_mafw,
    draw_sound,
    write_list,
)
from tests.parity.checks.mae_dfer import our_arguments
from tests.parity.making import seeded_state
from tests.parity.runner import read_case
from tests.tiny import TINY

CASES = Path(__file__).parent / "parity"


def saved(folder, arch, **audio):
    """Save a tiny model with seven labels. Returns its name; ``audio`` changes its audio record."""
    torch.manual_seed(0)
    args = {k: v for k, v in TINY[arch].items() if k not in ("labels", "num_classes")}
    model = create_model(arch, labels=SEVEN, **args)
    if audio:
        model.audio_spec = dataclasses.replace(model.audio_spec, **audio)
    save_pretrained(model, folder / arch, tag="tiny")
    return f"local-dir:{folder / arch}"


def run(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return status, output.out, output.err


def evaluated(capsys, *arguments):
    """(exit status, the JSON that `evaluate` prints)"""
    status, out, err = run(capsys, "evaluate", *arguments, "--json")
    assert out, err
    return status, json.loads(out)


# -- a modality that is missing ----------------------------------------------------------------------------------------


def test_the_records_of_mafw_take_clips_without_sound_and_those_of_dfew_do_not():
    assert get_weights("mma_dfer", "mafw_fold1").audio.without_audio == "none"
    assert get_weights("mma_dfer", "dfew_fold1").audio.without_audio == "keep"


def test_the_record_decides_about_clips_without_a_wav_file(tmp_path, capsys):
    mafw = draw_mafw(tmp_path)
    status, found = evaluated(capsys, saved(tmp_path, "mma_dfer", without_audio="none"), mafw, "--audio", "mafw")
    assert status == 0 and found["missing"] == {"audio": 1} and np.sum(found["confusion"]) == 3
    model = saved(tmp_path / "dfew", "mma_dfer")
    status, found = evaluated(capsys, model, mafw, "--audio", "mafw")
    assert status == 1 and np.sum(found["confusion"]) == 2
    assert "clips_wav/00003.wav" in found["failed"][0]["error"]
    status, found = evaluated(capsys, model, mafw, "--audio", "mafw", "--missing-audio", "none")
    assert status == 0 and found["missing"] == {"audio": 1}


def test_evaluating_an_audio_model_without_sound_needs_an_option(tmp_path, capsys):
    mafw = draw_mafw(tmp_path)
    model = saved(tmp_path, "mma_dfer")
    status, out, err = run(capsys, "evaluate", model, mafw)
    assert status == 2 and not out
    assert "none of the 3 clips has sound" in err and "--without audio" in err
    missing = tmp_path / "mfaw" / "clips_faces" / "00002"
    missing.rename(tmp_path / "away")  # a clip that is missing has no sound either
    assert run(capsys, "evaluate", model, mafw)[0] == 2
    (tmp_path / "away").rename(missing)
    status, out, _ = run(capsys, "evaluate", model, mafw, "--without", "audio")
    assert status == 0 and "3 of 3 clips" in out


# -- how many frames a clip has ----------------------------------------------------------------------------------------


def test_dk_clip_counts_frames_in_the_folder_and_others_use_the_list(tmp_path):
    rows = read_rows(draw_mafw(tmp_path))
    args = {k: v for k, v in TINY["dk_clip"].items() if k != "labels"}
    for arch, count in (("dk_clip", 20), ("mma_dfer", 19)):
        options = args if arch == "dk_clip" else TINY[arch]
        transform = create_transform(create_model(arch, **options), faces="none")
        assert read_row(rows[0], frame_count=transform.frame_count).num_frames == count
    for tag in ("backbone", "backbone_b32"):
        video = get_weights("dk_clip", tag).video
        assert (video.frame_count, video.min_frames, video.frame_size) == ("folder", 3, "first")


def test_dk_clip_skips_clips_listed_with_fewer_than_three_frames(tmp_path, capsys):
    model, ferv = saved(tmp_path, "dk_clip"), draw_ferv39k(tmp_path)
    status, out, _ = run(capsys, "evaluate", model, ferv, "--root", tmp_path)
    assert status == 0 and "1 clip" in out
    assert "line 2: 2_ClipsforFaceCrop/Interview/Sad/0002 has 1 frame" in out


def test_a_list_with_too_large_frame_counts_does_not_stop_the_run(tmp_path, capsys):
    dfew = draw_dfew(tmp_path, counts=(40, 40, 3), short=1)
    model = saved(tmp_path, "mma_dfer")
    options = ("--root", tmp_path, "--audio", "dfew")
    status, out, _ = run(capsys, "evaluate", model, dfew, *options)
    # of 41 frames the last one is not sampled; of 4 frames all are, and one is missing
    assert status == 1 and "2 of 2 clips have fewer frames" in out
    assert "1 clip cannot be read" in out
    assert "the list says 4 frames, the folder has 3" in out
    status, out, err = run(capsys, "evaluate", model, dfew, *options, "--strict")
    assert status == 2 and not out and "the list says 4 frames" in err
    status, out, _ = run(capsys, "evaluate", saved(tmp_path, "dk_clip"), dfew, "--root", tmp_path)
    assert status == 0 and "3 of 3 clips have fewer frames" in out


def test_frame_counts_in_a_list_select_the_published_frames(tmp_path):
    """The list says 19 for a clip of 20 frames: MMA-DFER uses the first 19, DK-CLIP all 20."""
    (row, *_) = read_rows(draw_mafw(tmp_path))
    assert row.num_frames == 19
    names = sorted(path.name for path in (tmp_path / "mfaw" / "clips_faces" / "00001").iterdir())
    assert names[:3] == ["0.png", "1.png", "10.png"]
    for arch, count in (("mma_dfer", 19), ("dk_clip", 20)):
        args = {k: v for k, v in TINY[arch].items() if k not in ("labels", "num_classes")}
        transform = create_transform(create_model(arch, labels=SEVEN, **args), faces="none")
        chosen = names[:count]
        frames = [np.asarray(Image.open(tmp_path / "mfaw" / "clips_faces" / "00001" / name)) for name in chosen]
        expected = transform.without("audio")(Clip.from_arrays(frames))["video"]
        clip = read_row(row, frame_count=transform.frame_count)
        assert torch.equal(transform.without("audio")(clip)["video"], expected)


# -- folders as they are -----------------------------------------------------------------------------------------------


def test_hidden_files_are_not_frames(tmp_path):
    folder = draw_frames(tmp_path / "00001", 5)
    draw_hidden_files(folder)
    (row,) = read_rows(write_list(tmp_path / "list.txt", [f"{folder} 0"]))
    assert read_row(row).num_frames == 5


def test_the_exif_orientation_of_listed_frames_is_ignored_as_published(tmp_path):
    folder = tmp_path / "happiness" / "00001"
    folder.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(folder / "1.jpg", exif=exif)
    (listed,) = read_rows(write_list(tmp_path / "list.txt", [f"{folder} 1 0"]))
    assert read_row(listed).take([0])[0].shape == (20, 40, 3)
    (tmp_path / "list.txt").unlink()
    (own,) = read_rows(tmp_path, ["happiness"])
    assert read_row(own).take([0])[0].shape == (40, 20, 3)


def test_frames_of_two_sizes_are_evaluated_in_the_shape_of_the_first(tmp_path, capsys):
    status, found = evaluated(capsys, saved(tmp_path, "dk_clip"), draw_ferv39k(tmp_path), "--root", tmp_path)
    assert status == 0 and np.sum(found["confusion"]) == 2


def test_clips_that_cannot_be_read_are_counted_and_named(tmp_path, capsys):
    dfew = draw_dfew(tmp_path)
    for path in (tmp_path / "dfew" / "clip_224x224" / "00002").glob("0*.png"):
        path.write_bytes(b"not an image")
    model = saved(tmp_path, "mae_dfer")
    lists = write_list(tmp_path / "test.csv", [" ".join(line.split()[::2]) for line in dfew.read_text().splitlines()])
    status, out, _ = run(capsys, "evaluate", model, lists, "--replace", f"/theirs={tmp_path}")
    assert status == 1 and "   2 clips" in out and "1 clip cannot be read" in out
    assert "00002/00000.png" in out


def test_a_list_without_any_readable_clip_is_an_error(tmp_path, capsys):
    lists = write_list(tmp_path / "test.csv", ["/nowhere/1 0", "/nowhere/2 1"])
    status, _, err = run(capsys, "evaluate", saved(tmp_path, "mae_dfer"), lists)
    assert status == 2 and "None of the 2 clips" in err and "--replace OLD=NEW" in err


# -- RAVDESS -----------------------------------------------------------------------------------------------------------


def test_prepared_faces_of_ravdess_with_and_without_their_sound(tmp_path, capsys):
    lines = []
    for number in (1, 2):
        place = tmp_path / "ACTOR05" / f"01-01-0{number}-01-01-01-05"
        place.parent.mkdir(exist_ok=True)
        np.save(f"{place}_facecroppad.npy", np.zeros((15, 32, 32, 3), np.uint8))
        lines.append(f"{place}_facecroppad.npy;{place}_croppad.wav;{number};testing")
    draw_sound(tmp_path / "ACTOR05" / "01-01-01-01-01-01-05_croppad.wav", 3.6, 22050)
    lists = write_list(tmp_path / "annotations.txt", lines)
    torch.manual_seed(0)
    save_pretrained(create_model("av_fusion", num_classes=8, **TINY["av_fusion"]), tmp_path / "model", tag="tiny")
    status, out, _ = run(capsys, "evaluate", f"local-dir:{tmp_path / 'model'}", lists, "--subset", "testing")
    assert status == 1 and "   1 clips" in out and "01-01-02-01-01-01-05_croppad.wav" in out


# -- checkpoints of one's own training with the authors' programs ------------------------------------------------------


def mae_dfer_checkpoint(path, **options):
    """Write a checkpoint in the format of MAE-DFER's program. Returns our arguments for its sizes."""
    case = read_case(CASES / "mae_dfer" / "finetune_small_base.json")
    state = seeded_state(case["state_dict"], case["weights"])
    torch.save({"model": state, "args": argparse.Namespace(lr=1e-3, output_dir=Path("out"), **options)}, path)
    arguments = our_arguments(case["config"], joint=False)
    return {name: value for name, value in arguments.items() if name != "num_classes"}


@pytest.mark.parametrize(("word", "ours"), [("org", "local"), ("all", "all"), ("region", "region")])
def test_pooled_tokens_are_read_from_the_training_options(tmp_path, word, ours):
    arguments = mae_dfer_checkpoint(tmp_path / "best.pth", lg_classify_token_type=word, sampling_rate=1)
    sizes = {name: value for name, value in arguments.items() if name != "pooled_tokens"}
    convert_own("mae_dfer", tmp_path / "best.pth", tmp_path / "own", **sizes)
    model = create_model(f"local-dir:{tmp_path / 'own'}")
    assert model.pooled_tokens == ours and model.video_spec.rate == 1
    with pytest.raises(WeightsError, match=r"pooled_tokens='\w+' .*pooled_tokens='\w+'"):
        wrong = {"pooled_tokens": "all" if ours != "all" else "region"}
        convert_own("mae_dfer", tmp_path / "best.pth", tmp_path / "own", **{**sizes, **wrong})


def test_an_unknown_token_type_is_refused(tmp_path):
    mae_dfer_checkpoint(tmp_path / "best.pth", lg_classify_token_type="some")
    with pytest.raises(WeightsError, match=r"lg_classify_token_type is 'some';.*region, org, all"):
        convert_own("mae_dfer", tmp_path / "best.pth", tmp_path / "own")


def test_the_stored_number_of_classes_must_match_the_checkpoint(tmp_path):
    sizes = mae_dfer_checkpoint(tmp_path / "best.pth", nb_classes=11)
    with pytest.raises(WeightsError, match="num_classes=11"):
        convert_own("mae_dfer", tmp_path / "best.pth", tmp_path / "own", **sizes)


def test_convert_takes_transform_options(tmp_path, capsys):
    sizes = mae_dfer_checkpoint(tmp_path / "best.pth", sampling_rate=1)
    given = [word for name, value in sizes.items() for word in ("--set", f"{name}={value}")]
    convert = ("convert", "mae_dfer", "mine", tmp_path / "best.pth", "--output", tmp_path / "own", *given)
    assert run(capsys, *convert, "--transform", "segments=3")[0] == 0
    spec = create_model(f"local-dir:{tmp_path / 'own'}").video_spec
    assert (spec.rate, spec.segments) == (1, 3)
    status, _, err = run(capsys, *convert, "--transform", "rate=4")
    assert status == 2 and "rate=1" in err
    status, _, err = run(capsys, *convert, "--transform", "rat=4")
    assert status == 2 and "'rat'. Did you mean rate" in err
    status, _, err = run(capsys, "convert", "mae_dfer", "dfew_fold1", "x.pth", "--transform", "rate=4")
    assert status == 2 and "--output" in err


def test_frames_and_snippets_of_dk_clip_are_read_from_its_configuration(tmp_path):
    """The program stores the nested sections of yacs."""
    case = read_case(CASES / "dk_clip" / "tiny_t8_n4.json")
    config = {"DATA": {"NUM_FRAMES": 8, "NUM_DIVIDE": 4, "NUM_CLASSES": 7}, "TRAIN": {"LR": 2e-6}}
    torch.save(
        {"model": seeded_state(case["state_dict"], case["weights"]["seed"]), "config": config}, tmp_path / "best.pth"
    )
    convert_own("dk_clip", tmp_path / "best.pth", tmp_path / "own", labels=SEVEN)
    model = create_model(f"local-dir:{tmp_path / 'own'}")
    assert model.video_spec.num_frames == 8
    with pytest.raises(WeightsError, match="num_frames=8"):
        convert_own("dk_clip", tmp_path / "best.pth", tmp_path / "own", labels=SEVEN, num_frames=16)
