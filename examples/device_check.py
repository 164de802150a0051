"""Everything that a GPU must show, in one command of at most eight minutes, as one table.

    python examples/device_check.py --device cuda            # with --json FILE the rows are kept
    python examples/device_check.py --only mae_dfer --columns "bf16 labels" compiled

For every architecture, with random weights and at the published size: the output against the CPU (without TF32), a
training step, clips per second by batch size, peak memory, bfloat16 against float32, and for some the compiled model.
For "bf16 labels" each classifier is trained on drawn faces for some seconds, so that its answers differ from clip to
clip; then the answers of both precisions are compared on 1,000 other clips. Columns are measured in this order, each
for all architectures, and what the time does not allow is marked as left out.

The authors' numbers on a GPU: `python -m tests.parity tests/parity --device cuda`.
"""

from __future__ import annotations

import argparse
import functools
import json
import mmap
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import dfer_zoo
from dfer_zoo.data.puppets import Puppet, emotion_of, puppets
from dfer_zoo.inference.precision import compiled
from dfer_zoo.media.clip import Clip
from dfer_zoo.models.base import DferModel
from dfer_zoo.models.shortcuts import plain
from dfer_zoo.registry import MODELS
from random_networks import random_network

LIMIT = 480.0  # seconds
PARITY = 5e-3  # difference between two devices in float32, relative to how much the outputs of two clips differ
COMPILED = ("av_fusion", "efficient_face", "dfer_clip", "mae_dfer")
BATCHES = (1, 4, 16, 64)
CLIPS, TRAINED = 1000, 224  # drawn clips for comparing labels, and for training before
STEPS, BATCH = 120, 16
FRAMES = 16  # of a drawn clip
EMOTIONS = ("neutral", "happiness", "sadness", "surprise", "fear", "anger", "disgust")
Inputs = dict[str, torch.Tensor]


# -- drawn clips -------------------------------------------------------------------------------------------------------


def drawn(puppet: Puppet) -> Clip:
    """Draw some frames of a puppet, and its voice."""
    whole = puppet.clip()
    frames = whole.take(np.linspace(0, whole.num_frames - 1, FRAMES).round().astype(int).tolist())
    sound = np.asarray(whole.waveform)
    return Clip.from_arrays(frames, sound, fps=FRAMES / whole.duration, sample_rate=whole.sample_rate)


def first_view(transform: Any, clip: Clip) -> dict[str, np.ndarray]:
    """Return the inputs of a clip. Half precision passes faster between processes."""
    batch = transform.batch([clip])
    return {name: batch[name][0].half().numpy() for name in batch if name != "views"}


def in_processes(run: Callable[[int], Any], count: int) -> list[Any]:
    """Run a function for every number, in forked processes if there are cores for them."""
    cores = min(16, os.cpu_count() or 1) - 1
    if cores < 2 or "fork" not in multiprocessing.get_all_start_methods():
        return [run(number) for number in range(count)]
    _Forked.run = run  # a forked process has it, so it need not be pickled
    with multiprocessing.get_context("fork").Pool(cores, torch.set_num_threads, (1,)) as pool:
        return pool.map(_Forked.call, range(count), chunksize=8)


class _Forked:
    run: Callable[[int], Any]

    @staticmethod
    def call(number: int) -> Any:
        return _Forked.run(number)


class Drawings:
    """Drawn clips with their emotions, the same for all architectures."""

    def __init__(self) -> None:
        train = puppets(EMOTIONS, clips=TRAINED, seed=1)
        rows = train + puppets(EMOTIONS, clips=CLIPS, seed=2, split="test")
        self.emotions = [EMOTIONS[label] for _, label in rows]
        self.clips = in_processes(lambda number: drawn(rows[number][0]), len(rows))

    def inputs(self, model: DferModel) -> tuple[Inputs, torch.Tensor]:
        """Return the inputs of all clips, and their classes in the order of the model."""
        transform = dfer_zoo.create_transform(model, faces="none", no_face="frame")
        shapes = {name: value.shape for name, value in first_view(transform, self.clips[0]).items()}
        inputs = {name: shared((len(self.clips), *shape)) for name, shape in shapes.items()}

        def fill(number: int) -> None:
            for name, value in first_view(transform, self.clips[number]).items():
                inputs[name][number] = value

        in_processes(fill, len(self.clips))
        order = [emotion_named(label) for label in model.labels]
        tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}
        return tensors, torch.tensor([order.index(emotion) for emotion in self.emotions])


def shared(shape: tuple[int, ...]) -> np.ndarray:
    """Return an array of half precision that forked processes write to."""
    return np.frombuffer(mmap.mmap(-1, 2 * int(np.prod(shape))), np.float16).reshape(shape)


def emotion_named(label: str) -> str:
    """Return the emotion of a label, or the label itself if there are no drawings of it."""
    try:
        return emotion_of(label)
    except dfer_zoo.DferZooError:
        return label


def learn(model: DferModel, inputs: Inputs, classes: torch.Tensor, device: torch.device) -> None:
    """Train a few steps on drawn clips, in mixed precision."""
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-4)
    warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 20))
    chosen = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        rows = torch.randint(len(classes), (BATCH,), generator=chosen)
        with torch.autocast(device.type, torch.bfloat16):
            logits = model(**{name: values[rows].to(device).float() for name, values in inputs.items()})
        loss = nn.functional.cross_entropy(logits.float(), classes[rows].to(device))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        warmup.step()
    model.eval()


@torch.no_grad()
def answers(model: DferModel, inputs: Inputs, device: torch.device) -> torch.Tensor:
    """Return the class of every clip, in the precision of the model."""
    dtype = next(model.parameters()).dtype
    found = []
    for batch in zip(*(values.split(BATCH) for values in inputs.values()), strict=True):
        taken = {name: part.to(device).to(dtype) for name, part in zip(inputs, batch, strict=True)}
        found.append(model(**taken).argmax(-1).cpu())
    return torch.cat(found)


# -- the table ---------------------------------------------------------------------------------------------------------


class Check:
    """The table cells of one architecture. They are computed independently, so a failure affects only one cell."""

    def __init__(self, name: str, device: str, drawings: Callable[[], Drawings]) -> None:
        self.name, self.device, self.drawings = name, torch.device(device), drawings
        self.failed = False

    def cell(self, method: str, model: DferModel, *arguments: Any) -> str:
        try:
            return getattr(self, method)(model, *arguments)
        except Exception as error:
            self.failed = True
            return f"failed: {type(error).__name__}: {str(error).splitlines()[0][:60] if str(error) else ''}"

    @torch.no_grad()
    def parity(self, model: DferModel) -> str:
        inputs = model.cpu().example_inputs(2)
        expected = first_of(model(**inputs))
        found = first_of(model.to(self.device)(**self.here(inputs))).cpu()
        relative = ((found - expected).norm() / (expected[0] - expected[1]).norm()).item()
        self.failed |= not relative < PARITY
        return f"{relative:.0e}"

    def labels(self, model: DferModel) -> str:
        if not set(EMOTIONS) <= {emotion_named(label) for label in model.labels or ()}:
            return "-"
        drawings = self.drawings()
        inputs, classes = drawings.inputs(model)
        model.to(self.device)
        learn(model, {name: values[:TRAINED] for name, values in inputs.items()}, classes[:TRAINED], self.device)
        rest = {name: values[TRAINED:] for name, values in inputs.items()}
        expected = answers(model, rest, self.device)
        right = (expected == classes[TRAINED:]).float().mean().item()
        found = answers(model.to(torch.bfloat16), rest, self.device)
        same = (found == expected).float().mean().item()
        self.failed |= len(found) != CLIPS
        if right < 2 / len(EMOTIONS):  # nearly the same logits for every clip, so equal labels would say nothing
            return "not learned"
        return f"{100 * same:.1f} % ({100 * right:.0f} % right)"

    def step(self, model: DferModel) -> str:
        model.to(self.device).train()
        output = model(**model.example_inputs(2))
        loss = sum(part.float().square().mean() for part in tensors(output))
        loss.backward()
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        finite = all(bool(torch.isfinite(grad).all()) for grad in grads)
        model.zero_grad(set_to_none=True)
        model.eval()
        self.failed |= not finite or not grads
        return "finite" if finite and grads else "not finite"

    @torch.no_grad()
    def rate(self, model: DferModel, size: int) -> str:
        inputs = model.to(self.device).example_inputs(size)
        rate = size / self.timed(lambda: model(**inputs))
        return f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"

    @torch.no_grad()
    def memory(self, model: DferModel) -> str:
        if self.device.type != "cuda":
            return "-"
        inputs = model.to(self.device).example_inputs(1)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        model(**inputs)
        return f"{torch.cuda.max_memory_allocated(self.device) / 2**20:.0f}"

    @torch.no_grad()
    def shortcuts(self, model: DferModel) -> str:
        inputs = model.to(self.device).example_inputs(BATCH)
        ours = self.timed(lambda: model(**inputs))
        with plain():
            return f"{ours / self.timed(lambda: model(**inputs)):.2f}"

    @torch.no_grad()
    def half(self, model: DferModel) -> str:
        inputs = model.to(self.device).example_inputs(BATCH)
        whole = self.timed(lambda: model(**inputs))
        model.to(torch.bfloat16)
        small = {name: values.to(torch.bfloat16) for name, values in inputs.items()}
        ratio = self.timed(lambda: model(**small)) / whole
        return f"{ratio:.2f}"

    @torch.no_grad()
    def compile(self, model: DferModel) -> str:
        if self.name not in COMPILED:
            return "-"
        inputs = model.to(self.device).example_inputs(2)
        expected = first_of(model(**inputs))
        eager = self.timed(lambda: model(**inputs))
        fast = compiled(model, backend="inductor" if self.device.type == "cuda" else "eager")
        begin = time.perf_counter()
        found = first_of(fast(**inputs))
        first = time.perf_counter() - begin
        self.failed |= not torch.allclose(found, expected, atol=1e-3, rtol=1e-3)
        return f"{self.timed(lambda: fast(**inputs)) / eager:.2f} ({first:.0f} s)"

    def here(self, inputs: Inputs) -> Inputs:
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}

    def timed(self, run: Callable[[], Any], rounds: int = 3) -> float:
        """Return the shortest time of several runs, after a warm-up run."""
        times = []
        for _ in range(rounds + 1):
            begin = time.perf_counter()
            run()
            if self.device.type != "cpu":
                torch.get_device_module(self.device).synchronize()
            times.append(time.perf_counter() - begin)
        return min(times[1:])


# method of `Check` and its arguments for each column; a model is built once for each group
COLUMNS: list[dict[str, tuple[Any, ...]]] = [
    {
        "parity": ("parity",),
        "training step": ("step",),
        **{f"clips/s at {size}": ("rate", size) for size in BATCHES},
        "peak MiB": ("memory",),
        "shortcuts / plain": ("shortcuts",),
        "bf16 / float32": ("half",),
    },
    {"bf16 labels": ("labels",)},
    {"compiled / eager": ("compile",)},
]


def rows_of(checks: list[Check], chosen: list[str], deadline: float) -> Iterator[list[dict[str, str]]]:
    """Yield the rows again whenever a model has been measured."""
    titles = [title for group in COLUMNS for title in group if not chosen or title in chosen]
    rows = [{"model": check.name, **dict.fromkeys(titles, "left out")} for check in checks]
    for group in COLUMNS:
        cells = {title: cell for title, cell in group.items() if title in titles}
        for check, row in zip(checks, rows, strict=True):
            if not cells or time.monotonic() > deadline:
                continue
            model = random_network(check.name)
            for title, (method, *arguments) in cells.items():
                if time.monotonic() < deadline:
                    row[title] = check.cell(method, model, *arguments)
            left = f"{deadline - time.monotonic():.0f} s left"
            print(*(row[title] for title in ("model", *cells)), left, sep="  ", file=sys.stderr, flush=True)
            yield rows
    yield rows


def tensors(output: Any) -> list[torch.Tensor]:
    """Return all tensors of an output that require grad."""
    if isinstance(output, torch.Tensor):
        return [output] if output.is_floating_point() else []
    return [found for part in output or () for found in tensors(part)] if isinstance(output, tuple | list) else []


def first_of(output: Any) -> torch.Tensor:
    return tensors(output)[0]


def table(rows: list[dict[str, str]]) -> str:
    """Format rows as a Markdown table."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([row[name] for name in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def about(device: str) -> dict[str, str]:
    """Describe the device, for the page."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else device
    return {"device": name, "torch": torch.__version__.partition("+")[0], "date": time.strftime("%Y-%m-%d")}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="+", default=sorted(MODELS), metavar="MODEL")
    parser.add_argument("--columns", nargs="+", default=[], metavar="COLUMN")
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="SECONDS")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    titles = [title for group in COLUMNS for title in group]
    if unknown := set(options.columns) - set(titles):
        parser.error(f"there is no column {', '.join(sorted(unknown))}; there are {', '.join(titles)}")
    deadline = time.monotonic() + options.limit
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    drawings = functools.cache(Drawings)
    checks = [Check(name, options.device, drawings) for name in options.only]
    for rows in rows_of(checks, options.columns, deadline):
        if options.json:
            options.json.write_text(json.dumps({**about(options.device), "rows": rows}, indent=1) + "\n")
    print(table(rows))
    return 1 if any(check.failed for check in checks) else 0


if __name__ == "__main__":
    sys.exit(main())
