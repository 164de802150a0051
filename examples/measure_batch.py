"""Measure `dfer-zoo predict --out` on many drawn clips: rate against workers, memory, and kills.

    python examples/measure_batch.py FOLDER [--clips 2000] [--kills 5] [--workers 0 1 2]

It draws short clips into FOLDER, answers them with a very small model, so that the pipeline is measured and not a model, kills the run with SIGKILL at random
times, resumes it, and compares its table with that of an undisturbed run. It prints one JSON object per measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch

import dfer_zoo
from dfer_zoo.data.puppets import puppets
from dfer_zoo.media.write import write_mp4

FRAMES = 12  # of a clip, 48 x 48 pixels, with sound
DISTINCT = 100  # drawn clips; all others are copies with other names
LABELS = ("happy", "sad", "angry", "fearful")


def draw(folder: Path, count: int) -> Path:
    """Write ``count`` clips to a folder, unless they exist."""
    drawn, clips = folder / "drawn", folder / f"{count}_clips"
    drawn.mkdir(parents=True, exist_ok=True)
    for number, (puppet, _) in enumerate(puppets(LABELS, clips=DISTINCT, size=48)):
        if not (drawn / f"{number}.mp4").exists():
            write_mp4(puppet.clip().cut(0, FRAMES / 30), drawn / f"{number}.mp4")
    if not clips.exists():
        clips.mkdir()
        for number in range(count):
            shutil.copy(drawn / f"{number % DISTINCT}.mp4", clips / f"{number:06d}.mp4")
    return clips


def small_model(folder: Path) -> str:
    """Save a very small av_fusion with random weights, and return its name."""
    if not (folder / "model").exists():
        torch.manual_seed(0)
        model = dfer_zoo.create_model("av_fusion", img_size=32, num_frames=3, seconds=0.4, num_heads=2)
        dfer_zoo.save_pretrained(model, folder / "model", tag="small")
    return f"local-dir:{folder / 'model'}"


class Watch:
    """Sample memory and file descriptors of a process and its children every second (Linux)."""

    def __init__(self, pid: int) -> None:
        self.pid, self.samples = pid, []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while True:
            try:
                family = [self.pid, *_children(self.pid)]
                self.samples.append((sum(map(_megabytes, family)), len(os.listdir(f"/proc/{self.pid}/fd"))))
            except OSError:
                return
            time.sleep(1)

    def report(self) -> dict:
        """Return the values after a fifth of the run and at its end."""
        if not self.samples:
            return {}
        early, late = self.samples[len(self.samples) // 5], self.samples[-2 if len(self.samples) > 1 else -1]
        return {"mb_early": early[0], "mb_late": late[0], "mb_most": max(s[0] for s in self.samples),
                "descriptors_early": early[1], "descriptors_late": late[1]}  # fmt: skip


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _megabytes(pid: int) -> int:
    """Return the memory of a process; shared pages are counted once."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) // 1024
    return 0


def command(clips: Path, out: Path, workers: int) -> list[str]:
    given = ["--model", small_model(out.parent), "--faces", "none", "--workers", str(workers)]
    return [sys.executable, "-m", "dfer_zoo", "predict", str(clips), *given, "--out", str(out), "--resume"]


def one_run(clips: Path, out: Path, workers: int) -> dict:
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(command(clips, out, workers), stdout=subprocess.PIPE, text=True)
    watch = Watch(process.pid)
    said, _ = process.communicate()
    seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    count = len(list(clips.iterdir()))
    within = float(said.split(",")[-1].split()[0])  # without starting Python and loading weights
    return {"workers": workers, "clips": count, "seconds": round(seconds, 1), "clips_per_second": round(count / within, 1),
            "cpu_seconds": round(cpu, 1), "load": round(os.getloadavg()[0], 1), **watch.report()}  # fmt: skip


def plain_loop(clips: Path) -> dict:
    recognizer = dfer_zoo.Recognizer(small_model(clips.parent), faces="none")
    started, cpu = time.monotonic(), time.process_time()
    count = 0
    for path in sorted(clips.iterdir()):
        recognizer(path)
        count += 1
    return {"plain_loop": True, "clips": count, "clips_per_second": round(count / (time.monotonic() - started), 1),
            "cpu_seconds": round(time.process_time() - cpu, 1), "load": round(os.getloadavg()[0], 1)}  # fmt: skip


def killed_run(clips: Path, out: Path, workers: int, kills: int) -> dict:
    """Kill and resume a run ``kills`` times, each time after a random number of clips."""
    chance, done = random.Random(0), []
    for clip in sorted(chance.sample(range(len(list(clips.iterdir()))), kills)):
        process = subprocess.Popen(command(clips, out, workers), stdout=subprocess.DEVNULL)
        while process.poll() is None and answered(out) < clip:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        done.append(answered(out))
    last = subprocess.run(command(clips, out, workers), capture_output=True, text=True)
    return {"killed_at": done, "said": last.stdout.strip()}


def answered(out: Path) -> int:
    """Return the number of results in the journal."""
    journal = out.with_name(f"{out.name}.journal")
    return max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0


def equal(one: Path, other: Path) -> bool:
    """Return whether two tables have bitwise equal rows in the same order."""
    import pyarrow.parquet

    return pyarrow.parquet.read_table(one).equals(pyarrow.parquet.read_table(other))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--few", type=int, default=500, help="clips for the rates")
    options = parser.parse_args()
    many, few = draw(options.folder, options.clips), draw(options.folder, options.few)
    print(json.dumps(plain_loop(few)), flush=True)
    for workers in options.workers:
        print(json.dumps(one_run(few, options.folder / f"few_{workers}.parquet", workers)), flush=True)
    whole, parts = options.folder / "whole.parquet", options.folder / "parts.parquet"
    undisturbed = one_run(many, whole, 2)
    print(json.dumps(undisturbed), flush=True)
    if options.kills:
        report = killed_run(many, parts, 2, options.kills)
        print(json.dumps({**report, "equal": equal(whole, parts)}), flush=True)


if __name__ == "__main__":
    main()
