"""``python -m tests.hostile.memory --minutes 2 10 60``: the peak memory of an answer over time, by length of the clip."""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import traceback
from pathlib import Path

KINDS = ("video", "sound")


def drawn(kind: str, path: Path, minutes: float) -> Path:
    """Write a small video with sound or a WAV file of this length, piece by piece."""
    import wave

    import av
    import numpy as np

    noise = np.random.default_rng(0)
    if kind == "sound":
        path = path.with_suffix(".wav")
        with wave.open(str(path), "wb") as stream:
            stream.setparams((1, 2, 16000, 0, "NONE", ""))
            second = noise.integers(-3000, 3000, 16000, dtype=np.int16).tobytes()
            for _ in range(round(60 * minutes)):
                stream.writeframes(second)
        return path
    path = path.with_suffix(".mp4")
    fps, rate = 10, 16000
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "threads": "1"})
        picture.width = picture.height = 64
        picture.pix_fmt = "yuv420p"
        voice = container.add_stream("aac", rate=rate, layout="mono")
        frames = noise.integers(0, 256, (fps, 64, 64, 3), dtype=np.uint8)
        for _ in range(round(60 * minutes)):
            for frame in frames:
                container.mux(picture.encode(av.VideoFrame.from_ndarray(frame)))
            sound = av.AudioFrame.from_ndarray(np.zeros((1, rate), np.float32), format="fltp", layout="mono")
            sound.sample_rate = rate
            container.mux(voice.encode(sound))
        container.mux(picture.encode())
        container.mux(voice.encode())
    return path


def answer(path: Path) -> None:
    """Predict over time, like `dfer-zoo predict --window 4 --stride 4`."""
    from dfer_zoo import Recognizer

    prediction = Recognizer("av_fusion", "puppets", faces="none", window=4.0, stride=4.0)(path)
    assert prediction.windows


def peak(kind: str, minutes: float) -> int:
    """Return the peak resident memory, in bytes, of a separate process that predicts a clip of this length."""
    with tempfile.TemporaryDirectory(prefix="memory") as folder:
        path = drawn(kind, Path(folder) / "clip", minutes)
        import dfer_zoo  # noqa: F401  # the same imports for all lengths

        reading, writing = os.pipe()
        process = os.fork()
        if not process:
            try:
                answer(path)
                used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
                os.write(writing, str(used).encode())
            except BaseException:
                traceback.print_exc()
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as told:
            text = told.read()
        os.waitpid(process, 0)
    return int(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 10, 60])
    options = parser.parse_args()
    print("| clip | minutes | peak of resident memory |\n|---|---|---|")
    for kind in KINDS:
        for minutes in options.minutes:
            # the child inherits the memory of this process, so run each length in a separate process
            import subprocess

            code = f"from tests.hostile.memory import peak; print(peak({kind!r}, {minutes}))"
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            print(f"| {kind} | {minutes:g} | {int(done.stdout) / 2**20:.0f} MiB |", flush=True)
