"""Facts about this process and its clock that go into messages: time, whether it is set, memory, identifiers."""

from __future__ import annotations

import ctypes
import os
import secrets
import threading
import time
from datetime import datetime, timezone
from functools import cache
from pathlib import Path

_TIMEX_BYTES = 512
"""More than struct timex has on any architecture (208 on x86-64 Linux)."""

_TIME_ERROR = 5
"""adjtimex(2): the clock is not synchronized."""

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RANDOM_BITS = 80


def utc_now() -> datetime:
    """The wall clock, in UTC."""
    return datetime.now(timezone.utc)


def clock_synced() -> bool | None:
    """Whether the kernel's clock is kept by a time server (adjtimex(2)); None where the system does not say."""
    try:
        state = _c_library().adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (AttributeError, OSError):
        return None
    return None if state < 0 else bool(state != _TIME_ERROR)


@cache
def _c_library() -> ctypes.CDLL:
    """Once: every CDLL makes classes, which are garbage in cycles and stay until Python looks for these."""
    return ctypes.CDLL(None)


def rss_bytes() -> int | None:
    """Memory of this process that is in RAM; None where /proc does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def written_bytes() -> int | None:
    """What this process has had written to disks (proc(5), write_bytes); None where /proc does not say."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
        return next(int(line.partition(":")[2]) for line in lines if line.startswith("write_bytes:"))
    except (OSError, ValueError, StopIteration):
        return None


class Ulids:
    """Makes ULIDs (github.com/ulid/spec): 26 characters, unique, sorted in the order of their making.

    May be called from any thread. A clock that is set back does not disturb the order.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> str:
        """A new ULID."""
        with self._lock:
            fresh = (time.time_ns() // 1_000_000 << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
            same_millisecond = fresh >> _RANDOM_BITS <= self._last >> _RANDOM_BITS
            self._last = value = self._last + 1 if same_millisecond else fresh
        return "".join(_CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))
