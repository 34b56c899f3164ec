"""What a daemon lives through: its start, hundreds of frames, and a model that thinks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from full_size.systems import Running, moedge

SMALL = {"width": 256, "height": 128}
"""Of most frames of an endurance run: 32 image tokens; every tenth has its full size."""
FULL_SIZE_EVERY = 10
ENDURANCE_DECODE_TOKENS = 4
THINKING_BUDGET, THINKING_TOKENS = 16, 48


def start_seconds(bundle: Path, cap_bytes: int, *, cold: bool) -> float:
    """From the start of the process, checks of the bundle included as in the daemon, until it can answer."""
    with Running(moedge(bundle, cap_bytes, "--verify"), cold=cold) as running:
        running.ask(do="status")
        return perf_counter() - running.started


@dataclass(frozen=True)
class Endurance:
    """Memory of the group without page cache after each frame, bytes, and the most with it."""

    anonymous_bytes: list[int]
    peak_bytes: int

    @property
    def growth_bytes(self) -> int:
        """The second half's most, less the first half's."""
        half = len(self.anonymous_bytes) // 2
        return max(self.anonymous_bytes[half:]) - max(self.anonymous_bytes[:half])


def endure(bundle: Path, cap_bytes: int, frames: int) -> Endurance:
    """Answer about `frames` pictures, each another scene."""
    memory = []
    with Running(moedge(bundle, cap_bytes)) as running:
        for index in range(frames):
            size: dict[str, Any] = {} if index % FULL_SIZE_EVERY == 0 else dict(SMALL)
            running.ask(do="frame", seed=index, decode=ENDURANCE_DECODE_TOKENS, **size)
            memory.append(running.anonymous_bytes())
        return Endurance(memory, running.peak_bytes())


@dataclass(frozen=True)
class Thought:
    """A thinking model's reply to a question with a budget of `THINKING_BUDGET` tokens.

    Attributes:
        reasoning_tokens: With the tokens that close it.
        closing_tokens: The most that closing takes.
        leaked: Whether the published answer has a mark of reasoning, or the reasoning itself.
    """

    reasoning_tokens: int
    closing_tokens: int
    answer_tokens: int
    leaked: bool


def think(bundle: Path, cap_bytes: int) -> Thought:
    """Ask a thinking model one question as the daemon does."""
    with Running(moedge(bundle, cap_bytes)) as running:
        return Thought(**running.ask(do="think", budget=THINKING_BUDGET, decode=THINKING_TOKENS))
