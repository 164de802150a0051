"""Damaged journals, boxes and states give a result or a one-sentence error."""

import json
import time

import pytest
import torch

pytest.importorskip("av")

from dfer_zoo.cli import main
from dfer_zoo.data.prepare_clips import Result
from dfer_zoo.data.puppets import Puppet
from dfer_zoo.errors import MAX_MESSAGE, DferZooError, InputError, WeightsError
from dfer_zoo.inference import batch, tables
from dfer_zoo.inference.inputs import expand
from dfer_zoo.inference.recognizer import Recognizer
from dfer_zoo.media.faces.boxes import BoxFile

DEEP = b"[" * 100_000
NO_JSON = [b"{}", b"[]", b"null", b"1", b'"x"', b"\xff\xfe", bytes(100), DEEP, b"9" * 5000]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return Puppet("happiness", size=64).write(tmp_path_factory.mktemp("clip") / "happy.mp4")


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer("av_fusion", "puppets", faces="none")


@pytest.fixture(scope="module")
def journal(clip, recognizer, tmp_path_factory):
    """Return the journal of an interrupted run."""
    out = tmp_path_factory.mktemp("journal") / "table.csv"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(batch, "write_table", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        batch.predict_table(recognizer, expand([clip]), out)
    return out.with_name("table.csv.journal").read_bytes().splitlines()


def damaged(journal):
    header, line = journal
    yield from ([content] for content in NO_JSON)
    yield from ([header, content] for content in NO_JSON)
    entry = json.loads(line)
    for rows in (5, "text", [5], [[]], {}, None):
        yield [header, json.dumps({**entry, "rows": rows}).encode()]
    for change in ({"window": "x"}, {"file": 5}, {"label": "\ud800"}, {"more": 1}, {"p_happy": []}, {"start": {}}):
        yield [header, json.dumps({**entry, "rows": [{**row, **change} for row in entry["rows"]]}).encode()]
    fewer = [{name: value for name, value in row.items() if name != "label"} for row in entry["rows"]]
    yield [header, json.dumps({**entry, "rows": fewer}).encode()]
    for change in ({"schema": "1"}, {"settings": 5}, {"settings": []}, {"settings": None}):
        yield [json.dumps({**json.loads(header), **change}).encode(), line]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_damaged_journal_of_a_batch(suffix, clip, recognizer, journal, tmp_path):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    for number, lines in enumerate(damaged(journal)):
        out = tmp_path / f"{number}{suffix}"
        out.with_name(f"{out.name}.journal").write_bytes(b"\n".join(lines) + b"\n")
        try:
            batch.predict_table(recognizer, expand([clip]), out, resume=True)
        except DferZooError as error:
            assert ".journal" in str(error) and len(str(error)) <= MAX_MESSAGE + 100 and not out.exists()
        else:
            assert tables.SUFFIXES and out.is_file()


def test_damaged_boxes(tmp_path):
    whole = {"clip": "a.mp4", "frames": 1, "detector": "x", "search": "y", "boxes": {"0": [[0, 0, 1, 1]]}}
    lines = list(NO_JSON)
    for box in ([1], [1, 2, 3, "x"], [float("nan")] * 4, [float("inf")] * 4, [1e30] * 4, [None] * 4, 5):
        lines.append(json.dumps({**whole, "boxes": {"0": [box]}}).encode())
    for change in ({"frames": "x"}, {"frames": float("inf")}, {"boxes": []}, {"boxes": {"x": []}}, {"boxes": {"0": 5}}):
        lines.append(json.dumps({**whole, **change}).encode())
    for number, line in enumerate(lines):
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(line + b"\n")
        with pytest.raises(InputError, match="is not a file of face boxes"):
            BoxFile(path).boxes(("a.mp4", 1, "x", "y"))


def test_a_damaged_journal_of_a_preparation(clip, tmp_path, capsys):
    out = tmp_path / "frames"
    command = ["prepare", "frames", str(clip), "--out", str(out), "--workers", "0"]
    assert main(command) == 0
    header, *lines = (out / "prepare.jsonl").read_bytes().splitlines()
    whole = json.loads(next(line for line in lines if line))
    changes = ({"output": 5}, {"output": []}, {"frames": "many"}, {"reason": None}, {"more": 1})
    damaged = [*NO_JSON, *(json.dumps({**whole, **change}).encode() for change in changes)]
    assert whole.keys() == Result.__dataclass_fields__.keys()
    (out / "prepare.jsonl").write_bytes(b"\n".join([header, *damaged]) + b"\n")
    assert main(command) == 0  # damaged lines are skipped, and the clip is prepared again
    for line in NO_JSON:
        (out / "prepare.jsonl").write_bytes(line + b"\n")
        assert main(command) == 2
        assert "other options" in capsys.readouterr().err


def test_a_damaged_state_of_a_training(tmp_path):
    from dfer_zoo.training.state import load_state, save_state
    from dfer_zoo.weights.safetensors import read_safetensors, write_safetensors

    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    path = tmp_path / "state.safetensors"
    progress = {"epoch": 1, "update": 0, "loss": 0.0, "clips": 0, "best": 0.5, "history": [], "failed": {}}
    save_state(path, model, optimizer, None, progress)
    assert load_state(path, model, optimizer, None) == progress
    tensors, header = read_safetensors(path)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    headers = [{**header, "scalars": 5}, {**header, "progress": 5}, {"progress": progress}]
    for change in ({"epoch": "x"}, {"epoch": -1}, {"update": 10**12}, {"history": 5}, {"failed": []}, {"best": "x"}):
        headers.append({**header, "progress": {**progress, **change}})
    headers += [
        {**header, "progress": {n: v for n, v in progress.items() if n != name}} for name in ("epoch", "failed")
    ]
    states = [(tensors, changed) for changed in headers]
    states += [({**tensors, f"optimizer.{name}": torch.zeros(1)}, header) for name in ("x.y", "1", "0.a.b")]
    for state, changed in states:
        write_safetensors(path, state, changed)
        with pytest.raises(WeightsError, match=r"is damaged|not the state"):
            load_state(path, model, optimizer, None)


@pytest.mark.parametrize("text", ["1-999999999", "9" * 5000, "1-" + "9" * 30, "\u0661", "-1", "", ","])
def test_folds_are_bounded_before_they_are_listed(text):
    from dfer_zoo.cli.common import parse_folds

    with pytest.raises(InputError, match="expected numbers such as 1-5"):
        parse_folds(text)


def test_nested_brackets_are_a_word():
    from dfer_zoo.cli.common import parse_values

    assert parse_values("--set", [f"a={'[' * 100_000}"]) == {"a": "[" * 100_000}


def test_a_long_name_costs_no_time():
    """Redacting passwords in messages used to take quadratic time: three minutes for a line of 200 kB."""
    begin = time.monotonic()
    for text in ("x" * 1_000_000, "a://" * 200_000, "a://" + "b" * 500_000, "@" * 500_000):
        assert len(str(DferZooError(text))) <= MAX_MESSAGE + 100
    assert time.monotonic() - begin < 10
    assert "p@ss" not in str(DferZooError("https://me:p@ss@host/x"))
