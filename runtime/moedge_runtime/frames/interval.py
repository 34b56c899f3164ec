"""When enough of a camera's time has passed since a watch asked. Pure."""

from __future__ import annotations

_ROUNDING_S = 1e-6
"""Timestamps of frames are integers in a time base; this much is rounding."""


class Interval:
    """Says for each frame whether its watch is due, on a grid from the first frame on: a late frame shifts nothing."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._start_s: float | None = None
        self._next_s = float("-inf")

    def due(self, pts_s: float) -> bool:
        """Whether the frame at `pts_s`, not before the last one, is to be asked about."""
        if self._interval_s == 0:
            return True
        if self._start_s is None:
            self._start_s = pts_s
        if pts_s < self._next_s - _ROUNDING_S:
            return False
        steps = int((pts_s - self._start_s + _ROUNDING_S) / self._interval_s)
        self._next_s = self._start_s + (steps + 1) * self._interval_s
        return True

    def reopened(self) -> None:
        """Begin anew: the camera's time starts again."""
        self._start_s = None
        self._next_s = float("-inf")


class Gap:
    """Says for each frame whether its watch may ask: a least time after the last frame that it asked about."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._next_s = self._now_s = float("-inf")

    def due(self, pts_s: float) -> bool:
        """Whether the frame at `pts_s`, not before the last one, may be asked about; it then is."""
        self._now_s = pts_s
        if pts_s < self._next_s - _ROUNDING_S:
            return False
        self._next_s = pts_s + self._interval_s
        return True

    def reopened(self) -> None:
        """The camera's time starts again; what is left of the gap is kept."""
        if self._now_s > float("-inf"):
            self._next_s, self._now_s = self._next_s - self._now_s, 0.0
