"""Read clips in a worker process. Decoders are C code: if a damaged file kills one, the file is lost and nothing else.

`Worker` runs functions in one child process and starts a new child if the old one dies. `ClipReader` uses it to open
files: the frames and the sound of its clips are decoded in the child and sent back when they are taken.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DferZooError, MediaError
from .clip import Clip, in_order

_PROTOCOL = pickle.HIGHEST_PROTOCOL


class WorkerDied(MediaError):
    """The child process ended while it was working; the message says how."""


class Worker:
    """A child process that runs functions. Use it from one thread at a time.

    Args:
        memory: The most bytes of address space of the child; None for no limit of its own (Linux and macOS).

    >>> with Worker() as worker:
    ...     worker.run(max, 3, 7)
    7
    """

    def __init__(self, memory: int | None = None) -> None:
        self.memory = memory
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function in the child and return what it returns. The function is pickled by its name."""
        (result,) = self.iterate(_once, function, arguments)
        return result

    def iterate(self, function: Callable[..., Iterable[Any]], *arguments: Any) -> Iterator[Any]:
        """Yield what a generator function yields in the child, one item per message.

        Raises:
            WorkerDied: The child died. The next call starts another one.
            DferZooError: What the function raised.
        """
        process = self._started()
        finished = False
        try:
            _send(process.stdin, (function, arguments))
            while True:
                kind, value = _receive(process.stdout)
                if kind != "item":
                    finished = True
                    break
                yield value
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            finished = True
            raise WorkerDied(self._end()) from error
        finally:
            if not finished:  # the caller wants no more items: the child is in the middle of its work
                self.close()
        if kind == "error":
            raise value

    def close(self) -> None:
        """End the child process."""
        if self._process is not None:
            self._process.kill()
            self._end()

    def _started(self) -> subprocess.Popen:
        if self._process is None or self._process.poll() is not None:
            self.close()
            command = [sys.executable, "-c", f"from {__name__} import _serve; _serve({self.memory})"]
            paths = os.pathsep.join(dict.fromkeys([str(Path(__file__).parents[2]), *filter(None, sys.path)]))
            environment = {**os.environ, "PYTHONPATH": paths}
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment)
        return self._process

    def _end(self) -> str:
        """Wait for the child, and say how it ended."""
        process, self._process = self._process, None
        assert process is not None
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]
        try:
            status = process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        if status >= 0:
            return f"the worker process ended with status {status}"
        with contextlib.suppress(ValueError):
            return f"the worker process died ({signal.Signals(-status).name})"
        return f"the worker process died (signal {-status})"


def _once(function: Callable[..., Any], arguments: Sequence[Any]) -> Iterator[Any]:
    yield function(*arguments)


def _send(stream: Any, message: Any) -> None:
    pickle.dump(message, stream, _PROTOCOL)
    stream.flush()


def _receive(stream: Any) -> Any:
    return pickle.load(stream)


def _serve(memory: int | None) -> None:
    """The child: run what comes in until the pipe is closed."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not end up between the messages
    if memory is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        while True:
            function, arguments = _receive(requests)
            try:
                for item in function(*arguments):
                    _send(answers, ("item", item))
                _send(answers, ("end", None))
            except DferZooError as error:
                _send(answers, ("error", error))
            except MemoryError:
                _send(answers, ("error", MediaError("the worker process ran out of memory")))
            except BrokenPipeError:
                return
            except Exception as error:
                _send(answers, ("error", MediaError(f"{type(error).__name__}: {error}")))


# -- clips -------------------------------------------------------------------------------------------------------------


class ClipReader:
    """`read_clip` in a worker process that may die. Arrays and clips are passed through.

    >>> with ClipReader() as reader:
    ...     reader.read(np.zeros((20, 64, 64, 3), np.uint8), fps=25).num_frames
    20
    """

    def __init__(self, memory: int | None = None) -> None:
        self.worker = Worker(memory)

    def __enter__(self) -> ClipReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.worker.close()

    def read(self, source: Any, **reading: Any) -> Clip:
        """Read a clip as `read_clip` does, with these options of it: audio, sample_rate, fps, order, recover, stream.

        Raises:
            MediaError: The source cannot be read, or reading it killed the worker; the message names the source.
        """
        from .files import read_clip

        if not isinstance(source, str | os.PathLike):
            return read_clip(source, **reading)
        with _naming(source):
            clip = self.worker.run(_read, source, reading)
        if clip.frames is not None:
            clip = replace(clip, frames=WorkerFrames(self.worker, clip.frames, len(clip.frames), clip.source))
        if clip.waveform is not None and not isinstance(clip.waveform, np.ndarray):
            clip = replace(clip, waveform=WorkerSound(self.worker, clip.waveform, clip.source))
        return clip


@contextlib.contextmanager
def _naming(source: Any) -> Iterator[None]:
    try:
        yield
    except WorkerDied as error:
        raise MediaError(f"{source}: this file cannot be decoded ({error}).") from error


@dataclass(frozen=True)
class WorkerFrames:
    """Frames that a worker process decodes."""

    worker: Worker
    frames: Any
    count: int
    source: str

    def __len__(self) -> int:
        return self.count

    def take(self, indices: Sequence[int]) -> list[np.ndarray]:
        distinct = sorted(set(indices))
        found = dict(zip(distinct, self.in_order(distinct)))
        return [found[index] for index in indices]

    def in_order(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        indices = list(indices)
        walk = next(_walk_numbers)
        with _naming(self.source):
            for first in range(0, len(indices), _FRAMES_AT_A_TIME):
                # a few frames per request: the caller may ask for sound, or leave, in between
                yield from self.worker.run(_walk_on, walk, self.frames if first == 0 else None, indices)


_FRAMES_AT_A_TIME = 8
_walk_numbers = itertools.count()


@dataclass(frozen=True)
class WorkerSound:
    """A waveform that a worker process decodes."""

    worker: Worker
    sound: Any
    source: str

    @property
    def shape(self) -> tuple[int, ...]:
        with _naming(self.source):
            return self.worker.run(_shape, self.sound)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        with _naming(self.source):
            waveform = self.worker.run(np.asarray, self.sound)
        return waveform if dtype is None else waveform.astype(dtype)

    def cut(self, start: int, stop: int) -> np.ndarray:
        with _naming(self.source):
            return self.worker.run(_cut, self.sound, start, stop)


def _read(source: Any, reading: dict[str, Any]) -> Clip:
    from .files import read_clip

    return read_clip(source, **reading)


_walks: collections.OrderedDict[int, Iterator[np.ndarray]] = collections.OrderedDict()  # in the child: open files


def _walk_on(walk: int, frames: Any, indices: list[int]) -> list[np.ndarray]:
    """The next few frames of a walk through a clip, which starts if frames are given."""
    if frames is not None:
        _walks[walk] = in_order(frames, indices)
        if len(_walks) > 4:
            _walks.popitem(last=False)
    if walk not in _walks:
        raise MediaError("too many clips are read at once from one worker process, or it died in between")
    part = list(itertools.islice(_walks[walk], _FRAMES_AT_A_TIME))
    if len(part) < _FRAMES_AT_A_TIME:
        del _walks[walk]
    return part


def _shape(sound: Any) -> tuple[int, ...]:
    return tuple(sound.shape)


_cursors: dict[Any, Any] = {}  # in the child: the one sound that is being read, so that it is decoded once


def _cut(sound: Any, start: int, stop: int) -> np.ndarray:
    from .sound import SoundCursor

    if sound not in _cursors:
        _cursors.clear()
        _cursors[sound] = SoundCursor(sound)
    return _cursors[sound].cut(start, stop)
