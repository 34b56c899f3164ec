"""What happened to the watches since start."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from moedge_runtime.mqtt.payloads import EventStatus, WatchHealth


class WatchCounters:
    """Counts by watch. All methods may be called from any thread."""

    def __init__(self, watches: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._counts = {watch: dict.fromkeys(WatchHealth.model_fields, 0) for watch in watches}
        self._last_answer_s: float | None = None

    def due(self, watch: str) -> None:
        """A watch asks."""
        with self._lock:
            self._counts[watch]["due"] += 1

    def ended(self, watch: str, status: EventStatus) -> None:
        """A watch's question has ended."""
        with self._lock:
            self._counts[watch]["answered" if status == "late" else status] += 1
            self._counts[watch]["late"] += status == "late"

    def answered(self) -> None:
        """An answer without error was made, to a watch or to a request."""
        with self._lock:
            self._last_answer_s = time.monotonic()

    def last_answer_age_s(self) -> float | None:
        """Seconds since the last answer without error; None before it."""
        with self._lock:
            return None if self._last_answer_s is None else time.monotonic() - self._last_answer_s

    def health(self) -> dict[str, WatchHealth]:
        """All counts."""
        with self._lock:
            return {watch: WatchHealth(**counts) for watch, counts in self._counts.items()}
