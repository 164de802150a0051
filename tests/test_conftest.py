"""The rules of the test suite."""

import os
import socket
from pathlib import Path

import pytest


def test_a_connection_to_another_machine_fails():
    with socket.socket() as client, pytest.raises(AssertionError, match=r"connects to \('192\.0\.2\.1', 80\)"):
        client.connect(("192.0.2.1", 80))


def test_a_connection_to_this_machine_works():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass


def test_weights_and_caches_are_outside_of_the_home_folder():
    for name in ("DFER_ZOO_WEIGHTS", "HF_HOME", "XDG_CACHE_HOME"):
        assert not Path(os.environ[name]).is_relative_to(Path.home())
