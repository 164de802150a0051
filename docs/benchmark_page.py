"""Write docs/benchmarks.md from docs/benchmarks.json; `--check` only reports whether it is stale."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "benchmarks.md"
STORED = DOCS / "benchmarks.json"
DEVICE = DOCS / "device.json"  # rows of examples/device_check.py

INTRODUCTION = """\
# Benchmarks

This page is made from `docs/benchmarks.json` by `python docs/benchmark_page.py`, and that file by `python examples/benchmark.py`. All numbers
are ratios of two runs of the same machine that follow each other, the median over several rounds: smaller is faster. Where both ways compute the
same numbers, that is checked first.

<!-- not run: minutes at published sizes; tests/test_benchmark.py runs it in small -->
```bash
python examples/benchmark.py networks --only mae_dfer     # on your machine
python examples/benchmark.py --check                      # exit 1 if a ratio is 15 % above the stored one
```
"""

GPU = """\
## GPU

`python examples/device_check.py --device cuda` measures this table in at most eight minutes, with random weights and at published sizes.
*parity*: the difference from the CPU in float32 without TF32, relative to how much the outputs of two clips differ. *shortcuts / plain* and *bf16 / float32*: 16 clips. *bf16 labels*: the share of
1,000 drawn clips with the same label in both precisions; each classifier was trained for 120 steps on other drawn clips before, and the share of
right labels tells how well (*not learned*: less than 2 of 7 were right). *compiled / eager*: two clips, and the seconds of the first call. *left out*: the time was over.

`python -m tests.parity tests/parity --device cuda` compares with the recorded numbers of the authors' code.
"""

Column = tuple[str, Callable[[dict[str, Any]], str]]


def number(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: f"{row[name]:.2f}" if name in row else ""


def percent(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: f"{100 * row[name]:.0f} %" if name in row else ""


# section -> title, text, columns
SECTIONS: dict[str, tuple[str, str, list[Column]]] = {
    "networks": (
        "Networks",
        "One clip at the published size. *ours / plain*: with the exact shortcuts against without them. *ours / authors*: that, times the ratio of the "
        "plain path to the authors' code, which was measured once beside it. *floor*: the time of matrix products with as many FLOPs, divided by ours.",
        [
            ("parameters", lambda row: f"{row['parameters']:.1f} M"),
            ("GFLOP", lambda row: f"{row['gflop']:.1f}"),
            ("ours / plain", number("ratio")),
            ("ours / authors", number("authors")),
            ("goal", number("goal")),
            ("floor", number("floor")),
            ("outputs differ by", lambda row: f"{row['difference']:.0e}"),
        ],
    ),
    "stages": (
        "From a file to its answer",
        "A 480p H.264 file with a drawn person in front of a textured wall, and the published evaluation of the whole clip. *fast / full*: seconds of "
        "finding faces, with the fast search against that of the published pipelines (*full*). The shares are those of the whole time with the fast search; "
        "*crop* includes the resize, and frames are decoded in a thread during the search: *decode* is the time spent waiting for them. *network, plain*: the share of the network "
        "without shortcuts; they halve its time, and so lower its share.",
        [
            ("fast / full", number("ratio")),
            ("full, s", lambda row: f"{row['full']:.1f}" if "full" in row else ""),
            ("file to answer, s", lambda row: f"{row['seconds']:.1f}" if "seconds" in row else ""),
            ("decode", percent("decode")),
            ("search", percent("search")),
            ("crop", percent("crop")),
            ("network", percent("network")),
            ("network, plain", percent("plain")),
        ],
    ),
    "streams": (
        "Streams",
        "Ten seconds of live 480p video, an answer every second for the last 3.6 seconds. *kept / anew*: with face boxes and frame features kept "
        "between answers, against none. *of the length*: computing time divided by the length of the video; below 1 it keeps up.",
        [("kept / anew", number("ratio")), ("of the length", number("of_length"))],
    ),
    "cold_start": (
        "Cold start",
        "`dfer-zoo predict` on a clip of 3.6 s with weights of the package, from nothing to the answer, against `import torch` alone.",
        [("predict / import torch", number("ratio")), ("seconds", lambda row: f"{row['seconds']:.1f}")],
    ),
    "windows": (
        "Windows",
        "Windows that overlap by three quarters: frames encoded once, against once per window.",
        [("shared / apart", number("ratio")), ("outputs differ by", lambda row: f"{row['difference']:.0e}")],
    ),
    "batches": (
        "Batches",
        "Time per clip of several clips in one forward pass, against one by one. Where it is above 1 a batch costs: the default on a CPU is one.",
        [("together / one by one", number("ratio"))],
    ),
    "workers": (
        "Workers",
        "Forty files of 3.6 s, 480 x 480 pixels with sound, through `av_fusion` with the cascade: `many(files, workers=N)` against `recognizer(file)` in a loop. The whole time includes starting the workers, a few seconds each; the rate does not.",
        [("whole time / plain loop", number("ratio")), ("clips per second", number("rate"))],
    ),
    "memory": (
        "Memory in training",
        "Activations that one clip keeps for the backward pass, with the published freezing. *ours / published formula*: `x * sigmoid(1.702 x)` keeps one "
        "tensor more per block than our equal `silu(1.702 x) / 1.702`.",
        [("ours / published formula", number("ratio")), ("MiB", lambda row: f"{row['mib']:.0f}")],
    ),
    "compiled": (
        "Compiled",
        "`Recognizer(..., compile=True)` against the shortcuts alone, and the seconds of the first clip. Compiled code calls the matrix product of PyTorch (MKL), and the shortcuts that of oneDNN, which is faster on this processor.",
        [
            ("compiled / eager", number("ratio")),
            ("first clip, s", lambda row: f"{row['seconds']:.0f}"),
            ("outputs differ by", lambda row: f"{row['difference']:.0e}"),
        ],
    ),
    "bfloat16": (
        "bfloat16",
        "A model in bfloat16 against float32, and with the weights of the package the share of 1,000 drawn clips with the same label.",
        [
            ("bfloat16 / float32", number("ratio")),
            ("same label", lambda row: f"{100 * row['same_labels']:.1f} %" if "same_labels" in row else ""),
        ],
    ),
}  # fmt: skip


# sections with a plot (examples/benchmark.py --plot), and what it shows
PLOTS = {
    "networks": "Time of each network against the authors' code, and the goal",
    "streams": "Computing time of each system against the length of the video",
    "batches": "Time per clip against the number of clips in one forward pass",
}


def page(stored: dict[str, Any], device: dict[str, Any] | None) -> str:
    """Return the text of the page."""
    parts = [INTRODUCTION]
    for name, (title, text, columns) in SECTIONS.items():
        section = stored["sections"].get(name)
        parts.append(f"## {title}\n\n{text}\n")
        if section is None or not section["rows"]:
            parts.append("Not measured yet.\n")
            continue
        parts.append(f"Measured on {section['date']}: {section['machine']}, torch {section['torch']}{busy(section)}.\n")
        if name in PLOTS:
            parts.append("".join(f"![{PLOTS[name]}](pictures/{name}_{t}.png#only-{t})\n" for t in ("light", "dark")))
        rows = [[f"`{row['name']}`", *(cell(row) for _, cell in columns)] for row in section["rows"]]
        parts.append(table([["", *(heading for heading, _ in columns)], *rows]))
    parts.append(GPU)
    if device is None:
        parts.append("It was never run on a GPU.\n")
    else:
        parts.append(f"Measured on {device['date']}: {device['device']}, torch {device['torch']}.\n")
        parts.append(table(as_lines(device["rows"])))
        parts.append(same_for_all(device["rows"]))
        parts.extend(f"{note}\n" for note in device.get("notes", []))
    return "\n".join(parts)


def busy(section: dict[str, Any]) -> str:
    """Return a note if other programs were running during the measurement."""
    if section.get("load", 0) <= section["threads"] + 1:
        return ""
    return f", beside other programs (load {section['load']:g} with {section['threads']} threads of its own)"


def as_lines(rows: list[dict[str, str]]) -> list[list[str]]:
    """Return a table that fits the page: without a column that is the same for all, and with few batch sizes."""
    columns = [name for name in rows[0] if len({row[name] for row in rows}) > 1 and name != "clips/s at 4"]
    return [["", *columns[1:]], *([f"`{row['model']}`", *(row[name] for name in columns[1:])] for row in rows)]


def same_for_all(rows: list[dict[str, str]]) -> str:
    """Return a sentence with the columns that `as_lines` leaves out because all rows agree."""
    same = [f"{name}: {rows[0][name]}" for name in rows[0] if len({row[name] for row in rows}) == 1]
    return f"The same for all: {', '.join(same)}.\n" if same else ""


def table(lines: list[list[str]]) -> str:
    head, *rest = lines
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rest]) + "\n"


def rendered() -> str:
    device = json.loads(DEVICE.read_text(encoding="utf-8")) if DEVICE.exists() else None
    return page(json.loads(STORED.read_text(encoding="utf-8")), device)


def main() -> int:
    text = rendered()
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    if "--check" in sys.argv:
        print(f"stale: {PAGE.name}; run python docs/benchmark_page.py")
        return 1
    PAGE.write_text(text, encoding="utf-8")
    print(f"wrote: {PAGE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
