import io

import pytest
import torch

from dfer_zoo.weights import origin
from tests import small
from tests.weights import servers


@pytest.fixture(autouse=True)
def downloads_are_allowed(monkeypatch):
    monkeypatch.delenv("DFER_ZOO_DOWNLOAD", raising=False)
    monkeypatch.setenv("DFER_ZOO_TIMEOUT", "20")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    origin.announce.cache_clear()


@pytest.fixture(scope="session")
def checkpoint() -> bytes:
    """A checkpoint of the small model as authors publish it, with options and optimizer."""
    import argparse

    stream = io.BytesIO()
    wrapped = {"state_dict": small.authors_state(), "args": argparse.Namespace(lr=0.1), "epoch": 99}
    wrapped["optimizer"] = {"exp_avg": torch.zeros(20_000)}
    torch.save(wrapped, stream)
    return stream.getvalue()


@pytest.fixture
def host(tmp_path, monkeypatch):
    """An HTTPS host whose certificate this process trusts."""
    with servers.https_host(tmp_path) as (host, authority):
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            monkeypatch.setenv(name, str(authority))
        monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
        host.url = f"https://localhost:{host.server_port}"
        yield host


@pytest.fixture
def drive(host, checkpoint, monkeypatch):
    """Google Drive, as the real gdown client sees it."""
    with servers.running(servers.Proxy(host.server_port)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.server_port}")
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.server_port}")
        host.files[servers.FILE_ID] = checkpoint
        host.proxy = proxy
        yield host
