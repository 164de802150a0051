"""``python -m tests.hostile.many_files --count 10000``: memory and descriptors of `many()` over many small files."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WARM = 64  # files before the first measurement, for imports, caches and memory pools
LOOKS = 20


@dataclass(frozen=True)
class Look:
    """Memory and descriptors after some files."""

    files: int
    bytes: int
    descriptors: int
    seconds: float


def held() -> tuple[int, int]:
    """Return (resident memory in bytes, open descriptors) of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))


def small_files(folder: Path, count: int) -> list[str]:
    """Create video, sound, image and damaged files under many names."""
    import numpy as np
    from PIL import Image

    from dfer_zoo.media.clip import Clip
    from dfer_zoo.media.write import write_mp4

    frames = np.random.default_rng(0).integers(0, 256, (6, 48, 48, 3), dtype=np.uint8)
    voice = np.zeros((1, 4000), np.float32)
    kinds = [write_mp4(Clip.from_arrays(frames, voice, fps=10, sample_rate=16000), folder / "a.mp4")]
    Image.fromarray(frames[0]).save(folder / "b.png")
    (folder / "c.mp4").write_bytes(kinds[0].read_bytes()[:900])
    kinds += [folder / "b.png", folder / "c.mp4"]
    names = []
    for number in range(count):
        kind = kinds[0] if number % 8 else kinds[1 + number // 8 % 2]
        name = folder / f"{number:06d}{kind.suffix}"
        try:
            os.link(kind, name)
        except OSError:
            shutil.copy(kind, name)
        names.append(str(name))
    return names


def looks(count: int, *, workers: int = 0) -> Iterator[Look]:
    """Predict ``count`` files, and yield measurements at intervals."""
    from dfer_zoo import Recognizer

    recognizer = Recognizer("mini_xception", "fer2013", faces="none")
    with tempfile.TemporaryDirectory(prefix="many_files") as folder:
        names = small_files(Path(folder), count + WARM)
        begin = time.monotonic()
        answers = recognizer.many(names, on_error="return", progress=False, workers=workers)
        for number, _ in enumerate(answers, start=1 - WARM):
            if number >= 0 and number % max(1, count // LOOKS) == 0:
                yield Look(number, *held(), time.monotonic() - begin)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    print("| files | resident memory | descriptors | seconds |\n|---|---|---|---|")
    for look in looks(options.count, workers=options.workers):
        print(
            f"| {look.files:,} | {look.bytes / 2**20:.1f} MiB | {look.descriptors} | {look.seconds:.0f} |", flush=True
        )
    sys.exit(0)
