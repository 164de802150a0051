"""`dfer-zoo export`: export a model to ONNX."""

from __future__ import annotations

import argparse

from ..errors import InputError
from .common import Command, parse_values


def export_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help='"mma_dfer.dfew_fold1", "hf-hub:...", "local-dir:..."')
    parser.add_argument("--onnx", metavar="FILE", required=True, help="the file to write")
    parser.add_argument("--int8", action="store_true", help="8-bit weights in linear layers (dynamic quantization)")
    parser.add_argument("--clip", metavar="FILE", help="compare with torch on this clip; by default on a drawn face")
    parser.add_argument("--random", action="store_true", help="random weights, to try the export of an architecture")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="constructor arguments")


def export_command(options: argparse.Namespace) -> int:
    from ..factory import create_model
    from ..inference.export import export_onnx
    from ..registry import MODELS, list_pretrained

    arguments = parse_values("--set", options.set)
    if options.model in MODELS and not options.random:
        tags = [tag for _, tag in list_pretrained(f"{options.model}.*")]
        named = f"name the weights, such as {options.model}.{tags[0]}, or " if tags else ""
        raise InputError(f"'{options.model}' is an architecture without weights: {named}give --random.")
    done = export_onnx(create_model(options.model, **arguments), options.onnx, int8=options.int8, source=options.clip)
    shapes = ", ".join(f"{name} {' x '.join(map(str, ('N', *shape[1:])))}" for name, shape in done.inputs.items())
    print(f"{done.path}: {done.size / 1e6:.1f} MB, {shapes}")
    label = {None: "", True: ", same label", False: ", ANOTHER LABEL"}[done.same_label]
    print(f"  relative difference from torch {done.difference:.1e}{label}")
    print(f"  {done.onnx_ms:.0f} ms in onnxruntime, {done.torch_ms:.0f} ms in torch")
    return 0


COMMANDS = {"export": Command("Write a model as an ONNX file.", export_options, export_command)}
