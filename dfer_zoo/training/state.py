"""The state of a training: everything that the next update depends on, in one safetensors file without pickles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import WeightsError, first_line
from ..weights.safetensors import read_safetensors, write_safetensors


def save_state(path: Path, model: nn.Module, optimizer: Any, scaler: Any, progress: dict) -> None:
    """Write the state atomically.

    Args:
        path: The file.
        model: The model.
        optimizer: The optimizer.
        scaler: The gradient scaler of fp16, or None.
        progress: What else to save; it must be JSON.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    scalars = {}
    for number, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            place = f"optimizer.{number}.{name}"
            if isinstance(value, Tensor):
                tensors[place] = value
            else:
                scalars[place] = value
    header = {"progress": progress, "scalars": scalars, "scaler": scaler.state_dict() if scaler else {}}
    write_safetensors(path, tensors, header)


def load_state(path: Path, model: nn.Module, optimizer: Any, scaler: Any) -> dict:
    """Load the state into model, optimizer and scaler, and return the progress.

    Raises:
        WeightsError: The file holds no state, or the state of another model.
    """
    tensors, header = read_safetensors(path)
    if header is None or "progress" not in header:
        raise WeightsError(f"{path} is not the state of a training; look for state.safetensors in its folder.")
    weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    own = model.state_dict()
    if own.keys() != weights.keys() or any(own[name].shape != weights[name].shape for name in own):
        raise WeightsError(
            f"{path} is the state of another model: the recipe was changed since, or the folder is wrong."
        )
    try:
        progress = _checked(header["progress"])
        _load(tensors, header, weights, model, optimizer, scaler)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path} is damaged, or of another version of dfer_zoo ({type(error).__name__}: {first_line(error)}). Delete it to start "
            "the training again."
        ) from error
    return progress


def _checked(progress: dict) -> dict:
    """What the loop counts on."""
    whole = all(isinstance(progress[name], int) and 0 <= progress[name] < 10**9 for name in ("epoch", "update"))
    numbers = all(isinstance(progress[name], int | float) for name in {"loss", "clips", "best"} & progress.keys())
    if not (whole and numbers and isinstance(progress["history"], list) and isinstance(progress["failed"], dict)):
        raise ValueError("the progress is not that of a training")
    return progress


def _load(
    tensors: Mapping[str, Tensor],
    header: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    model: nn.Module,
    optimizer: Any,
    scaler: Any,
) -> None:
    model.load_state_dict(weights)
    state: dict[int, dict[str, Any]] = {}
    for place, value in (*tensors.items(), *header["scalars"].items()):
        if place.startswith("optimizer."):
            _, number, name = place.split(".")
            state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    if scaler and header["scaler"]:
        scaler.load_state_dict(header["scaler"])
