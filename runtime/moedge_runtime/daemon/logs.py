"""How log lines look, and a bound on how often the same one is written."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Literal, TextIO

Format = Literal["auto", "text", "json", "journal"]

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

REPEATS = 5
WINDOW_S = 60.0
"""Of warnings and errors of one place in the code and with the same text so many are written within this time."""

_MAX_LINES = 512
_MAX_CHARACTERS = 8192
"""Of one line; more is cut."""

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""Syslog priorities; journald takes them off the beginning of a line, see sd-daemon(3)."""


def set_up(level: str, form: Format, stream: TextIO | None = None) -> None:
    """Send the log to `stream`, standard error if None, in this form; does nothing if the root logger has a handler."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter(resolved(form, os.environ, stream)))
    handler.addFilter(RepeatFilter())
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


class RepeatFilter(logging.Filter):
    """Lets REPEATS equal warnings or errors through within WINDOW_S, and says with the next how many were left out.

    What is less than a warning, such as an answer, is a fact of its own every time.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: OrderedDict[tuple[str, int, str], tuple[float, int]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """See logging.Filter."""
        if record.levelno < logging.WARNING:
            return True
        message = record.getMessage()
        key, now_s = (record.name, record.lineno, message), self._clock()
        with self._lock:
            began_s, count = self._seen.pop(key, (now_s, 0))
            left_out = 0
            if now_s - began_s >= WINDOW_S:
                left_out, began_s, count = max(0, count - REPEATS), now_s, 0
            self._seen[key] = (began_s, count + 1)
            while len(self._seen) > _MAX_LINES:
                self._seen.popitem(last=False)
        if left_out:
            record.msg, record.args = f"{message} (and {left_out} times more within the last minutes)", None
        return count < REPEATS


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else text[:_MAX_CHARACTERS] + "…"
