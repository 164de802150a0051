"""Every case in tests/parity, with the code of `python -m tests.parity`."""

from pathlib import Path

import pytest

from tests.parity.runner import case_files, check_file

FOLDER = Path(__file__).parent / "parity"


@pytest.mark.parametrize("path", list(case_files([FOLDER])), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_the_case_is_reproduced(path):
    failures = [str(comparison) for comparison in check_file(path) if not comparison.ok]
    assert not failures, "\n".join(failures)
