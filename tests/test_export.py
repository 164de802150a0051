"""`dfer-zoo export`: every architecture as an ONNX file that gives torch's numbers, and says its labels."""

import sys

import numpy as np
import pytest
import torch

import dfer_zoo
from dfer_zoo.cli import main
from dfer_zoo.errors import DferZooError, InputError
from dfer_zoo.registry import MODELS
from tests.tiny import TINY

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from dfer_zoo.inference import export  # noqa: E402

pytestmark = [
    pytest.mark.graph,
    pytest.mark.skipif(not export.is_supported(torch.__version__), reason="exporting needs torch 2.9"),
]


def test_an_older_torch_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "is_supported", lambda version: False)
    with pytest.raises(InputError, match=r"Exporting needs torch 2\.9 or newer; this is torch"):
        export.export_onnx(tiny("av_fusion"), tmp_path / "model.onnx")


def tiny(arch, **options):
    torch.manual_seed(0)
    return dfer_zoo.create_model(arch, **{**TINY[arch], **options})


@pytest.mark.slow
@pytest.mark.parametrize("arch", sorted(MODELS))
def test_every_architecture_computes_what_torch_computes(arch, tmp_path):
    model = tiny(arch)
    done = export.export_onnx(model, tmp_path / "model.onnx", rounds=1)
    assert done.difference < 1e-5 and done.size == done.path.stat().st_size
    assert done.same_label is (True if model.num_classes else None)

    session = onnxruntime.InferenceSession(done.path)
    assert {i.name: i.shape[1:] for i in session.get_inputs()} == {n: list(s[1:]) for n, s in done.inputs.items()}
    for batch in (1, 4):  # any number of clips
        inputs = {name: tensor.numpy() for name, tensor in model.example_inputs(batch).items()}
        assert len(session.run(None, inputs)[0]) == batch
    stored = session.get_modelmeta().custom_metadata_map
    assert tuple(filter(None, stored["labels"].split("\n"))) == model.labels


@pytest.mark.parametrize("arch", ["dfer_clip", "dk_clip"])
def test_class_texts_are_numbers_in_the_file(arch, tmp_path):
    model = tiny(arch)
    path = export.export_onnx(model, tmp_path / "model.onnx", rounds=1).path
    words = {p.numel() for name, p in model.named_parameters() if "token_embedding" in name}
    assert words and not words & {int(np.prod(w.dims)) for w in onnx.load(path).graph.initializer}
    assert len(onnx.load(path).graph.input) == 1
    assert model.training is False and all(p.requires_grad for p in model.parameters())  # the model is as it was
    model(**model.example_inputs())


@pytest.mark.skipif(
    not export.is_supported(torch.__version__, (2, 14)),
    reason="onnxruntime cannot quantize the graphs of older versions",
)
def test_int8_makes_the_file_smaller_and_keeps_the_label(tmp_path):
    model = tiny("video_mae", width=192, depth=2)
    plain = export.export_onnx(model, tmp_path / "plain.onnx", rounds=1)
    small = export.export_onnx(model, tmp_path / "small.onnx", int8=True, rounds=1)
    assert small.size < 0.6 * plain.size
    assert 0 < small.difference < 0.1 and small.same_label


def test_a_graph_that_cannot_be_quantized_is_one_sentence(tmp_path, monkeypatch):
    from onnxruntime import quantization

    def fails(*arguments, **options):
        raise onnx.shape_inference.InferenceError("[ShapeInferenceError] Inferred shape and existing shape differ")

    monkeypatch.setattr(quantization, "quantize_dynamic", fails)
    with pytest.raises(InputError, match=r"cannot quantize the graph of torch .* differ\. Export without --int8"):
        export.export_onnx(tiny("video_mae"), tmp_path / "small.onnx", int8=True, rounds=1)
    assert not list(tmp_path.iterdir())


def test_int8_without_linear_layers_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no linear layers, so int8 would change nothing"):
        export.export_onnx(tiny("mini_xception"), tmp_path / "model.onnx", int8=True)
    assert not list(tmp_path.iterdir())


def test_a_file_that_differs_from_torch_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_run", lambda session, inputs: torch.ones(len(next(iter(inputs.values()))), 7))
    with pytest.raises(DferZooError, match="the exported graph differs from torch"):
        export.export_onnx(tiny("mini_xception"), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_an_exporter_that_fails_gives_one_sentence(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("No ONNX function found for aten.frob\nmany\nlines")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(InputError, match=r"MiniXception cannot be exported with torch .*aten.frob$"):
        export.export_onnx(tiny("mini_xception"), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r'Exporting needs onnxscript: pip install "dfer-zoo\[export\]"'):
        export.export_onnx(tiny("mini_xception"), tmp_path / "model.onnx")


def test_the_command_exports_the_bundled_weights(tmp_path, capsys):
    path = tmp_path / "baseline.onnx"
    assert main(["export", "mini_xception.fer2013", "--onnx", str(path)]) == 0
    said = capsys.readouterr().out
    assert "image N x 1 x 64 x 64" in said and "same label" in said and "onnxruntime" in said
    stored = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert stored["weights"] == "mini_xception.fer2013" and stored["license"] == "mit"


def test_the_command_takes_random_weights_and_constructor_arguments(tmp_path, capsys):
    path = tmp_path / "small.onnx"
    settings = [f"{name}={value!r}" for name, value in TINY["efficient_face"].items()]
    assert main(["export", "efficient_face", "--random", "--onnx", str(path), "--set", *settings]) == 0
    assert "image N x 3 x 64 x 64" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["mma_dfer"], "'mma_dfer' is an architecture without weights: name the weights, such as mma_dfer.backbone"),
        (["mini_xception.fer2013", "--clip", "missing.mp4"], "missing.mp4"),
        (["nothing.at_all"], "There is no model 'nothing'"),
    ],
)
def test_wrong_use_is_one_sentence(arguments, sentence, tmp_path, capsys):
    assert main(["export", *arguments, "--onnx", str(tmp_path / "x.onnx")]) == 2
    said = capsys.readouterr().err
    assert sentence in said and len(said.strip().splitlines()) == 1
