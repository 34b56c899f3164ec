"""Whether a device may be updated now. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from moedge_devices.fleet.model import UpdateWindow

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def is_open(windows: Sequence[UpdateWindow] | None, now: datetime) -> bool:
    """Whether `now` is in one of `windows`; None for any time, an empty list for never.

    A window begins on its days and ends, if `end` is before `start`, on the next day. Times are those of its zone's
    clocks.
    """
    return windows is None or any(_in(window, now) for window in windows)


def _in(window: UpdateWindow, now: datetime) -> bool:
    local = now.astimezone(ZoneInfo(window.timezone))
    clock = local.strftime("%H:%M")
    today, yesterday = _DAYS[local.weekday()], _DAYS[(local - timedelta(days=1)).weekday()]
    if window.start < window.end:
        return today in window.days and window.start <= clock < window.end
    return (today in window.days and clock >= window.start) or (yesterday in window.days and clock < window.end)
