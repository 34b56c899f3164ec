"""moedge and a peer in turn, on texts of the same length: prefill and decode, and how far ours are from limits."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from moedge_runtime.bench.limits import Bandwidths, decode_limit_s, prefill_limit_s

from full_size.systems import Prompts, Running, System, TextFrame, answer_text

PREFILL_TOKENS, DECODE_TOKENS = 220, 24
MOST_OF_MEMORY = 0.85
"""Two systems run side by side, one idle, if their caps together are no more of the machine's memory."""
MOST_LEAD_IN = 6
"""Frames until moedge has all experts that a text needs."""


@dataclass
class Duel:
    """Frames of both sides by round.

    Attributes:
        peer: Its name; None where there was none, and then `theirs` is empty.
        bandwidths: Around each of our frames.
        peaks: Most memory of each side's group, page cache included.
    """

    peer: str | None
    cap_bytes: int
    ours: list[TextFrame] = field(default_factory=list)
    theirs: list[TextFrame] = field(default_factory=list)
    bandwidths: list[Bandwidths] = field(default_factory=list)
    peaks: dict[str, int] = field(default_factory=dict)

    def prefill_ratios(self) -> list[float]:
        """Their time over ours, by round."""
        return [theirs.prefill_s / ours.prefill_s for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    def decode_ratios(self) -> list[float]:
        """Likewise, of a decoded token."""
        return [theirs.token_s / ours.token_s for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    def prefill_over_limit(self, resident_s: float | None) -> list[float]:
        """Our time over its limit, by round; `resident_s` as in `prefill_limits`."""
        limits = self.prefill_limits(resident_s)
        return [frame.prefill_s / limit for frame, limit in zip(self.ours, limits, strict=True)]

    def prefill_limits(self, resident_s: float | None) -> list[float]:
        """Least time of our prefills; `resident_s` is that of one with all experts in memory, None takes their own."""
        limits = []
        for frame, bandwidths in zip(self.ours, self.bandwidths, strict=True):
            assert frame.detail is not None
            prefill = frame.detail.prefill
            compute_s = prefill.seconds - prefill.flash_wait_s if resident_s is None else resident_s
            limits.append(prefill_limit_s(prefill.missed_bytes, compute_s, bandwidths))
        return limits

    def decode_limits(self, token_bytes: int) -> list[float]:
        """Least time of a decoded token of ours, by round."""
        limits = []
        for frame, bandwidths in zip(self.ours, self.bandwidths, strict=True):
            assert frame.detail is not None
            missed, count = sum(share.missed_bytes for share in frame.detail.decode), len(frame.decode_s)
            limits.append(decode_limit_s(missed, count, token_bytes, bandwidths) / count)
        return limits

    def decode_over_limit(self, token_bytes: int) -> list[float]:
        """Our time of a decoded token over its limit, by round."""
        limits = self.decode_limits(token_bytes)
        return [frame.token_s / limit for frame, limit in zip(self.ours, limits, strict=True)]


def run_duel(
    ours: System,
    peer: System | None,
    prompts: Prompts,
    rounds: int,
    bandwidths: Callable[[], Bandwidths],
    *,
    resident: bool = False,
    decode: int = DECODE_TOKENS,
) -> Duel:
    """Turns of both in turn, each ending in one measured frame.

    Args:
        ours: moedge.
        peer: The other; None measures ours alone.
        prompts: For both.
        rounds: Measured frames of each.
        bandwidths: Measures memory and flash, while nobody runs.
        resident: Whether our turns begin with frames until nothing is missing.
        decode: Tokens decoded in a frame.
    """
    duel = Duel(None if peer is None else peer.name, ours.cap_bytes)
    sides = [(ours, duel.ours)] + ([] if peer is None else [(peer, duel.theirs)])
    together = sum(system.cap_bytes for system, _ in sides) <= MOST_OF_MEMORY * _machine_bytes()
    seeds = iter(range(1, 1_000_000))

    def frame(running: Running) -> TextFrame:
        return answer_text(running, prompts, PREFILL_TOKENS, decode, next(seeds))

    def turn(running: Running, *, started_now: bool) -> TextFrame:
        system = running.system
        for _ in range(system.lead_in + started_now):
            frame(running)
        if system is ours and resident:
            running.ask(do="settle")
            for _ in range(MOST_LEAD_IN):
                if not frame(running).prefill_read_bytes:
                    break
        measured = frame(running)
        if system is ours:
            running.ask(do="settle")  # what it reads ahead while it is idle must not disturb the next one
        duel.peaks[system.name] = max(duel.peaks.get(system.name, 0), running.peak_bytes())
        return measured

    with ExitStack() as stack:
        standing = {system: stack.enter_context(Running(system)) for system, _ in sides} if together else {}
        before = bandwidths()
        for index in range(rounds):
            for system, frames in sides:
                if together:
                    frames.append(turn(standing[system], started_now=index == 0))
                else:
                    with Running(system) as running:
                        frames.append(turn(running, started_now=True))
                if system is ours:
                    after = bandwidths()
                    duel.bandwidths.append(
                        Bandwidths((before.memory + after.memory) / 2, (before.flash + after.flash) / 2)
                    )
            before = bandwidths()
    return duel


def _machine_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
