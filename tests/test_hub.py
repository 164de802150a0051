"""Weights from the Hub: its real client against a small server on this machine, with faults."""

import errno
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import huggingface_hub
import open_clip
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

import dfer_zoo
from dfer_zoo import cli
from dfer_zoo.atomic import sha256_of
from dfer_zoo.errors import InputError, UnknownTag, WeightsError, WeightsUnavailable
from dfer_zoo.weights import fetch, hub
from dfer_zoo.weights.cache import Cache
from tests import hub_server, small
from tests.hub_server import REVISION

pytestmark = pytest.mark.hub


@pytest.fixture(autouse=True)
def nothing_but_this_machine(monkeypatch, tmp_path):
    """Allow connections to this machine only, and hide the user's token and caches."""
    connect = socket.socket.connect

    def checked(self, address):
        assert self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "localhost"), address
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", checked)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
    monkeypatch.delenv("DFER_ZOO_DOWNLOAD", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def weights_file(monkeypatch, tmp_path):
    """A file of `save_pretrained`, large enough to be truncated."""
    small.open_zoo(monkeypatch, tmp_path)
    torch.manual_seed(0)
    model = dfer_zoo.create_model("small", width=512, labels=("left", "right", "none"))
    return dfer_zoo.save_pretrained(model, tmp_path / "saved")


@pytest.fixture
def server(weights_file, monkeypatch):
    with hub_server.serve(weights_file.read_bytes()) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


@pytest.fixture
def record(server, weights_file, monkeypatch, tmp_path):
    """small.hub, pinned, with the digest and size of the file."""
    found = small.record(
        "hub",
        distribution="hub",
        repo_id="small/weights",
        revision=REVISION,
        filename="model.safetensors",
        sha256=sha256_of(weights_file),
        size=weights_file.stat().st_size,
        model_args={"width": 512},
    )
    small.open_zoo(monkeypatch, tmp_path, found)
    return found


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def damage(path: Path) -> None:
    """Change one byte."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def whole_files(cache: Path) -> list[Path]:
    """The files that a later call would use as weights."""
    return [path for path in cache.rglob("*") if path.is_file() and "snapshots" in path.parts]


# -- as it should be ---------------------------------------------------------------------------------------------------


def test_a_file_is_fetched_once_and_then_needs_no_request(record, server, cache):
    model = dfer_zoo.create_model("small", pretrained="hub", cache_dir=cache)
    assert model.labels == small.LABELS and model.weights == record
    asked = len(server.requests)
    assert any(request.startswith("GET") and REVISION in request for request in server.requests)
    dfer_zoo.create_model("small.hub", cache_dir=cache)
    assert len(server.requests) == asked


def test_what_killed_downloads_left_is_removed_by_the_next_one(record, server, cache):
    blob = fetch.fetch(record, Cache(cache)).resolve()
    left = [blob.with_name(f"{blob.name}{middle}.incomplete") for middle in ("", ".1a2b3c4d")]
    other = blob.with_name("another.incomplete")
    for path in (*left, other):
        path.write_bytes(b"half")
    blob.unlink()
    fetch.fetch(record, Cache(cache))
    assert blob.is_file() and other.is_file() and not any(path.exists() for path in left)


def test_offline_works_from_the_cache_without_a_request(record, server, cache, monkeypatch):
    with pytest.raises(WeightsUnavailable, match=r"offline.*hf download small/weights model.safetensors"):
        fetch.fetch(record, Cache(cache, offline=True))
    assert server.requests == []
    path = fetch.fetch(record, Cache(cache))
    server.requests.clear()
    assert fetch.fetch(record, Cache(cache, offline=True)) == path
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch.fetch(record, Cache(cache)) == path
    with pytest.raises(WeightsUnavailable, match="offline"):
        fetch.fetch(record, Cache(cache / "another"))
    assert server.requests == []


def test_a_damaged_file_is_fetched_again_once(record, server, cache):
    path = fetch.fetch(record, Cache(cache))
    damage(path)
    assert sha256_of(fetch.fetch(record, Cache(cache))) == record.sha256
    assert sum(request.startswith("GET") for request in server.requests) == 2


def test_a_damaged_file_is_an_error_offline(record, server, cache):
    path = fetch.fetch(record, Cache(cache))
    damage(path)
    with pytest.raises(WeightsError, match="damaged in the cache") as caught:
        fetch.fetch(record, Cache(cache, offline=True))
    assert record.sha256 in str(caught.value) and sha256_of(path) in str(caught.value)


def test_the_error_names_the_damage_and_the_failed_download(record, server, cache):
    damage(fetch.fetch(record, Cache(cache)))
    server.fault = "down"
    with pytest.raises(WeightsError, match=r"damaged in the cache: .*status 503"):
        fetch.fetch(record, Cache(cache))


def test_verify_once_hashes_a_fetched_file_once(record, server, cache, monkeypatch):
    read = []
    monkeypatch.setattr("dfer_zoo.weights.store.sha256_of", lambda path: read.append(path) or sha256_of(path))
    for _ in range(3):
        fetch.fetch(record, Cache(cache, verify="once"))
    assert len(read) == 1
    fetch.fetch(record, Cache(cache, verify="always"))
    assert len(read) == 2
    with pytest.raises(InputError, match="verify is 'sometimes'"):
        fetch.fetch(record, Cache(cache, verify="sometimes"))


EIGHT = """
import sys, pathlib
from tests import small
from tests.forks import at_once
from dfer_zoo.weights import fetch
from dfer_zoo.weights.cache import Cache
record = small.record("hub", distribution="hub", repo_id="small/weights", revision=sys.argv[2],
    filename="model.safetensors", sha256=sys.argv[3], size=int(sys.argv[4]))
def work(number):
    path = fetch.fetch(record, Cache(sys.argv[1]))
    pathlib.Path(sys.argv[1] + f".{number}").write_text(str(path))

sys.exit(at_once(work))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks, so that eight processes need not import torch eight times")
def test_eight_processes_at_once_all_get_the_right_file(record, server, cache):
    command = [sys.executable, "-c", EIGHT, str(cache), REVISION, record.sha256, str(record.size)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = {Path(cache.with_name(f"cache.{number}").read_text()) for number in range(8)}
    assert len(found) == 1
    assert sha256_of(found.pop()) == record.sha256


def test_verify_reads_the_hub_cache_too(record, server, cache, capsys):
    path = fetch.fetch(record, Cache(cache))
    assert cli.main(["verify", "--cache-dir", str(cache)]) == 0
    assert capsys.readouterr().out == f"small.hub  {path}  ok\n1 files, 0 damaged\n"
    damage(path)
    assert cli.main(["verify", "--cache-dir", str(cache)]) == 1
    assert f"expected {record.sha256}" in capsys.readouterr().out


# -- faults ------------------------------------------------------------------------------------------------------------

FAULTS = {
    "unauthorized": r"small/weights at http://127.*`hf auth login`",
    "gated": r"small/weights is gated.*http://.*/small/weights.*`hf auth",
    "forbidden": "access to small/weights",
    "no repository": "small/weights",
    "no revision": rf"small/weights .*{REVISION}.*/commits/main",
    "no file": rf"small/weights .*model.safetensors at {REVISION}.*/tree/{REVISION}",
    "too many": "too many requests",
    "down": r"\(status 503\).*HF_ENDPOINT",
    "portal": "login page",
    "cut": "connection.*Try again",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_hub_faults_are_one_line_errors_with_advice(record, server, cache, fault, capsys):
    server.fault = fault
    with pytest.raises(WeightsUnavailable, match=f"^small.hub: .*{FAULTS[fault]}") as caught:
        fetch.fetch(record, Cache(cache))
    assert "\n" not in str(caught.value)
    if fault != "portal":
        assert caught.value.__cause__ is not None
    assert whole_files(cache) == []
    server.fault = ""
    assert sha256_of(fetch.fetch(record, Cache(cache))) == record.sha256


def test_the_error_repeats_retry_after(record, server, cache):
    server.fault, server.headers = "too many", {"Retry-After": "37"}
    with pytest.raises(WeightsUnavailable, match="Wait 37 seconds"):
        fetch.fetch(record, Cache(cache))


def test_wrong_bytes_of_the_right_size_are_an_error_after_a_second_download(record, server, cache):
    wrong = bytearray(server.content)
    wrong[-1] ^= 1
    server.served = bytes(wrong)
    with pytest.raises(WeightsError, match="twice") as caught:
        dfer_zoo.create_model("small.hub", cache_dir=cache)
    assert record.sha256 in str(caught.value)
    assert sum(request.startswith("GET") for request in server.requests) == 2
    server.served = server.content
    assert sha256_of(fetch.fetch(record, Cache(cache))) == record.sha256


def test_a_wrong_size_is_detected_before_the_download(record, server, cache):
    server.served = server.content + b"more"
    with pytest.raises(WeightsError, match=f"{record.size + 4:,} bytes .* {record.size:,}"):
        fetch.fetch(record, Cache(cache))
    assert not any(request.startswith("GET") for request in server.requests)


def test_a_mirror_that_answers_with_another_commit_is_refused(record, server, cache):
    server.fault = "moved"
    with pytest.raises(WeightsError, match=f"{'f' * 40}.*{REVISION}"):
        fetch.fetch(record, Cache(cache))
    assert not any(request.startswith("GET") for request in server.requests)


def test_no_network_fails_at_once(record, cache, monkeypatch):
    """The client alone would retry for 23 seconds; we stop after one refused connection."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        tried = []
        connect = socket.socket.connect
        monkeypatch.setattr(socket.socket, "connect", lambda s, to: tried.append(to) or connect(s, to))
        with pytest.raises(WeightsUnavailable, match=r"cannot be reached .*hf download small/weights"):
            fetch.fetch(record, Cache(cache))
    assert len(tried) <= 1


@pytest.mark.parametrize("number, sentence", [(errno.ENOSPC, "no space left"), (errno.EROFS, "is not writable")])
def test_a_full_or_read_only_disk_is_a_one_line_error(record, server, cache, monkeypatch, number, sentence):
    def fails(*args, **options):
        raise OSError(number, os.strerror(number), str(cache))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fails)
    with pytest.raises(WeightsUnavailable, match=rf"{sentence}.*cache_dir= or HF_HUB_CACHE"):
        fetch.fetch(record, Cache(cache))


def test_a_file_in_the_place_of_the_cache_folder_is_a_one_line_error(record, server, cache):
    cache.write_text("in the way")
    with pytest.raises(WeightsUnavailable, match=r"cache folder .*not writable"):
        fetch.fetch(record, Cache(cache))


READ_ONLY = """
import os, sys
from dfer_zoo import errors
from dfer_zoo.weights import fetch
from dfer_zoo.weights.cache import Cache
from tests import small
full, empty, other, revision, digest, size = sys.argv[1:]
record = small.record("hub", distribution="hub", repo_id="small/weights", revision=revision,
    filename="model.safetensors", sha256=digest, size=int(size))
fetch.fetch(record, Cache(other))  # so that all modules are loaded while they can be read
if os.getuid() == 0:
    os.setuid(65534)  # the rights of a folder mean nothing to root
print(fetch.fetch(record, Cache(full, verify="once")))
try:
    fetch.fetch(record, Cache(empty))
except errors.WeightsUnavailable as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="the rights of folders are those of POSIX here")
def test_a_read_only_cache_works_if_it_holds_the_file(record, server, cache, tmp_path):
    if os.getuid() == 0:
        for folder in (tmp_path, *tmp_path.parents[:3]):  # pytest keeps its folders to itself; xdist adds one level
            if folder != Path(tempfile.gettempdir()):
                folder.chmod(folder.stat().st_mode | 0o055)
    path = fetch.fetch(record, Cache(cache))
    cache.chmod(0o555)
    empty = tmp_path / "empty"
    empty.mkdir(mode=0o555)
    arguments = [str(cache), str(empty), str(tmp_path / "other"), REVISION, record.sha256, str(record.size)]
    done = subprocess.run([sys.executable, "-c", READ_ONLY, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found, sentence = done.stdout.splitlines()
    assert found == str(path)
    assert f"{empty} is not writable" in sentence


# -- repositories of users ---------------------------------------------------------------------------------------------


def test_a_repository_of_a_user_is_loaded(server, cache):
    for name in (f"hf-hub:small/weights@{REVISION}", "hf-hub:small/weights"):
        model = dfer_zoo.create_model(name, cache_dir=cache)
        assert model.labels == ("left", "right", "none") and model.num_features == 512


def test_a_pinned_repository_needs_no_second_request(server, cache):
    dfer_zoo.create_model(f"hf-hub:small/weights@{REVISION}", cache_dir=cache)
    server.requests.clear()
    dfer_zoo.create_model(f"hf-hub:small/weights@{REVISION}", cache_dir=cache)
    assert server.requests == []
    dfer_zoo.create_model("hf-hub:small/weights", cache_dir=cache)  # what main is has to be asked
    assert server.requests != []
    server.requests.clear()
    dfer_zoo.create_model("hf-hub:small/weights", cache_dir=cache, local_files_only=True)
    assert server.requests == []


def test_a_repository_of_a_user_is_checked_against_the_digest_of_the_hub(server, cache):
    path = fetch.hub_repository(f"small/weights@{REVISION}", Cache(cache))
    damage(path)
    assert fetch.hub_repository(f"small/weights@{REVISION}", Cache(cache)).read_bytes() == server.content
    damage(path)
    server.served = path.read_bytes()
    with pytest.raises(WeightsError, match="twice"):
        fetch.hub_repository(f"small/weights@{REVISION}", Cache(cache))


@pytest.mark.parametrize(
    "name", ["weights", "small/weights/x", "small/weights@", "https://huggingface.co/a/b", "a/b c"]
)
def test_malformed_repository_names_are_refused_without_a_request(server, name):
    with pytest.raises(InputError, match="'hf-hub:owner/repo'"):
        dfer_zoo.create_model(f"hf-hub:{name}")
    assert server.requests == []


def test_a_repository_without_our_file_is_a_one_line_error(server, cache):
    with pytest.raises(WeightsUnavailable, match=r"small/others .*model.safetensors"):
        dfer_zoo.create_model("hf-hub:small/others", cache_dir=cache)


# -- parts from open_clip ----------------------------------------------------------------------------------------------

CLIP = "open_clip:ViT-B-32-quickgelu/openai"


def test_clip_backbones_are_downloaded_by_open_clip(server, cache, monkeypatch, tmp_path):
    """A small state replaces the real file of 600 MB."""
    state = {"positional_embedding": torch.randn(77, 8), "text_projection": torch.randn(8, 8)}
    save_file(state, tmp_path / "open_clip_model.safetensors")
    asked = []

    def download_pretrained(config, cache_dir=None):
        asked.append((config["hf_hub"], config["quick_gelu"], cache_dir))
        return str(tmp_path / "open_clip_model.safetensors")

    monkeypatch.setattr(open_clip, "download_pretrained", download_pretrained)
    monkeypatch.setattr(hub, "ask", lambda *args: None)
    found = fetch.backbone_state(CLIP, Cache(cache))
    assert found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)
    assert asked == [("timm/vit_base_patch32_clip_224.openai/", True, str(cache))]


def test_a_cached_clip_backbone_needs_no_request(server, cache, tmp_path):
    snapshot = cache / "models--timm--vit_base_patch32_clip_224.openai" / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    save_file({"text_projection": torch.ones(2, 2)}, snapshot / "open_clip_model.safetensors")
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text(REVISION)
    assert torch.equal(fetch.backbone_state(CLIP, Cache(cache))["text_projection"], torch.ones(2, 2))
    assert fetch.backbone_state(CLIP, Cache(cache, offline=True)).keys() == {"text_projection"}
    (snapshot / "open_clip_model.safetensors").write_bytes(b"cut")
    with pytest.raises(WeightsError, match="cannot be read"):
        fetch.backbone_state(CLIP, Cache(cache))
    assert server.requests == []


def test_an_unavailable_clip_backbone_is_a_one_line_error(server, cache):
    with pytest.raises(WeightsUnavailable, match=f"^{CLIP} .*offline"):
        fetch.backbone_state(CLIP, Cache(cache, offline=True))
    server.fault = "down"
    with pytest.raises(WeightsUnavailable, match=f"^{CLIP}: .*status 503"):
        fetch.backbone_state(CLIP, Cache(cache))
    assert len(server.requests) == 1
    with pytest.raises(UnknownTag, match=r"'ViT-B-32/openia'. Did you mean .*ViT-B-32/openai"):
        fetch.backbone_state("open_clip:ViT-B-32/openia")
