"""Small media files for tests, written by another ffmpeg than the one under test."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest


def ffmpeg(*arguments: object, stdin: bytes | None = None) -> bytes:
    """Run ffmpeg. Returns its standard output; skips the test if ffmpeg is not installed."""
    program = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    done = subprocess.run(
        [program, "-v", "error", "-y", *map(str, arguments)], input=stdin, capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_pattern(path: Path, *codec: object, seconds: float = 3, rate: int = 30, size: str = "192x128") -> Path:
    """Write a file with ffmpeg's moving test pattern and a tone."""
    pictures = f"testsrc2=s={size}:r={rate}:d={seconds}"
    tone = f"sine=440:r=44100:d={seconds}"
    ffmpeg("-f", "lavfi", "-i", pictures, "-f", "lavfi", "-i", tone, *codec, path)
    return path


test_pattern.__test__ = False  # type: ignore[attr-defined]


def frames_by_ffmpeg(path: Path, height: int, width: int, *options: object) -> np.ndarray:
    """Decode every frame of a file with ffmpeg, (N, H, W, 3)."""
    shown = ("-map", "0:v:0", "-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
    return np.frombuffer(ffmpeg(*options, "-i", path, *shown), np.uint8).reshape(-1, height, width, 3)


def sound_by_ffmpeg(path: Path, channels: int) -> np.ndarray:
    return np.frombuffer(ffmpeg("-i", path, "-vn", "-f", "f32le", "-"), np.float32).reshape(-1, channels).T
