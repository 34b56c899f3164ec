"""Measures the stages of one answer."""

from __future__ import annotations

from time import perf_counter

from moedge_runtime.inference.request import Timing


class Stopwatch:
    """Wall-clock time of the stages of one answer."""

    def __init__(self) -> None:
        self._start = self._last = perf_counter()
        self._laps_ms: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """The time since the last lap, or the start, was that of `stage`."""
        now = perf_counter()
        self._laps_ms[stage] = self._laps_ms.get(stage, 0.0) + 1e3 * (now - self._last)
        self._last = now

    def timing(self, generated_tokens: int) -> Timing:
        """All of it, once the laps wait, preprocess, vision, prefill and decode are over."""
        laps = self._laps_ms
        decode_s = laps["decode"] / 1e3
        total_ms = 1e3 * (self._last - self._start)
        return Timing(
            preprocess_ms=laps["preprocess"],
            vision_ms=laps["vision"],
            prefill_ms=laps["prefill"],
            waited_ms=laps["wait"],
            time_to_first_token_ms=total_ms - laps["decode"],
            decode_ms=laps["decode"],
            decode_tokens_per_s=(generated_tokens - 1) / decode_s if generated_tokens > 1 and decode_s > 0 else None,
            total_ms=total_ms,
        )
