"""Every command that writes files reports a full or read-only disk in one sentence, and damages no file."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import dfer_zoo
from dfer_zoo import cli
from dfer_zoo.errors import DferZooError
from dfer_zoo.inference.export import is_supported

pytest.importorskip("resource")
pytest.importorskip("av")
pytest.importorskip("matplotlib")

from tests import small
from tests.disks import full_disk, leftovers
from tests.tiny import TINY

ROOT = Path(__file__).resolve().parent.parent
MODEL = ("--model", "av_fusion.puppets", "--faces", "none")
TRAINING = ("train.epochs=1", "train.batch_size=2", "data.train=puppets:clips=2,size=32", "model.args.img_size=32")
TRAINING = (*TRAINING, "data.valid=puppets:clips=2,size=32,split=test")
PRETRAINING = [f"--set={name}={value!r}" for name, value in TINY["mae_dfer_pretrain"].items()]
PRETRAINING += ["--set=decoder_positions=matched", "--epochs=1", "--warmup-epochs=0", "--batch-size=2"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    from dfer_zoo.data.puppets import Puppet

    folder = tmp_path_factory.mktemp("clip")
    torch.save({"state_dict": small.authors_state()}, folder / "authors.pth")
    return Puppet("happiness", size=64).write(folder / "happy.mp4")


def command(*arguments: object) -> None:
    """Run a command. Raise its error message as an exception, as the Python functions do."""
    before, sys.stderr = sys.stderr, io.StringIO()
    try:
        status = cli.main([str(argument) for argument in arguments])
    finally:
        told, sys.stderr = sys.stderr.getvalue(), before
    assert "Traceback" not in told
    if status:
        raise DferZooError(told.splitlines()[-1])  # after progress bars


def table(name: str) -> Callable:
    return lambda clip, out: command("predict", clip, *MODEL, "--out", out / name)


def vectors(name: str) -> Callable:
    return lambda clip, out: command("embed", clip, *MODEL, "--out", out / name)


def tiers(clip: Path, out: Path) -> None:
    from dfer_zoo import Recognizer
    from dfer_zoo.inference.tiers import write_tiers

    answer = Recognizer("av_fusion", "puppets", faces="none", window=1.0)(clip)
    write_tiers([answer], ["eaf", "textgrid", "vtt", "srt"], out / "clip")


def boxes(clip: Path, out: Path) -> None:
    command("predict", clip, "--no-face=frame", "--boxes", out / "boxes.jsonl")


def page(clip: Path, out: Path) -> None:
    from dfer_zoo.app import answer

    answer.answer(clip, "av_fusion.puppets", out, faces="none")


def small_model(out: Path) -> dfer_zoo.models.base.DferModel:
    return dfer_zoo.create_model("av_fusion", **TINY["av_fusion"])


def converted(clip: Path, out: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        store = small.open_zoo(patch, out, small.record())
        dfer_zoo.checkpoints.convert_checkpoint("small", "converted", clip.with_name("authors.pth"))
        assert store.is_dir()


def visualized(clip: Path, out: Path) -> None:
    what = ("visualize", "occlusion", "av_fusion.puppets", clip, "--faces", "none", "--cells", "1")
    command(*what, "--out", out / "picture.png")


def plane(clip: Path, out: Path) -> None:
    data = "puppets:clips=8,size=64,split=test"
    options = ("--perplexity", "2", "--out", out / "picture.png", "--csv", out / "points.csv")
    command("visualize", "tsne", "av_fusion.puppets", data, *options)


def rates(clip: Path, out: Path) -> None:
    files = ("--csv", out / "rates.csv", "--plot", out / "confusion.png")
    command("evaluate", "av_fusion.puppets", "puppets:clips=2,size=64,split=test", *files)


def lists(clip: Path, out: Path) -> None:
    for number in range(4):
        for label in ("happy", "sad"):
            folder = clip.parent / "classes" / label / f"{number}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "1.jpg").write_bytes(b"")
    options = ("--system", "own", "--fold", 1, "--parts", 2, "--out", out)
    command("prepare", "annotations", "folders", clip.parent / "classes", *options)


def prepared(*what: str) -> Callable:
    return lambda clip, out: command(
        "prepare", *what, clip.parent / "happy.mp4", "--workers=0", "--out", out / "prepared"
    )


def exported(clip: Path, out: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    if not is_supported(torch.__version__):
        pytest.skip("exporting needs torch 2.9")
    command("export", "mini_xception.fer2013", "--onnx", out / "model.onnx")


def trained(clip: Path, out: Path) -> None:
    pytest.importorskip("accelerate")
    command("train", "puppets_demo", "--out", out / "run", *(f"--set={change}" for change in TRAINING))


def pretrained(clip: Path, out: Path) -> None:
    pytest.importorskip("accelerate")
    command("pretrain", "puppets:clips=2", "--out", out / "run", *PRETRAINING)


def saved(clip: Path, out: Path) -> None:
    dfer_zoo.save_pretrained(small_model(out), out / "saved")


def published(clip: Path, out: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(out))
        dfer_zoo.push_to_hub(small_model(out), "me/model", dry_run=True)


def demo(clip: Path, out: Path) -> None:
    command("demo", "happy", "--out", out / "demo")


def copied(clip: Path, out: Path) -> None:
    """Read bytes, which are copied to a temporary file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(out))
        dfer_zoo.Recognizer("av_fusion", "puppets", faces="none")(clip.read_bytes())


WRITERS: dict[str, Callable[[Path, Path], None]] = {
    **{f"predict {suffix}": table(f"table{suffix}") for suffix in (".csv", ".jsonl", ".parquet")},
    **{f"embed {suffix}": vectors(f"table{suffix}") for suffix in (".csv", ".jsonl", ".parquet", ".npz")},
    "predict --json": lambda clip, out: command("predict", clip, *MODEL, "--json", out / "answers.jsonl"),
    "predict --plot": lambda clip, out: command("predict", clip, *MODEL, "--plot", out / "picture.png"),
    "tiers": tiers,
    "boxes": boxes,
    "app": page,
    "convert": converted,
    "visualize": visualized,
    "visualize tsne": plane,
    "evaluate": rates,
    "prepare annotations": lists,
    "prepare frames": prepared("frames"),
    "prepare audio": prepared("audio"),
    "prepare faces": prepared("faces", "--rule", "whole", "--no-face", "frame"),
    "export": exported,
    "train": trained,
    "pretrain": pretrained,
    "save_pretrained": saved,
    "publish": published,
    "demo": demo,
    "a clip of bytes": copied,
}
GROWING = {".journal", ".jsonl", ".tb"}  # append-only files: their lines are kept, and a later run continues


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in GROWING and "locks" not in path.parts
    }


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_sentence_and_the_files_before_stay_whole(writer, clip, tmp_path, capsys):
    write, out = WRITERS[writer], tmp_path / "out"
    out.mkdir()
    with full_disk(0), pytest.raises(DferZooError) as caught:
        write(clip, out)
    sentence = str(caught.value)
    assert "too large" in sentence or "room" in sentence, sentence
    assert str(out) in sentence, sentence
    assert contents(out) == {} and leftovers(out) == []
    write(clip, out)
    whole = contents(out)
    if not whole:  # only temporary files
        return
    for path in out.rglob("*"):  # start append-only files from scratch
        if path.is_file() and path.suffix in GROWING:
            path.unlink()
    if writer.startswith("prepare") and "annotations" not in writer:  # it resumes and skips finished clips
        return
    for room in (0, max(map(len, whole.values())) // 2):
        with full_disk(room), pytest.raises(DferZooError, match=r"too large|room"):
            write(clip, out) if "run" not in os.listdir(out) else _again(write, clip, out)
        found = contents(out)
        assert all(found[name] == whole[name] for name in found if _is_same(writer, name)), writer
        assert found.keys() == whole.keys() and leftovers(out) == []


def _again(write: Callable, clip: Path, out: Path) -> None:
    """Write again without the saved training state, because training refuses a folder that contains one."""
    state = out / "run" / "state.safetensors"
    content = state.read_bytes()
    state.unlink()
    try:
        write(clip, out)
    finally:
        assert not state.exists()
        with full_disk(1 << 40):
            state.write_bytes(content)


def _is_same(writer: str, name: str) -> bool:
    return not name.endswith(".eaf")  # contains the time of writing


@pytest.mark.parametrize("writer", [name for name in WRITERS if name not in ("publish", "a clip of bytes")])
def test_a_file_in_the_place_of_the_folder_is_one_sentence(writer, clip, tmp_path, capsys):
    (tmp_path / "out").write_text("not a folder")
    with pytest.raises(DferZooError) as caught:
        WRITERS[writer](clip, tmp_path / "out")
    assert "out" in str(caught.value) and "\n" not in str(caught.value).strip(), str(caught.value)
    assert (tmp_path / "out").read_text() == "not a folder"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full on this system")
@pytest.mark.parametrize("arguments", [("list",), ("info", "mma_dfer"), ("doctor", "CLIP", "--faces", "cascade")])
def test_a_full_standard_output_is_one_sentence(arguments, clip):
    words = [str(clip) if word == "CLIP" else word for word in arguments]
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-m", "dfer_zoo", *words], stdout=full, stderr=subprocess.PIPE, cwd=ROOT)
    assert done.returncode == 2 and b"Traceback" not in done.stderr
    assert done.stderr.count(b"\n") == 1 and b"No space left" in done.stderr
