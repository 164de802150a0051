"""Check the Dockerfile without Docker: its instructions name existing files and run in a virtual environment."""

import configparser
import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig

import pytest

from dfer_zoo.data.puppets import Puppet
from tests.scripts import ROOT

KNOWN = {"FROM", "ARG", "ENV", "RUN", "WORKDIR", "COPY", "USER", "ENTRYPOINT", "CMD"}


def instructions():
    """Return (name, arguments) of every instruction; a backslash continues a line."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def given(name):
    return [arguments for found, arguments in instructions() if found == name]


def is_ignored(place):
    """Return whether .dockerignore excludes a file: the last pattern that matches it or one of its folders decides."""
    ignored = False
    parts = place.split("/")
    names = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.strip().removeprefix("!")
        if pattern and not pattern.startswith("#"):
            anywhere = pattern.removeprefix("**/")
            tested = parts if anywhere != pattern else names[:1] if "/" not in pattern else names
            if any(fnmatch.fnmatchcase(name, anywhere) for name in tested):
                ignored = not line.startswith("!")
    return ignored


def context():
    """Return the files in the build context that git tracks or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:  # an unpacked sdist
        pytest.skip("this is no git checkout")
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file() and not is_ignored(name)]


def test_every_instruction_is_known_and_every_extra_exists():
    assert {name for name, _ in instructions()} <= KNOWN
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    (extras,) = re.findall(r'^EXTRAS="(.*)"$', "\n".join(given("ARG")), re.MULTILINE)
    assert set(extras.split(",")) <= set(setup["options.extras_require"])


def test_the_entry_is_the_command_and_the_user_is_not_root():
    names = [name for name, _ in instructions()]
    assert json.loads(given("ENTRYPOINT")[-1]) == ["dfer-zoo"] and "dfer-zoo = dfer_zoo.cli:" in (
        ROOT / "setup.cfg"
    ).read_text(encoding="utf-8")
    assert given("USER") == ["1000"] and "useradd --no-create-home --uid 1000 zoo" in given("RUN")[-1]
    assert "RUN" not in names[names.index("USER") :]
    assert len({image.split()[0] for image in given("FROM")}) == 1  # virtual environments are not portable


def test_the_context_has_what_is_copied_and_nothing_private():
    files = set(context())
    for arguments in given("COPY"):
        source = arguments.split()[-2]
        assert "--from=build" in arguments or source == "." or source in files, source
    tops = {name.split("/")[0] for name in files}
    assert {"dfer_zoo", "setup.py", "setup.cfg", "pyproject.toml", "README.md", "weights_manifest.json"} <= tops
    assert not tops & {".git", "tests", "docs", ".ci", ".venv"}
    assert not {name for name in files if "__pycache__" in name}


@pytest.mark.slow
def test_the_instructions_run_and_the_entry_answers_a_clip(tmp_path):
    """Run all instructions except the base image and the user, with a temporary folder as root.

    The packages of this environment are visible, so pip does not download any.
    """
    pytest.importorskip("setuptools", minversion="70.1")
    pytest.importorskip("fastapi")
    root = tmp_path / "root"
    places = {place: f"{root}{place}" for place in ("/opt/", "/source", "/weights", "/clips")}

    def here(text):
        return re.sub(r"(?<![\w.])(/opt/|/source|/weights|/clips)", lambda found: places[found[1]], text)

    environment = {name: text for name, text in os.environ.items() if not name.startswith(("PIP_", "PYTHONPATH"))}
    environment |= {"PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    folder = root
    for place in ("opt", "source"):
        (root / place).mkdir(parents=True)
    for name, arguments in instructions():
        arguments = here(arguments)
        if name in ("ARG", "ENV"):
            for pair in shlex.split(arguments):
                key, _, value = pair.partition("=")
                environment[key] = value.replace("$PATH", environment["PATH"])
        elif name == "WORKDIR":
            folder = root / arguments.removeprefix(f"{root}/")
            folder.mkdir(parents=True, exist_ok=True)
        elif name == "COPY" and arguments == ". .":
            for file in context():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / file, folder / file)
        elif name == "COPY" and "--from" not in arguments:
            source, target = arguments.split()
            shutil.copy(ROOT / source, target)
        elif name == "RUN":
            command = arguments.partition(" && useradd")[0].replace("python -m", f"{sys.executable} -m")
            done = subprocess.run(["sh", "-ec", command], cwd=folder, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            if "-m venv" in command:
                (site,) = (root / "opt/venv/lib").glob("python*/site-packages")
                (site / "installed.pth").write_text(sysconfig.get_path("purelib"))
                for old in site.glob("setuptools*"):  # Python 3.11 puts an old one there
                    shutil.rmtree(old)
    shutil.rmtree(root / "source")  # the final image does not have it
    Puppet("happiness", size=64).write(root / "clips" / "puppet.mp4")
    entry = [str(root / "opt/venv/bin" / json.loads(given("ENTRYPOINT")[-1])[0])]
    asked = [*entry, "predict", "puppet.mp4", "--model", "av_fusion.puppets", "--faces", "none", "--out", "out.csv"]
    done = subprocess.run(asked, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "puppet.mp4" in (root / "clips/out.csv").read_text(encoding="utf-8")
    where = "import dfer_zoo; print(dfer_zoo.__file__)"
    code = [str(root / "opt/venv/bin/python"), "-c", where]
    assert subprocess.run(code, cwd=folder, env=environment, capture_output=True, text=True).stdout.startswith(
        str(root)
    )
    serve = [code[0], str(root / "opt/serve.py"), "--help"]
    done = subprocess.run(serve, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "--max-megabytes" in done.stdout
