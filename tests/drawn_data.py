"""Drawn data sets in the layouts of the published ones, with the pitfalls of the real ones."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from PIL import Image

SEVEN = ("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear")


def draw_frames(folder: Path, count: int, *, size: tuple[int, int] = (40, 40), digits: int = 5, seed: int = 0) -> Path:
    """Draw a folder of numbered frames; ``digits=1`` gives names without leading zeros, as in MAFW's faces."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = rng.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:0{digits}d}.png")
    return folder


def draw_sound(path: Path, seconds: float = 0.5, rate: int = 16000, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(len(path.name)).normal(0, 3000, (int(seconds * rate), channels))
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(channels), stream.setsampwidth(2), stream.setframerate(rate)
        stream.writeframes(samples.astype("<i2").tobytes())
    return path


def draw_hidden_files(folder: Path) -> None:
    """Write the hidden files of macOS and Windows."""
    (folder / "._00001.png").write_bytes(b"\0\5\26\7")
    (folder / ".DS_Store").write_bytes(b"\0")
    (folder / "Thumbs.db").write_bytes(b"\0")


def draw_dfew(root: Path, counts: tuple[int, ...] = (20, 20, 18), short: int = 0) -> Path:
    """Clip/clip_224x224/00001..., raw_wav/1.wav, and a list whose counts are larger by ``short``."""
    lines = []
    for number, count in enumerate(counts, start=1):
        folder = draw_frames(root / "dfew" / "clip_224x224" / f"{number:05d}", count, seed=number)
        draw_hidden_files(folder)
        draw_sound(root / "dfew" / "raw_wav" / f"{number}.wav")
        lines.append(f"/theirs/dfew/clip_224x224/{number:05d} {count + short} {number % 7}")
    return write_list(root / "DFEW_set_1_test.txt", lines)


def draw_mafw(root: Path, clips: int = 3) -> Path:
    """mfaw/clips_faces/00001/0.png..., clips_wav/00001.wav; counts are one short, and the last clip has no sound."""
    lines = []
    for number in range(1, clips + 1):
        draw_frames(root / "mfaw" / "clips_faces" / f"{number:05d}", 20, digits=1, seed=number)
        if number < clips:
            draw_sound(root / "mfaw" / "clips_wav" / f"{number:05d}.wav")
        lines.append(f"{root}/mfaw/clips_faces/{number:05d} 19 {number % 7}")
    return write_list(root / "MAFW_set_1_test_faces.txt", lines)


def draw_ferv39k(root: Path) -> Path:
    """2_ClipsforFaceCrop/Scene/Emotion/0001; a clip of frames of two sizes, one of a single frame."""
    places = {"Interview/Happy/0001": (24, 0), "Interview/Sad/0002": (1, 1), "Action/Angry/0003": (17, 3)}
    lines = []
    for place, (count, label) in places.items():
        folder = draw_frames(root / "2_ClipsforFaceCrop" / place, count, seed=count)
        if label == 3:
            wide = np.random.default_rng(3).integers(0, 256, (30, 60, 3), np.uint8)
            for number in range(8, 17):
                Image.fromarray(wide).save(folder / f"{number:05d}.png")
        lines.append(f"2_ClipsforFaceCrop/{place} {count} {label}")
    return write_list(root / "FERV39K_test.txt", lines)


def write_list(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines))  # no newline at the end, as in the published lists
    return path
