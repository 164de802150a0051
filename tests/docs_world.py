"""Run the code of the docs in a folder with drawn clips and tiny models instead of published weights.

Three things are replaced: clips of people by drawn clips, the authors' weights by tiny models with the same labels and
rules, and the face detector by one that returns the middle of the frame. All other code runs as written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import doctest
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from dfer_zoo import registry
from dfer_zoo.cli import main
from dfer_zoo.data.puppets import Puppet
from dfer_zoo.factory import create_model
from dfer_zoo.media import faces
from dfer_zoo.media.faces import detect
from dfer_zoo.weights import store
from dfer_zoo.weights.record import Weights
from dfer_zoo.weights.safetensors import write_safetensors
from tests.scripts import ROOT
from tests.tiny import TINY

FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
# "command" blocks are run by .ci/run, those "against the service" by tests/test_serve.py
REASON = re.compile(r"<!-- (?:not run: |command: |runs )([^\n]+?) -->\s*$")
RUN = ("python", "bash", "console", "pycon")
SHOWN = ("text", "json", "toml", "bibtex")  # not code, or output
BUNDLED = ("av_fusion.puppets", "mini_xception.fer2013")


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    line: int
    reason: str | None  # why it is not run

    @property
    def runs(self) -> bool:
        return self.language in RUN and self.reason is None


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page with the comments before them."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        mark = REASON.search(text[: match.start()])
        code = re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE)
        found.append(Block(match[2], code, text[: match.start()].count("\n") + 1, mark and mark[1]))
    return found


def commands(block: Block) -> list[str]:
    """Return the commands of a shell block; in a console block, the lines after a dollar sign."""
    lines = block.code.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


# -- the folder --------------------------------------------------------------------------------------------------------


def draw_folder(folder: Path) -> Path:
    """Create the files that the docs use."""
    Puppet("happiness", size=96).write(folder / "interview.mp4")
    for emotion, names in (("calm", ("ann_1", "bob_1")), ("tense", ("ann_2", "bob_2"))):
        (folder / "own" / emotion).mkdir(parents=True)
        for name in names:
            Puppet("happiness", size=32, seed=len(emotion)).write(folder / "own" / emotion / f"{name}.mp4")
    (folder / "recordings").mkdir()
    (folder / "recordings" / "a.mp4").symlink_to(folder / "interview.mp4")
    (folder / "clips.txt").write_text("interview.mp4\n")
    header = "file,start,stop,label,error\n"
    for number in (1, 2):
        (folder / f"part{number}.csv").write_text(f"{header}{number}.mp4,0,4,happiness,\n")
    (folder / "tests").symlink_to(ROOT / "tests")
    return folder


def middle(frame: np.ndarray) -> np.ndarray:
    """Return the middle of the frame as a face box, for drawn clips."""
    height, width = frame.shape[:2]
    return np.array([[width * 0.2, height * 0.2, width * 0.8, height * 0.8]])


def find_middle(given: object) -> object:
    return None if isinstance(given, str) and given == "none" else middle


# -- tiny weights ------------------------------------------------------------------------------------------------------


def named_weights(code: str) -> list[Weights]:
    """Return the records with a weights file that the code of a page names."""
    found = []
    for (arch, tag), record in registry.manifest().items():
        folds = re.sub(r"\d$", "{", tag)
        converted = f"convert {arch} {tag}" in code  # then the page itself creates the file
        if arch in code and (tag in code or folds in code) and record.name not in BUNDLED and not converted:
            found.append(record)
    return [record for record in found if record.distribution != "composed"]


def stored(record: Weights) -> Weights:
    """Store a tiny model under the name of published weights, and return its record."""
    torch.manual_seed(0)
    sizes = {name: value for name, value in TINY[record.arch].items() if name not in ("labels", "num_classes")}
    model = create_model(record.arch, **({"labels": record.labels} if record.labels else {}), **sizes)
    video = model.video_spec
    if video is not None and record.video is not None:
        video = dataclasses.replace(video, face_crop=record.video.face_crop)
    params = sum(p.numel() for p in model.parameters())
    known = {"video": video, "audio": model.audio_spec, "sha256": None, "size": None}
    tiny = dataclasses.replace(record, model_args=model.config(), params=params, backbones={}, **known)
    store.add(tiny, lambda place: write_safetensors(place, model.state_dict(), tiny.to_dict()))
    return tiny


@contextlib.contextmanager
def world(drawn: Path, folder: Path, code: str) -> Iterator[pytest.MonkeyPatch]:
    """Set up the folder and the weights for this code, and restore everything afterwards."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        for path in drawn.iterdir():
            (folder / path.name).symlink_to(path)
        patch.chdir(folder)
        patch.setenv("DFER_ZOO_WEIGHTS", str(folder / "weights"))
        patch.setattr(detect, "find_detector", find_middle)
        patch.setattr(faces, "find_detector", find_middle)
        tiny = {(record.arch, record.tag): stored(record) for record in named_weights(code)}
        known = {**registry.manifest(), **tiny}
        patch.setattr(registry, "manifest", lambda: known)
        torch.set_num_threads(1)
        yield patch
        torch.set_num_threads(threads)


# -- running -----------------------------------------------------------------------------------------------------------


def run_page(page: Path, drawn: Path, folder: Path) -> None:
    """Run the blocks of a page in order; Python blocks share a namespace."""
    todo = [block for block in blocks(page) if block.runs]
    names: dict[str, object] = {"__name__": "example"}
    with world(drawn, folder, "\n".join(block.code for block in todo)) as patch:
        for block in todo:
            where = f"{page.name}, line {block.line}"
            if block.language == "python":
                exec(compile(block.code, where, "exec"), names)
            elif block.language == "pycon":
                run_session(block.code, names, where)
            else:
                for command in commands(block):
                    run_command(command, where, patch)


def run_session(code: str, names: dict[str, object], where: str) -> None:
    """Run a Python session and compare its output."""
    test = doctest.DocTestParser().get_doctest(code, names, where, where, 0)
    said = io.StringIO()
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(test, out=said.write, clear_globs=False)
    names.update(test.globs)
    assert not runner.failures, said.getvalue()


def run_command(command: str, where: str, patch: pytest.MonkeyPatch) -> None:
    words = shlex.split(command, comments=True)
    if words[0] == "export":
        patch.setenv(*words[1].split("=", 1))
        return
    assert words[0] == "dfer-zoo", (
        f"{where}: `{command}` is no dfer-zoo command; mark the block with `<!-- not run: -->`"
    )
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        assert main(words[1:]) == 0, f"{where}: {command}\n{said.getvalue()}"
