"""Which records stay in memory: replays routing under several policies and counts the records read.

Frames come as the runtime sees them: a prefill, then some decoded tokens, layer by layer. The routing is synthetic
(`routing.Router`) or a trace with the columns step (of a token), layer and expert, its first 28 tokens a prompt:

    PYTHONPATH=benchmarks python -m expert_core.policies [TRACE.csv]
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from expert_core.records import EXPERTS, TOP_K
from expert_core.routing import Router

LAYERS, FRAMES, PROMPT, DECODED = 48, 4, 220, 30
SHARES = (0.1, 0.2, 0.3, 0.4, 0.6)
"""Of all records that fit into memory."""

HALF_LIFE_PASSES = 32
"""Passes through all layers. On a public trace of Qwen3-30B-A3B 16 to 64 read the fewest records, within 2 %."""


@dataclass(frozen=True)
class Step:
    """What one layer needs: records, ascending, and by how many tokens each was chosen."""

    prefill: bool
    layer: int
    keys: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Policy:
    """Which record makes room.

    Attributes:
        recency: The one that was used longest ago; else the one with the least use, a use counting half after
            `HALF_LIFE_PASSES`.
        prompt_token: What a token of a prefill counts for beside a decoded one; None counts a prefill once a record.
        replaces: A prefill gives places of records that are clearly colder, of layers it is through with, to others;
            else it fills free places only.
        clearly: By so many half-lives.
    """

    recency: bool = False
    prompt_token: float | None = None
    replaces: bool = False
    clearly: float = 0.125


POLICIES = {
    "least recently used": Policy(recency=True),
    "least used, a prefill evicts nothing": Policy(),
    "least used, a token of a prompt counts 1/4, a prefill replaces": Policy(prompt_token=1 / 4, replaces=True),
    "least used, a token of a prompt counts 1/8, a prefill replaces": Policy(prompt_token=1 / 8, replaces=True),
    "least used, a token of a prompt counts 1/16, a prefill replaces": Policy(prompt_token=1 / 16, replaces=True),
}


class Cache:
    """Records in memory and how much each was used."""

    def __init__(self, places: int, policy: Policy) -> None:
        self._free, self._policy = places, policy
        self._held = np.zeros(LAYERS * EXPERTS, bool)
        self._heat = np.zeros(LAYERS * EXPERTS)
        self._now = 0

    def step(self, step: Step) -> int:
        """Use what a layer needs; returns how many records were read."""
        self._now += 1
        one_now = 2 ** (self._now / LAYERS / HALF_LIFE_PASSES)
        if self._policy.recency:
            self._heat[step.keys] = self._now
        elif step.prefill and self._policy.prompt_token is not None:
            self._heat[step.keys] += step.tokens * self._policy.prompt_token * one_now
        else:
            self._heat[step.keys] += one_now
        missing = step.keys[~self._held[step.keys]]
        for key in missing:
            if self._free:
                self._free -= 1
            elif not self._make_room(step, key):
                continue
            self._held[key] = True
        return len(missing)

    def _make_room(self, step: Step, key: int) -> bool:
        if step.prefill and not self._policy.replaces:
            return False
        heat = np.where(self._held, self._heat, np.inf)
        heat[step.keys] = np.inf
        if step.prefill:
            heat[(step.layer + 1) * EXPERTS :] = np.inf
        coldest = int(np.argmin(heat))
        if step.prefill and heat[coldest] * 2**self._policy.clearly > self._heat[key]:
            return False
        self._held[coldest] = False
        return True


def synthetic(skew: float) -> Iterator[Step]:
    """Frames whose tokens are all independent."""
    router = Router(LAYERS, skew)
    for _ in range(FRAMES):
        for prefill, tokens in [(True, PROMPT), *[(False, 1)] * DECODED]:
            chosen = np.argsort(-router.logits(tokens), axis=2)[:, :, :TOP_K]
            for layer in range(LAYERS):
                yield _step(prefill, layer, chosen[layer])


def recorded(trace: Path) -> Iterator[Step]:
    """A trace's prompt and answer, cut into frames that all begin with the prompt."""
    picks: dict[tuple[int, int], list[int]] = {}
    with trace.open(encoding="utf-8") as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            picks.setdefault((int(row["step"]), int(row["layer"])), []).append(int(row["expert"]))
    tokens = sorted({token for token, _ in picks})
    prompt, answer = tokens[:28], tokens[28:]
    for start in range(0, len(answer), DECODED):
        for prefill, group in [(True, prompt), *[(False, [token]) for token in answer[start : start + DECODED]]]:
            for layer in range(LAYERS):
                chosen = [expert for token in group for expert in picks.get((token, layer), [])]
                yield _step(prefill, layer, np.array(chosen, np.int64))


def _step(prefill: bool, layer: int, chosen: npt.NDArray[np.int64]) -> Step:
    experts, tokens = np.unique(chosen, return_counts=True)
    return Step(prefill, layer, layer * EXPERTS + experts, tokens)


def replay(steps: Iterable[Step], policy: Policy, places: int) -> dict[str, int]:
    """Records read by prefills and by decoding."""
    cache = Cache(places, policy)
    read = {"prefill": 0, "decode": 0}
    for step in steps:
        read["prefill" if step.prefill else "decode"] += cache.step(step)
    return read


def main() -> None:
    """Entry point; prints one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", type=Path, nargs="?")
    trace = parser.parse_args().trace
    steps = list(recorded(trace)) if trace else list(synthetic(1.7))
    for share in SHARES:
        for name, policy in POLICIES.items():
            read = replay(steps, policy, int(share * LAYERS * EXPERTS))
            print(json.dumps({"name": name, "share": share} | read), flush=True)


if __name__ == "__main__":
    main()
