"""Read and write safetensors files of the zoo: tensors, and the record in one metadata entry."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..atomic import atomic_path
from ..errors import WeightsError
from .record import Weights

# only one key, since safetensors writes several in a different order in every process
METADATA_KEY = "dfer_zoo"


def write_safetensors(path: Path, state: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a header. The same values give the same bytes."""
    tensors = {name: state[name].detach().cpu().contiguous() for name in sorted(state)}
    metadata = {METADATA_KEY: json.dumps(header, sort_keys=True, separators=(",", ":"))}
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:  # raised instead of an OSError when the disk is full
            raise _as_os_error(error) from error


def _as_os_error(error: SafetensorError) -> OSError:
    """Parse the error number: messages of safetensors end in "... (os error 28)"."""
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Return (tensors, header or None). The tensors are views of the memory-mapped file."""
    with _opened(path) as stream:
        state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        return state, _header(path, stream.metadata())


def read_header(path: Path) -> dict[str, Any] | None:
    """Read only the header."""
    with _opened(path) as stream:
        return _header(path, stream.metadata())


def read_record(path: Path) -> Weights:
    """Read the record in a file of the zoo."""
    header = read_header(path)
    if header is None:
        raise WeightsError(
            f"{path} has no dfer_zoo header, so its content is unknown. To convert an authors' file: "
            f"dfer-zoo convert ARCH TAG {path}"
        )
    return Weights.from_header(header, str(path))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file. A truncated file, or one of another format, is a `WeightsError`."""
    try:
        with safe_open(str(path), framework="pt") as stream:
            yield stream
    except FileNotFoundError as error:
        raise WeightsError(f"There is no weights file {path}.") from error
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is not a readable safetensors file ({error}). If it is an authors' checkpoint: dfer-zoo convert "
            "ARCH TAG FILE. If it is truncated, delete it and download it again."
        ) from error


def _header(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any] | None:
    text = (metadata or {}).get(METADATA_KEY)
    try:
        header = None if text is None else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: the header is not JSON ({error}); the file is damaged.") from error
    if not isinstance(header, dict | None):
        raise WeightsError(f"{path}: the header is a {type(header).__name__}, not an object; the file is damaged.")
    return header
