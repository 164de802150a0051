"""The command line: exit statuses, messages, and what it does not import."""

import json
import subprocess
import sys

import pytest

from dfer_zoo import cli
from dfer_zoo.errors import MediaError
from dfer_zoo.registry import MODELS

HEAVY = ("torch", "timm", "open_clip", "torchvision", "torchaudio", "av", "cv2", "numpy")


def loaded_after(code: str) -> set[str]:
    """Which of the heavy packages a fresh interpreter has loaded after running this code."""
    script = f"{code}\nimport sys; print('|' + ' '.join(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("|")[2].split())


@pytest.mark.parametrize(
    "code",
    [
        "import dfer_zoo; dfer_zoo.list_models(); dfer_zoo.list_pretrained()",
        "from dfer_zoo.cli import main; assert main(['list']) == 0",
        "from dfer_zoo.cli import main; assert main(['info', 'mma_dfer']) == 0",
        "from dfer_zoo.cli import main; assert main(['--help']) == 0",
    ],
)
def test_looking_around_loads_nothing_heavy(code):
    assert loaded_after(code) == set()


def test_the_module_runs_as_a_command():
    done = subprocess.run([sys.executable, "-m", "dfer_zoo", "list"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and all(name in done.stdout for name in MODELS)


def test_a_name_that_is_not_there_is_one_line_and_status_2(capsys):
    assert cli.main(["info", "mma_dfr"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "mma_dfer" in err


def test_wrong_use_is_status_2(capsys):
    assert cli.main([]) == 2
    assert cli.main(["frobnicate"]) == 2
    assert "invalid choice: 'frobnicate'" in capsys.readouterr().err


def test_list_as_json_is_one_object_per_line(capsys):
    assert cli.main(["list", "*clip*", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["model"] for row in rows] == ["dfer_clip", "dk_clip"]


def test_nothing_found_is_said(capsys):
    assert cli.main(["list", "no such*"]) == 2
    assert "Nothing matches 'no such*'" in capsys.readouterr().err


def test_an_error_of_ours_never_shows_a_traceback(capsys, monkeypatch):
    def run(options):
        raise MediaError("clip.mp4: no frames.")

    monkeypatch.setitem(cli.COMMANDS, "list", cli.Command("", cli.list_options, run))
    assert cli.main(["list"]) == 2
    assert capsys.readouterr().err == "dfer-zoo list: clip.mp4: no frames.\n"


def test_every_command_has_help(capsys):
    for name in cli.COMMANDS:
        assert cli.main([name, "--help"]) == 0
        assert name in capsys.readouterr().out
