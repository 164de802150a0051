"""Hostile weights files: each one loads or is a one-line error, at a cost in proportion to its size."""

import dataclasses
import json
import os
import pickle
import subprocess
import sys
import time
import zipfile

import pytest
import torch

import dfer_zoo
from dfer_zoo.atomic import SUFFIX, write_atomically
from dfer_zoo.checkpoints import read_checkpoint
from dfer_zoo.errors import MAX_MESSAGE, DferZooError, InputError, WeightsError
from dfer_zoo.weights import fetch, store
from dfer_zoo.weights.safetensors import METADATA_KEY, read_safetensors, write_safetensors
from tests import small
from tests.tiny import TINY

VIDEO = dataclasses.asdict(small.record().video)


@pytest.fixture
def file(monkeypatch, tmp_path):
    """A function that changes the header of a valid file and returns its name."""
    small.open_zoo(monkeypatch, tmp_path)
    path = dfer_zoo.save_pretrained(dfer_zoo.create_model("small"), tmp_path / "saved")

    def change(**changes):
        state, header = read_safetensors(path)
        state = {name: tensor.clone() for name, tensor in state.items()}
        write_safetensors(path, state, {**header, **changes})
        return f"local-dir:{path.parent}"

    return change


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"labels": ["happy", "sad", "happy"]}, "are not distinct"),
        ({"model_args": {"num_classes": 10**15}}, "at most 1,048,576"),
        ({"model_args": {"num_classes": 10**6, "width": 10**6}}, "parameters"),
        ({"model_args": {"width": -3}}, "cannot be built|negative"),
        ({"model_args": {"width": "wide"}}, "cannot be built"),
        ({"model_args": {"width": float("nan")}}, "at most|cannot be built"),
        ({"model_args": {"width": [[[8]]]}}, "cannot be built"),
        ({"model_args": 3}, "expected"),
        ({"schema": 99}, "schema 99;.* 3"),
        ({"schema": "new"}, "schema 'new'"),
        ({"video": {"num_frames": []}}, "missing fields|expected"),
        ({"video": {**VIDEO, "detector": "yunet:/etc/passwd"}}, "detector 'yunet:/etc/passwd' .*mtcnn"),
        ({"arch": "nothing"}, "does not know"),
        ({"origin": [{"kind": "smb"}]}, "missing fields|kind 'smb'"),
    ],
)
def test_a_hostile_header_is_a_one_line_error(file, changes, sentence):
    with pytest.raises(DferZooError, match=sentence) as caught:
        dfer_zoo.create_model(file(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("header", ["[" * 100_000, "3", "[]", '"text"', "{", '{"arch": ' * 50_000])
def test_a_header_that_is_not_a_record_is_a_one_line_error(monkeypatch, tmp_path, header):
    from safetensors.torch import save_file

    small.open_zoo(monkeypatch, tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={METADATA_KEY: header})
    with pytest.raises(WeightsError):
        dfer_zoo.create_model(f"local-dir:{tmp_path}")


def test_a_header_of_the_first_schema_is_read(file, tmp_path):
    folder = file()
    path = tmp_path / "saved" / "model.safetensors"
    state, header = read_safetensors(path)
    old = {name: header[name] for name in header if name not in ("origin", "backbones", "caution", "schema")}
    for name in ("training_data", "open_questions", "opened"):
        old.pop(name)
    video = dict(header["video"])
    old["video"] = {**video, "frames": video.pop("num_frames"), "size": video.pop("img_size")}
    for name in ("num_frames", "img_size"):
        old["video"].pop(name, None)
    old |= {"origin_url": None, "origin_sha256": None, "parts": {}}
    write_safetensors(path, {name: tensor.clone() for name, tensor in state.items()}, old)
    model = dfer_zoo.create_model(folder)
    assert model.video_spec.num_frames == 2 and model.weights.schema == 3


@pytest.mark.parametrize(
    ("arch", "old"),
    [
        ("av_fusion", {"image_size": 32}),
        ("mma_dfer", {"preset": "tiny", "image_size": 32, "drop_path": 0.2}),
        (
            "mae_dfer",
            {"image_size": 32, "frames": 4, "width": 48, "depth": 1, "heads": 4, "region": [1, 1, 2], "drop": 0.1},
        ),
        ("audio_mae", {"preset": "tiny", "frames": 64}),
        ("dfer_clip", {"clip_model": TINY["dfer_clip"]["clip_model"], "max_frames": 8, "temporal_heads": 4}),
    ],
)
def test_a_header_of_the_second_schema_has_the_old_names_of_arguments(tmp_path, arch, old):
    renamed = {"frames": "num_frames", "max_frames": "num_frames", "heads": "num_heads", "temporal_heads": "num_heads"}
    renamed |= {"image_size": "img_size", "drop": "drop_rate", "drop_path": "drop_path_rate"}
    today = {renamed.get(name, name): value for name, value in old.items()}
    model = dfer_zoo.create_model(arch, **today)
    path = dfer_zoo.save_pretrained(model, tmp_path)
    state, header = read_safetensors(path)
    assert header["schema"] == 3 and today.items() <= header["model_args"].items()
    kept = {name: value for name, value in header["model_args"].items() if name not in today}
    header |= {"schema": 2, "model_args": {**kept, **old}}
    write_safetensors(path, {name: tensor.clone() for name, tensor in state.items()}, header)
    again = dfer_zoo.create_model(f"local-dir:{tmp_path}")
    assert again.config() == model.config() and again.weights.model_args == model.config()


def test_a_converted_file_of_the_second_schema_is_read():
    record = small.record()
    header = {**record.to_dict(), "schema": 2, "model_args": {"num_classes": 3, "frames": 3}}
    assert fetch.converted_args(record, header) == {"num_classes": 3, "num_frames": 3}


def test_a_file_that_is_swapped_after_its_check_is_not_loaded(monkeypatch, tmp_path):
    """Otherwise the digest of one file would be reported for another."""
    small.open_zoo(monkeypatch, tmp_path, small.record())
    torch.save({"state_dict": small.authors_state()}, tmp_path / "a.pth")
    path = dfer_zoo.checkpoints.convert_checkpoint("small", "converted", tmp_path / "a.pth")
    other = {name: tensor + 1 for name, tensor in read_safetensors(path)[0].items()}
    header = read_safetensors(path)[1]
    digest_of = store.digest_of

    def swap(*arguments):
        digest = digest_of(*arguments)
        write_safetensors(path, other, header)
        return digest

    monkeypatch.setattr(store, "digest_of", swap)
    with pytest.raises(WeightsError, match="replaced"):
        dfer_zoo.create_model("small.converted")


@pytest.mark.parametrize("variable", ["DFER_ZOO_MAX_ARGUMENT", "DFER_ZOO_MAX_DEPTH"])
def test_a_limit_of_headers_is_named_and_can_be_set(tmp_path, monkeypatch, variable):
    path = dfer_zoo.save_pretrained(dfer_zoo.create_model("mae_dfer", **{**TINY["mae_dfer"], "depth": 2}), tmp_path)
    assert dfer_zoo.create_model(f"local-dir:{tmp_path}").weights.model_args["depth"] == 2
    monkeypatch.setenv(variable, "1")
    with pytest.raises(WeightsError, match=rf"{path.name} asks for .*at most 1 is accepted\. {variable} raises this"):
        dfer_zoo.create_model(f"local-dir:{tmp_path}")


@pytest.mark.parametrize("variable", ["DFER_ZOO_MAX_PICKLE_BYTES", "DFER_ZOO_MAX_PICKLE_OPERATIONS"])
def test_a_limit_of_pickles_is_named_and_can_be_set(tmp_path, monkeypatch, variable):
    torch.save({"state_dict": {"a": torch.zeros(1)}, "x": torch.hub.load}, tmp_path / "a.pth")
    monkeypatch.setenv(variable, "8")
    with pytest.raises(WeightsError, match=f"more than 8 .*{variable} raises this limit"):
        read_checkpoint(tmp_path / "a.pth")


def test_a_limit_of_downloads_can_be_set(monkeypatch):
    from dfer_zoo.weights.transfer import most_bytes

    assert most_bytes() == 16 << 30
    monkeypatch.setenv("DFER_ZOO_MAX_DOWNLOAD_BYTES", "7")
    assert most_bytes() == 7
    monkeypatch.setenv("DFER_ZOO_MAX_DOWNLOAD_BYTES", "many")
    with pytest.raises(InputError, match="expected a positive integer"):
        most_bytes()


# -- pickles -----------------------------------------------------------------------------------------------------------


def test_a_checkpoint_that_contains_itself_is_refused(tmp_path):
    content = {}
    content["state_dict"] = content
    torch.save(content, tmp_path / "loop.pth")
    with pytest.raises(WeightsError, match="no state dict"):
        read_checkpoint(tmp_path / "loop.pth")


def test_a_zip_of_endless_operations_is_refused_at_once(tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"N0" * 150_000_000 + b"N.")
        archive.writestr("archive/version", b"3\n")
    assert path.stat().st_size < 1_000_000
    started = time.monotonic()
    with pytest.raises(WeightsError, match="pickles"):
        read_checkpoint(path)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("function", [torch.hub.load, torch.save, os.system, torch.nn.Linear])
def test_the_error_names_a_refused_call_and_does_not_advise_unsafe_loading(tmp_path, function):
    class Call:
        def __reduce__(self):
            return function, ("echo",)

    torch.save({"state_dict": {"a": torch.zeros(1)}, "x": Call()}, tmp_path / "call.pth")
    with pytest.raises(WeightsError, match=f"refused.*{function.__name__}") as caught:
        read_checkpoint(tmp_path / "call.pth")
    assert "weights_only" not in str(caught.value) and "No code from the file was run" in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04" + bytes(100), pickle.dumps({"a": 1}), b"\x80\x02.", bytes(1000), b"\xff" * 50]
)
def test_files_that_are_not_checkpoints_are_one_line_errors(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_checkpoint(tmp_path / "x.pth")
    assert "\n" not in str(caught.value)


# -- messages ----------------------------------------------------------------------------------------------------------


def test_control_characters_and_endless_names_do_not_reach_a_terminal(tmp_path):
    torch.save({"state_dict": {"\x1b[31mred" + "x" * 100_000: 3}}, tmp_path / "x.pth")
    started = time.process_time()
    with pytest.raises(WeightsError) as caught:
        read_checkpoint(tmp_path / "x.pth")
    assert time.process_time() - started < 3
    assert "\x1b" not in str(caught.value) and "\\x1b[31mred" in str(caught.value)
    assert len(str(caught.value)) < MAX_MESSAGE + 200


def test_a_password_in_an_address_is_masked(monkeypatch):
    from dfer_zoo.weights import hub

    monkeypatch.setenv("HF_ENDPOINT", "https://me:secret@mirror.example")
    assert hub.shown_endpoint() == "https://***@mirror.example"
    assert "secret" not in str(WeightsError(f"{hub.endpoint()} cannot be reached"))


@pytest.mark.parametrize("name", ["../weights", "a/..", "-a/b", "a--b/c", "a/b.git"])
def test_repository_names_that_the_hub_client_rejects_are_input_errors(name):
    with pytest.raises(InputError, match=r"not a valid repository name|not of the form"):
        dfer_zoo.create_model(f"hf-hub:{name}")


# -- temporary files ---------------------------------------------------------------------------------------------------


def test_temporary_files_of_killed_processes_are_removed(tmp_path):
    script = "import sys, os, pathlib, dfer_zoo.atomic as a\nwith a.atomic_path(pathlib.Path(sys.argv[1])): os._exit(9)"
    path = tmp_path / "file.bin"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", script, str(path)])
    assert len(list(tmp_path.glob(f"*{SUFFIX}"))) == 1  # each removes what the one before left
    (tmp_path / f".other.bin.somewhere-1.x{SUFFIX}").write_bytes(b"")  # another file's, of another machine
    write_atomically(path, b"whole")
    assert [p.name for p in tmp_path.glob(f".*{SUFFIX}")] == [f".other.bin.somewhere-1.x{SUFFIX}"]
    assert path.read_bytes() == b"whole"


def test_records_can_be_hashed_and_headers_are_json(file):
    record = small.record()
    assert hash(record) == hash(small.record()) and json.dumps(record.to_dict())


@pytest.mark.parametrize("folder", ["a" * 5000, "~nobody_has_this_name/x", "nothing", "\0"])
def test_a_folder_that_cannot_be_is_one_sentence(folder):
    with pytest.raises(WeightsError, match=r"There is no model\.safetensors in"):
        dfer_zoo.create_model(f"local-dir:{folder}")


@pytest.mark.parametrize("argument", ["checkpoint_path", "cache_dir"])
def test_a_path_that_is_none_is_one_sentence(argument):
    with pytest.raises(InputError, match=f"{argument} is 5; expected a path"):
        dfer_zoo.create_model("av_fusion", **{argument: 5})
