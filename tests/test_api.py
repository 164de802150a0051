"""The public API: every name is typed, documented with an example, and keeps its signature."""

import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dfer_zoo

ROOT = Path(dfer_zoo.__file__).parent.parent
SNAPSHOT = Path(__file__).parent / "api.txt"
NAMES = sorted(set(dfer_zoo.__all__) - {"__version__"})


def signatures() -> str:
    """One line per public name; classes list their constructor and public methods."""
    lines = []
    for name in NAMES:
        thing = getattr(dfer_zoo, name)
        if inspect.isclass(thing) and issubclass(thing, Exception):
            lines.append(f"{name}({thing.__mro__[1].__name__})")
            continue
        lines.append(f"{name}{inspect.signature(thing)}")
        if inspect.isclass(thing):
            for member, value in sorted(vars(thing).items()):
                if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, classmethod)):
                    lines.append(f"    .{member}{inspect.signature(getattr(thing, member))}")
    return "\n".join(lines) + "\n"


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="annotations print differently in other versions")
def test_signatures_match_the_snapshot():
    """After a deliberate change run `python -m tests.test_api`, and mention it in CHANGELOG.md."""
    assert signatures() == SNAPSHOT.read_text(encoding="utf-8")


# expressions that a user writes with the public names
USES = (
    'dfer_zoo.create_model("av_fusion").labels',
    'dfer_zoo.create_model("av_fusion").video_spec',
    'dfer_zoo.load_weights(dfer_zoo.create_model("av_fusion"), "model.safetensors").weights',
    'dfer_zoo.create_transform("av_fusion.puppets").batch(["clip.mp4"])["video"]',
    'dfer_zoo.read_clip("clip.mp4").take([0])[0]',
    'dfer_zoo.read_clip("clip.mp4").duration',
    "dfer_zoo.Clip.from_arrays(fps=25).num_frames",
    'dfer_zoo.Recognizer()("clip.mp4").label',
    'dfer_zoo.Recognizer()("clip.mp4").scores',
    'dfer_zoo.Recognizer()("clip.mp4").windows[0].probabilities',
    'next(dfer_zoo.Recognizer().many(["clip.mp4"]))',
    'dfer_zoo.Recognizer().embed(["clip.mp4"])',
    "dfer_zoo.list_models()[0]",
    "dfer_zoo.list_pretrained()[0]",
    'dfer_zoo.get_weights("av_fusion.puppets").video',
    'dfer_zoo.get_weights("av_fusion.puppets").metrics[0].value',
    'dfer_zoo.get_weights("av_fusion.puppets").origin[0].link',
    'dfer_zoo.save_pretrained(dfer_zoo.create_model("av_fusion"), "folder")',
    'dfer_zoo.push_to_hub("folder", "me/model").files',
)


def test_mypy_knows_the_type_of_every_public_name(tmp_path):
    script = tmp_path / "uses.py"
    shown = [*(f"dfer_zoo.{name}" for name in NAMES), *USES]
    script.write_text("import dfer_zoo\n" + "".join(f"reveal_type({expression})\n" for expression in shown))
    command = [sys.executable, "-m", "mypy", "--config-file=", "--follow-imports=silent", "--ignore-missing-imports"]
    done = subprocess.run(
        [*command, f"--cache-dir={ROOT / '.mypy_cache' / 'api'}", str(script)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    revealed = [line for line in done.stdout.splitlines() if "Revealed type is" in line]
    assert len(revealed) == len(shown) and "error:" not in done.stdout, done.stdout + done.stderr
    assert not [line for line in revealed if '"Any"' in line]


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_documented(name):
    """A one-line summary; functions and classes with parameters also have Args, functions Returns, and an example."""
    thing = getattr(dfer_zoo, name)
    text = inspect.getdoc(thing) or ""
    assert text and text.splitlines()[0].endswith((".", ":"))
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return
    assert ">>>" in text, f"{name} has no example"
    parameters = [p for p in inspect.signature(thing).parameters if p not in ("args", "kwargs")]
    assert not parameters or "Args:" in text or "Attributes:" in text, f"{name} does not list its arguments"
    if inspect.isfunction(thing):
        assert "Returns:" in text, f"{name} does not say what it returns"


def test_submodules_are_imported_on_access():
    code = "import dfer_zoo; print(dfer_zoo.transforms.create_transform.__name__, dfer_zoo.weights.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["create_transform", "dfer_zoo.weights"], done.stderr


def test_records_and_clips_have_short_reprs_hashes_and_equality():
    record = dfer_zoo.get_weights("mae_dfer", "dfew_fold1")
    assert repr(record).startswith("Weights(mae_dfer.dfew_fold1: ") and len({record, record}) == 1
    clip = dfer_zoo.read_clip(np.zeros((3, 16, 16, 3), np.uint8), fps=25)
    assert repr(clip) == "Clip('arrays': 3 frames at 25 fps, no sound)" and clip == clip and len({clip}) == 1


if __name__ == "__main__":
    SNAPSHOT.write_text(signatures(), encoding="utf-8")
