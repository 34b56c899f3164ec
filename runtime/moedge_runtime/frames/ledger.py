"""What became of every frame of a camera: each is counted once, and the counts add up at any moment."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True)
class FrameCounts:
    """Frames of one camera since the start; seen = skipped + answered + dropped + waiting.

    Attributes:
        seen: Frames that the camera gave.
        skipped: No watch asked about them.
        answered: At least one watch that asked got an answer.
        dropped: Watches asked, and none got an answer.
        waiting: Watches ask, and the model has not answered yet.
        reasons: Why frames were skipped or dropped, one reason each; together as many as these.
    """

    seen: int = 0
    skipped: int = 0
    answered: int = 0
    dropped: int = 0
    waiting: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass
class _Open:
    questions: int
    answered: bool = False
    reason: str | None = None


class FrameLedger:
    """Counts the frames of one camera. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tickets = 0
        self._skipped = self._answered = self._dropped = 0
        self._open: dict[int, _Open] = {}
        self._reasons: Counter[str] = Counter()

    def skipped(self, reason: str) -> None:
        """A frame came about which no watch asks."""
        with self._lock:
            self._skipped += 1
            self._reasons[reason] += 1

    def begun(self, questions: int) -> int:
        """A frame came about which so many watches ask; the ticket for `ended`."""
        with self._lock:
            self._tickets += 1
            self._open[self._tickets] = _Open(questions)
            return self._tickets

    def ended(self, ticket: int, reason: str | None) -> None:
        """One of its questions has ended: with an answer if `reason` is None, else without one."""
        with self._lock:
            frame = self._open[ticket]
            frame.questions -= 1
            if reason is None:
                frame.answered = True
            elif frame.reason is None:
                frame.reason = reason
            if frame.questions:
                return
            del self._open[ticket]
            if frame.answered:
                self._answered += 1
            else:
                self._dropped += 1
                self._reasons[frame.reason or ""] += 1

    def counts(self) -> FrameCounts:
        """All counts, of one moment."""
        with self._lock:
            waiting = len(self._open)
            return FrameCounts(
                seen=self._skipped + self._answered + self._dropped + waiting,
                skipped=self._skipped,
                answered=self._answered,
                dropped=self._dropped,
                waiting=waiting,
                reasons=dict(sorted(self._reasons.items())),
            )
