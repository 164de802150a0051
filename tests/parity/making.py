"""Weights, inputs and random draws from what a case says about them."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfer_zoo.convert import Conversion

from . import seeded


def seeded_state(
    table: Mapping[str, Mapping], rule: Mapping[str, Any] | int, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """A checkpoint under the authors' names; integers stay integers.

    Args:
        table: {name: {"shape": ..., "dtype": ...}}.
        rule: The seed, or a mapping with the seed and changes: "aliases" {part of a name: part of the name whose tensor
            it shares}, "running_var_times", "multiply" and "add" [(pattern of names, number)].
        dtype: Of floating point entries. They are drawn in float32 and converted.
    """
    rule = {"seed": rule} if isinstance(rule, int) else rule
    entries = {name: {**entry, "dtype": _drawn_as(entry.get("dtype", "float32"))} for name, entry in table.items()}
    drawn = seeded.state_dict(entries, rule["seed"])
    for name in drawn:
        if name.endswith("running_var"):
            drawn[name] = drawn[name] * np.float32(rule.get("running_var_times", 1.0))
    for change in ("multiply", "add"):
        for pattern, number in rule.get(change, ()):
            for name in filter(re.compile(pattern).search, drawn):
                factor = np.float32(number)
                drawn[name] = drawn[name] * factor if change == "multiply" else drawn[name] + factor
    state = {name: torch.from_numpy(np.array(value)) for name, value in drawn.items()}
    state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    for alias, source in rule.get("aliases", {}).items():
        state |= {name: state[name.replace(alias, source)] for name in state if alias in name}
    return state


def _drawn_as(dtype: str) -> str:
    return "float32" if dtype.startswith("float") else dtype


def seeded_input(rule: Mapping[str, Any]) -> Tensor:
    """A seeded tensor, or the sum of several ("terms"), scaled, shifted, repeated and cropped as the case says."""
    total: Any = None
    for term in rule.get("terms", [rule]):
        values = getattr(seeded, term["call"].removeprefix("seeded."))(term["name"], term["shape"], term["seed"])
        values = values * np.float32(term.get("scale", term.get("multiply_by", 1.0)))
        for axis, times in enumerate(_repeats(term, values.ndim)):
            values = values.repeat(times, axis)
        total = values if total is None else total + values
    total = total + np.float32(rule.get("offset", rule.get("shift", 0.0)))
    if "drop" in rule.get("then", ""):  # the axis of a single channel
        total = total.squeeze(1)
    if "crop" in rule:
        height, width = rule["crop"]
        total = total[..., :height, :width]
    tensor = torch.from_numpy(total)
    return tensor.relu() if rule.get("relu") else tensor


def _repeats(term: Mapping[str, Any], ndim: int) -> list[int]:
    """How often each axis is repeated: a list, one number for height and width, or words ("repeat every cell 2x3")."""
    times = term.get("repeat", ())
    if words := re.search(r"repeat every cell (\d+)x(\d+)", term.get("then", "")):
        times = [1] * (ndim - 2) + [int(words[1]), int(words[2])]
    return [1] * (ndim - 2) + [times] * 2 if isinstance(times, int) else list(times)


def our_names(state: Mapping[str, Tensor], conversion: Conversion) -> dict[str, str]:
    """{authors' name: ours}. A conversion renames tensors and does not copy them, so each tensor identifies its names."""
    names = {id(tensor): name for name, tensor in conversion.state.items()}
    return {name: names[id(tensor)] for name, tensor in state.items() if name not in conversion.dropped}


class RecordingRandom:
    """Python's random generator with a list of its draws: [method, *arguments, result]."""

    def __init__(self, seed: int) -> None:
        self.generator, self.draws = random.Random(seed), []

    def __getattr__(self, name: str) -> Callable:
        def draw(*arguments: Any) -> Any:
            value = getattr(self.generator, name)(*arguments)
            self.draws.append([name, *arguments, value])
            return value

        return draw
