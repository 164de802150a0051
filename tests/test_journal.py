"""The journal of a batch survives kills: complete lines are kept, a partial line is dropped."""

import pytest

from dfer_zoo.errors import InputError
from dfer_zoo.inference.journal import Journal

SETTINGS = {"model": "tiny", "window": 2.0, "labels": ("a", "b")}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "out.journal"
    with Journal.opened(path, SETTINGS, resume=False) as journal:
        journal.add("one", [{"n": 1, "error": None}, {"n": 2, "error": None}])
        journal.add("two", [{"n": 0, "error": "no frames"}])
    return path


def test_rows_come_back_in_the_requested_order(path):
    with Journal.opened(path, SETTINGS, resume=True) as journal:
        assert [row["n"] for row in journal.rows(["two", "never", "one"])] == [0, 1, 2]
        assert (len(journal), journal.failed(["one", "two", "never"])) == (2, 1)


def test_errors_are_repeated_only_when_asked(path):
    with Journal.opened(path, SETTINGS, resume=True) as journal:
        assert journal.done("two") and not journal.done("two", retry_errors=True) and not journal.done("three")
        journal.add("two", [{"n": 3, "error": None}])
        assert journal.failed(["two"]) == 0
    with Journal.opened(path, SETTINGS, resume=True) as journal:
        assert [row["n"] for row in journal.rows(["two"])] == [3]


def test_a_line_cut_at_any_byte_is_dropped_and_the_rest_is_kept(path):
    content = path.read_bytes()
    second = content.index(b'{"key": "two"')
    for cut in range(second, len(content)):
        path.write_bytes(content[:cut])
        with Journal.opened(path, SETTINGS, resume=True) as journal:
            assert journal.done("one") and not journal.done("two")
            journal.add("two", [{"n": 0, "error": "no frames"}])
        assert path.read_bytes() == content


def test_a_header_cut_at_any_byte_starts_again(path):
    content = path.read_bytes()
    for cut in range(content.index(b"\n") + 1):
        path.write_bytes(content[:cut])
        with Journal.opened(path, SETTINGS, resume=True) as journal:
            assert len(journal) == 0
        assert path.read_bytes() == content[: content.index(b"\n") + 1]


def test_an_unfinished_run_is_not_overwritten(path):
    with pytest.raises(InputError, match="--resume"), Journal.opened(path, SETTINGS, resume=False):
        pass


def test_the_error_names_the_changed_setting(path):
    with (
        pytest.raises(InputError, match=r"window.* 2.0 .* 3.0"),
        Journal.opened(path, {**SETTINGS, "window": 3.0}, resume=True),
    ):
        pass


def test_a_file_that_is_not_a_journal_stays_unchanged(tmp_path):
    path = tmp_path / "out.journal"
    for content in (b"hello\nworld\n", b"[1]\n", b'{"schema": 99, "settings": {}}\n'):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not the journal"), Journal.opened(path, SETTINGS, resume=True):
            pass
        assert path.read_bytes() == content
