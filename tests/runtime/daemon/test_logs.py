"""What a log line looks like, and how often like ones are written."""

from __future__ import annotations

import io
import itertools
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from moedge_runtime.daemon import logs
from moedge_runtime.daemon.logs import PLACE_REPEATS, REPEATS, WINDOW_S, RepeatFilter, formatter, resolved, set_up


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


class Limited:
    """A filter whose window ends when the test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.told: list[str] = []
        self.ends: list[Callable[[], None]] = []
        self.filter = RepeatFilter(
            lambda told: self.told.append(f"{told.levelname} {told.name}: {told.getMessage()}"),
            lambda: self.now_s,
            lambda delay_s, call: self.ends.append(call),
        )

    def passes(self, message: str, *arguments: object, level: int = logging.WARNING, line: int = 1) -> bool:
        made = logging.LogRecord("moedge.test", level, __file__, line, message, arguments, None)
        return self.filter.filter(made)

    def end_window(self) -> None:
        self.now_s += WINDOW_S
        self.ends.pop()()


def test_repeats_are_left_out_and_told_afterwards_without_another_line() -> None:
    limited = Limited()
    assert [limited.passes("again") for _ in range(REPEATS + 7)] == [True] * REPEATS + [False] * 7
    assert limited.passes("another")
    assert limited.told == [] and len(limited.ends) == 1, "one wait, however many kinds"
    limited.end_window()
    assert limited.told == ["WARNING moedge.test: Left out within 60 s: 7 times more of this kind, the last: again"]
    assert limited.passes("again"), "everything begins anew"
    assert limited.ends == []


def test_lines_that_differ_in_their_numbers_only_are_alike() -> None:
    limited = Limited()
    silent = "Camera 'gate-01' (rtsp://10.0.0.7/s1) gave no frame for %.1f s; %d of 1,000 packets lost (0x%x, %dms)."
    passed = [limited.passes("%s", silent % (5.0 + step, step, step, step)) for step in range(REPEATS + 3)]
    assert passed == [True] * REPEATS + [False] * 3
    limited.end_window()
    assert "3 times more of this kind" in limited.told[0] and "for 12.0 s; 7 of 1,000" in limited.told[0]


def test_names_levels_and_places_are_kinds_of_their_own() -> None:
    limited = Limited()
    for name in ("cam1", "cam2", "gate-01", "gate-02", "3"):
        assert all(limited.passes("Camera '%s' gave no frame for %d s.", name, step) for step in range(REPEATS)), name
    assert limited.passes("Camera 'cam1' gave no frame for 9 s.", level=logging.ERROR)
    assert limited.passes("Camera 'cam1' gave no frame for 9 s.", line=2)
    assert not limited.passes("Camera 'cam1' gave no frame for 9 s.")


def test_what_others_write_into_a_line_cannot_flood_the_log() -> None:
    limited = Limited()
    topics = ["".join(letters) for letters in itertools.product("abcdefgh", repeat=3)]
    assert [limited.passes("Ignored '%s'.", topic) for topic in topics].count(True) == PLACE_REPEATS
    limited.end_window()
    assert [line for line in limited.told if f"{len(topics) - PLACE_REPEATS} times more" in line] == limited.told
    assert limited.passes("Ignored 'x'.")


def test_the_log_says_by_itself_what_was_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[Callable[[], None]] = []
    monkeypatch.setattr(logs, "_later", lambda delay_s, call: ends.append(call))
    stream, root = io.StringIO(), logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    set_up("info", "text", stream)
    for step in range(20):
        logging.getLogger("moedge.test").error("Failure %d.", step)
    ends.pop()()
    lines = stream.getvalue().splitlines()
    assert len(lines) == REPEATS + 1
    assert "ERROR moedge.test: Left out within 60 s: 15 times more of this kind, the last: Failure 19." in lines[-1]


def test_answers_are_never_left_out() -> None:
    limited = Limited()
    assert all(limited.passes("panel/number: 42", level=logging.INFO) for _ in range(1000))


def test_a_line_has_an_end() -> None:
    assert len(formatter("text").format(record("x" * 100_000))) < 10_000


def test_the_filter_remembers_a_bounded_number_of_kinds() -> None:
    limited = Limited()
    for number in range(5000):
        assert limited.passes("line", line=number)
    assert len(limited.filter._windows) < 1000
