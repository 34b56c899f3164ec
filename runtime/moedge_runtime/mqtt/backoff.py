"""How long to wait before the next attempt: doubling, capped, and scattered so that a fleet does not march in step."""

from __future__ import annotations

import random


class Backoff:
    """Delays of `first_s`, twice that, … up to `cap_s` seconds, each shortened by up to a fifth at random."""

    def __init__(self, first_s: float = 1.0, cap_s: float = 60.0) -> None:
        self._first_s, self._cap_s = first_s, cap_s
        self._next_s = first_s

    def next_s(self) -> float:
        """The next delay in seconds."""
        delay_s = self._next_s
        self._next_s = min(2 * delay_s, self._cap_s)
        return delay_s * random.uniform(0.8, 1.0)

    def reset(self) -> None:
        """An attempt has succeeded."""
        self._next_s = self._first_s
