"""Days and times of a week, by a wall clock that is changed twice a year and may not be set. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Literal

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTES_A_DAY = 24 * 60

_WINDOW = re.compile(r"(?:([a-z]{3}(?:-[a-z]{3})?(?:,[a-z]{3}(?:-[a-z]{3})?)*)\s+)?(\d\d):(\d\d)-(\d\d):(\d\d)")
WINDOW_PATTERN = f"^{_WINDOW.pattern}$"
_FORM = "write days and times such as 'mon-fri 07:00-18:00', 'sat,sun 22:00-06:00' or '06:30-24:00'"

Unsynced = Literal["open", "closed", "trust"]
"""What times mean while the system says that its clock is not set."""


@dataclass(frozen=True)
class Window:
    """A time of some days of the week.

    Attributes:
        days: On which it begins, 0 for Monday.
        begin: Minute of the day.
        end: Minute of the day at which it is over; at most `begin` if that is on the next day.
    """

    days: frozenset[int]
    begin: int
    end: int

    def contains(self, weekday: int, minute: int) -> bool:
        """Whether it is open at `minute` of a day."""
        if self.begin < self.end:
            return weekday in self.days and self.begin <= minute < self.end
        return (weekday in self.days and minute >= self.begin) or ((weekday - 1) % 7 in self.days and minute < self.end)


@dataclass(frozen=True)
class Timetable:
    """Open in any of its windows, by the wall clock of a time zone.

    The wall clock decides and nothing else: an hour that the change to summer time leaves out opens nothing, and one
    that comes twice in autumn opens twice.

    Attributes:
        windows: Without any it is always open.
        zone: Time zone; None for the board's own.
        unsynced: What holds while the clock is not set.
    """

    windows: tuple[Window, ...] = ()
    zone: tzinfo | None = None
    unsynced: Unsynced = "open"

    def is_open(self, moment: datetime, clock_synced: bool | None) -> bool:
        """Whether it is open at `moment`, which has a time zone.

        Args:
            moment: What the clock said.
            clock_synced: Whether that clock is set; None if nobody knows, which counts as set.
        """
        if not self.windows:
            return True
        if clock_synced is False and self.unsynced != "trust":
            return self.unsynced == "open"
        local = moment.astimezone(self.zone)
        return any(window.contains(local.weekday(), local.hour * 60 + local.minute) for window in self.windows)


def parse_window(text: object) -> Window:
    """A window from a text such as `mon-fri 07:00-18:00`; without days it is every day.

    Raises:
        ValueError: It is none, or it lasts no time.
    """
    match = _WINDOW.fullmatch(text.strip().lower()) if isinstance(text, str) else None
    if match is None:
        raise ValueError(_FORM)
    days, *digits = match.groups()
    hours = [int(digits[0]), int(digits[2])]
    minutes = [int(digits[1]), int(digits[3])]
    begin, end = (hour * 60 + minute for hour, minute in zip(hours, minutes, strict=True))
    if begin >= MINUTES_A_DAY or end > MINUTES_A_DAY or max(minutes) > 59:
        raise ValueError(f"times go from 00:00 to 24:00; {_FORM}")
    if begin == end:
        raise ValueError("a time that ends when it begins is none; write 00:00-24:00 for the whole day")
    return Window(frozenset(_days(days)) if days else frozenset(range(7)), begin, end)


def _days(text: str) -> Sequence[int]:
    found: list[int] = []
    for part in text.split(","):
        names = part.split("-")
        unknown = [name for name in names if name not in DAYS]
        if unknown:
            raise ValueError(f"'{unknown[0]}' is no day; days are {', '.join(DAYS)}")
        first, last = DAYS.index(names[0]), DAYS.index(names[-1])
        found += [(first + step) % 7 for step in range((last - first) % 7 + 1)]
    return found
