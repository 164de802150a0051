"""Run a function in several processes at once, for scripts that tests start."""

import os
import sys
from collections.abc import Callable


def at_once(work: Callable[[int], object], count: int = 8) -> int:
    """Fork ``count`` processes that call ``work(number)`` at the same moment; return how many failed."""
    waiting, starting = os.pipe()
    children = []
    for number in range(count):
        children.append(os.fork())
        if not children[-1]:
            os.close(starting)
            os.read(waiting, 1)  # returns in all of them when the parent closes the other end
            status = 1
            try:
                work(number)
                status = 0
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(status)
    os.close(starting)
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)
