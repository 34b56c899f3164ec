"""A slot for the newest frame: a live camera puts, a slower consumer takes, what nobody took in time is dropped."""

from __future__ import annotations

import threading

from moedge_runtime.camera.frame import Frame


class LatestFrame:
    """Holds the newest frame. All methods may be called from any thread.

    Attributes:
        dropped: Frames replaced before anybody took them.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._taken = True
        self._closed = False
        self.dropped = 0

    def put(self, frame: Frame) -> None:
        """Replace the frame. Never blocks."""
        with self._changed:
            self.dropped += not self._taken
            self._frame, self._taken = frame, False
            self._changed.notify_all()

    def peek(self) -> Frame | None:
        """The newest frame, taken or not; None before the first one. Does not count as taking."""
        with self._changed:
            return self._frame

    def take(self, timeout_s: float | None = None) -> Frame | None:
        """Wait for a frame that nobody took yet; None after `timeout_s` seconds, or once closed with none left."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._closed, timeout_s)
            if self._taken:
                return None
            self._taken = True
            return self._frame

    def close(self) -> None:
        """No frame will follow: `take` stops waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
