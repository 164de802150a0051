"""Compiled models accept any batch size without recompiling; slow precisions cause one warning."""

import pytest
import torch

from dfer_zoo import Recognizer
from dfer_zoo.inference import precision
from tests.test_contract import build


@pytest.fixture(autouse=True)
def nothing_said():
    precision._said.cache_clear()


@torch.no_grad()
@pytest.mark.parametrize("arch", ["av_fusion", "mae_dfer"])
def test_a_compiled_model_is_compiled_once_for_one_clip_and_once_for_more(arch, capsys):
    import torch._dynamo
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    model = build(arch)
    # at least 6: torch compiles convolutions of fewer than 16 frames (3 per clip here) separately
    batches = [model.example_inputs(size) for size in (6, 7, 9, 11, 1)]
    expected = [model(**batch) for batch in batches]
    model = precision.compiled(model, backend="eager")
    graphs = []
    for batch, output in zip(batches, expected):
        torch.testing.assert_close(model(**batch), output, rtol=1e-5, atol=1e-6)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[3] >= 1 and graphs[4] <= 2 * graphs[0]
    assert "compiling at the first clip takes" in capsys.readouterr().err


def test_a_recognizer_compiles_on_request(monkeypatch):
    seen = []
    monkeypatch.setattr("dfer_zoo.inference.recognizer.compiled", lambda model: seen.append(model) or model)
    Recognizer("av_fusion.puppets", faces="none", compile=True)
    Recognizer("av_fusion.puppets", faces="none")
    assert len(seen) == 1


@pytest.mark.parametrize("units", [True, False])
def test_bfloat16_without_units_is_pointed_out_once(units, monkeypatch, capsys):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: units)
    for _ in range(2):
        Recognizer("av_fusion.puppets", faces="none", dtype=torch.bfloat16)
    assert capsys.readouterr().err.count("no bfloat16 units") == (0 if units else 1)
    Recognizer("av_fusion.puppets", faces="none", dtype=torch.float16)
    assert "float16 is slower than float32 on a CPU" in capsys.readouterr().err


@pytest.mark.parametrize("flags, found", [("flags : fpu avx512_bf16", True), ("flags : fpu avx2", False)])
def test_units_are_read_from_the_processor(flags, found, monkeypatch, tmp_path):
    import builtins
    import io

    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    monkeypatch.setattr(builtins, "open", lambda *args, **options: io.StringIO(flags + "\n"))
    try:
        assert precision.has_bfloat16.__wrapped__(torch.device("cpu")) is found
    finally:
        monkeypatch.undo()


@pytest.mark.parametrize("capability, found", [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_graphics_cards_have_units_from_capability_8_on(capability, found, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert precision.has_bfloat16.__wrapped__(torch.device("cuda")) is found
