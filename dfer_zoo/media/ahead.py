"""Decode the next frames in a thread while the last ones are searched or resized."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Iterator

import numpy as np

FRAMES = 4  # decoded ahead
BYTES = 64 * 2**20  # of these frames; a single one may be larger


def read_ahead(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield frames that a thread takes from an iterator, with the iterator's errors.

    The thread starts with the first frame, and ends with the last one or when the generator is closed.

    >>> [int(frame[0]) for frame in read_ahead(iter(np.arange(6).reshape(3, 2)))]
    [0, 2, 4]
    """
    ahead = _Ahead(frames)
    try:
        yield from ahead.taken()
    finally:
        ahead.stop()


class _Ahead:
    def __init__(self, frames: Iterator[np.ndarray]) -> None:
        self._frames = frames
        self._ready: deque[np.ndarray] = deque()
        self._change = threading.Condition()
        self._done = self._stopped = False
        self._error: BaseException | None = None
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._read,), name="dfer-zoo-decoder", daemon=True)
        self._thread.start()

    def taken(self) -> Iterator[np.ndarray]:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._ready or self._done)
                if not self._ready:
                    break
                frame = self._ready.popleft()
                self._change.notify_all()
            yield frame
            del frame  # a large frame should not stay in memory until the next one is ready
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        with self._change:
            self._stopped = True
            self._ready.clear()
            self._change.notify_all()
        if self._thread is not threading.current_thread():  # the garbage collector runs in any thread
            self._thread.join()

    def _read(self) -> None:
        try:
            for frame in self._frames:
                if not self._put(frame):
                    break
                del frame
        except BaseException as error:
            self._error = error
        finally:
            close = getattr(self._frames, "close", None)
            if close is not None:
                close()  # the file is closed in the thread that read it
            with self._change:
                self._done = True
                self._change.notify_all()

    def _put(self, frame: np.ndarray) -> bool:
        """Wait for space, and add a frame. Return False if nobody takes frames any more."""
        with self._change:
            self._change.wait_for(lambda: self._stopped or self._has_space(frame))
            if not self._stopped:
                self._ready.append(frame)
                self._change.notify_all()
            return not self._stopped

    def _has_space(self, frame: np.ndarray) -> bool:
        used = sum(waiting.nbytes for waiting in self._ready)
        return not self._ready or (len(self._ready) < FRAMES and used + frame.nbytes <= BYTES)
