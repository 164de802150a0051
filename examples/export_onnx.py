"""A model as an ONNX file, checked against torch on random inputs.

    python examples/export_onnx.py av_fusion --pretrained demo --out av_fusion.onnx
    python examples/export_onnx.py mae_dfer --set depth=2 --out small.onnx       # random weights

Needs `pip install onnx onnxscript onnxruntime`. The labels, in index order, go into the file's metadata.
"""

from __future__ import annotations

import argparse
import ast
from pathlib import Path

import onnx
import onnxruntime
import torch

import dfer_zoo


def main(arguments: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--pretrained")
    parser.add_argument("--out", type=Path, default=Path("model.onnx"))
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="constructor arguments")
    options = parser.parse_args(arguments)

    settings = {name: literal(value) for name, _, value in (item.partition("=") for item in options.set)}
    model = dfer_zoo.create_model(options.model, pretrained=options.pretrained, **settings)
    inputs = model.example_inputs(batch=2)

    # clips are independent of each other, so the batch axis may have any length
    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.export.export(model, args=(), kwargs=inputs, dynamic_shapes={name: {0: batch} for name in inputs})
    torch.onnx.export(
        program, (), f=options.out, input_names=list(inputs), output_names=["logits"], external_data=False
    )
    describe(options.out, model.labels)

    session = onnxruntime.InferenceSession(options.out, providers=["CPUExecutionProvider"])
    worst = 0.0
    for size in (1, 3):
        inputs = model.example_inputs(batch=size)
        (logits,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        with torch.no_grad():
            reference = model(**inputs)
        worst = max(worst, ((torch.from_numpy(logits) - reference).norm() / reference.norm()).item())
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB, relative difference from torch {worst:.1e}")
    return worst


def describe(path: Path, labels: tuple[str, ...]) -> None:
    """Index 3 of the logits means what the file says it means."""
    graph = onnx.load(path)
    graph.metadata_props.add(key="labels", value="\n".join(labels))
    onnx.save(graph, path)


def literal(text: str):
    """A Python value where it is one, else the text."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


if __name__ == "__main__":
    main()
