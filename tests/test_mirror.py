"""Weights from a third-party Hub server: the real client against a self-hosted mirror on this machine."""

import dataclasses
import os
import socket
import subprocess
import sys

import pytest
import torch
from huggingface_hub import constants

import dfer_zoo
from dfer_zoo.atomic import sha256_of
from dfer_zoo.errors import WeightsError, WeightsUnavailable
from dfer_zoo.weights import fetch
from dfer_zoo.weights.cache import Cache
from tests import mirror, small

pytestmark = pytest.mark.hub


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """(address, repository, records of its two revisions): the same file name, other weights."""
    folder = tmp_path_factory.mktemp("mirror")
    with pytest.MonkeyPatch.context() as patch:
        small.open_zoo(patch, folder)
        repository = mirror.Repository(folder / "mirrors" / "models" / "small" / "weights")
        records = []
        for number in range(2):
            torch.manual_seed(number)
            path = dfer_zoo.save_pretrained(dfer_zoo.create_model("small"), folder / "saved")
            record = small.record(
                f"v{number}",
                distribution="hub",
                repo_id="small/weights",
                revision=repository.commit("model.safetensors", path.read_bytes()),
                filename="model.safetensors",
                sha256=sha256_of(path),
                size=path.stat().st_size,
            )
            records.append(record)
    with mirror.running(folder) as address:
        yield address, repository, records


@pytest.fixture(autouse=True)
def zoo(hub, monkeypatch, tmp_path):
    address, _, records = hub
    small.open_zoo(monkeypatch, tmp_path, *records)
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.delenv("DFER_ZOO_DOWNLOAD", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return records


def weights_of(number: int) -> torch.Tensor:
    torch.manual_seed(number)
    return dfer_zoo.create_model("small").body.weight


def refuse_connections(monkeypatch):
    """Refuse new connections and every byte on open ones."""

    def refuse(self, *data):
        raise AssertionError("a request")

    for way in ("connect", "send", "sendall"):
        monkeypatch.setattr(socket.socket, way, refuse)


def test_each_record_gets_the_weights_of_its_revision(tmp_path):
    for number in (0, 1, 0):
        model = dfer_zoo.create_model("small", pretrained=f"v{number}", cache_dir=tmp_path / "cache")
        assert torch.equal(model.body.weight, weights_of(number))
        assert model.labels == small.LABELS


def test_a_repository_name_means_main_unless_it_names_a_revision(zoo, tmp_path):
    model = dfer_zoo.create_model("hf-hub:small/weights", cache_dir=tmp_path / "cache")
    assert torch.equal(model.body.weight, weights_of(1))
    model = dfer_zoo.create_model(f"hf-hub:small/weights@{zoo[0].revision}", cache_dir=tmp_path / "cache")
    assert torch.equal(model.body.weight, weights_of(0))


def test_what_is_cached_needs_no_request(zoo, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    path = fetch.fetch(zoo[0], Cache(cache))
    assert sha256_of(path) == zoo[0].sha256 and path.stat().st_size == zoo[0].size
    refuse_connections(monkeypatch)
    assert fetch.fetch(zoo[0], Cache(cache)) == path
    with pytest.raises(AssertionError, match="a request"):
        fetch.fetch(zoo[1], Cache(cache))
    with pytest.raises(WeightsUnavailable, match="offline"):
        fetch.fetch(zoo[1], Cache(cache, offline=True))


def test_a_damaged_file_is_fetched_again(zoo, tmp_path):
    path = fetch.fetch(zoo[0], Cache(tmp_path / "cache"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert sha256_of(fetch.fetch(zoo[0], Cache(tmp_path / "cache"))) == zoo[0].sha256


def test_changed_bytes_of_the_same_size_are_refused(hub, zoo, tmp_path):
    """The client of the Hub compares sizes only; we compare digests."""
    _, repository, _ = hub
    content = fetch.fetch(zoo[1], Cache(tmp_path / "good")).read_bytes()
    wrong = bytearray(content)
    wrong[-1] ^= 1
    repository.object(content).write_bytes(wrong)
    try:
        with pytest.raises(WeightsError, match="twice") as caught:
            dfer_zoo.create_model("small.v1", cache_dir=tmp_path / "cache")
    finally:
        repository.object(content).write_bytes(content)
    assert zoo[1].sha256 in str(caught.value)


@pytest.mark.parametrize("change", [{"revision": "f" * 40}, {"filename": "other.safetensors"}, {"repo_id": "small/no"}])
def test_missing_revisions_files_and_repositories_are_one_line_errors(zoo, tmp_path, change):
    """The texts are not checked: the mirror does not distinguish a missing repository from a missing file."""
    with pytest.raises(WeightsUnavailable, match=r"^small\.v0: ") as caught:
        fetch.fetch(dataclasses.replace(zoo[0], **change), Cache(tmp_path / "cache"))
    assert "\n" not in str(caught.value)


def test_the_endpoint_of_the_environment_is_used_from_the_start(hub, zoo, tmp_path):
    script = (
        "import sys; from dfer_zoo.weights import fetch, hub; "
        "print(hub.download('it', hub.HubFile('small/weights', 'model.safetensors', sys.argv[1]), sys.argv[2]))"
    )
    environment = {**os.environ, "HF_ENDPOINT": f"{hub[0]}/"}
    done = subprocess.run(
        [sys.executable, "-c", script, zoo[0].revision, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    with open(done.stdout.strip(), "rb") as stream:
        assert len(stream.read()) == zoo[0].size
