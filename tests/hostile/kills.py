"""``python -m tests.hostile.kills --moments 25 --seed 0``: kill -9 at many moments of everything that writes files.

Every task runs once undisturbed. Then, for every moment, it starts in an empty folder in a process of its own, is killed
at that moment with SIGKILL, and runs again to its end. Its files must then be those of the undisturbed run, and nothing
temporary may be left. A moment counts only if the signal ended a process that was at work; the system tells that.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

TRIES = 40  # maximum attempts per kill that counts


@dataclass(frozen=True)
class Task:
    """A task to kill. It works in a folder and continues there when it runs again."""

    work: Callable[[Path], None]
    results: Callable[[Path], dict[str, str]]  # digests of the files that must be equal at the end
    left: Callable[[Path], list[str]]  # files that must not exist at the end
    around: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext  # once, in the parent
    inputs: Callable[[Path], object] | None = None  # creates the inputs next to the folder


@dataclass
class Found:
    """The results of one task."""

    name: str
    kills: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)


# -- processes ---------------------------------------------------------------------------------------------------------


def started(work: Callable[[Path], None], folder: Path) -> int:
    """Fork a process that runs the task, with output to a file next to the folder, and return its pid."""
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        os.setsid()  # so that its children can be found
        log = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        work(folder)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def killed(work: Callable[[Path], None], folder: Path, seconds: float) -> bool:
    """Send SIGKILL after ``seconds``. Return whether the process was still running."""
    process = started(work, folder)
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    _wait_for_children(process)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def finished(work: Callable[[Path], None], folder: Path) -> str:
    """Run to the end. Return the error, or an empty string."""
    process = started(work, folder)
    _, status = os.waitpid(process, 0)
    problem = "" if status == 0 else f"ended with {status}: {folder.with_suffix('.log').read_text()[-2000:]}"
    return problem or _wait_for_children(process)


def _wait_for_children(session: int, seconds: float = 30) -> str:
    """Wait until the workers of a killed process have exited."""
    deadline = time.monotonic() + seconds
    while alive := _in_session(session):
        if time.monotonic() > deadline:
            for process in alive:
                os.kill(process, signal.SIGKILL)
            return f"{len(alive)} processes were left behind"
        time.sleep(0.05)
    return ""


def _in_session(session: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(stat.parent.name))
    return found


# -- one task ----------------------------------------------------------------------------------------------------------


def attack(name: str, moments: int, seed: int) -> Found:
    """Kill one task at several moments."""
    task, found, draw = TASKS[name](), Found(name), random.Random(f"{name}{seed}")
    with tempfile.TemporaryDirectory(prefix="kills") as place, task.around():
        whole = Path(place) / "whole"
        whole.mkdir()
        if task.inputs is not None and (problem := finished(task.inputs, whole)):
            found.failures.append(f"inputs: {problem}")
            return found
        begin = time.monotonic()
        if problem := finished(task.work, whole):
            found.failures.append(f"undisturbed: {problem}")
            return found
        found.seconds = time.monotonic() - begin
        expected = task.results(whole)
        assert expected, name
        for number in range(moments):
            problem = _one_moment(task, Path(place) / str(number), number, moments, found, draw, expected)
            if problem:
                found.failures.append(f"moment {number}: {problem}")
    return found


def _one_moment(
    task: Task, folder: Path, number: int, moments: int, found: Found, draw: random.Random, expected: dict[str, str]
) -> str:
    """Kill in the n-th part of the run; retry at another moment if the process had already ended."""
    for _ in range(TRIES):
        folder.mkdir()
        moment = found.seconds * (number + draw.random()) / moments
        if killed(task.work, folder, moment):
            found.kills += 1
            break
        shutil.rmtree(folder)
        found.seconds *= 0.97  # this run was faster
    else:
        return "it ended before every kill"
    if problem := finished(task.work, folder):
        return f"after a kill at {moment:.3f} s: {problem}"
    if (results := task.results(folder)) != expected:
        different = [name for name in sorted({*results, *expected}) if results.get(name) != expected.get(name)]
        return f"after a kill at {moment:.3f} s: {', '.join(different)} differ from the undisturbed run"
    if left := task.left(folder):
        return f"after a kill at {moment:.3f} s: {', '.join(left)} left over"
    shutil.rmtree(folder)
    return ""


def digests(*patterns: str, but: tuple[str, ...] = ()) -> Callable[[Path], dict[str, str]]:
    """Return a function that computes the digests of all matching files below a folder."""

    def found(folder: Path) -> dict[str, str]:
        files = {path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()}
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(files)
            if path.name not in but and not path.name.startswith(".")
        }

    return found


def leftovers(*patterns: str) -> Callable[[Path], list[str]]:
    """Return a function that lists leftover temporary files and other matches."""
    from dfer_zoo.atomic import SUFFIX

    return lambda folder: sorted(
        str(path.relative_to(folder)) for pattern in (f"*{SUFFIX}", *patterns) for path in folder.rglob(pattern)
    )


# -- the tasks ---------------------------------------------------------------------------------------------------------


def _command(*arguments: object, statuses: tuple[int, ...] = (0,)) -> None:
    from dfer_zoo.cli import main

    status = main([str(argument) for argument in arguments])
    assert status in statuses, f"status {status}"


def training() -> Task:
    import accelerate  # noqa: F401
    import matplotlib.figure  # noqa: F401

    import dfer_zoo.training.loop  # noqa: F401

    changes = ("train.epochs=2", "train.batch_size=4", "train.save_every=1", "data.train=puppets:clips=12,size=32")
    changes = (*changes, "data.valid=puppets:clips=4,size=32,split=test", "model.args.img_size=32")
    sets = [f"--set={change}" for change in changes]
    return Task(
        lambda folder: _command("train", "puppets_demo", "--out", folder / "run", "--resume", *sets),
        digests("*"),
        leftovers(),
    )


def pretraining() -> Task:
    import accelerate  # noqa: F401

    import dfer_zoo.training.pretrain  # noqa: F401
    from tests.tiny import TINY

    sizes = [f"--set={name}={value!r}" for name, value in TINY["mae_dfer_pretrain"].items()]
    options = ("--epochs=2", "--warmup-epochs=1", "--batch-size=4", "--save-every=1", "--resume")
    options = (*options, "--set=decoder_positions=matched")
    return Task(
        lambda folder: _command("pretrain", "puppets:clips=12", "--out", folder / "run", *options, *sizes),
        digests("*"),
        leftovers(),
    )


def _corpus(folder: Path) -> Path:
    return folder.parent / "corpus"


def _make_corpus(folder: Path) -> None:
    """Draw clips, one of them damaged, next to the folder of the run."""
    from dfer_zoo.data.puppets import Puppet

    corpus = _corpus(folder)
    corpus.mkdir()
    for number in range(4):
        Puppet(("happiness", "anger")[number % 2], seed=number, size=64).write(corpus / f"{number}.mp4")
    content = (corpus / "1.mp4").read_bytes()
    (corpus / "1.mp4").write_bytes(content[: len(content) // 2])


def batch(workers: int = 0) -> Task:
    import dfer_zoo.inference.batch  # noqa: F401

    options = ("--model", "av_fusion.puppets", "--faces", "none", "--window", "1", "--batch-size", "1", "--resume")
    return Task(
        lambda folder: _command(
            *("predict", _corpus(folder), *options, "--workers", workers, "--out", folder / "table.csv"),
            statuses=(1,),
        ),
        digests("*"),
        leftovers("*.journal"),
        inputs=_make_corpus,
    )


def batch_with_workers() -> Task:
    return batch(workers=2)


def embedding() -> Task:
    import dfer_zoo.inference.batch  # noqa: F401

    options = ("--model", "av_fusion.puppets", "--faces", "none", "--batch-size", "1", "--resume")
    return Task(
        lambda folder: _command("embed", _corpus(folder), *options, "--out", folder / "table.npz", statuses=(1,)),
        digests("*"),
        leftovers("*.journal"),
        inputs=_make_corpus,
    )


def preparation() -> Task:
    import dfer_zoo.data.prepare  # noqa: F401

    return Task(
        lambda folder: _command(
            *("prepare", "frames", _corpus(folder), "--out", folder / "frames", "--workers", 0), statuses=(0, 1)
        ),
        digests("*.jpg", "*.csv"),
        leftovers(),
        inputs=_make_corpus,
    )


WIDTH = 60_000  # of the converted and fetched model: a file of 12 MB


def _large_state() -> dict:
    import torch

    from tests import small

    return {
        **small.authors_state(),
        "encoder.weight": torch.arange(WIDTH * 48.0).reshape(WIDTH, 48),
        "encoder.bias": torch.zeros(WIDTH),
        "fc.weight": torch.ones(3, WIDTH),
    }


def _large_record(tag: str, **changes: object):
    from tests import small

    params = WIDTH * 48 + WIDTH + 3 * WIDTH + 3
    return dataclasses.replace(small.record(tag, params=params, model_args={"width": WIDTH}), **changes)


@contextlib.contextmanager
def _small_zoo(folder: Path, record: object) -> Iterator[None]:
    import pytest

    from tests import small

    with pytest.MonkeyPatch.context() as patch:
        small.open_zoo(patch, folder, record)
        patch.delenv("DFER_ZOO_DOWNLOAD", raising=False)
        patch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        yield


def conversion() -> Task:
    import torch

    from dfer_zoo.checkpoints import convert_checkpoint

    def work(folder: Path) -> None:
        with _small_zoo(folder, _large_record("converted")):
            convert_checkpoint("small", "converted", folder.parent / "authors.pth")

    def inputs(folder: Path) -> None:
        torch.save({"state_dict": _large_state()}, folder.parent / "authors.pth")

    return Task(work, digests("*.safetensors", "*.sha256"), leftovers(), inputs=inputs)


@contextlib.contextmanager
def _served(serve: Callable[[Callable[[str], None]], None]) -> Iterator[None]:
    """Run a server in a separate process, so that this process has no threads when it forks."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        with contextlib.suppress(BaseException):
            os.close(reading)
            serve(lambda told: (os.write(writing, told.encode()), os.close(writing)))
            signal.pause()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        SERVER.update(line.split("=", 1) for line in told.read().splitlines())
    try:
        yield
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


SERVER: dict[str, str] = {}


def fetching() -> Task:
    """Fetch the authors' file over HTTPS and convert it."""
    import io

    import torch

    import dfer_zoo
    from dfer_zoo.weights.record import Origin

    stream = io.BytesIO()
    torch.save({"state_dict": _large_state()}, stream)
    content = stream.getvalue()

    def serve(tell: Callable[[str], None]) -> None:
        from tests.weights import servers

        with tempfile.TemporaryDirectory() as folder, servers.https_host(Path(folder)) as (host, authority):
            host.files["/fold1.pth"] = content
            tell(f"url=https://localhost:{host.server_port}/fold1.pth\nauthority={authority}")
            signal.pause()

    def work(folder: Path) -> None:
        os.environ |= {"SSL_CERT_FILE": SERVER["authority"], "NO_PROXY": "localhost"}
        origin = Origin("https", SERVER["url"], size=len(content), sha256=hashlib.sha256(content).hexdigest())
        record = _large_record("fold1", distribution="origin", origin=(origin,))
        with _small_zoo(folder, record):
            dfer_zoo.create_model("small.fold1")

    return Task(
        work, digests("*.safetensors", "*.sha256"), leftovers("*.part", "*.etag", "*.pth"), lambda: _served(serve)
    )


def hub() -> Task:
    """Fetch a file from the Hub with the real client."""
    import huggingface_hub  # noqa: F401

    import dfer_zoo

    with tempfile.TemporaryDirectory() as folder, _small_zoo(Path(folder), _large_record("x")):
        content = dfer_zoo.save_pretrained(dfer_zoo.create_model("small", width=WIDTH), folder).read_bytes()

    def serve(tell: Callable[[str], None]) -> None:
        from tests import hub_server

        with hub_server.serve(content) as running:
            tell(f"url={running.url}")
            signal.pause()

    def work(folder: Path) -> None:
        from tests.hub_server import REVISION

        os.environ |= {"HF_ENDPOINT": SERVER["url"], "NO_PROXY": "127.0.0.1"}
        record = _large_record("hub", distribution="hub", repo_id="small/weights", revision=REVISION)
        digest = hashlib.sha256(content).hexdigest()
        record = dataclasses.replace(record, filename="model.safetensors", sha256=digest, size=len(content))
        with _small_zoo(folder, record):
            dfer_zoo.create_model("small.hub", cache_dir=folder / "cache")

    return Task(work, digests("model.safetensors"), leftovers("*.incomplete"), lambda: _served(serve))


TASKS: dict[str, Callable[[], Task]] = {
    "training": training,
    "pretraining": pretraining,
    "conversion": conversion,
    "fetching": fetching,
    "hub": hub,
    "batch": batch,
    "batch with workers": batch_with_workers,
    "embedding": embedding,
    "preparation": preparation,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("tasks", nargs="*", choices=[*TASKS, []], default=list(TASKS))
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="kills") as caches:
        os.environ["HF_HOME"] = caches
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        bad = 0
        print("| task | undisturbed | effective kills | equal files |\n|---|---|---|---|")
        for name in options.tasks:
            found = attack(name, options.moments, options.seed)
            equal = found.kills - len(found.failures)
            print(f"| {name} | {found.seconds:.2f} s | {found.kills} | {equal} |", flush=True)
            for problem in found.failures:
                print(f"{name}: {problem}", flush=True)
            bad += len(found.failures) + (found.kills < options.moments)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
