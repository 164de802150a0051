"""A self-hosted mirror of the Hub on this machine: `olah`, in its own virtual environment.

Its dependencies conflict with ours, so it runs as a process and is never imported here.
"""

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import wheels

OLAH = "olah==0.5.4"


def environment() -> Path:
    """The Python of the mirror. It is installed once, next to the wheels; without a package index the test is skipped."""
    cache = wheels.folder() / "mirror"
    folder = cache / f"{OLAH.replace('==', '-')}-python{sys.version_info.major}.{sys.version_info.minor}"
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.exists():
        if shutil.which("git") is None:
            pytest.skip("the Hub mirror needs git, which is not installed here")
        unfinished = cache / f"unfinished-{uuid.uuid4().hex}"
        try:
            run(sys.executable, "-m", "venv", unfinished)
            run(unfinished / python.relative_to(folder), "-m", "pip", "install", "--quiet", "--retries", "1", OLAH)
            unfinished.rename(folder)
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            if not python.exists():  # no other test run has installed it meanwhile
                pytest.skip(f"{OLAH} cannot be installed from here: {said[-1]}")
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return python


def run(*command: object, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=300, check=True, env=PLAIN
    )
    return done.stdout.strip()


# Ignore the user's git settings, and send every outgoing request of the mirror to a closed port of this machine.
PLAIN = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
CLOSED = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https", "all")} | {"no_proxy": "127.0.0.1"}


class Repository:
    """A git work tree as the mirror serves it: large files are LFS pointers, their bytes are LFS objects of git."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True)
        self.git("init", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")
        return run("git", *who, *arguments, cwd=self.folder)

    def commit(self, filename: str, content: bytes) -> str:
        """Commit a file. Returns the revision."""
        stored = self.object(content)
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_bytes(content)
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{stored.name}\nsize {len(content)}\n"
        (self.folder / filename).write_text(pointer)
        self.git("add", filename)
        self.git("commit", "--message", filename)
        return self.git("rev-parse", "HEAD")

    def object(self, content: bytes) -> Path:
        digest = hashlib.sha256(content).hexdigest()
        return self.folder / ".git" / "lfs" / "objects" / digest[:2] / digest[2:4] / digest


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """Run a mirror. Yields its address; it serves the repositories in ``folder/mirrors/models/<owner>/<name>``."""
    python = environment()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "olah.toml").write_text(
        f'[basic]\nhost = "127.0.0.1"\nport = {port}\nrepos-path = "{(folder / "repos").as_posix()}"\n'
        f'mirrors-path = ["{(folder / "mirrors").as_posix()}"]\n[accessibility]\noffline = true\n'
    )
    command = [python, "-c", "from olah.server import cli; cli()", "--config", "olah.toml", "--log-path", "logs"]
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(
            command, cwd=folder, env={**PLAIN, **CLOSED}, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            wait_for(process, port, folder / "output.txt")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(process: subprocess.Popen, port: int, output: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, output.read_text()
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"the mirror did not answer within a minute: {output.read_text()}")
