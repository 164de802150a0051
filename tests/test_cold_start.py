"""The first prediction imports only what the model needs, so that commands start quickly."""

import subprocess
import sys

import pytest
import torch

import dfer_zoo
from dfer_zoo.atomic import sha256_of
from dfer_zoo.data.puppets import Puppet
from dfer_zoo.weights import store

SLOW = ("timm", "torchvision", "torchaudio", "open_clip", "torch._dynamo", "torch._inductor", "sympy", "scipy", "matplotlib",
        "pandas", "huggingface_hub", "httpx", "filelock", "yaml", "cv2", "PIL.ImageDraw", "sklearn", "accelerate",
        "tqdm.auto", "requests", "facenet_pytorch")  # fmt: skip
PROGRAM = """
import sys
from dfer_zoo.cli import main
assert main(sys.argv[1:]) == 0
print("imported:", *sys.modules)
"""


@pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 9),
    reason="torch before 2.9, and the Hub clients of its time, import sympy and requests themselves",
)
@pytest.mark.parametrize("model", ["av_fusion.puppets", "mini_xception.fer2013"])
def test_predict_with_weights_in_the_package_imports_no_slow_library(tmp_path, model):
    clip = Puppet("happiness", size=64).write(tmp_path / "clip.mp4")
    command = [sys.executable, "-c", PROGRAM, "predict", str(clip), "--model", model, "--faces", "none"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = set(done.stdout.partition("imported:")[2].split())
    assert "torch" in imported and "av" in imported
    assert not imported & set(SLOW)


@pytest.mark.parametrize("arguments, status", [(["list"], 0), (["list", "--nonsense"], 2), (["info", "nobody"], 2)])
def test_the_program_ends_with_the_status_and_all_output(arguments, status):
    done = subprocess.run([sys.executable, "-m", "dfer_zoo", *arguments], capture_output=True, text=True)
    assert done.returncode == status
    assert "mma_dfer" in done.stdout if status == 0 else done.stderr


def test_a_file_of_weights_is_hashed_once_and_then_mapped(monkeypatch):
    """Reading the file into memory while hashing it took longer: 0.38 s of 350 MB, against 0.22 s."""
    hashed = []
    monkeypatch.setattr(store, "sha256_of", lambda path: hashed.append(path) or sha256_of(path))
    model = dfer_zoo.create_model("av_fusion", "puppets")
    assert [path.name for path in hashed] == [model.weights.filename]
