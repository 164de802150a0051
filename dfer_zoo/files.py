"""safetensors files of the zoo: tensors, plus one metadata entry that says what they are."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .errors import WeightsError

# exactly one key: with several, safetensors writes them in a different order in every process
METADATA_KEY = "dfer_zoo"


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Under a temporary name beside the target, then moved: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_safetensors(path: Path, state: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """The same tensors and header give the same bytes."""
    tensors = {name: state[name].detach().cpu().contiguous() for name in sorted(state)}
    metadata = {METADATA_KEY: json.dumps(header, sort_keys=True, separators=(",", ":"))}
    write_atomically(path, save(tensors, metadata=metadata))


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """(tensors, our header or None). A file that is cut off or is something else is a `WeightsError`."""
    try:
        with safe_open(str(path), framework="pt") as stream:
            state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
            header = (stream.metadata() or {}).get(METADATA_KEY)
    except FileNotFoundError as error:
        raise WeightsError(f"There is no weights file {path}.") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path} is not a readable safetensors file ({error}). Delete it and fetch or convert it again."
        ) from error
    try:
        return state, None if header is None else json.loads(header)
    except ValueError as error:
        raise WeightsError(f"{path}: the header is not JSON ({error}); the file is damaged.") from error
