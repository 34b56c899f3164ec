"""How long a live source may stay without a frame."""

from __future__ import annotations

import time
from dataclasses import dataclass

from moedge_runtime.errors import CameraError

STALLED_KEY = "camera.stalled"


@dataclass(frozen=True)
class Timeouts:
    """Limits of a live source.

    Attributes:
        first_frame_s: From the attempt to open it to its first frame.
        stall_s: Between two frames, or signs of life of a source that gives fewer.
    """

    first_frame_s: float = 15.0
    stall_s: float = 10.0


class Patience:
    """Measures one attempt against its timeouts.

    Args:
        timeouts: The limits.
        advice: What to check if there is no first frame; a whole sentence.
    """

    def __init__(self, timeouts: Timeouts, advice: str) -> None:
        self._timeouts, self._advice = timeouts, advice
        self._since_s = time.monotonic()
        self._started = False
        """Whether there was a frame."""

    def sign(self) -> None:
        """A frame, or a sign that one would come if it were asked for."""
        self._since_s, self._started = time.monotonic(), True

    def left_s(self) -> float:
        """Seconds until `error` is due; 0 from then on."""
        limit_s = self._timeouts.stall_s if self._started else self._timeouts.first_frame_s
        return max(0.0, self._since_s + limit_s - time.monotonic())

    def check(self) -> None:
        """Raise `error` if it is due.

        Raises:
            CameraError: No time is left.
        """
        if self.left_s() == 0:
            raise self.error()

    def error(self) -> CameraError:
        """What to raise when no time is left."""
        if self._started:
            return CameraError(
                f"It stalled: nothing usable came for {self._timeouts.stall_s:g} s (stall_timeout).", key=STALLED_KEY
            )
        return CameraError(
            f"No first frame came within {self._timeouts.first_frame_s:g} s (first_frame_timeout). {self._advice}",
            key="camera.timeout",
        )
