"""What a log line looks like, and how often the same one is written."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from pathlib import Path

import pytest
from moedge_runtime.daemon.logs import REPEATS, WINDOW_S, RepeatFilter, formatter, resolved


def record(message: str, level: int = logging.WARNING, **fields: object) -> logging.LogRecord:
    return logging.LogRecord("moedge.test", level, __file__, 1, message, None, fields.get("exc_info"))  # type: ignore[arg-type]


def test_json_lines_are_one_object_each_whatever_the_message() -> None:
    try:
        raise ZeroDivisionError("a fault")
    except ZeroDivisionError:
        line = formatter("json").format(record('two\nlines "and" ü', exc_info=sys.exc_info()))
    assert "\n" not in line
    fields = json.loads(line)
    assert (fields["level"], fields["logger"]) == ("warning", "moedge.test")
    assert fields["message"] == 'two\nlines "and" ü'
    assert "ZeroDivisionError: a fault" in fields["traceback"]


@pytest.mark.parametrize(
    ("level", "priority"), [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3)]
)
def test_journal_lines_begin_with_their_priority_every_one_of_them(level: int, priority: int) -> None:
    lines = formatter("journal").format(record("one\ntwo", level)).splitlines()
    assert lines == [f"<{priority}>moedge.test: one", f"<{priority}>two"]


def test_auto_is_journal_only_where_the_stream_is_journalds(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        status = os.fstat(stream.fileno())
        own = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert resolved("auto", own, stream) == "journal"
        assert resolved("auto", {"JOURNAL_STREAM": "1:2"}, stream) == "text"
        assert resolved("auto", {}, stream) == "text"
        assert resolved("json", own, stream) == "json"
    assert resolved("auto", own, io.StringIO()) == "text"


def test_repeats_are_left_out_and_counted() -> None:
    now = [0.0]
    repeats = RepeatFilter(lambda: now[0])
    passed = [repeats.filter(record("again")) for _ in range(REPEATS + 7)]
    assert passed == [True] * REPEATS + [False] * 7
    assert repeats.filter(record("another"))
    now[0] = WINDOW_S
    last = record("again")
    assert repeats.filter(last)
    assert last.getMessage() == "again (and 7 times more within the last minutes)"


def test_answers_are_never_left_out() -> None:
    repeats = RepeatFilter()
    assert all(repeats.filter(record("panel/number: 42", logging.INFO)) for _ in range(1000))


def test_a_line_has_an_end() -> None:
    assert len(formatter("text").format(record("x" * 100_000))) < 10_000


def test_the_filter_remembers_a_bounded_number_of_lines() -> None:
    repeats = RepeatFilter()
    for number in range(5000):
        assert repeats.filter(record(f"line {number}"))
    assert len(repeats._seen) < 1000
