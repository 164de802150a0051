"""Write docs/flops.json, the FLOPs of one clip for every architecture at its published size."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import dfer_zoo  # noqa: E402
from dfer_zoo.models.shortcuts import plain  # noqa: E402
from dfer_zoo.registry import MODELS  # noqa: E402


@torch.no_grad()
def gflop(arch: str) -> float:
    """Return the GFLOP of one forward pass; a multiply-add counts as two operations.

    Shortcuts are disabled because they save operations, and fused attention because the counter does not support it.
    """
    model = dfer_zoo.create_model(arch).eval()
    inputs = model.example_inputs()
    with plain(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**inputs)
    return counter.get_total_flops() / 1e9


def main() -> None:
    torch.backends.mha.set_fastpath_enabled(False)
    found = {}
    for arch in sorted(MODELS):
        found[arch] = float(f"{gflop(arch):.4g}")
        print(f"{arch}: {found[arch]} GFLOP", flush=True)
    (ROOT / "docs" / "flops.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
