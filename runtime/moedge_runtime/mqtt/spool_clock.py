"""When something happened, and how long ago that is, on machines whose clock jumps."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Moment:
    """When something happened, for clocks that jump.

    Attributes:
        wall_ms: The wall clock, milliseconds since 1970.
        boot_ms: Milliseconds since the machine started; runs on while it sleeps, never jumps.
        boot_id: Which start of the machine that was, 16 bytes.
        synced: Whether a time server kept the wall clock; None if the system does not say.
    """

    wall_ms: int
    boot_ms: int
    boot_id: bytes
    synced: bool | None


def moment_now(synced: bool | None) -> Moment:
    """This moment on this machine."""
    boot_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    return Moment(max(0, time.time_ns() // 1_000_000), int(boot_s * 1000), _boot_id(), synced)


@cache
def _boot_id() -> bytes:
    return bytes.fromhex(BOOT_ID.read_text().strip().replace("-", "")) if BOOT_ID.exists() else bytes(16)


def age_s(at: Moment, now: Moment) -> float | None:
    """Seconds from `at` to `now`; None if nobody can say.

    Within one start of the machine by the time since then, whatever the wall clock did. Over a restart by the wall
    clock, unless it was or is known not to be set: a board that wakes up in 1970 must neither keep nor drop everything.
    """
    if at.boot_id == now.boot_id and any(now.boot_id):
        return max(0, now.boot_ms - at.boot_ms) / 1000
    if at.synced is False or now.synced is False:
        return None
    return max(0, now.wall_ms - at.wall_ms) / 1000
