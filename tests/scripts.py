"""Import scripts of the repository that belong to no package."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent


def load_script(place: str) -> ModuleType:
    """``load_script("examples/finetune.py")``"""
    name = place.removesuffix(".py").replace("/", "_")
    spec = importlib.util.spec_from_file_location(name, ROOT / place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if (folder := str((ROOT / place).parent)) not in sys.path:
        sys.path.append(folder)  # scripts import their neighbours
    sys.modules[name] = module  # pickles and dataclasses look there
    spec.loader.exec_module(module)
    return module
