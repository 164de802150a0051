"""Everything that a GPU must show, in one command of at most eight minutes, as one table.

    python examples/device_check.py --device cuda            # with --json FILE the rows are kept

For every architecture: the output against the CPU (without TF32), bfloat16 against float32, a training step, clips per
second by batch size, and peak memory; for some, the compiled model. Weights are random, so no file is needed. What the
time does not allow is marked as left out.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import dfer_zoo
from dfer_zoo.inference.precision import compiled
from dfer_zoo.models.base import DferModel
from dfer_zoo.registry import MODELS

LIMIT = 480.0  # seconds
PARITY = 1e-4  # relative difference between two devices in float32
COMPILED = ("av_fusion", "mae_dfer")
BATCHES = (1, 4, 16)
CLIPS = 8  # random clips for comparing labels between two precisions
Cell = Callable[[DferModel], str]


def model_of(name: str) -> DferModel:
    torch.manual_seed(0)
    return dfer_zoo.create_model(name)


class Check:
    """The table cells of one architecture. They are computed independently, so a failure affects only one cell."""

    def __init__(self, name: str, device: str, deadline: float) -> None:
        self.name, self.device, self.deadline = name, torch.device(device), deadline
        self.failed = False

    def row(self) -> dict[str, str]:
        """Return the row of the table."""
        model = model_of(self.name)
        cells: dict[str, Cell] = {"parity": self.parity, "bf16 labels": self.labels, "training step": self.step}
        cells.update({f"clips/s at {size}": lambda m, n=size: self.rate(m, n) for size in BATCHES})
        cells.update({"peak MiB": self.memory, "compiled / eager": self.compile})
        return {"model": self.name, **{title: self.cell(cell, model) for title, cell in cells.items()}}

    def cell(self, run: Cell, model: DferModel) -> str:
        if time.monotonic() > self.deadline:
            return "left out"
        try:
            return run(model)
        except Exception as error:
            self.failed = True
            return f"failed: {type(error).__name__}: {str(error).splitlines()[0][:60] if str(error) else ''}"

    @torch.no_grad()
    def parity(self, model: DferModel) -> str:
        inputs = model.cpu().example_inputs(2)
        expected = first_of(model(**inputs))
        found = first_of(model.to(self.device)(**self.here(inputs))).cpu()
        relative = ((found - expected).norm() / expected.norm().clamp(min=1e-12)).item()
        self.failed |= not relative < PARITY
        return f"{relative:.0e}"

    @torch.no_grad()
    def labels(self, model: DferModel) -> str:
        if not model.num_classes:
            return "-"
        same = 0
        half = model_of(self.name).to(self.device, torch.bfloat16)
        for _ in range(CLIPS):
            inputs = self.here(model.cpu().example_inputs(1))
            expected = model.to(self.device)(**inputs).argmax(-1)
            same += int(half(**{k: v.to(torch.bfloat16) for k, v in inputs.items()}).argmax(-1) == expected)
        return f"{same}/{CLIPS}"

    def step(self, model: DferModel) -> str:
        model.to(self.device).train()
        inputs = model.example_inputs(2)
        output = model(**inputs)
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
        return f"{size / self.timed(lambda: model(**inputs)):.3g}"

    @torch.no_grad()
    def memory(self, model: DferModel) -> str:
        if self.device.type != "cuda":
            return "-"
        inputs = model.to(self.device).example_inputs(1)
        torch.cuda.reset_peak_memory_stats(self.device)
        model(**inputs)
        return f"{torch.cuda.max_memory_allocated(self.device) / 2**20:.0f}"

    @torch.no_grad()
    def compile(self, model: DferModel) -> str:
        if self.name not in COMPILED:
            return "-"
        inputs = model.to(self.device).example_inputs(2)
        eager = self.timed(lambda: model(**inputs))
        fast = compiled(model, backend="inductor" if self.device.type == "cuda" else "eager")
        fast(**inputs)
        return f"{self.timed(lambda: fast(**inputs)) / eager:.2f}"

    def here(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="+", default=sorted(MODELS), metavar="MODEL")
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="SECONDS")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    deadline = time.monotonic() + options.limit
    checks = [Check(name, options.device, deadline) for name in options.only]
    rows = []
    for check in checks:
        rows.append(check.row())
        print(" ".join(rows[-1].values()), file=sys.stderr, flush=True)
        if options.json:
            options.json.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1) + "\n")
    print(table(rows))
    return 1 if any(check.failed for check in checks) else 0


if __name__ == "__main__":
    sys.exit(main())
