"""The benchmark in small: every section gives ratios, both ways give the same numbers, and a regression is exit 1."""

import json
import math

import pytest
import torch

from tests.scripts import load_script
from tests.test_contract import build

benchmark = load_script("examples/benchmark.py")


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(benchmark, "random_network", lambda name, device="cpu": build(name.partition(".")[0]))


@pytest.mark.parametrize("section", ["networks", "windows", "batches", "memory"])
def test_sections_give_finite_ratios(tiny, section, tmp_path, capsys):
    file = tmp_path / "benchmarks.json"
    assert benchmark.main([section, "--rounds", "1", "--json", str(file)]) == 0
    stored = json.loads(file.read_text())["sections"][section]
    assert {"machine", "torch", "date", "threads", "rows"} <= stored.keys()
    assert stored["rows"] and all(math.isfinite(row["ratio"]) and row["ratio"] > 0 for row in stored["rows"])
    assert section in capsys.readouterr().out


def test_streams_keep_time_with_a_small_model(tiny, monkeypatch):
    monkeypatch.setattr(benchmark, "person", lambda seconds, height=64: person_of(60))
    (row,) = benchmark.streams(options(["--only", "av_fusion", "--faces", "none"]))
    assert row["ratio"] > 0 and row["of_length"] > 0


@pytest.mark.parametrize("faces", ["none", "cascade"])
def test_stages_begin_with_a_file_and_their_shares_add_up(tiny, monkeypatch, faces):
    pytest.importorskip("cv2")
    monkeypatch.setattr(benchmark, "person", lambda seconds, height=64: person_of(20 * seconds))
    (row,) = benchmark.stages(options(["--only", "dfer_clip", "--faces", faces]))
    assert row["name"] == f"dfer_clip, {faces}, 2 s" and row["ratio"] > 0 and row["seconds"] > 0
    shares = [row[name] for name in ("decode", "search", "crop", "network")]
    assert 0 < row["plain"] < 1
    assert sum(shares) == pytest.approx(1) and min(shares) >= 0 and (row["search"] > 0) == (faces == "cascade")


def test_training_keeps_less_than_with_the_published_activation(tiny):
    rows = benchmark.memory(options([]))
    assert [row["name"] for row in rows] == ["dfer_clip", "dk_clip"]
    assert all(row["ratio"] < 1 and row["mib"] > 0 for row in rows)


def person_of(count):
    return benchmark.Clip.from_arrays(torch.zeros(count, 48, 64, 3, dtype=torch.uint8).numpy(), fps=10)


def options(arguments):
    found = {"only": None, "rounds": 1, "device": "cpu", "faces": "none", "seconds": [2]}
    pairs = zip(arguments[::2], arguments[1::2])
    found.update({name.removeprefix("--"): [value] if name == "--only" else value for name, value in pairs})
    return benchmark.argparse.Namespace(**found)


def test_a_regression_is_exit_1_and_names_the_row(tiny, tmp_path, capsys, monkeypatch):
    stored = tmp_path / "benchmarks.json"
    rows = [{"name": "one", "ratio": 0.5}, {"name": "two", "ratio": 0.5}]
    monkeypatch.setitem(benchmark.SECTIONS, "networks", lambda options: rows)
    benchmark.main(["networks", "--json", str(stored)])
    assert benchmark.main(["networks", "--check", str(stored)]) == 0
    rows[1]["ratio"] = 0.5 * 1.149
    assert benchmark.main(["networks", "--check", str(stored)]) == 0
    rows[1]["ratio"] = 0.5 * 1.151
    capsys.readouterr()
    assert benchmark.main(["networks", "--check", str(stored)]) == 1
    assert capsys.readouterr().err == "networks, two: 0.58, and 0.50 is stored\n"


def test_measured_rows_replace_older_ones_and_leave_the_others(tmp_path):
    file = tmp_path / "benchmarks.json"
    benchmark.keep(file, {"networks": [{"name": "a", "ratio": 1.0}, {"name": "b", "ratio": 2.0}]}, "cpu")
    benchmark.keep(file, {"networks": [{"name": "b", "ratio": 3.0}], "batches": []}, "cpu")
    rows = json.loads(file.read_text())["sections"]["networks"]["rows"]
    assert {row["name"]: row["ratio"] for row in rows} == {"a": 1.0, "b": 3.0}


def test_two_ways_to_different_numbers_are_refused():
    with pytest.raises(SystemExit, match="differ by"):
        benchmark.difference(torch.ones(3), torch.ones(3) * 1.01, "wrong")


def test_the_measured_sections_are_drawn_light_and_dark(tmp_path):
    pytest.importorskip("matplotlib")
    network = {"name": "mma_dfer", "ratio": 0.9, "authors": 0.9, "goal": 0.92}
    batches = [{"name": f"mae_dfer, {size} clips", "ratio": 1.1} for size in (2, 4)]
    found = {"networks": [network], "batches": batches}
    benchmark.keep(tmp_path / "b.json", found, "cpu")
    assert benchmark.main(["--plot", str(tmp_path), "--json", str(tmp_path / "b.json")]) == 0
    drawn = {path.name for path in tmp_path.glob("*.png") if path.stat().st_size}
    assert drawn == {f"{section}_{theme}.png" for section in found for theme in ("light", "dark")}


def test_every_plot_of_the_page_is_drawn():
    assert set(load_script("docs/benchmark_page.py").PLOTS) == set(benchmark.PLOTS)


def test_attention_counts_in_the_flops():
    query = torch.rand(1, 2, 16, 8)
    counted = benchmark.flops(lambda: torch.nn.functional.scaled_dot_product_attention(query, query, query))
    assert counted == pytest.approx(2 * 2 * 2 * 16 * 16 * 8 / 1e9)


def test_the_page_is_that_of_the_stored_numbers():
    generator = load_script("docs/benchmark_page.py")
    assert generator.PAGE.read_text(encoding="utf-8") == generator.rendered(), "run python docs/benchmark_page.py"


def test_the_section_bfloat16_counts_equal_labels(monkeypatch):
    monkeypatch.setattr(benchmark, "DRAWN", 6)
    (row,) = benchmark.bfloat16(options(["--only", "mini_xception.fer2013"]))
    assert row["ratio"] > 0 and 0.5 <= row["same_labels"] <= 1


def test_outputs_of_random_networks_depend_on_their_inputs():
    model = load_script("examples/random_networks.py").random_network("efficient_face")
    with torch.no_grad():
        one, other = model(**model.example_inputs(2))
    assert (one - other).norm() > 0.01 * one.norm()
    assert not model.training and {m.momentum for m in model.modules() if hasattr(m, "momentum")} == {0.1}
