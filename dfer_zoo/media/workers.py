"""Worker processes that may die: a file that crashes a decoder costs that file, and nothing else.

>>> with Workers(str.upper, 1) as workers:
...     list(workers.map(["a", "b"]))
['A', 'B']
"""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from ..errors import DferZooError, InputError, MediaError

_START = multiprocessing.get_context("spawn")  # a forked child would share locks and threads of torch and ffmpeg
MOST_WORKERS = 256


class Workers:
    """A few processes that apply one function to many items, in order.

    An exception of the family comes back as a value. When a process dies (a crash in a decoder, or the system ran out
    of memory), its item becomes a `MediaError` that names it, and a new process takes over.

    Args:
        function: A picklable function of one item.
        count: The number of processes.
        timeout: Seconds after which a process is killed and its item becomes an error; None waits for ever.
    """

    def __init__(self, function: Callable[[Any], Any], count: int, *, timeout: float | None = None) -> None:
        if not 1 <= count <= MOST_WORKERS:
            raise InputError(f"There cannot be {count} workers; expected 1 to {MOST_WORKERS}.")
        try:
            self._function = pickle.dumps(function)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise InputError(f"Workers need a function that can be pickled ({error}).") from error
        self.timeout = timeout
        self._free = [_Process(self._function) for _ in range(count)]
        self._busy: list[_Process] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes, also those that are at work."""
        for process in (*self._free, *self._busy):
            process.end()
        self._free, self._busy = [], []

    def map(self, items: Iterable[Any], *, ahead: int = 2) -> Iterator[Any]:
        """Results in the order of the items; a `DferZooError` is returned in place of a result, not raised.

        Args:
            items: They are drawn one by one, never more than `ahead` per process before their results are used.
            ahead: How many results per process may wait.

        Yields:
            One result, or one error, per item.
        """
        pending: collections.deque[_Task] = collections.deque()
        waiting: collections.deque[_Task] = collections.deque()
        most = ahead * (len(self._free) + len(self._busy))
        source = iter(items)
        exhausted = False
        while True:
            while not exhausted and len(pending) < most:
                try:
                    task = _Task(next(source))
                except StopIteration:
                    exhausted = True
                    break
                pending.append(task)
                waiting.append(task)
            while waiting and self._free:
                self._start(waiting.popleft())
            if not pending:
                return
            while not pending[0].done:
                self._collect()
                while waiting and self._free:
                    self._start(waiting.popleft())
            yield pending.popleft().result

    def _start(self, task: _Task) -> None:
        process = self._free.pop()
        if not process.give(task):
            self._replace(process)
            return
        self._busy.append(process)

    def _collect(self) -> None:
        """Wait for the next result, death or timeout."""
        limits = [p.started + self.timeout - time.monotonic() for p in self._busy] if self.timeout else []
        ready = wait([p.pipe for p in self._busy], timeout=max(0.0, min(limits)) if limits else None)
        for process in list(self._busy):
            late = self.timeout is not None and time.monotonic() - process.started > self.timeout
            if process.pipe in ready:
                self._busy.remove(process)
                if process.take():
                    self._free.append(process)
                else:
                    self._replace(process)
            elif late:
                self._busy.remove(process)
                process.fail(f"took longer than {self.timeout:g} s and was stopped")
                self._replace(process)

    def _replace(self, process: _Process) -> None:
        process.end()
        self._free.append(_Process(self._function))


@dataclass
class _Task:
    item: Any
    done: bool = False
    result: Any = None


@dataclass
class _Process:
    """One worker and its pipe."""

    function: bytes
    task: _Task | None = None
    started: float = 0.0
    pipe: Connection = field(init=False)

    def __post_init__(self) -> None:
        self.pipe, theirs = _START.Pipe()
        self._process = _START.Process(target=_work, args=(self.function, theirs), daemon=True)
        with _importable_main():
            self._process.start()
        theirs.close()

    def give(self, task: _Task) -> bool:
        self.task, self.started = task, time.monotonic()
        try:
            self.pipe.send(task.item)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            task.result, task.done = InputError(f"{_name(task.item)} cannot be sent to a worker ({error})."), True
            return False
        except OSError:  # it died before it got anything to do
            self.fail("could not be given to a worker process, which had ended")
            return False
        return True

    def take(self) -> bool:
        """Receive the result; False if the process has died."""
        assert self.task is not None
        try:
            self.task.result = self.pipe.recv()
        except (EOFError, OSError):
            self._process.join(5)
            code = self._process.exitcode
            how = signal.Signals(-code).name if code is not None and code < 0 else f"status {code}"
            self.fail(f"made the worker process that read it end ({how}); the file is damaged or too large")
            return False
        self.task.done = True
        return True

    def fail(self, why: str) -> None:
        assert self.task is not None
        self.task.result, self.task.done = MediaError(f"{_name(self.task.item)}: this file {why}."), True

    def end(self) -> None:
        self.pipe.close()
        self._process.kill()
        self._process.join()


@contextlib.contextmanager
def _importable_main() -> Iterator[None]:
    """Spawned processes import the main script again; one that has no file, such as standard input, is left out."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is None or os.path.exists(file):
        yield
        return
    del main.__file__
    try:
        yield
    finally:
        main.__file__ = file


def _name(item: Any) -> str:
    return str(getattr(item, "name", item))


def _work(pickled: bytes, pipe: Connection) -> None:
    """The life of a worker: one item after the other, until the parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    function = pickle.loads(pickled)
    while True:
        try:
            item = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            result = function(item)
        except DferZooError as error:
            result = error
        except Exception as error:
            result = MediaError(f"{_name(item)}: {type(error).__name__}: {error}")
        try:
            pipe.send(result)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            pipe.send(InputError(f"{_name(item)}: the result cannot be sent back ({error})."))
        except OSError:
            return
