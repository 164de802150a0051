"""Eight processes that share an empty store and an empty cache all succeed with equal files and no leftovers."""

import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dfer_zoo.atomic import SUFFIX
from tests import hub_server, small

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks, so that torch is imported once")
EIGHT = """
import sys, hashlib
from pathlib import Path
import pytest
import dfer_zoo
from dfer_zoo.checkpoints import convert_checkpoint
from dfer_zoo.weights.record import Origin
from tests import small
from tests.forks import at_once

what, folder, url, content = sys.argv[1], Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]).read_bytes()
facts = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
record = {
    "convert": lambda: small.record("converted"),
    "origin": lambda: small.record("fold1", distribution="origin", origin=(Origin("https", url, **facts),)),
    "hub": lambda: small.record("hub", distribution="hub", repo_id="small/weights", filename="model.safetensors",
                                revision=sys.argv[5], **facts),
}[what]()
small.open_zoo(pytest.MonkeyPatch(), folder, record)

def work(number):
    if what == "convert":
        return convert_checkpoint("small", "converted", sys.argv[4])
    return dfer_zoo.create_model(record.name, cache_dir=folder / "cache").labels

sys.exit(at_once(work))
"""


def eight(what, folder, url, file, **environment):
    command = [sys.executable, "-c", EIGHT, what, str(folder), url, str(file), hub_server.REVISION]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}
    )
    assert done.returncode == 0, done.stderr
    return [
        path.relative_to(folder)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not {"locks", ".locks", "refs", "CACHEDIR.TAG"} & set(path.parts)
    ]


def is_temporary(path: Path) -> bool:
    return path.name.endswith((SUFFIX, ".part", ".etag", ".incomplete"))


@pytest.fixture
def authors_file(tmp_path):
    stream = io.BytesIO()
    torch.save({"state_dict": small.authors_state(), "optimizer": torch.zeros(20_000)}, stream)
    (tmp_path / "authors.pth").write_bytes(stream.getvalue())
    return tmp_path / "authors.pth"


def test_eight_conversions_of_one_tag(authors_file, tmp_path):
    found = eight("convert", tmp_path / "zoo", "", authors_file)
    assert [path.name for path in found] == ["small.converted.safetensors", "small.converted.sha256"]
    content = (tmp_path / "zoo" / found[0]).read_bytes()
    note = (tmp_path / "zoo" / found[1]).read_text()
    assert note == f"{hashlib.sha256(content).hexdigest()}  small.converted.safetensors\n"
    eight("convert", tmp_path / "alone", "", authors_file)
    assert (tmp_path / "alone" / found[0]).read_bytes() == content


def test_eight_processes_with_an_authors_host(authors_file, host, tmp_path):
    host.files["/fold1.pth"] = authors_file.read_bytes()
    environment = {name: os.environ[name] for name in ("SSL_CERT_FILE", "NO_PROXY")}
    found = eight("origin", tmp_path / "zoo", f"{host.url}/fold1.pth", authors_file, **environment)
    assert [path.name for path in found] == ["small.fold1.safetensors", "small.fold1.sha256"]
    assert len(host.requests) == 1


@pytest.mark.hub
def test_eight_processes_with_the_hub(monkeypatch, tmp_path):
    import dfer_zoo

    small.open_zoo(monkeypatch, tmp_path)
    file = dfer_zoo.save_pretrained(dfer_zoo.create_model("small"), tmp_path / "saved")
    with hub_server.serve(file.read_bytes()) as server:
        found = eight("hub", tmp_path / "zoo", "", file, HF_ENDPOINT=server.url, NO_PROXY="127.0.0.1")
    whole = [path for path in found if path.name == "model.safetensors"]
    assert len(whole) == 1 and (tmp_path / "zoo" / whole[0]).read_bytes() == file.read_bytes()
    assert not [path for path in found if is_temporary(path)]
