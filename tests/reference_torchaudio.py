"""torchaudio as a reference, even if its compiled part does not load with this torch.

The transforms that the tests compare with are Python; only `torchaudio._extension` loads a library, on import.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from typing import Any

import pytest


def reference_torchaudio() -> Any:
    """Import torchaudio, or only its Python part; skip the test if it is not installed."""
    with contextlib.suppress(ImportError, OSError, RuntimeError):  # OSError, RuntimeError: built for another torch
        return importlib.import_module("torchaudio")
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
    finally:  # other tests see the real module
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchaudio" and n not in before]:
            del sys.modules[name]
