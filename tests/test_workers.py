"""Worker processes: results stay in order, and a worker that dies fails one item."""

import itertools
import os
import signal
import threading
import time

import pytest

from dfer_zoo.errors import InputError, MediaError
from dfer_zoo.media.workers import Workers, streams_ahead


def act(item):
    """The function of the workers: each item says what to do."""
    if item == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "leave":
        os._exit(7)
    if item == "raise":
        raise MediaError("no frames")
    if item == "bug":
        raise ZeroDivisionError("by zero")
    if item == "sleep":
        time.sleep(60)
    if isinstance(item, float):
        time.sleep(item)
    return item, os.getpid()


def test_results_come_in_the_order_of_the_items():
    with Workers(act, 2) as workers:
        answers = list(workers.map([0.3, 0.0, 1, 2, 3]))
    assert [item for item, _ in answers] == [0.3, 0.0, 1, 2, 3]
    assert os.getpid() not in {process for _, process in answers}


def test_a_worker_that_dies_fails_only_its_item():
    with Workers(act, 1) as workers:
        first, killed, second, left, third = workers.map([1, "die", 2, "leave", 3])
    assert [first[0], second[0], third[0]] == [1, 2, 3]
    assert isinstance(killed, MediaError) and "die: this file" in str(killed) and "SIGSEGV" in str(killed)
    assert isinstance(left, MediaError) and "status 7" in str(left)


def test_errors_come_back_as_values():
    with Workers(act, 1) as workers:
        told, bug, fine = workers.map(["raise", "bug", 1])
    assert str(told) == "no frames" and "bug: ZeroDivisionError" in str(bug) and fine[0] == 1


def test_an_item_that_takes_too_long_is_stopped():
    with Workers(act, 1, timeout=5) as workers:
        slow, fine = workers.map(["sleep", 1])
    assert "longer than 5 s" in str(slow) and fine[0] == 1


def test_items_are_drawn_only_as_needed():
    drawn = []

    def items():
        for number in range(100):
            drawn.append(number)
            yield number

    with Workers(act, 1) as workers:
        results = workers.map(items(), ahead=2)
        for _ in range(3):
            next(results)
        assert len(drawn) <= 5


def test_no_process_is_left_behind():
    with Workers(act, 2) as workers:
        processes = {process for _, process in workers.map(range(8))}
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_items_that_cannot_be_pickled_are_one_line_errors():
    with pytest.raises(InputError, match="can be pickled"):
        Workers(lambda item: item, 1)
    with pytest.raises(InputError, match="expected 1 to"):
        Workers(act, 0)
    with Workers(act, 1) as workers:
        wrong, fine = workers.map([lambda: None, 1])
    assert "cannot be sent" in str(wrong) and fine[0] == 1


def count_to(number):
    """A generator, whose values are sent one by one."""
    for piece in range(abs(number)):
        if number < 0 and piece == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        yield piece
    if number == 5:
        raise MediaError("five")


@pytest.mark.parametrize("start", ["spawn", "fork"])
def test_streams_stay_in_order_and_a_worker_that_dies_fails_only_its_item(start):
    with Workers(count_to, 2, start=start) as workers:
        seen = []
        for pieces in workers.streams([3, 5, -4, 0, 40, 2]):
            got = []
            try:
                for piece in pieces:
                    got.append(piece)
            except MediaError as error:
                got.append(str(error))
            seen.append(got)
    assert seen[0] == [0, 1, 2] and seen[1] == [0, 1, 2, 3, 4, "five"]
    assert seen[2][:-1] == [0, 1][: len(seen[2]) - 1] and "-4: this file" in seen[2][-1] and "SIGKILL" in seen[2][-1]
    assert seen[3:] == [[], list(range(40)), [0, 1]]


def test_a_stream_can_be_left_early():
    with Workers(count_to, 1) as workers:
        assert [next(pieces) for pieces in workers.streams([30, 20, 10])] == [0, 0, 0]


def test_a_thread_draws_ahead_and_ends_with_its_caller():
    with Workers(count_to, 2) as workers:
        lengths = [len(list(pieces)) for pieces in streams_ahead(workers, range(1, 5), 4)]
    assert lengths == [1, 2, 3, 4]
    with Workers(count_to, 1) as workers:
        streams = streams_ahead(workers, itertools.count(100), 2)
        assert next(next(streams)) == 0
        streams.close()
    assert not [t for t in threading.enumerate() if t.name == "dfer_zoo workers"]


def test_an_error_of_the_items_is_raised():
    def items():
        yield 1
        raise KeyError("the list broke")

    with Workers(count_to, 1) as workers, pytest.raises(KeyError, match="the list broke"):
        for pieces in streams_ahead(workers, items(), 2):
            list(pieces)
