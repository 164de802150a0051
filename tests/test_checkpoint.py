"""Checkpoint files of the authors: reading, refusing, converting."""

import argparse
import io
import json
import os
import pathlib
import pickle
import re
import subprocess
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import dfer_zoo
from dfer_zoo import cli
from dfer_zoo.atomic import sha256_of
from dfer_zoo.checkpoints import convert_checkpoint, convert_own, read_checkpoint
from dfer_zoo.errors import InputError, UnknownTag, WeightsError, WeightsUnavailable
from dfer_zoo.weights import store
from dfer_zoo.weights.record import Origin
from dfer_zoo.weights.safetensors import read_header
from tests import small


@pytest.fixture
def zoo(monkeypatch, tmp_path):
    return small.open_zoo(
        monkeypatch,
        tmp_path,
        small.record(),
        small.record("eight", labels=tuple("abcdefgh")),
        small.record("known_origin", origin=(Origin("page", "https://example.org/weights", sha256="0" * 64),)),
        small.record("heavy", params=5),
        small.record("wide", model_args={"width": 16}),
        small.record("inside", distribution="composed", backbones={"body": "small.converted"}),
    )


@pytest.fixture
def training_script(monkeypatch):
    """Define classes in ``__main__``, as a training script does; they are removed after the test."""
    main = sys.modules["__main__"]

    def define(name, base=object):
        cls = type(name, (base,), {"__module__": "__main__", "__qualname__": name})
        monkeypatch.setattr(main, name, cls, raising=False)
        return cls

    yield define


def authors_file(path, content, **options):
    torch.save(content, path, **options)
    return path


def assert_same(state, expected):
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name
        assert state[name].device.type == "cpu"


# -- reading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before torch 1.6"])
def test_a_checkpoint_of_a_training_script_is_read(tmp_path, training_script, monkeypatch, legacy):
    """Wrapper key, DataParallel prefix, optimizer, a class of the script, numpy arrays and scalars, CUDA tensors."""
    meter = training_script("RecorderMeter")()
    meter.epoch_losses = np.zeros((25, 2), dtype=np.float32)
    meter.epoch_accuracy = np.ones((25, 2), dtype=np.float64)
    meter.total_epoch = 25
    state = small.authors_state()
    optimizer = torch.optim.SGD([torch.zeros(3, requires_grad=True)], lr=0.1, momentum=0.9)
    content = {
        "epoch": 25,
        "state_dict": {f"module.{name}": torch.nn.Parameter(t, t.is_floating_point()) for name, t in state.items()},
        "best_acc": torch.tensor([70.5]),
        "best_war": np.float64(70.5),
        "uar": np.float32(60.5),
        "optimizer": optimizer.state_dict(),
        "recorder": meter,
    }
    with monkeypatch.context() as patch:
        patch.setattr("torch.serialization.location_tag", lambda storage: "cuda:0")
        path = authors_file(tmp_path / "model.pth", content, _use_new_zipfile_serialization=not legacy)
    monkeypatch.delattr("__main__.RecorderMeter")
    assert_same(read_checkpoint(path), state)


def test_training_options_in_a_checkpoint_are_ignored(tmp_path):
    args = argparse.Namespace(lr=1e-3, output=pathlib.PurePosixPath("/out"), seed=np.int64(3), betas=(0.9, 0.95))
    path = authors_file(tmp_path / "a.pth", {"model": small.authors_state(), "args": args, "epoch": "best"})
    assert_same(read_checkpoint(path), small.authors_state())


def test_a_yacs_config_in_a_checkpoint_is_ignored(tmp_path, monkeypatch):
    """The CfgNode of yacs is a dict with attributes. A copy is defined here; yacs is not installed."""
    module = types.ModuleType("yacs.config")
    node = type("CfgNode", (dict,), {"__module__": "yacs.config", "__qualname__": "CfgNode"})
    module.CfgNode = node
    config = node(MODEL=node(ARCH="ViT-B/16"), LR=8e-6)
    config.__dict__["__immutable__"] = True
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
        patch.setitem(sys.modules, "yacs.config", module)
        path = authors_file(tmp_path / "best.pth", {"model": small.authors_state(), "config": config})
    assert_same(read_checkpoint(path), small.authors_state())


@pytest.mark.parametrize("written_by", ["numpy.core", "numpy._core"])
def test_numpy_1_and_2_scalars_in_a_checkpoint_are_ignored(tmp_path, written_by):
    """Module names differ between the two versions; both are tested, whichever is installed."""
    content = {"model": small.authors_state(), "best": np.float64(1.5), "curve": np.arange(3.0)}
    path = authors_file(tmp_path / "a.pth", content)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, re.sub(rb"cnumpy\._?core\.", f"c{written_by}.".encode(), data))
    assert f"{written_by}.multiarray".encode() in path.read_bytes()
    assert_same(read_checkpoint(path), small.authors_state())


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"module": s}, lambda s: {"model": {"state_dict": s}}])
def test_wrapper_keys_are_optional(tmp_path, wrap):
    assert_same(read_checkpoint(authors_file(tmp_path / "a.pth", wrap(small.authors_state()))), small.authors_state())


def test_a_prefix_is_removed_only_if_every_entry_has_it(tmp_path):
    state = {"module.a": torch.zeros(1), "module.module.b": torch.ones(1)}
    assert read_checkpoint(authors_file(tmp_path / "a.pth", state)).keys() == {"a", "module.b"}
    state["c"] = torch.zeros(1)
    assert read_checkpoint(authors_file(tmp_path / "b.pth", state)).keys() == state.keys()
    compiled = {"module._orig_mod.a": torch.zeros(1)}
    assert read_checkpoint(authors_file(tmp_path / "c.pth", compiled)).keys() == {"a"}


def test_a_plain_safetensors_file_is_read(tmp_path):
    state = small.authors_state()
    save_file({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "model.safetensors")
    assert_same(read_checkpoint(tmp_path / "model.safetensors"), state)


# -- refusing ----------------------------------------------------------------------------------------------------------


class Malicious:
    """Creates a file if it is unpickled the usual way."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"echo run > {self.target}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "bare pickle", "protocol 4"])
def test_a_malicious_pickle_is_refused_and_nothing_runs(tmp_path, form):
    target, path = tmp_path / "it_ran", tmp_path / "model.pth"
    content = {"state_dict": small.authors_state(), "recorder": Malicious(target)}
    if form == "bare pickle":
        path.write_bytes(pickle.dumps({"state_dict": {}, "recorder": Malicious(target)}, protocol=2))
    elif form == "protocol 4":
        torch.save(content, path, pickle_protocol=4)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(WeightsError, match="refused") as caught:
        read_checkpoint(path)
    if form != "protocol 4":
        assert f"{os.system.__module__}.system" in str(caught.value)
    assert not target.exists()
    torch.load(path, weights_only=False) if form != "bare pickle" else pickle.loads(path.read_bytes())
    assert target.exists(), "the file is harmless, so this test shows nothing"


def test_code_of_classes_in_main_does_not_run(tmp_path, training_script, monkeypatch):
    """Names in __main__ are replaced, even if the running program defines them."""
    ran = []
    cls = training_script("RecorderMeter")
    cls.__setstate__ = lambda self, state: ran.append(state)
    cls.__reduce__ = lambda self: (cls, (), {"epochs": 3})
    path = authors_file(tmp_path / "a.pth", {"model": small.authors_state(), "recorder": cls()})
    assert_same(read_checkpoint(path), small.authors_state())
    assert ran == []


def test_reading_leaves_no_safe_globals_behind(tmp_path, training_script):
    path = authors_file(tmp_path / "a.pth", {"model": small.authors_state(), "r": training_script("Meter")()})
    before = set(torch.serialization.get_safe_globals())
    read_checkpoint(path)
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize(
    "content, sentence",
    [
        (b"", "is empty"),
        (b"  <!DOCTYPE html><html>Google Drive can't scan this file for viruses", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "is a Git LFS pointer"),
        (b"\x00\x01 what is this", "not a complete torch checkpoint"),
    ],
)
def test_failed_downloads_are_recognised(tmp_path, content, sentence):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=sentence):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_truncated_file_is_an_error(tmp_path, share, legacy):
    path = authors_file(tmp_path / "a.pth", small.authors_state(), _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(WeightsError, match="not a complete torch checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "content, sentence",
    [
        ({"epoch": 3, "optimizer": {"lr": 0.1}}, "no state dict.*epoch, optimizer"),
        ({}, "no state dict"),
        ([torch.zeros(2)], "contains a list"),
        (torch.zeros(2), "contains a Tensor"),
    ],
)
def test_a_file_without_a_state_dict_is_an_error(tmp_path, content, sentence):
    with pytest.raises(WeightsError, match=sentence):
        read_checkpoint(authors_file(tmp_path / "a.pth", content))


# -- converting --------------------------------------------------------------------------------------------------------


def test_a_converted_file_is_found_by_create_model(zoo, tmp_path):
    state = small.authors_state()
    path = authors_file(tmp_path / "fold1.pth", {"state_dict": {f"module.{k}": v for k, v in state.items()}})
    with pytest.raises(WeightsUnavailable, match=r"example.org/weights.*CC BY-NC 4.0.*convert small converted FILE"):
        dfer_zoo.create_model("small", pretrained="converted")
    stored = convert_checkpoint("small", "converted", path)
    assert stored == zoo / "small.converted.safetensors"
    model = dfer_zoo.create_model("small", pretrained="converted")
    video = torch.rand(2, 5, 3, 4, 4)
    frames = torch.nn.functional.linear(video.flatten(2), state["encoder.weight"], state["encoder.bias"])
    hidden = frames.cumsum(1).mean(1)
    expected = torch.nn.functional.linear(hidden, state["fc.weight"], state["fc.bias"])
    torch.testing.assert_close(model(video), expected)
    assert model.labels == small.LABELS and model.video_spec.rate == 3
    assert not model.training
    header = read_header(stored)
    assert header["origin"][0]["sha256"] == sha256_of(path)
    assert header["model_args"] == {"num_classes": 3, "width": 8}


def test_conversion_writes_the_same_bytes_in_every_process(zoo, tmp_path):
    path = authors_file(tmp_path / "a.pth", small.authors_state())
    script = (
        "import sys, pathlib, pytest; from tests import small; "
        "from dfer_zoo.checkpoints import convert_checkpoint; patch = pytest.MonkeyPatch(); "
        "small.open_zoo(patch, pathlib.Path(sys.argv[1]), small.record()); "
        "sys.stdout.buffer.write(convert_checkpoint('small', 'converted', sys.argv[2]).read_bytes())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}  # the order of sets differs from that of this process
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "other"), str(path)], capture_output=True, env=environment
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == convert_checkpoint("small", "converted", path).read_bytes()


def test_converting_again_writes_the_same_bytes(zoo, tmp_path):
    path = authors_file(tmp_path / "a.pth", small.authors_state())
    first = convert_checkpoint("small", "converted", path).read_bytes()
    assert convert_checkpoint("small", "converted", path).read_bytes() == first
    other = authors_file(tmp_path / "b.pth", small.authors_state(seed=1))
    assert convert_checkpoint("small", "converted", other).read_bytes() != first
    assert dfer_zoo.create_model("small.converted").steps == 1
    assert sorted(p.name for p in zoo.iterdir()) == ["small.converted.safetensors", "small.converted.sha256"]


@pytest.mark.parametrize(
    "tag, change, sentence",
    [
        ("converted", lambda s: s.pop("fc.bias"), "not a checkpoint of small.*'fc.bias'"),
        ("converted", lambda s: s.update({"fc.weight": torch.zeros(3, 9)}), "1 of another shape .*(3, 9)"),
        ("converted", lambda s: s.update({"encoder.steps": torch.zeros(())}), "1 of another kind .*float32.*int64"),
        ("eight", lambda s: None, "3 classes.*small.eight.* 8"),
        ("known_origin", lambda s: None, "not the file.*small.known_origin"),
        ("heavy", lambda s: None, "419 parameters.* 5"),
        ("wide", lambda s: None, "width=8.* 16"),
    ],
)
def test_a_file_that_does_not_fit_leaves_nothing_behind(zoo, tmp_path, tag, change, sentence):
    state = small.authors_state()
    change(state)
    with pytest.raises(WeightsError, match=sentence):
        convert_checkpoint("small", tag, authors_file(tmp_path / "a.pth", state))
    assert not zoo.exists()


def test_needless_and_impossible_conversions_are_errors(zoo, tmp_path):
    with pytest.raises(InputError, match="needs no conversion"):
        convert_checkpoint("small", "inside", tmp_path / "a.pth")
    with pytest.raises(UnknownTag, match="Did you mean converted"):
        convert_checkpoint("small", "convert", tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="There is no file"):
        convert_checkpoint("small", "converted", tmp_path / "a.pth")
    stored = convert_checkpoint("small", "converted", authors_file(tmp_path / "a.pth", small.authors_state()))
    with pytest.raises(WeightsError, match="already"):
        convert_checkpoint("small", "converted", stored)


def test_an_unwritable_store_is_a_one_line_error(zoo, tmp_path, monkeypatch):
    path = authors_file(tmp_path / "a.pth", small.authors_state())
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DFER_ZOO_WEIGHTS", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=r"cannot be written.*DFER_ZOO_WEIGHTS"):
        convert_checkpoint("small", "converted", path)


def test_a_full_disk_leaves_no_partial_file(zoo, tmp_path):
    """A file size limit in another process simulates the full disk."""
    path = authors_file(tmp_path / "a.pth", small.authors_state())
    script = (
        "import sys, pathlib, pytest, resource, signal; from tests import small; "
        "from dfer_zoo.checkpoints import convert_checkpoint; patch = pytest.MonkeyPatch(); "
        "small.open_zoo(patch, pathlib.Path(sys.argv[1]), small.record()); "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700)); "
        "convert_checkpoint('small', 'converted', sys.argv[2])"
    )
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path), str(path)], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].startswith("dfer_zoo.errors.WeightsError: small.converted cannot be written")
    assert list(zoo.iterdir()) == []


# -- the store ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(zoo, tmp_path):
    return convert_checkpoint("small", "converted", authors_file(tmp_path / "a.pth", small.authors_state()))


def test_the_digest_file_has_the_format_of_sha256sum(stored):
    assert stored.with_suffix(".sha256").read_text() == f"{sha256_of(stored)}  {stored.name}\n"


def test_a_changed_file_is_not_loaded(stored):
    digest = sha256_of(stored)
    content = bytearray(stored.read_bytes())
    content[-1] ^= 1
    stored.write_bytes(content)
    with pytest.raises(WeightsError, match="changed after its conversion") as caught:
        dfer_zoo.create_model("small.converted")
    assert digest in str(caught.value) and sha256_of(stored) in str(caught.value)
    assert "dfer-zoo convert small converted FILE" in str(caught.value)


def test_an_interrupted_conversion_is_not_loaded(stored):
    stored.with_suffix(".sha256").unlink()
    with pytest.raises(WeightsError, match="not finished"):
        dfer_zoo.create_model("small.converted")


def test_a_file_of_another_tag_is_not_loaded(zoo, stored, monkeypatch):
    for suffix in (".safetensors", ".sha256"):
        stored.with_suffix(suffix).rename(zoo / f"small.eight{suffix}")
    with pytest.raises(WeightsError, match=r"small.eight.*another model"):
        dfer_zoo.create_model("small.eight")


def test_verify_once_hashes_a_file_once(stored, monkeypatch):
    read = []
    monkeypatch.setattr(store, "sha256_of", lambda path: read.append(path) or sha256_of(path))
    for _ in range(3):
        dfer_zoo.create_model("small.converted", verify="once")
    assert len(read) == 1
    dfer_zoo.create_model("small.converted")
    assert len(read) == 2
    os.utime(stored, ns=(0, 0))
    dfer_zoo.create_model("small.converted", verify="once")
    assert len(read) == 3
    with pytest.raises(InputError, match=r"verify is 'never';.*always, once"):
        dfer_zoo.create_model("small.converted", verify="never")


def test_verify_once_detects_a_changed_file(stored):
    dfer_zoo.create_model("small.converted", verify="once")
    content = bytearray(stored.read_bytes())
    content[-1] ^= 1
    stored.write_bytes(content)
    os.utime(stored, ns=(1, 1))
    with pytest.raises(WeightsError, match="changed after its conversion"):
        dfer_zoo.create_model("small.converted", verify="once")


def test_the_default_folder_is_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("DFER_ZOO_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert store.weights_folder() == tmp_path / "dfer_zoo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert store.weights_folder() == pathlib.Path.home() / ".cache" / "dfer_zoo"


def test_a_composed_model_loads_its_backbones_from_converted_files(stored):
    model = dfer_zoo.create_model("small.inside")
    assert torch.equal(model.body.weight, small.authors_state()["encoder.weight"])
    assert model.load_report.initialized == ("classifier.weight", "classifier.bias")
    assert model.weights.tag == "inside"


def test_the_header_is_json(stored):
    size = int.from_bytes(stored.read_bytes()[:8], "little")
    header = json.load(io.BytesIO(stored.read_bytes()[8 : 8 + size]))
    assert header["__metadata__"].keys() == {"dfer_zoo"}


# -- the command line --------------------------------------------------------------------------------------------------


def test_the_command_line_converts_and_verifies(zoo, tmp_path, capsys):
    path = authors_file(tmp_path / "a.pth", small.authors_state())
    assert cli.main(["verify"]) == 0
    assert capsys.readouterr().out == "No weights on this machine yet.\n"
    assert cli.main(["convert", "small", "converted", str(path)]) == 0
    stored = zoo / "small.converted.safetensors"
    assert capsys.readouterr().out == f"{stored}\n"
    assert cli.main(["verify"]) == 0
    assert capsys.readouterr().out == f"small.converted  {stored}  ok\n1 files, 0 damaged\n"
    assert cli.main(["verify", "other*"]) == 0
    assert "No weights" in capsys.readouterr().out
    stored.write_bytes(stored.read_bytes()[:-1])
    assert cli.main(["verify", "small"]) == 1
    assert "its sha256 is" in capsys.readouterr().out
    stored.with_suffix(".sha256").unlink()
    assert cli.main(["verify"]) == 1
    assert "not finished" in capsys.readouterr().out


def test_converting_a_wrong_file_prints_one_line_and_exits_with_2(zoo, tmp_path, capsys):
    path = authors_file(tmp_path / "a.pth", {"other.weight": torch.zeros(2)})
    assert cli.main(["convert", "small", "converted", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "not a checkpoint of small" in err
    assert not zoo.exists()


def test_convert_writes_your_own_checkpoint_to_a_folder(zoo, tmp_path, capsys):
    state = small.authors_state(num_classes=2)
    path = authors_file(tmp_path / "best.pth", {"model": state})
    folder = tmp_path / "mine"
    assert cli.main(["convert", "small", "mine", str(path), "--output", str(folder), "--labels", "calm,tense"]) == 0
    model = dfer_zoo.create_model(f"local-dir:{folder}")
    assert model.labels == ("calm", "tense") and model.weights.name == "small.mine"
    assert torch.equal(model.body.weight, state["encoder.weight"])
    assert not zoo.exists()
    assert cli.main(["convert", "small", "mine", str(path), "--output", str(tmp_path / "x"), "--labels", "a,b,c"]) == 2
    assert "has 2 classes" in capsys.readouterr().err
    assert cli.main(["convert", "small", "converted", str(path), "--labels", "a,b"]) == 2
    assert cli.main(["convert", "smal", "mine", str(path), "--output", str(tmp_path / "x")]) == 2
    assert "Did you mean small" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_convert_takes_constructor_arguments_for_your_own_checkpoint(zoo, tmp_path):
    path = authors_file(tmp_path / "best.pth", small.authors_state())
    stored = convert_own("small", path, tmp_path / "mine", num_frames=5)
    assert dfer_zoo.create_model(f"local-dir:{stored.parent}").video_spec.num_frames == 5
    with pytest.raises(InputError, match=r"num_frame\. Did you mean num_frames"):
        convert_own("small", path, tmp_path / "mine", num_frame=5)
