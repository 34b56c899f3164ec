"""When frames of a recording are due: thinning to a frame rate, and playing in real time."""

from __future__ import annotations

import threading
import time

LATE_S = 0.5
"""A frame overdue by more than this is left out in real time, as a live camera would have overwritten it."""

_ROUNDING_S = 1e-6
"""Timestamps are integers in a time base; this much is rounding."""


class Thinner:
    """Chooses frames so that at most `fps` a second of source time remain, on a fixed grid."""

    def __init__(self, fps: float | None) -> None:
        self._step_s = None if fps is None else 1.0 / fps
        self._next_s = 0.0

    def keeps(self, pts_s: float) -> bool:
        """Whether the frame at `pts_s`, not before the last one, remains."""
        if self._step_s is None:
            return True
        if pts_s < self._next_s - _ROUNDING_S:
            return False
        self._next_s = (int((pts_s + _ROUNDING_S) / self._step_s) + 1) * self._step_s
        return True


class Pacer:
    """Waits until a frame is due.

    Args:
        realtime: False: nothing is ever waited for or left out.
        closed: Ends every wait.
    """

    def __init__(self, *, realtime: bool, closed: threading.Event) -> None:
        self._realtime = realtime
        self._closed = closed
        self._start_s: float | None = None

    def due(self, pts_s: float) -> bool:
        """Block until the frame at `pts_s` is due; False if it is to be left out, being late or the source closed."""
        if self._closed.is_set():
            return False
        if not self._realtime:
            return True
        now = time.monotonic()
        if self._start_s is None:
            self._start_s = now - pts_s
        wait_s = self._start_s + pts_s - now
        if wait_s > 0:
            return not self._closed.wait(wait_s)
        return wait_s > -LATE_S
