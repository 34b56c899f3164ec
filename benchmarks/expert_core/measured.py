"""The measured process: Python, numpy and the core, nothing else. Makes passes through the layers when asked.

It runs under a memory cap, with the library of `read_log` preloaded, and is spoken to in lines of JSON: first `Setup`,
answered with the size of a record; then `PassesWanted`, answered with `Passes`, or null, answered with `Memory`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from moedge_runtime.inference.expert_core import NativeExperts

from expert_core.memory_map import by_kind, peak_bytes
from expert_core.read_log import missed_records, take_reads
from expert_core.records import HIDDEN, LAYERS, stack_records
from expert_core.routing import Router

MAX_TOKENS = 1024
THREADS, READERS = 2, 4


@dataclass(frozen=True)
class Setup:
    """What is measured.

    Attributes:
        directory: Holds the records.
        budget_bytes: Of the core.
        skew: Of the routing.
        seed: Of the routing.
        layers: That a pass goes through, the first so many.
        prefetch: Whether a prefill reads ahead.
    """

    directory: str
    budget_bytes: int
    skew: float
    seed: int = 0
    layers: int = LAYERS
    prefetch: bool = True


@dataclass(frozen=True)
class PassesWanted:
    """`count` passes of `tokens` tokens each, one after the other.

    Attributes:
        guess: Whether each layer is told what the next three will probably need, as a decode's layers do.
    """

    tokens: int
    count: int = 1
    guess: bool = False


@dataclass(frozen=True)
class Passes:
    """What they took, and the records that had to be read for them, in the order of their reading."""

    seconds: float
    missed: list[int]


@dataclass(frozen=True)
class Memory:
    """Of the process, in bytes; `before_core` and `now` are by kind, see `by_kind`.

    Attributes:
        peak: The most that it had at once.
        before_core: What it had before the core was opened: Python, numpy, moedge.
        now: What it has.
        core_says: What of its budget the core says it uses.
    """

    peak: int
    before_core: dict[str, int]
    now: dict[str, int]
    core_says: int


class Measured:
    """The core, and what goes through it."""

    def __init__(self, setup: Setup) -> None:
        bundle = stack_records(Path(setup.directory))
        self.record_bytes = bundle.expert_layout.record_bytes
        self._file_bytes = bundle.file("experts.bin").stat().st_size
        self._layers = setup.layers
        self._router = Router(setup.layers, setup.skew, setup.seed)
        self._before_core = self._memory_by_kind()
        self._core = NativeExperts(
            bundle,
            setup.budget_bytes,
            threads=THREADS,
            readers=READERS,
            max_tokens=MAX_TOKENS,
            prefetch=setup.prefetch,
        )

    def run(self, wanted: PassesWanted) -> Passes:
        """Make the passes; what is random is made outside of the time that counts."""
        hidden = np.random.default_rng(0).standard_normal((wanted.tokens, HIDDEN), dtype=np.float32)
        counts, before = self._core.counts(), self._core.statistics()
        take_reads()
        seconds = 0.0
        for _ in range(wanted.count):
            logits = self._router.logits(wanted.tokens)
            guesses = self._router.guesses(logits) if wanted.guess else [None] * self._layers
            start = perf_counter()
            for layer in range(self._layers):
                self._core.compute(layer, hidden, logits[layer], guesses[layer])
            seconds += perf_counter() - start
        reads = take_reads()
        read_bytes = (self._core.statistics() - before).read_bytes
        used = (self._core.counts() > counts).reshape(-1)
        return Passes(seconds, missed_records(reads, self.record_bytes, read_bytes, used))

    def memory(self) -> Memory:
        """Where its memory is."""
        core_says = self._core.statistics().used_bytes
        return Memory(peak_bytes(), self._before_core, self._memory_by_kind(), core_says)

    def _memory_by_kind(self) -> dict[str, int]:
        return by_kind(Path("/proc/self/smaps").read_text(encoding="utf-8"), self._file_bytes)


def answers(lines: Iterator[str]) -> Iterator[object]:
    """One for each line."""
    measured = Measured(Setup(**json.loads(next(lines))))
    yield measured.record_bytes
    for line in lines:
        wanted = json.loads(line)
        yield asdict(measured.memory() if wanted is None else measured.run(PassesWanted(**wanted)))


def main() -> None:
    """Entry point; ends when nobody asks any more."""
    for answer in answers(iter(sys.stdin)):
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
