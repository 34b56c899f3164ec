"""What happened to the watches since start."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence

from moedge_runtime.mqtt.payloads import WatchHealth


class WatchCounters:
    """Counts by watch. All methods may be called from any thread."""

    def __init__(self, watches: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._counts = {watch: {"due": 0, "answered": 0, "failed": 0, "skipped": 0} for watch in watches}
        self._last_answer_s: float | None = None

    def due(self, due: Sequence[str], skipped: Sequence[str]) -> None:
        """Watches came due, and the waiting frames of some were replaced by that."""
        with self._lock:
            for watch in due:
                self._counts[watch]["due"] += 1
            for watch in skipped:
                self._counts[watch]["skipped"] += 1

    def answered(self, watch: str | None, *, ok: bool) -> None:
        """An answer was made; `watch` is None for a request."""
        with self._lock:
            if ok:
                self._last_answer_s = time.monotonic()
            if watch is not None:
                self._counts[watch]["answered" if ok else "failed"] += 1

    def last_answer_age_s(self) -> float | None:
        """Seconds since the last answer without error; None before it."""
        with self._lock:
            return None if self._last_answer_s is None else time.monotonic() - self._last_answer_s

    def health(self) -> dict[str, WatchHealth]:
        """All counts."""
        with self._lock:
            return {watch: WatchHealth(**counts) for watch, counts in self._counts.items()}
