"""Export every architecture at its published size, and write the table of docs/export.md.

    python docs/measure_export.py                # all of them: half an hour and 8 GB on two cores
    python docs/measure_export.py mini_xception  # one; other rows are kept

Each model is exported in a separate process, so that memory is released. Models without bundled weights have random
weights, which affects neither sizes nor times.
"""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "export.md"
sys.path.insert(0, str(ROOT))

BUNDLED = {"mini_xception": "fer2013", "av_fusion": "puppets"}
HEAD = ["model", "weights", "torch, MB", "ONNX, MB", "int8, MB", "difference", "int8 difference", "torch, ms",
        "ONNX, ms", "int8, ms"]  # fmt: skip


def measure(arch: str) -> list[str]:
    """Return one row of the table."""
    import torch

    import dfer_zoo
    from dfer_zoo.inference.export import export_onnx

    torch.manual_seed(0)
    model = dfer_zoo.create_model(arch, pretrained=BUNDLED.get(arch))
    if arch not in BUNDLED:  # a zero-initialized head would hide all differences
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape))
    linear = any(isinstance(module, torch.nn.Linear) for module in model.modules())
    with tempfile.TemporaryDirectory() as folder:
        plain = export_onnx(model, Path(folder) / "model.onnx")
        small = export_onnx(model, Path(folder) / "int8.onnx", int8=True) if linear else None
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    sizes = [f"{size / 1e6:.1f}" for size in (weights, plain.size)]
    return [
        f"`{arch}`", BUNDLED.get(arch, "random"), *sizes, f"{small.size / 1e6:.1f}" if small else "-",
        f"{plain.difference:.0e}", f"{small.difference:.0e}" if small else "-",
        f"{plain.torch_ms:.0f}", f"{plain.onnx_ms:.0f}", f"{small.onnx_ms:.0f}" if small else "-",
    ]  # fmt: skip


def main(names: list[str]) -> int:
    if names[:1] == ["--one"]:
        print("ROW", json.dumps(measure(names[1])))
        return 0
    from dfer_zoo.registry import MODELS

    rows = read_rows()
    for arch in names or sorted(MODELS):
        done = subprocess.run([sys.executable, __file__, "--one", arch], capture_output=True, text=True, check=False)
        found = re.search(r"^ROW (.*)$", done.stdout, re.MULTILINE)
        if not found:
            print(f"{arch}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
            return 1
        rows[f"`{arch}`"] = json.loads(found[1])
        print(" ".join(rows[f"`{arch}`"]), flush=True)
        write(rows)
    return 0


def read_rows() -> dict[str, list[str]]:
    lines = [[c.strip() for c in line.strip("|\n ").split("|")] for line in PAGE.read_text().splitlines()]
    return {cells[0]: cells for cells in lines if len(cells) == len(HEAD) and cells[0].startswith("`")}


def write(rows: dict[str, list[str]]) -> None:
    import onnxruntime
    import torch

    lines = [HEAD, ["---"] * len(HEAD), *(rows[name] for name in sorted(rows))]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    today = datetime.date.today().isoformat()
    note = (
        f"Measured on {today} with torch {torch.__version__} and onnxruntime {onnxruntime.__version__}, "
        f"{torch.get_num_threads()} thread(s) of a server with other work on it, float32, one clip with all of its views. "
        "Times are medians of five rounds in which torch and onnxruntime took turns.\n"
    )
    text = PAGE.read_text(encoding="utf-8")
    text = re.sub(
        r"(<!-- export -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}\n{note}\n{table}\n{m[2]}", text, flags=re.S
    )
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
