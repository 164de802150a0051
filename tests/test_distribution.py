"""The sdist contains the tests and the files that they read; the wheel contains the recipes."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
IGNORED = shutil.ignore_patterns(
    ".git", ".venv*", ".wheels", "__pycache__", "*.egg-info", ".*_cache", "build", "dist", "site", "runs"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(the names in the sdist, the names in the wheel), built without a network"""
    pytest.importorskip("setuptools", minversion="70.1")  # has its own bdist_wheel
    folder = tmp_path_factory.mktemp("built")
    shutil.copytree(ROOT, folder / "source", ignore=IGNORED)
    code = (
        "import sys; from setuptools import build_meta as b; out = sys.argv[1]; b.build_sdist(out); b.build_wheel(out)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=folder / "source", capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        sdist = {name.partition("/")[2] for name in archive.getnames()}
    return sdist, set(zipfile.ZipFile(next(folder.glob("*.whl"))).namelist())


def files(*patterns):
    found = {path.relative_to(ROOT).as_posix() for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}
    return {name for name in found if "__pycache__" not in name}


def test_the_sdist_has_its_tests_and_what_they_read(built):
    wanted = files("tests/**/*", "docs/**/*", "examples/*", "dfer_zoo/**/*.py", "dfer_zoo/recipes/*", ".ci/*", "*.md")
    wanted |= files(
        "setup.*", "pyproject.toml", "mkdocs.yml", "Makefile", "Dockerfile", "weights_manifest.json", "LICENSE*"
    )
    assert not sorted(wanted - built[0])


def test_the_wheel_has_the_recipes_and_all_modules(built):
    wanted = files("dfer_zoo/**/*.py", "dfer_zoo/recipes/*.toml", "dfer_zoo/models/prompts/*.json", "dfer_zoo/py.typed")
    assert not sorted(wanted - built[1])
    assert not [name for name in built[1] if name.startswith(("tests/", "docs/", "examples/"))]
