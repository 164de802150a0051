"""The measures of agreement. A check yields `Comparison`s; nothing here knows an architecture."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import seeded


@dataclass(frozen=True)
class Comparison:
    case: str
    output: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return bool(self.error <= self.tolerance)  # a NaN is not

    def of(self, case: str) -> Comparison:
        return dataclasses.replace(self, case=case)

    def __str__(self) -> str:
        return f"{self.case}  {self.output}  {self.error:.2e}  {self.tolerance:.1e}  {'ok' if self.ok else 'FAIL'}"


def as_array(values: Any) -> np.ndarray:
    """Anything numeric as float64; null (JSON's stand-in for NaN) becomes NaN."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)


def relative_l2(ours: Any, reference: Any) -> float:
    """Norm of the difference over the norm of the reference; infinite if shapes, or the places of NaNs, differ."""
    a, b = as_array(ours), as_array(reference)
    if a.shape != b.shape or not np.array_equal(np.isnan(a), np.isnan(b)):
        return math.inf
    a, b = np.nan_to_num(a), np.nan_to_num(b)
    norm, difference = float(np.linalg.norm(b)), float(np.linalg.norm(a - b))
    return difference / norm if norm else (0.0 if difference == 0 else math.inf)


def largest_difference(ours: Any, reference: Any) -> float:
    a, b = as_array(ours), as_array(reference)
    if a.shape != b.shape or not np.array_equal(np.isnan(a), np.isnan(b)):
        return math.inf
    return float(np.abs(np.nan_to_num(a) - np.nan_to_num(b)).max(initial=0.0))


def close(output: str, ours: Any, reference: Any, tolerance: float) -> Comparison:
    """Whole tensors, in relative L2."""
    return Comparison("", output, relative_l2(ours, reference), tolerance)


def within(output: str, ours: Any, reference: Any, tolerance: float) -> Comparison:
    """Every value within an absolute distance."""
    return Comparison("", output, largest_difference(ours, reference), tolerance)


def same(output: str, ours: Any, reference: Any) -> Comparison:
    """Equal, of whatever kind: lists of names, integers, texts. 0 or infinite."""
    return Comparison("", output, 0.0 if ours == reference else math.inf, 0.0)


def recorded(output: str, ours: Any, reference: Any, tolerance: float, *, spread: str = "rms") -> Iterator[Comparison]:
    """An entry of a case in any of its forms: plain numbers, all values ("full", or "values" with "shape"), a
    `seeded.summary`, or both."""
    if not isinstance(reference, Mapping):
        yield close(output, ours, reference, tolerance)
        return
    full = reference.get("full", reference if "values" in reference else None)
    if isinstance(full, Mapping):
        full = np.array(full["values"], dtype=np.float64).reshape(full["shape"])
    if full is not None:
        yield close(output, ours, full, tolerance)
    if "summary" in reference or full is None:
        yield from summary(output, ours, reference.get("summary", reference), tolerance, spread=spread)


def summary(
    output: str, ours: Any, reference: Mapping, tolerance: float, *, spread: str = "rms"
) -> Iterator[Comparison]:
    """A `seeded.summary`: samples in relative L2, l2 relative, mean and std relative to the root mean square
    (``spread="rms"``) or to the std (``spread="std"``), as the architecture's notes say. Where there is no std, as in a
    tensor of one value, it is the root mean square all the same."""
    mine = seeded.summary(as_array(ours))
    if list(mine["shape"]) != list(reference["shape"]) or mine["stride"] != reference["stride"]:
        yield Comparison("", f"{output}: shape {mine['shape']}, expected {reference['shape']}", math.inf, 0.0)
        return
    size = max(1, int(np.prod(reference["shape"])))
    rms = reference["l2"] / math.sqrt(size)
    scale = rms if spread == "rms" else reference["std"] or rms
    yield Comparison("", f"{output}.samples", relative_l2(mine["samples"], reference["samples"]), tolerance)
    yield Comparison("", f"{output}.l2", _ratio(mine["l2"] - reference["l2"], reference["l2"]), tolerance)
    yield Comparison("", f"{output}.std", _ratio(mine["std"] - reference["std"], scale), tolerance)
    yield Comparison("", f"{output}.mean", _ratio(mine["mean"] - reference["mean"], scale), tolerance)


def _ratio(difference: float, scale: float) -> float:
    return abs(difference) / scale if scale else (0.0 if difference == 0 else math.inf)
