"""Spaces answers out while the board is too hot or its power too weak, before the kernel or the supply acts."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from enum import IntEnum

from moedge_runtime.config import ProtectionConfig
from moedge_runtime.daemon.board import Reading, read_board

PERIOD_S = 5.0
"""Between two looks at the sensors."""

MARGIN_C = 10.0
"""So far below the kernel's own limit answers begin to be spaced out."""

SLOWER_C = 5.0
"""So far above the first temperature answers are spaced out further."""

HYSTERESIS_C = 5.0
"""A level is left when it is so much cooler than where it began."""

CALM_S = 60.0
"""Under-voltage is over when there was none for so long."""

LONGEST_PAUSE_S = 120.0

log = logging.getLogger(__name__)


class Level(IntEnum):
    """How much answers are spaced out."""

    NORMAL = 0
    SLOW = 1
    SLOWER = 2


PAUSES = {Level.NORMAL: 0.0, Level.SLOW: 1.0, Level.SLOWER: 4.0}
"""Pause after an answer, in times of what the answer took: the model works all, a half, a fifth of the time."""


class Governor:
    """Decides on the level. Pure: no clock, no files.

    Args:
        slow_at_c: Temperature of SLOW; None to go by the limits of the zones.
    """

    def __init__(self, slow_at_c: float | None) -> None:
        self._slow_at_c = slow_at_c
        self.level = Level.NORMAL
        self.reason = ""
        self._heat = Level.NORMAL
        self._weak_s: float | None = None

    def note(self, reading: Reading, now_s: float) -> Level:
        """The level after `reading`, taken at `now_s`."""
        self._heat, heat = self._heat_level(reading)
        if reading.under_voltage or reading.throttled:
            self._weak_s = now_s
        elif self._weak_s is not None and now_s - self._weak_s >= CALM_S:
            self._weak_s = None
        weak = Level.NORMAL if self._weak_s is None else Level.SLOWER
        power = "the power supply is too weak" if reading.under_voltage else "the firmware holds the clock back"
        self.level = max(self._heat, weak)
        self.reason = "" if self.level == Level.NORMAL else power if weak > self._heat else heat
        return self.level

    def _heat_level(self, reading: Reading) -> tuple[Level, str]:
        """The level that the zone closest to its limit asks for, and why. A zone without a limit is never too hot."""
        above_c, hottest = max(
            ((zone.temperature_c - self._start_c(zone.limit_c), zone) for zone in reading.zones),
            key=lambda pair: pair[0],
            default=(float("-inf"), None),
        )
        level = max(
            (
                level
                for level, start_c in ((Level.SLOW, 0.0), (Level.SLOWER, SLOWER_C))
                if above_c >= start_c - (HYSTERESIS_C if self._heat >= level else 0.0)
            ),
            default=Level.NORMAL,
        )
        return level, f"{hottest.name} is at {hottest.temperature_c:.0f} °C" if hottest else ""

    def _start_c(self, limit_c: float | None) -> float:
        if self._slow_at_c is not None:
            return self._slow_at_c
        return float("inf") if limit_c is None else limit_c - MARGIN_C


class Protection:
    """Looks at the board again and again, and says how long to pause. May be used from any thread.

    Args:
        config: Its settings.
        read: Reads the board.

    Attributes:
        reading: The last one.
        level: In force now; NORMAL if protection is switched off.
        on_change: Called when level, power supply or power mode is another one, on this object's thread.
    """

    def __init__(self, config: ProtectionConfig, read: Callable[[], Reading] = read_board) -> None:
        self._read = read
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="board", daemon=True)
        self.reading = Reading()
        self.level = Level.NORMAL
        self.on_change: Callable[[], None] = lambda: None
        self.configure(config)

    def configure(self, config: ProtectionConfig) -> None:
        """Take other settings."""
        self._enabled = config.enabled
        self._governor = Governor(config.slow_at)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._ended.set()
        self._thread.join()

    def pause_s(self, spent_s: float) -> float:
        """How long the model rests after an answer that took `spent_s` seconds."""
        return min(LONGEST_PAUSE_S, PAUSES[self.level] * spent_s)

    def look(self) -> None:
        """Read the board once and take its level; a change is told, and one of the level logged, once."""
        before = self._state()
        self._take(self._read())
        if self._state() != before:
            self.on_change()

    def _state(self) -> tuple[object, ...]:
        return self.level, self.reading.under_voltage, self.reading.power_mode

    def _take(self, reading: Reading) -> None:
        self.reading = reading
        level = self._governor.note(self.reading, time.monotonic()) if self._enabled else Level.NORMAL
        if level == self.level:
            return
        self.level = level
        if level == Level.NORMAL:
            log.info("Answers come at full speed again.")
        else:
            log.warning(
                "Answers are spaced out: after each the model pauses %g times as long as the answer took, because %s.",
                PAUSES[level],
                self._governor.reason,
            )

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except Exception:
                log.exception("The board's sensors cannot be read.")
            if self._ended.wait(PERIOD_S):
                return
