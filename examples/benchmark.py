"""How much the exact shortcuts save, and what a clip costs: ratios of interleaved runs, since machines are noisy.

    python examples/benchmark.py                   # every shortcut, at published sizes
    python examples/benchmark.py mae_dfer av_fusion --rounds 9 --device cuda
    python examples/benchmark.py --json ratios.json      # write the ratios
    python examples/benchmark.py --check ratios.json     # exit 1 if a shortcut saves 15 % less than there

Every ratio is the median over rounds in which both ways run one after the other; before anything is timed, the two are
seen to give the same numbers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

import dfer_zoo
from dfer_zoo.models.shortcuts import plain

Run = Callable[[], torch.Tensor]


@dataclass
class Shortcut:
    """Two ways to the same numbers."""

    model: str
    what: str
    plain: Run
    short: Run


def kept_texts(name: str, model) -> Shortcut:
    """Class texts encoded once, or for every clip anew."""
    inputs = model.example_inputs()

    def plain() -> torch.Tensor:
        model.eval()  # drops what was kept
        return model(**inputs)

    return Shortcut(name, "texts kept between clips", plain, lambda: model(**inputs))


def shared_frames(name: str, model, windows: int = 4) -> Shortcut:
    """Sliding windows that overlap by three quarters: frames encoded once, or once per window."""
    spec = model.video_spec
    inputs = model.example_inputs(windows)
    stride = max(1, spec.num_frames // 4)
    total = spec.num_frames + (windows - 1) * stride
    frames = (
        inputs["video"].flatten(0, 1)[:total] if total <= windows * spec.num_frames else inputs["video"].flatten(0, 1)
    )
    places = [range(w * stride, w * stride + spec.num_frames) for w in range(windows)]
    rest = {key: value for key, value in inputs.items() if key != "video"}

    def plain() -> torch.Tensor:
        return model(video=torch.stack([frames[list(place)] for place in places]), **rest)

    def short() -> torch.Tensor:
        encoded = model.encode_frames(frames[None])[0]
        return model.forward_frames(torch.stack([encoded[list(place)] for place in places]), **rest)

    return Shortcut(name, f"{windows} windows share frames", plain, short)


def last_block(name: str, model) -> Shortcut:
    """The last block's local tokens, which nobody reads, left out; a hook makes the model compute them."""
    inputs = model.example_inputs()

    def plain() -> torch.Tensor:
        handle = model.encoder.blocks[-1].register_forward_hook(lambda *_: None)
        try:
            return model(**inputs)
        finally:
            handle.remove()

    return Shortcut(name, "last block for what is read", plain, lambda: model(**inputs))


def missing_frames(name: str, model) -> Shortcut:
    """Absent video encoded as one black frame, or as all of them."""
    inputs = model.example_inputs()
    black = torch.zeros_like(inputs["video"])
    return Shortcut(
        name,
        "missing video",
        lambda: model(video=black, audio=inputs["audio"]),
        lambda: model(video=None, audio=inputs["audio"]),
    )


def inference(name: str, model) -> Shortcut:
    """Everything in `models/shortcuts.py`: folded matrices and norms, activations in place, chunks."""
    inputs = model.example_inputs()

    def without() -> torch.Tensor:
        with plain():
            return model(**inputs)

    return Shortcut(name, "shortcuts of inference", without, lambda: model(**inputs))


SHORTCUTS: dict[str, list[Callable]] = {
    "av_fusion": [inference, shared_frames, missing_frames],
    "dfer_clip": [inference, kept_texts, shared_frames],
    "dk_clip": [inference, kept_texts],
    "efficient_face": [inference],
    "mae_dfer": [inference, last_block],
    "mae_dfer_pretrain": [inference],
    "mma_dfer": [inference],
    "video_mae": [inference],
}


def timed(run: Run, device: str) -> float:
    begin = time.perf_counter()
    run()
    if device != "cpu":
        torch.get_device_module(device).synchronize()
    return time.perf_counter() - begin


def ratio(shortcut: Shortcut, rounds: int, device: str) -> tuple[float, float]:
    """(plain time / short time, relative difference of the outputs)"""
    expected, found = shortcut.plain(), shortcut.short()
    difference = ((found - expected).norm() / expected.norm()).item()
    if not difference < 1e-4:
        raise SystemExit(f"{shortcut.model}, {shortcut.what}: the two ways differ by {difference:.1e}.")
    ratios = [timed(shortcut.plain, device) / timed(shortcut.short, device) for _ in range(rounds)]
    return statistics.median(ratios), difference


@torch.no_grad()
def main(arguments: list[str] | None = None) -> list[tuple[str, str, float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=sorted(SHORTCUTS), metavar="MODEL", help=", ".join(SHORTCUTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the ratios to this file")
    parser.add_argument("--check", type=Path, metavar="FILE", help="compare with the ratios of this file")
    options = parser.parse_args(arguments)
    rows = []
    for name in options.models:
        rows += measure(name, dfer_zoo.create_model(name, device=options.device), options.rounds, options.device)
    if options.json:
        options.json.write_text(json.dumps({f"{name}: {what}": times for name, what, times in rows}, indent=2) + "\n")
    if options.check:
        check(rows, json.loads(options.check.read_text()))
    return rows


def check(rows: list[tuple[str, str, float]], stored: dict[str, float], slack: float = 0.15) -> None:
    """Exit with 1 if a shortcut saves less than the stored ratio says, beyond the slack."""
    slower = [
        f"{name}: {what}: {times:.2f} times as fast, {stored[key]:.2f} before"
        for name, what, times in rows
        if (key := f"{name}: {what}") in stored and times < stored[key] * (1 - slack)
    ]
    if slower:
        raise SystemExit("\n".join(slower))


@torch.no_grad()
def measure(name: str, model, rounds: int, device: str = "cpu") -> list[tuple[str, str, float]]:
    """Print the cost of a clip and what each shortcut saves; the shortcuts' rows are returned too."""
    with FlopCounterMode(display=False) as counter:
        model(**model.example_inputs())
    million = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{name}: {million:.1f} M parameters, {counter.get_total_flops() / 1e9:.2f} GFLOP per clip")
    rows = []
    for make in SHORTCUTS[name]:
        shortcut = make(name, model)
        times, difference = ratio(shortcut, rounds, device)
        print(f"  {shortcut.what:28} {times:5.2f} times as fast (outputs differ by {difference:.0e})")
        rows.append((name, shortcut.what, times))
    return rows


if __name__ == "__main__":
    main()
