"""The ONNX example, on tiny models: the file gives torch's numbers for any batch size, and says its labels."""

import pytest

import dfer_zoo
from tests.scripts import load_script
from tests.tiny import TINY

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["av_fusion", "dfer_clip", "dk_clip", "hicmae", "mae_dfer", "mma_dfer"])
def test_the_file_computes_what_torch_computes(arch, tmp_path):
    path = tmp_path / "model.onnx"
    settings = [f"{name}={value!r}" for name, value in TINY[arch].items()]
    assert load_script("examples/export_onnx.py").main([arch, "--out", str(path), "--set", *settings]) < 1e-4
    stored = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert tuple(stored["labels"].split("\n")) == dfer_zoo.create_model(arch, **TINY[arch]).labels
