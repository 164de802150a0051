"""Where the time goes, and what the zoo saves: ratios of interleaved runs, since machines are noisy.

    python examples/benchmark.py                              # everything, at published sizes: about half an hour
    python examples/benchmark.py networks streams --rounds 9  # some sections
    python examples/benchmark.py --only mae_dfer --device cuda
    python examples/benchmark.py --check                      # exit 1 if a ratio is 15 % above that in docs/benchmarks.json
    python examples/benchmark.py --json docs/benchmarks.json  # keep the rows that were measured
    python examples/benchmark.py --plot docs/pictures         # plot the numbers of the file, light and dark

A ratio is the time of one way divided by that of another one, the median over rounds in which both run one after the
other; smaller is better. Where both ways compute the same numbers, that is checked before anything is timed.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import datetime
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import dfer_zoo
from dfer_zoo.data.puppets import Puppet, puppets
from dfer_zoo.inference import precision
from dfer_zoo.media.clip import Clip, in_order
from dfer_zoo.media.faces.search import Search
from dfer_zoo.media.write import write_mp4
from dfer_zoo.models import shortcuts
from dfer_zoo.models.base import DferModel
from dfer_zoo.models.shortcuts import plain
from random_networks import random_network

STORED = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.json"
SLACK = 0.15
Row = dict[str, Any]
Run = Callable[[], Any]

# measured time of our plain path relative to the authors' code, and the target for our fast path
AUTHORS = {
    "mma_dfer": (1.00, 0.92),
    "mae_dfer": (0.93, 0.76),
    "video_mae": (0.93, 0.88),
    "mae_dfer_pretrain": (0.85, 0.80),
    "dfer_clip": (0.68, 0.62),
    "dk_clip": (0.92, 0.78),
    "av_fusion": (0.98, 0.50),
    "efficient_face": (1.00, 0.50),
}


def plainly(model: DferModel, **inputs: Any) -> torch.Tensor:
    """Run a model without shortcuts."""
    with plain():
        return model(**inputs)


def timed(run: Run, device: str = "cpu") -> float:
    begin = time.perf_counter()
    run()
    if device != "cpu":
        torch.get_device_module(device).synchronize()
    return time.perf_counter() - begin


def interleaved(ours: Run, other: Run, rounds: int, device: str = "cpu") -> float:
    """Return the median of time(ours) / time(other) over interleaved rounds."""
    return statistics.median(timed(ours, device) / timed(other, device) for _ in range(rounds))


def difference(found: torch.Tensor, expected: torch.Tensor, what: str) -> float:
    """Return the relative difference of two outputs, which must be equal up to rounding."""
    relative = ((found - expected).norm() / expected.norm()).item()
    if not relative < 1e-4:
        raise SystemExit(f"{what}: the two ways differ by {relative:.1e}.")
    return relative


def flops(run: Run) -> float:
    """Return the GFLOP of a run. Fused attention is disabled, because the counter does not support it on a CPU."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops() / 1e9


# -- sections ----------------------------------------------------------------------------------------------------------


def chosen(options: argparse.Namespace, names: Iterable[str]) -> list[str]:
    """Return the names that `--only` asks for; all without it."""
    return [name for name in names if not options.only or name in options.only]


def networks(options: argparse.Namespace) -> list[Row]:
    """Measure one clip per network, with and without shortcuts."""
    rows = []
    for name in chosen(options, AUTHORS):
        factor, goal = AUTHORS[name]
        model = random_network(name, options.device)
        inputs = model.example_inputs()

        ours, without = partial(model, **inputs), partial(plainly, model, **inputs)
        differ = difference(ours(), without(), name)
        ratio = interleaved(ours, without, options.rounds, options.device)
        row = {"name": name, "ratio": ratio, "goal": goal, "authors": factor * ratio, "difference": differ}
        size = sum(p.numel() for p in model.parameters()) / 1e6
        rows.append({**row, "parameters": size, "gflop": flops(without), "floor": floor(without, ours, options)})
    return rows


def floor(plain_run: Run, ours: Run, options: argparse.Namespace) -> float:
    """Return the time of one matrix product with the same FLOPs, divided by ours. 1 is the optimum."""
    side = 2048
    a, b = (torch.rand(side, side, device=options.device) for _ in range(2))
    out = torch.empty_like(a)  # preallocated, since allocation would take most of the time
    products = flops(plain_run) * 1e9 / (2 * side**3)
    one = statistics.median(timed(lambda: torch.mm(a, b, out=out), options.device) for _ in range(5))
    return one * products / statistics.median(timed(ours, options.device) for _ in range(min(3, options.rounds)))


def windows(options: argparse.Namespace) -> list[Row]:
    """Measure windows with 75 % overlap: frames encoded once, or once per window."""
    rows = []
    for name, count in itertools.product(chosen(options, ("av_fusion", "dfer_clip")), (2, 4, 8)):
        model = random_network(name, options.device)
        frames_of = model.video_spec.num_frames
        stride = max(1, frames_of // 4)
        inputs = model.example_inputs(count)
        frames = inputs.pop("video").flatten(0, 1)[: frames_of + (count - 1) * stride]
        places = [list(range(w * stride, w * stride + frames_of)) for w in range(count)]

        apart, shared = (
            partial(each_window, model, frames, places, inputs),
            partial(shared_frames, model, frames, places, inputs),
        )
        differ = difference(shared(), apart(), name)
        ratio = interleaved(shared, apart, options.rounds, options.device)
        rows.append({"name": f"{name}, {count} windows", "ratio": ratio, "difference": differ})
    return rows


def each_window(model: DferModel, frames: Any, places: Any, others: Any) -> torch.Tensor:
    return model(video=torch.stack([frames[place] for place in places]), **others)


def shared_frames(model: DferModel, frames: Any, places: Any, others: Any) -> torch.Tensor:
    encoded = model.encode_frames(frames[None])[0]
    return model.forward_frames(torch.stack([encoded[place] for place in places]), **others)


def batches(options: argparse.Namespace) -> list[Row]:
    """Measure the time per clip in batches, relative to batch size 1."""
    rows = []
    for name in chosen(options, ("av_fusion", "dfer_clip", "mae_dfer")):
        model = random_network(name, options.device)
        one = model.example_inputs(1)
        for size in (2, 4, 8):
            many = model.example_inputs(size)
            ratio = interleaved(partial(model, **many), partial(model, **one), min(3, options.rounds), options.device)
            rows.append({"name": f"{name}, {size} clips", "ratio": ratio / size})
    return rows


def person(seconds: int, height: int = 480) -> Clip:
    """Draw a person in front of a textured wall: on a plain one, the cascade would be five times faster than on video."""
    drawn = Puppet("happiness", size=240).clip()
    wall = textured(height, height * 16 // 9)
    frames = []
    for face in drawn.take(range(drawn.num_frames)):
        room = wall.copy()
        room[120:360, 300:540] = face
        frames.append(room)
    rate = drawn.fps or 25.0
    looped = [frames[number % len(frames)] for number in range(int(seconds * rate))]
    return Clip.from_arrays(looped, fps=rate, source="a drawn person")


def textured(height: int, width: int) -> np.ndarray:
    """Return a gray picture with details of every size."""
    random = np.random.RandomState(0)
    picture = np.zeros((height, width))
    for size in (4, 8, 16, 32, 64):
        coarse = random.randint(0, 256, (height // size + 1, width // size + 1)).astype(np.uint8)
        picture += np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), float) / 5
    return picture.astype(np.uint8)[..., None].repeat(3, axis=2)


class Stages:
    """Seconds that a transform spends on decoding, on finding faces, and on the rest."""

    def __init__(self) -> None:
        self.decode = self.search = 0.0

    def tensors(self, transform: Any, file: Path) -> tuple[dict[str, Any], float]:
        """Return (the model's arguments for a file, seconds)."""
        look_at = Search.look_at

        def timed_search(search: Search, *arguments: Any) -> Any:
            begin, decoded = time.perf_counter(), self.decode
            try:
                return look_at(search, *arguments)
            finally:
                self.search += time.perf_counter() - begin - (self.decode - decoded)

        begin = time.perf_counter()
        with mock.patch.object(Search, "look_at", timed_search):
            clip = dfer_zoo.read_clip(file)
            self.decode += time.perf_counter() - begin
            batch = transform.batch([dataclasses.replace(clip, frames=TimedFrames(clip.frames, self))])
        return batch, time.perf_counter() - begin


class TimedFrames:
    """Frames that count the seconds of decoding."""

    def __init__(self, frames: Any, stages: Stages) -> None:
        self.frames, self.stages = frames, stages

    def __len__(self) -> int:
        return len(self.frames)

    def take(self, indices: Sequence[int]) -> list[np.ndarray]:
        wanted = sorted(set(indices))
        found = dict(zip(wanted, self.in_order(wanted)))
        return [found[index] for index in indices]

    def in_order(self, indices: Any) -> Iterator[np.ndarray]:
        walk = in_order(self.frames, indices)
        while True:
            begin = time.perf_counter()
            frame = next(walk, None)
            self.stages.decode += time.perf_counter() - begin
            if frame is None:
                return
            yield frame


def stages(options: argparse.Namespace) -> list[Row]:
    """Measure the stages from a video file to the answer, and the fast face search relative to the full one."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = {seconds: write_mp4(person(seconds), Path(folder) / f"{seconds}.mp4") for seconds in options.seconds}
        for name in chosen(options, ("av_fusion", "dfer_clip", "mae_dfer", "mma_dfer", "dk_clip")):
            model = random_network(name, options.device)
            rows += [stages_of(name, model, seconds, files[seconds], options) for seconds in options.seconds]
    return rows


def stages_of(name: str, model: DferModel, seconds: int, file: Path, options: argparse.Namespace) -> Row:
    spent = {}
    for search in ("full", "fast"):
        transform = dfer_zoo.create_transform(model, faces=options.faces, no_face="frame")
        transform = dataclasses.replace(transform, search=search)
        spent[search] = Stages()
        batch, tensors = spent[search].tensors(transform, file)
    fast, full = spent["fast"], spent["full"]
    views = batch.pop("views", None)
    whole = {key: value if value is None else value[:1].to(options.device) for key, value in batch.items()}
    count = 1 if views is None else int(views[0])
    network, without = (
        count * statistics.median(timed(partial(run, **whole), options.device) for _ in range(3))
        for run in (model, partial(plainly, model))
    )
    total = tensors + network
    return {
        "name": f"{name}, {options.faces}, {seconds} s",
        "ratio": fast.search / full.search if full.search else 1.0,
        "full": full.search,
        "seconds": total,
        "decode": fast.decode / total,
        "search": fast.search / total,
        "crop": (tensors - fast.decode - fast.search) / total,
        "network": network / total,
        "plain": without / (tensors + without),
    }


def streams(options: argparse.Namespace) -> list[Row]:
    """Measure a stream of ten seconds with a prediction per second, with and without cached boxes and features."""
    rows = []
    clip = person(10)
    frames, rate = clip.take(range(clip.num_frames)), clip.fps or 25.0
    for name in chosen(options, ("av_fusion", "mini_xception.fer2013", "dfer_clip", "mae_dfer")):
        kind = dfer_zoo.Recognizer(random_network(name, options.device), faces=options.faces, no_face="frame",
                                   window=3.6, stride=1.0)  # fmt: skip
        spent = {}
        for remember in (False, True):
            live = kind.stream(fps=rate, remember=remember)
            spent[remember] = timed(partial(push_all, live, frames), options.device)
        length = len(frames) / rate
        rows.append({"name": name, "ratio": spent[True] / spent[False], "of_length": spent[True] / length})
    return rows


def push_all(live: Any, frames: Any) -> list[Any]:
    return [live.push(frame) for frame in frames]


def cold_start(options: argparse.Namespace) -> list[Row]:
    """Measure a cold start of `dfer-zoo predict` with bundled weights, relative to `import torch`."""
    with tempfile.TemporaryDirectory() as folder:
        clip = Puppet("happiness").write(Path(folder) / "clip.mp4")
        predict = [sys.executable, "-m", "dfer_zoo", "predict", str(clip), "--model", "av_fusion.puppets"]

        def start(command: Sequence[str]) -> None:
            subprocess.run(command, check=True, capture_output=True)

        answer: Run = lambda: start([*predict, "--faces", "none"])  # noqa: E731
        ratio = interleaved(answer, lambda: start([sys.executable, "-c", "import torch"]), options.rounds)
        return [{"name": "av_fusion.puppets", "ratio": ratio, "seconds": timed(answer)}]


CLIPS = 40  # files of the section workers


def workers(options: argparse.Namespace) -> list[Row]:
    """Measure many files with worker processes, relative to a plain loop over the files."""
    recognizer = dfer_zoo.Recognizer("av_fusion.puppets", faces=options.faces)
    with tempfile.TemporaryDirectory() as folder:
        drawn = Puppet("happiness", size=480).write(Path(folder) / "drawn.mp4")
        files = [Path(shutil.copy(drawn, Path(folder) / f"{n}.mp4")) for n in range(CLIPS)]
        recognizer(files[0])
        loop = timed(lambda: [recognizer(file) for file in files])
        rows = [{"name": "a plain loop", "ratio": 1.0, "rate": CLIPS / loop}]
        for count in (0, 1, 2):
            begin = time.perf_counter()
            moments = [time.perf_counter() for _ in recognizer.many(files, workers=count, progress=False)]
            rows.append(
                {
                    "name": f"{count} workers",
                    "ratio": (moments[-1] - begin) / loop,
                    "rate": (CLIPS - 1) / (moments[-1] - moments[0]),  # without the start of the workers
                }
            )
    return rows


@torch.enable_grad()
def memory(options: argparse.Namespace) -> list[Row]:
    """Measure what a training step keeps for its backward pass, relative to CLIP's activation as it is published."""
    rows = []
    for name in chosen(options, ("dfer_clip", "dk_clip")):
        model = random_network(name, options.device).train()
        model.freeze()
        ours = kept_for_backward(model)
        with mock.patch.object(shortcuts, "quick_gelu", lambda x: x * torch.sigmoid(shortcuts.QUICK_GELU * x)):
            rows.append({"name": name, "ratio": ours / kept_for_backward(model), "mib": ours / 2**20})
    return rows


def kept_for_backward(model: DferModel) -> int:
    """Return the bytes that one clip keeps for the backward pass, without the parameters."""
    found: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        memory = tensor.untyped_storage()
        found[memory.data_ptr()] = memory.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = model(**model.example_inputs())  # kept, so that no address is used twice
    for parameter in model.parameters():
        found.pop(parameter.untyped_storage().data_ptr(), None)
    del output
    return sum(found.values())


def compiled(options: argparse.Namespace) -> list[Row]:
    """Measure `Recognizer(..., compile=True)` relative to the shortcuts, and the seconds of the first clip."""
    rows = []
    for name in chosen(options, ("av_fusion", "mae_dfer", "dk_clip", "mma_dfer")):
        model = random_network(name, options.device)
        fast = precision.compiled(copy.deepcopy(model))
        inputs = model.example_inputs()
        first = timed(partial(fast, **inputs), options.device)
        differ = difference(fast(**inputs), model(**inputs), name)
        ratio = interleaved(partial(fast, **inputs), partial(model, **inputs), options.rounds, options.device)
        rows.append({"name": name, "ratio": ratio, "seconds": first, "difference": differ})
        torch.compiler.reset()
    return rows


DRAWN = 1000  # clips of the section bfloat16


def bfloat16(options: argparse.Namespace) -> list[Row]:
    """Measure a model in bfloat16 relative to float32, and the share of equal labels with the weights of the package."""
    rows = []
    for name in chosen(options, ("av_fusion.puppets", "mini_xception.fer2013", "dfer_clip", "mae_dfer", "mma_dfer")):
        model = random_network(name, options.device)
        half = copy.deepcopy(model).to(torch.bfloat16)
        inputs = model.example_inputs()
        small = {key: value.to(torch.bfloat16) for key, value in inputs.items()}
        ratio = interleaved(partial(half, **small), partial(model, **inputs), options.rounds, options.device)
        same = {"same_labels": same_labels(model, half)} if "." in name else {}
        rows.append({"name": name, "ratio": ratio, **same})
    return rows


def same_labels(model: DferModel, half: DferModel) -> float:
    """Return the share of drawn clips of new people with the same label in both precisions."""
    recognizers = [dfer_zoo.Recognizer(kind, faces="none") for kind in (model, half)]
    clips = [puppet.clip() for puppet, _ in puppets(clips=DRAWN, seed=3, split="test")]
    whole, small = ([answer.label for answer in recognizer.many(clips, progress=False)] for recognizer in recognizers)
    return sum(a == b for a, b in zip(whole, small, strict=True)) / len(clips)


SECTIONS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "networks": networks,
    "windows": windows,
    "batches": batches,
    "stages": stages,
    "streams": streams,
    "cold_start": cold_start,
    "workers": workers,
    "memory": memory,
    "compiled": compiled,
    "bfloat16": bfloat16,
}


# -- the program -------------------------------------------------------------------------------------------------------


def machine(device: str = "cpu") -> str:
    """Describe the machine without product names.

    >>> machine().split(",")[0].endswith(("core", "cores"))
    True
    """
    if device != "cpu":
        return device
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    units = "with" if precision.has_bfloat16(torch.device("cpu")) else "without"
    plural = "s" if cores > 1 else ""
    return f"{cores} core{plural}, {platform.machine().replace('_', '-')} {units} bf16 units"


def check(found: dict[str, list[Row]], stored: dict[str, list[Row]], slack: float = SLACK) -> list[str]:
    """Return a sentence for each ratio that exceeds the stored one by more than ``slack``."""
    before = {(section, row["name"]): row["ratio"] for section, rows in stored.items() for row in rows}
    return [
        f"{section}, {row['name']}: {row['ratio']:.2f}, and {before[section, row['name']]:.2f} is stored"
        for section, rows in found.items()
        for row in rows
        if (section, row["name"]) in before and row["ratio"] > before[section, row["name"]] * (1 + slack)
    ]


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"sections": {}}


def keep(path: Path, found: dict[str, list[Row]], device: str) -> None:
    """Write the measured rows to the file; replace older rows with the same names."""
    stored = read(path)
    about = {
        "machine": machine(device),
        "torch": torch.__version__.partition("+")[0],
        "threads": torch.get_num_threads(),
    }
    about["date"] = datetime.date.today().isoformat()
    if hasattr(os, "getloadavg"):
        about["load"] = round(os.getloadavg()[1], 1)  # over five minutes, including this program
    for section, rows in found.items():
        kept = stored["sections"].get(section, {"rows": []})["rows"]
        names = {row["name"] for row in rows}
        rounded = [{k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in row.items()} for row in rows]
        rows = [row for row in kept if row["name"] not in names] + rounded
        stored["sections"][section] = {**about, "rows": rows}
    path.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def plot(stored: dict[str, Any], folder: Path) -> list[Path]:
    """Plot the measured sections that have a plot, light and dark, in a colorblind-safe palette."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    from dfer_zoo.inference.plots import THEMES, style_axes, write_figure

    paths = []
    for section, draw in PLOTS.items():
        rows = stored["sections"].get(section, {}).get("rows", [])
        for theme, (background, text, _) in THEMES.items() if rows else ():
            height = 4 if section == "batches" else 0.45 * len(rows) + 1.3
            figure = Figure(figsize=(8, height), facecolor=background, layout=ConstrainedLayoutEngine(w_pad=0.15))
            axes = figure.subplots()
            style_axes(axes, theme)
            draw(axes, rows, text)
            if axes.get_legend_handles_labels()[0]:
                figure.legend(loc="outside upper left", ncols=4, frameon=False, labelcolor=text)
            paths.append(write_figure(folder / f"{section}_{theme}.png", figure))
    return paths


def plot_networks(axes: Any, rows: list[Row], text: str) -> None:
    from dfer_zoo.inference.plots import COLORS

    names = [row["name"] for row in rows]
    plot_bars(axes, names, [row["authors"] for row in rows], text, label="dfer_zoo")
    axes.plot([row["goal"] for row in rows], names, "D", color=COLORS[0], label="goal", linestyle="none")
    axes.set_xlabel("time / time of the authors' code", color=text)


def plot_streams(axes: Any, rows: list[Row], text: str) -> None:
    rows = sorted(rows, key=lambda row: row["of_length"])
    plot_bars(axes, [row["name"] for row in rows], [row["of_length"] for row in rows], text)
    for place, row in enumerate(rows):
        axes.text(row["of_length"] + 0.01, place, f"{row['of_length']:.2f}", va="center", color=text)
    axes.set_xlabel("computing time / length of the video; left of the line it keeps up", color=text)


def plot_bars(axes: Any, names: list[str], lengths: list[float], text: str, label: str | None = None) -> None:
    """Draw one bar per name, from top to bottom, and a line at 1."""
    from dfer_zoo.inference.plots import COLORS

    axes.barh(names, lengths, height=0.6, color=COLORS[1], label=label)
    axes.axvline(1, color=text, linewidth=1)
    axes.grid(visible=False, axis="y")
    axes.invert_yaxis()


def plot_batches(axes: Any, rows: list[Row], text: str) -> None:
    from dfer_zoo.inference.plots import COLORS

    lines: dict[str, dict[int, float]] = {}
    for row in rows:
        model, _, size = row["name"].rpartition(", ")
        lines.setdefault(model, {1: 1.0})[int(size.split()[0])] = row["ratio"]
    for (model, line), color, marker in zip(lines.items(), (COLORS[1], COLORS[0], COLORS[5], COLORS[3]), "osD^"):
        axes.plot(line.keys(), line.values(), color=color, marker=marker, linewidth=2, label=model)
    sizes = sorted({size for line in lines.values() for size in line})
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_ylim(0, 1.1 * max(ratio for line in lines.values() for ratio in line.values()))
    axes.axhline(1, color=text, linewidth=1)
    axes.set_xlabel("clips in one forward pass", color=text)
    axes.set_ylabel("time per clip / alone", color=text)


PLOTS = {"networks": plot_networks, "streams": plot_streams, "batches": plot_batches}


@torch.no_grad()
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--only", nargs="+", metavar="MODEL", help="only these models")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--faces", default="cascade", help="the detector of stages and streams")
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 60], help="lengths of the files of stages")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the measured rows in this file")
    parser.add_argument("--check", type=Path, nargs="?", const=STORED, metavar="FILE", help="compare with this file")
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="plot the stored sections; measure nothing")
    options = parser.parse_args(arguments)
    if unknown := set(options.sections) - SECTIONS.keys():
        parser.error(f"there is no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    if options.plot:
        print(*plot(read(options.json or STORED), options.plot), sep="\n")
        return 0
    found: dict[str, list[Row]] = {}
    for section in options.sections or SECTIONS:
        found[section] = SECTIONS[section](options)
        for row in found[section]:
            values = "  ".join(f"{key} {value:.3g}" for key, value in row.items() if key != "name")
            print(f"{section}: {row['name']:32} {values}", flush=True)
        if options.json:
            keep(options.json, {section: found[section]}, options.device)
    if options.check is None:
        return 0
    stored = {name: section["rows"] for name, section in read(options.check)["sections"].items()}
    slower = check(found, stored)
    print(*slower, sep="\n", file=sys.stderr)
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
