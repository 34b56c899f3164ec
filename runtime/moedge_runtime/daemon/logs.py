"""How log lines look, and a bound on how often like ones are written."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal, TextIO

from moedge_runtime.counted import counted

Format = Literal["auto", "text", "json", "journal"]

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

REPEATS = 5
PLACE_REPEATS = 50
WINDOW_S = 60.0
"""Of warnings and errors of one place in the code that differ in their numbers only so many are written within this
time, and so many of one place whatever they say: what others write into a line may be different every time."""

MAX_CHARACTERS = 8192
"""Of one line; more is cut."""

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""Syslog priorities; journald takes them off the beginning of a line, see sd-daemon(3)."""

_SUMMARY = "moedge_summary"
"""Attribute of a record that says what was left out; it is never left out itself."""

_MAX_KINDS = 512
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|(?<![\w.'-])\d[\d.,:]*(?![\d'])")
"""A number with or without a unit behind it; not one that is a name or in one, such as '7', cam2 or gate-01."""


def set_up(level: str, form: Format, stream: TextIO | None = None) -> None:
    """Send the log to `stream`, standard error if None, in this form; does nothing if the root logger has a handler."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter(resolved(form, os.environ, stream)))
    handler.addFilter(RepeatFilter(handler.handle))
    logging.basicConfig(level=level.upper(), handlers=[handler])


def formatter(form: Format) -> logging.Formatter:
    """What writes lines in this form."""
    if form == "json":
        return JsonFormatter()
    return JournalFormatter() if form == "journal" else TextFormatter()


def resolved(form: Format, environment: Mapping[str, str], stream: TextIO) -> Format:
    """`form`, and for `auto` journal where `stream` is journald's own (JOURNAL_STREAM, systemd.exec(5)), else text."""
    if form != "auto":
        return form
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return "text"
    return "journal" if environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}" else "text"


class TextFormatter(logging.Formatter):
    """A line with time, level and place."""

    def __init__(self) -> None:
        super().__init__(TEXT)

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        return _cut(super().format(record))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, thread, message, and a traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        fields = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "thread": record.threadName,
            "message": _cut(record.getMessage()),
        }
        if record.exc_info:
            fields["traceback"] = _cut(self.formatException(record.exc_info))
        return json.dumps(fields, ensure_ascii=False)


class JournalFormatter(logging.Formatter):
    """A priority for journald in front of every line; journald adds the time itself."""

    def __init__(self) -> None:
        super().__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        priority = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(priority + line for line in _cut(super().format(record)).splitlines())


@dataclass
class _Window:
    """Lines of one kind since `began_s`.

    Attributes:
        count: How many there were.
        left_out: The last one that was not written; None if all were.
    """

    began_s: float
    count: int = 0
    left_out: logging.LogRecord | None = None


class RepeatFilter(logging.Filter):
    """Lets REPEATS warnings or errors that are alike through within WINDOW_S, and says afterwards how many it did not.

    Alike are lines of one place in the code, of one level, that differ in their numbers only; of all that one place
    says PLACE_REPEATS go through. What is less than a warning, such as an answer, is a fact of its own every time.

    Args:
        write: Writes what was left out, a line for each kind; called at the end of the window, on a thread of its own.
        clock: Seconds.
        later: Calls a function after so many seconds.
    """

    def __init__(
        self,
        write: Callable[[logging.LogRecord], object],
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], None]], object] | None = None,
    ) -> None:
        super().__init__()
        self._write, self._clock, self._later = write, clock, later or _later
        self._lock = threading.Lock()
        self._windows: OrderedDict[tuple[str, int, int, str | None], _Window] = OrderedDict()
        self._waiting = False

    def filter(self, record: logging.LogRecord) -> bool:
        """See logging.Filter."""
        if record.levelno < logging.WARNING or getattr(record, _SUMMARY, False):
            return True
        place = (record.name, record.lineno, record.levelno)
        with self._lock:
            passes = self._passes((*place, _NUMBER.sub("#", record.getMessage())), record, REPEATS)
            passes = passes and self._passes((*place, None), record, PLACE_REPEATS)
            starts = not passes and not self._waiting
            self._waiting = self._waiting or starts
        if starts:
            self._later(WINDOW_S, self._tell)
        return passes

    def _passes(self, kind: tuple[str, int, int, str | None], record: logging.LogRecord, limit: int) -> bool:
        now_s = self._clock()
        window = self._windows.pop(kind, None)
        if window is None or (now_s - window.began_s >= WINDOW_S and window.left_out is None):
            window = _Window(now_s)
        self._windows[kind] = window
        window.count += 1
        if window.count > limit:
            window.left_out = record
        while len(self._windows) > _MAX_KINDS:
            self._windows.popitem(last=False)
        return window.count <= limit

    def _tell(self) -> None:
        """Say what was left out, and let everything begin anew."""
        with self._lock:
            told = [(kind, window) for kind, window in self._windows.items() if window.left_out is not None]
            for kind, _ in told:
                del self._windows[kind]
            self._waiting = False
        for kind, window in told:
            last = window.left_out
            assert last is not None
            count = window.count - (PLACE_REPEATS if kind[-1] is None else REPEATS)
            summary = logging.makeLogRecord(
                {
                    "name": last.name,
                    "levelno": last.levelno,
                    "levelname": last.levelname,
                    "lineno": last.lineno,
                    "msg": f"Left out within {WINDOW_S:.0f} s: {counted(count, 'time')} more of this kind, the last: "
                    f"{last.getMessage()}",
                    _SUMMARY: True,
                }
            )
            self._write(summary)


def _later(delay_s: float, call: Callable[[], None]) -> None:
    timer = threading.Timer(delay_s, call)
    timer.daemon = True
    timer.start()


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + "…"
