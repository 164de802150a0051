"""Worker processes that isolate crashes: a file that crashes a decoder does not affect other files.

>>> with Workers(str.upper, 1) as workers:
...     list(workers.map(["a", "b"]))
['A', 'B']
"""

from __future__ import annotations

import collections
import contextlib
import functools
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from ..errors import DferZooError, InputError, MediaError
from .limits import limit, raised_by

STARTS = ("spawn", "fork", "forkserver")
MOST_PIECES = 4  # of one item that are queued in this process before its worker pauses
LONGEST_NAME = 1000  # characters of an item in a message
WORKER = "dfer_zoo worker"  # the name of the processes
NO_GUARD = 97  # the exit status of a worker whose main script starts workers on import
_TICK = 0.5  # seconds between checks whether the other process is alive


class NoGuard(InputError):
    """The main script starts workers on import. The error does not belong to an item."""


class Workers:
    """A pool of processes that applies one function to many items, in order.

    A `DferZooError` is returned as a value. If a process dies (a crash in a decoder, or no memory left), its item becomes
    a `MediaError`, and a new process is started.

    Args:
        function: A picklable function of one item. For generator functions see `streams`.
        count: The number of processes.
        timeout: Seconds after which a process is killed and its item becomes an error; None waits forever.
        start: How processes start. "spawn" starts a fresh interpreter; a forked child inherits locks of torch and
            ffmpeg and may deadlock.
    """

    def __init__(
        self, function: Callable[[Any], Any], count: int, *, timeout: float | None = None, start: str = "spawn"
    ) -> None:
        if not isinstance(count, int) or not 1 <= count <= limit("workers"):
            raise InputError(
                f"There cannot be {count!r} workers; expected 1 to {limit('workers')}. {raised_by('workers')}"
            )
        if start not in STARTS:
            raise InputError(f"Processes cannot start by {start!r}; expected {', '.join(STARTS)}.")
        try:
            pickled = pickle.dumps(function)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise InputError(f"Workers need a function that can be pickled ({error}).") from error
        _check_may_start()
        self.timeout = timeout
        self._new = lambda: _Process(pickled, start)
        self._stopped = False
        self._free = [self._new() for _ in range(count)]
        self._busy: list[_Process] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes, including busy ones."""
        self.stop()
        for process in (*self._free, *self._busy):
            process.end()
        self._free, self._busy = [], []

    def stop(self) -> None:
        """End `map` and `streams`, even if another thread is waiting in them."""
        self._stopped = True

    def map(self, items: Iterable[Any], *, ahead: int = 2) -> Iterator[Any]:
        """Yield results in the order of the items. A `DferZooError` is yielded, not raised.

        Args:
            items: The items, consumed lazily: at most `ahead` per process before their results are used.
            ahead: Maximum number of queued results per process.

        Yields:
            One result or error per item.
        """
        for pieces in self.streams(items, ahead=ahead):
            try:
                (result,) = pieces
            except NoGuard:
                raise
            except DferZooError as error:
                result = error
            yield result

    def streams(self, items: Iterable[Any], *, ahead: int = 2) -> Iterator[Iterator[Any]]:
        """Yield one iterator per item, in order, over the results of a generator function.

        An iterator ends with an error if its item fails. A process pauses while `MOST_PIECES` results of its item are
        queued, so memory is bounded for items of any length.

        Args:
            items: The items, consumed lazily: at most `ahead` per process before their results are used.
            ahead: Maximum number of started items per process.

        Yields:
            One iterator per item. Requesting the next iterator discards the rest of this one.
        """
        pending: collections.deque[_Task] = collections.deque()
        waiting: collections.deque[_Task] = collections.deque()
        most = ahead * (len(self._free) + len(self._busy))
        source = iter(items)
        exhausted = False
        while not self._stopped:
            while not exhausted and len(pending) < most:
                try:
                    task = _Task(next(source))
                except StopIteration:
                    exhausted = True
                    break
                pending.append(task)
                waiting.append(task)
            if not pending:
                return
            yield self._pieces(pending[0], waiting)
            with contextlib.suppress(DferZooError):
                collections.deque(self._pieces(pending[0], waiting), maxlen=0)
            pending.popleft()

    def _pieces(self, task: _Task, waiting: collections.deque[_Task]) -> Iterator[Any]:
        """Yield the results of the first item while other processes work on the next items."""
        while not self._stopped:
            while waiting and self._free:
                self._start(waiting.popleft())
            if task.pieces:
                yield task.pieces.popleft()
            elif task.ended:
                if task.error is not None:
                    raise task.error
                return
            else:
                self._collect(task)

    def _start(self, task: _Task) -> None:
        process = self._free.pop()
        if not process.give(task):
            self._replace(process)
            return
        self._busy.append(process)

    def _collect(self, first: _Task) -> None:
        """Wait for the next result, the end of an item, a crash or a timeout."""
        reading = [p for p in self._busy if p.task is first or len(p.task.pieces) < MOST_PIECES]  # type: ignore[union-attr]
        limits = [p.started + self.timeout - time.monotonic() for p in reading] if self.timeout else []
        ready = wait([p.pipe for p in reading], timeout=max(0.0, min([_TICK, *limits])))
        for process in reading:
            if process.pipe in ready:
                alive = process.take()
                if alive and not process.is_done:
                    continue
                self._busy.remove(process)
                if alive:
                    self._free.append(process)
                else:
                    self._replace(process)
            elif self.timeout is not None and time.monotonic() - process.started > self.timeout:
                self._busy.remove(process)
                process.fail(f"took longer than {self.timeout:g} s and was stopped")
                self._replace(process)

    def _replace(self, process: _Process) -> None:
        process.end()
        self._free.append(self._new())


def streams_ahead(workers: Workers, items: Iterable[Any], size: int) -> Generator[Iterator[Any], None, None]:
    """Consume `Workers.streams` in a thread, so that workers continue while the caller computes.

    Args:
        workers: The pool; it is stopped at the end.
        items: As in `Workers.streams`; consumed in the thread.
        size: Maximum number of queued results.

    Yields:
        As `Workers.streams`.
    """
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=size)
    stopped = threading.Event()

    def put(kind: str, what: Any = None) -> None:
        while not stopped.is_set():
            try:
                return ready.put((kind, what), timeout=_TICK)
            except queue.Full:
                continue

    def draw() -> None:
        try:
            for pieces in workers.streams(items):
                put("item")
                try:
                    for piece in pieces:
                        put("piece", piece)
                    put("end")
                except NoGuard:
                    raise
                except DferZooError as error:
                    put("end", error)
            put("all")
        except BaseException as error:  # from the items, or from starting a process
            put("all", error)

    def pieces_of_item() -> Iterator[Any]:
        while (got := ready.get())[0] == "piece":
            yield got[1]
        if got[1] is not None:
            raise got[1]

    thread = threading.Thread(target=draw, name="dfer_zoo workers", daemon=True)
    thread.start()
    try:
        while True:
            kind, what = ready.get()
            if kind == "all":
                if what is not None:
                    raise what
                return
            if kind == "item":
                yield pieces_of_item()
    finally:
        stopped.set()
        workers.stop()
        thread.join()


@dataclass
class _Task:
    item: Any
    pieces: collections.deque[Any] = field(default_factory=collections.deque)
    ended: bool = False
    error: DferZooError | None = None

    def end(self, error: DferZooError | None = None) -> None:
        self.ended, self.error = True, error


@dataclass
class _Process:
    """One worker and its pipe."""

    function: bytes
    start: str
    task: _Task | None = None
    started: float = 0.0
    pipe: Connection = field(init=False)

    def __post_init__(self) -> None:
        context = multiprocessing.get_context(self.start)
        self.pipe, theirs = context.Pipe()
        arguments = (self.function, theirs)
        self._process = context.Process(target=_work, args=arguments, name=WORKER, daemon=True)  # type: ignore[attr-defined]
        with _main_left_out(unless=b"__main__" in self.function):
            self._process.start()
        theirs.close()

    @property
    def is_done(self) -> bool:
        return self.task is None or self.task.ended

    def give(self, task: _Task) -> bool:
        self.task, self.started = task, time.monotonic()
        try:
            self.pipe.send(task.item)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            task.end(InputError(f"{_name(task.item)} cannot be sent to a worker ({error})."))
            return False
        except OSError:  # it died before it received an item
            self._check_guard()
            self.fail("could not be given to a worker process, which had ended")
            return False
        return True

    def take(self) -> bool:
        """Receive a result or the end of the item. Return False if the process died."""
        assert self.task is not None
        try:
            kind, what = self.pipe.recv()
        except (EOFError, OSError):
            self._check_guard()
            code = self._process.exitcode
            how = signal.Signals(-code).name if code is not None and code < 0 else f"status {code}"
            self.fail(f"crashed its worker process ({how}); the file is damaged or too large")
            return False
        self.started = time.monotonic()
        if kind == "piece":
            self.task.pieces.append(what)
        else:
            self.task.end(what)
        return True

    def _check_guard(self) -> None:
        self._process.join(5)
        if self._process.exitcode == NO_GUARD:
            raise NoGuard(_no_guard()) from None

    def fail(self, why: str) -> None:
        assert self.task is not None
        self.task.end(MediaError(f"{_name(self.task.item)}: this file {why}."))

    def end(self) -> None:
        self.pipe.close()
        self._process.kill()
        self._process.join()


def _check_may_start() -> None:
    """Raise if this process cannot start workers; exit if it is a worker that is importing the main script."""
    process = multiprocessing.current_process()
    if getattr(process, "_inheriting", False):  # it is importing the main script
        if process.name == WORKER:
            os._exit(NO_GUARD)
        raise NoGuard(_no_guard())
    if process.daemon:
        raise InputError("This process is a worker itself and must not start workers. Use workers=0 in it.")


def _no_guard() -> str:
    name = getattr(sys.modules["__main__"], "__file__", None) or "The script"
    return (
        f"{name}: worker processes import this script, and it starts workers when it is imported. "
        'Put what it does below `if __name__ == "__main__":`, or use workers=0.'
    )


_main_lock = threading.Lock()


@contextlib.contextmanager
def _main_left_out(unless: bool) -> Iterator[None]:
    """Hide the main script from spawned processes, which would import it and run it again.

    A script that is not a file, such as standard input, is always hidden.
    """
    main = sys.modules["__main__"]
    file, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    if unless and (file is None or os.path.exists(file)):
        yield
        return
    with _main_lock:
        main.__file__, main.__spec__ = None, None
        try:
            yield
        finally:
            main.__file__, main.__spec__ = file, spec
            if file is None:
                del main.__file__


def _name(item: Any) -> str:
    if isinstance(item, bytes):
        return f"a clip of {len(item)} bytes"
    return str(item) if isinstance(item, str | os.PathLike) else str(getattr(item, "name", item))[:LONGEST_NAME]


def _work(pickled: bytes, pipe: Connection) -> None:
    """Process items until the parent closes the pipe or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    parent = os.getppid()
    try:
        function = pickle.loads(pickled)
    except Exception as error:
        problem = InputError(f"The worker processes cannot load what they are to do ({error}).")
        function = functools.partial(_raise, problem)
    while True:
        try:
            while not pipe.poll(10 * _TICK):
                if os.getppid() != parent:  # forked siblings keep the pipe of a killed parent open
                    return
            item = pipe.recv()
        except (EOFError, OSError):
            return
        except Exception as error:  # of a class that is defined in the main script
            pipe.send(("end", InputError(f"A worker process cannot load the clip that it was sent ({error}).")))
            continue
        try:
            _answer(pipe, function, item)
        except OSError:
            return


def _raise(error: Exception, item: Any) -> None:
    raise error


def _answer(pipe: Connection, function: Callable[[Any], Any], item: Any) -> None:
    """Send the results of the function for an item, one by one if it is a generator."""
    error: DferZooError | None = None
    try:
        result = function(item)
        for piece in result if isinstance(result, Iterator) else (result,):
            try:
                pipe.send(("piece", piece))
            except (pickle.PicklingError, AttributeError, TypeError) as problem:
                raise InputError(f"{_name(item)}: the result cannot be sent back ({problem}).") from problem
    except DferZooError as problem:
        error = problem
    except BrokenPipeError:
        raise
    except Exception as problem:
        error = MediaError(f"{_name(item)}: {type(problem).__name__}: {problem}")
    pipe.send(("end", error))
