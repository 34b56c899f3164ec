"""Which packets of a live video are decoded, and when: as few as the wanted frame rate allows. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

PacketT = TypeVar("PacketT")

MAX_WAITING_BYTES = 1 << 25
"""32 MiB of packets that no decoder has seen: 30 s of 8 Mbit/s. Beyond that they are decoded and thrown away."""

MAX_LAG_S = 2.0
"""Packets that have waited longer than this for the reader are not decoded: it first catches up."""

WAITED_S = 0.005
"""A reader that had to wait so long for a packet has read all that was there."""

_EARLY = 0.25
"""A key frame may be this much of a period early and still be the period's frame."""

_LATE = 1.5
"""So many times the distance of the last key frames, the next one is no longer waited for."""


@dataclass(frozen=True)
class Decode(Generic[PacketT]):
    """What to do now.

    Attributes:
        packets: To be decoded in this order; none for nothing.
        give: Whether the newest picture that comes out is wanted. Say `DecodePlan.gave` when there is one.
    """

    packets: Sequence[PacketT] = ()
    give: bool = False


class DecodePlan(Generic[PacketT]):
    """Keeps the packets since the last key frame undecoded until a frame is due.

    A frame is due `fps` times a second. If key frames come at least that often, only they are decoded, one a frame;
    otherwise the packets since the key frame, or since the last decoded one, are decoded when the frame is due, up to
    the newest one. Nothing before the first key frame is decoded.

    Args:
        fps: Frames wanted a second; None for every frame.
    """

    def __init__(self, fps: float | None) -> None:
        self._period_s = 0.0 if fps is None else 1.0 / fps
        self._due_s: float | None = None
        self._owes = False
        """The decoder has been given the packets of a due frame and no picture came out yet: it reorders."""
        self._waiting: list[PacketT] = []
        self._waiting_bytes = 0
        self._key_s: float | None = None
        self._key_gap_s: float | None = None
        self._lag = _Lag()

    def add(
        self, packet: PacketT, *, key: bool, size_bytes: int, pts_s: float | None, waited_s: float, now_s: float
    ) -> Decode[PacketT]:
        """A packet has arrived.

        Args:
            packet: It.
            key: Whether decoding can begin with it.
            size_bytes: Its size.
            pts_s: Its time in the camera's clock; None if unknown.
            waited_s: How long reading waited for it.
            now_s: Monotonic time.
        """
        if key:
            self._key_gap_s = None if self._key_s is None else now_s - self._key_s
            self._key_s = now_s
            self._waiting, self._waiting_bytes = [], 0
        elif self._key_s is None:
            return Decode()
        self._waiting.append(packet)
        self._waiting_bytes += size_bytes
        lags = self._lag.update(pts_s, waited_s, now_s) > MAX_LAG_S
        if not lags and self._is_due(key, now_s) and (key or self._owes or not self._key_is_near(now_s)):
            self._owes = True
            return Decode(self._drain(), give=True)
        if self._waiting_bytes > MAX_WAITING_BYTES:
            return Decode(self._drain())
        return Decode()

    def gave(self, now_s: float) -> None:
        """A picture came out and was given."""
        self._owes = False
        if self._due_s is None or self._due_s + self._period_s <= now_s:
            self._due_s = now_s
        self._due_s += self._period_s

    def lost(self) -> None:
        """A packet could not be decoded: nothing can before the next key frame."""
        self._key_s, self._owes = None, False
        self._waiting, self._waiting_bytes = [], 0

    def overdue(self, now_s: float) -> bool:
        """Whether a frame should have been given a whole period ago, or none has been given yet."""
        return self._due_s is None or now_s > self._due_s + self._period_s

    def _is_due(self, key: bool, now_s: float) -> bool:
        return self._due_s is None or now_s >= self._due_s - (_EARLY * self._period_s if key else 0.0)

    def _key_is_near(self, now_s: float) -> bool:
        """Whether waiting for the next key frame keeps the frame rate."""
        if self._key_gap_s is None or self._key_s is None or self._key_gap_s > self._period_s * (1 + _EARLY):
            return False
        return now_s - self._key_s < _LATE * self._key_gap_s

    def _drain(self) -> list[PacketT]:
        packets = self._waiting
        self._waiting, self._waiting_bytes = [], 0
        return packets


class _Lag:
    """How much longer a packet has waited for its reader than one that the reader waited for."""

    def __init__(self) -> None:
        self._delay_s: float | None = None

    def update(self, pts_s: float | None, waited_s: float, now_s: float) -> float:
        """Seconds by which the packet at `pts_s` lags; only differences between timestamps count."""
        if pts_s is None:
            return 0.0
        if (
            self._delay_s is None or waited_s >= WAITED_S
        ):  # it is the newest there is: whatever its delay, it is not the reader's
            self._delay_s = now_s - pts_s
        return now_s - pts_s - self._delay_s
