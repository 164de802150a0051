"""torchaudio to compare with, also beside a torch that its compiled part does not load into.

The transforms that the zoo compares with are Python; only `torchaudio._extension` loads a library, when it is imported.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

import pytest

from dfer_zoo.transforms.audio import torchaudio_or_none


def reference_torchaudio() -> Any:
    """torchaudio, or its Python part; a skip where it is not installed."""
    if torchaudio_or_none() is not None:
        return torchaudio_or_none()
    before = {name for name in sys.modules if name.partition(".")[0] == "torchaudio"}
    extension = types.ModuleType("torchaudio._extension")
    extension.__dict__.update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False, _IS_ALIGN_AVAILABLE=False, fail_if_no_align=lambda f: f
    )
    sys.modules["torchaudio._extension"] = extension
    try:
        return importlib.import_module("torchaudio")
    except ImportError:
        pytest.skip("torchaudio is not installed")
    finally:  # for everybody else it stays what it is beside this torch
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchaudio" and n not in before]:
            del sys.modules[name]
