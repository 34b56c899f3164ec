"""Which record to evict: replays routing under several policies and counts the records read.

Frames come as the runtime sees them: a prefill, whose scan evicts nothing, then some decoded tokens, layer by layer.
The routing is synthetic (`routing.Router`) or a trace with the columns token, layer, expert, its first 28 tokens a
prompt:

    PYTHONPATH=benchmarks python -m expert_core.policies [TRACE.csv]
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from expert_core.records import EXPERTS, TOP_K
from expert_core.routing import Router

LAYERS, FRAMES, PROMPT, DECODED = 48, 4, 220, 30
SHARES = (0.1, 0.2, 0.3, 0.5)
"""Of all records that fit into memory."""

HALF_LIFE_PASSES = 32
"""Passes through all layers. On a public trace of Qwen3-30B-A3B 16 to 64 read the fewest records, within 2 %."""

Step = tuple[bool, list[int]]
"""Whether it is a step of a prefill, and the records that a layer needs."""


class Cache:
    """Records in memory and what is known about the use of each."""

    def __init__(self, places: int, score: Callable[[Cache, int], float]) -> None:
        self.places = places
        self.score = score
        self.held: set[int] = set()
        self.last: dict[int, int] = {}
        self.count: dict[int, float] = {}
        self.aged: dict[int, float] = {}
        self.now = 0

    def step(self, prefill: bool, wanted: list[int]) -> int:
        """Use `wanted`; returns how many of them were read."""
        self.now += 1
        missing = [key for key in wanted if key not in self.held]
        for key in wanted:
            age = (self.now - self.last.get(key, self.now)) / LAYERS
            self.aged[key] = self.aged.get(key, 0.0) * 0.5 ** (age / HALF_LIFE_PASSES) + 1
            self.count[key] = self.count.get(key, 0) + 1
            self.last[key] = self.now
        for key in missing:
            if len(self.held) == self.places:
                if prefill:
                    continue
                self.held.remove(min(self.held.difference(wanted), key=lambda held: self.score(self, held)))
            self.held.add(key)
        return len(missing)


def aged(cache: Cache, key: int) -> float:
    """Frequency of use that halves every HALF_LIFE_PASSES, as the core does it."""
    return cache.aged[key] * 0.5 ** ((cache.now - cache.last[key]) / LAYERS / HALF_LIFE_PASSES)


POLICIES: dict[str, Callable[[Cache, int], float]] = {
    "least recently used": lambda cache, key: cache.last[key],
    "least frequently used": lambda cache, key: cache.count[key] + cache.last[key] * 1e-9,
    "least frequently used, aged": aged,
}


def synthetic(skew: float) -> Iterator[Step]:
    """Frames whose tokens are all independent."""
    router = Router(LAYERS, skew)
    for _ in range(FRAMES):
        for prefill, tokens in [(True, PROMPT), *[(False, 1)] * DECODED]:
            chosen = np.argsort(-router.logits(tokens), axis=2)[:, :, :TOP_K]
            for layer in range(LAYERS):
                yield prefill, [layer * EXPERTS + int(expert) for expert in np.unique(chosen[layer])]


def recorded(trace: Path) -> Iterator[Step]:
    """A trace's prompt and answer, cut into frames that all begin with the prompt."""
    picks: dict[tuple[int, int], set[int]] = {}
    with trace.open(encoding="utf-8") as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            picks.setdefault((int(row["token"]), int(row["layer"])), set()).add(int(row["expert"]))
    tokens = sorted({token for token, _ in picks})
    prompt, answer = tokens[:28], tokens[28:]
    for start in range(0, len(answer), DECODED):
        for prefill, group in [(True, prompt), *[(False, [token]) for token in answer[start : start + DECODED]]]:
            for layer in range(LAYERS):
                experts = set[int]().union(*(picks.get((token, layer), set()) for token in group))
                yield prefill, [layer * EXPERTS + expert for expert in sorted(experts)]


def replay(steps: Iterable[Step], score: Callable[[Cache, int], float], places: int) -> dict[str, int]:
    """Records read by prefills and by decoding."""
    cache = Cache(places, score)
    read = {"prefill": 0, "decode": 0}
    for prefill, wanted in steps:
        read["prefill" if prefill else "decode"] += cache.step(prefill, wanted)
    return read


def main() -> None:
    """Entry point; prints one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trace", type=Path, nargs="?")
    trace = parser.parse_args().trace
    steps = list(recorded(trace)) if trace else list(synthetic(1.7))
    for share in SHARES:
        for name, score in POLICIES.items():
            read = replay(steps, score, int(share * LAYERS * EXPERTS))
            print(json.dumps({"name": name, "share": share} | read), flush=True)


if __name__ == "__main__":
    main()
