"""Which records to keep for cameras that take turns: replays routing under several ways and counts the records read.

With a bundle of the demo model, what its two cameras of `cameras.CASES` choose; without one synthetic routing at full
size, whose popularity the cameras have in common to some part:

    PYTHONPATH=benchmarks:examples/panel python -m expert_core.camera_policies [out/demo/panel-int4]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from moedge_runtime.bundle import Bundle
from moedge_runtime.inference import Engine, EngineOptions
from moedge_runtime.inference.camera_counts import HALF_LIFE_ANSWERS, PROMPT_TOKEN
from moedge_runtime.inference.expert_core.bank import NativeExperts

from expert_core.cameras import CASES, CONTEXT, LEARNED, PLACES, rounds
from expert_core.policies import HALF_LIFE_PASSES, Step
from expert_core.records import EXPERTS, TOP_K
from expert_core.routing import TOKEN_STD

LAYERS, ANSWERS, PROMPT, DECODED, SKEW = 48, 10, 220, 20, 1.7
COMMON = (1.0, 0.5, 0.0)
"""Share of the variance of an expert's popularity that is the same for both cameras."""
CLEARLY = 0.125
"""Half-lives by which a record is colder before a prefill takes its place."""

Keys = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Trace:
    """Answers to cameras in turn: (camera, its steps). `learned` of them come before anything is counted."""

    layers: int
    experts: int
    top_k: int
    learned: int
    answers: list[tuple[str, list[Step]]]


@dataclass(frozen=True)
class Way:
    """What is kept for a camera while it is asked.

    Attributes:
        share: Of the places, for what it used most, which is read before the answer.
        pinned: Nothing takes the place of that; else it is only preloaded.
        apart: By its own counts; else by those of all cameras.
        half_life: Answers after which one counts half.
    """

    share: float
    pinned: bool = True
    apart: bool = True
    half_life: float = HALF_LIFE_ANSWERS


WAYS = {
    "nothing": Way(0),
    "half, pinned": Way(0.5),
    "half, pinned, counts that never age": Way(0.5, half_life=float("inf")),
    "three quarters, pinned": Way(0.75),
    "three quarters, pinned, of all cameras": Way(0.75, apart=False),
    "all, only preloaded": Way(1, pinned=False),
}


class Memory:
    """Places, and how much each record was used, as in `policies.Cache`."""

    def __init__(self, trace: Trace, places: int) -> None:
        self._layers, self._experts, self.places, self._free = trace.layers, trace.experts, places, places
        self.held = np.zeros(trace.layers * trace.experts, bool)
        self._pinned = np.zeros_like(self.held)
        self._heat = np.zeros(len(self.held))
        self._now = 0

    def prepare(self, keys: Keys, pinned: bool) -> int:
        """Read what is missing of `keys`; they stay meanwhile, and then as well if `pinned`."""
        self._pinned[:] = False
        self._pinned[keys] = True
        missing = keys[~self.held[keys]]
        for key in missing:
            self._take(int(key), self._victims(1, keys, len(self.held)), always=True)
        if not pinned:
            self._pinned[:] = False
        return len(missing)

    def step(self, step: Step) -> int:
        """Use what a layer needs; returns how many records were read."""
        self._now += 1
        uses = step.tokens * PROMPT_TOKEN if step.prefill else 1
        self._heat[step.keys] += uses * 2 ** (self._now / self._layers / HALF_LIFE_PASSES)
        missing = step.keys[~self.held[step.keys]]
        end = (step.layer + 1) * self._experts if step.prefill else len(self.held)
        victims = self._victims(len(missing), step.keys, end) if len(missing) else []
        for key in missing:
            self._take(int(key), victims, always=not step.prefill)
        return len(missing)

    def _victims(self, most: int, needed: Keys, end: int) -> list[int]:
        heat = np.where(self.held & ~self._pinned, self._heat, np.inf)
        heat[needed] = np.inf
        heat[end:] = np.inf
        coldest = np.argsort(heat, kind="stable")[:most]
        return [int(key) for key in coldest[np.isfinite(heat[coldest])]]

    def _take(self, key: int, victims: list[int], always: bool) -> None:
        if self._free:
            self._free -= 1
        elif not victims or (not always and self._heat[victims[0]] * 2**CLEARLY > self._heat[key]):
            return
        else:
            self.held[victims.pop(0)] = False
        self.held[key] = True


def replay(trace: Trace, places: int, way: Way) -> dict[str, int]:
    """Records read by answers and, of these, by decoding; and before answers."""
    memory = Memory(trace, places)
    counts: dict[str, npt.NDArray[np.float64]] = {}
    read = {"answers": 0, "decode": 0, "ahead": 0}
    for index, (camera, steps) in enumerate(trace.answers):
        if index == trace.learned:
            read = dict.fromkeys(read, 0)
        owner = camera if way.apart else ""
        if owner in counts:
            most = max(0, min(int(way.share * places), places - 2 * trace.top_k))
            hottest = np.argsort(-counts[owner], kind="stable")[:most]
            read["ahead"] += memory.prepare(hottest[counts[owner][hottest] > 0], way.pinned)
        chosen = np.zeros(len(memory.held))
        for step in steps:
            reads = memory.step(step)
            read["answers"] += reads
            read["decode"] += 0 if step.prefill else reads
            chosen[step.keys] += step.tokens * (PROMPT_TOKEN if step.prefill else 1)
        counts[owner] = counts.get(owner, 0) * 2 ** (-1 / way.half_life) + chosen
    return read


def recorded(bundle: Bundle, case: str) -> Trace:
    """What two cameras of the demo model choose."""
    text = bundle.manifest.model.text
    steps: list[Step] = []

    class Recorder(NativeExperts):
        def compute(self, layer: int, *arguments: Any) -> Any:
            chosen = np.argpartition(-arguments[1], text.num_experts_per_tok, axis=1)[:, : text.num_experts_per_tok]
            steps.append(
                _step(len(steps) < len(text.moe_layers), text.moe_layers.index(layer), chosen, text.num_experts)
            )
            return super().compute(layer, *arguments)

    answers = []
    with Engine.open(bundle, EngineOptions(max_context=CONTEXT, experts=Recorder)) as engine:
        for requests in rounds(case):
            for camera, request in zip(("first", "second"), requests, strict=True):
                steps.clear()
                engine.ask(request)
                answers.append((camera, list(steps)))
    return Trace(len(text.moe_layers), text.num_experts, text.num_experts_per_tok, 2 * LEARNED, answers)


def synthetic(common: float) -> Trace:
    """Two cameras at full size; an answer's tokens are independent."""
    rng = np.random.default_rng(0)
    ranks = -np.log(np.arange(1, EXPERTS + 1))
    ranks = SKEW * (ranks - ranks.mean()) / ranks.std()

    def draw() -> npt.NDArray[np.float64]:
        return np.stack([ranks[rng.permutation(EXPERTS)] for _ in range(LAYERS)])

    shared = draw()
    popularity = {name: common**0.5 * shared + (1 - common) ** 0.5 * draw() for name in ("first", "second")}
    answers = []
    for _, (camera, popular) in zip(range(ANSWERS), _in_turn(popularity), strict=False):
        steps = []
        for prefill, tokens in [(True, PROMPT), *[(False, 1)] * DECODED]:
            logits = TOKEN_STD * rng.standard_normal((LAYERS, tokens, EXPERTS)) + popular[:, None]
            chosen = np.argpartition(-logits, TOP_K, axis=2)[:, :, :TOP_K]
            steps += [_step(prefill, layer, chosen[layer], EXPERTS) for layer in range(LAYERS)]
        answers.append((camera, steps))
    return Trace(LAYERS, EXPERTS, TOP_K, 4, answers)


def _in_turn(popularity: dict[str, npt.NDArray[np.float64]]) -> Iterator[tuple[str, npt.NDArray[np.float64]]]:
    while True:
        yield from popularity.items()


def _step(prefill: bool, layer: int, chosen: npt.NDArray[np.int64], experts: int) -> Step:
    keys, tokens = np.unique(chosen, return_counts=True)
    return Step(prefill, layer, layer * experts + keys, tokens)


def compare(name: str, trace: Trace, places: Sequence[int], ways: Sequence[str]) -> None:
    """Print one JSON object a line."""
    for room in places:
        before = replay(trace, room, WAYS["nothing"])
        for way in ways:
            read = replay(trace, room, WAYS[way])
            percent = {
                "answers": 100 * (read["answers"] / before["answers"] - 1),
                "decode": 100 * (read["decode"] / before["decode"] - 1),
                "all": 100 * ((read["answers"] + read["ahead"]) / before["answers"] - 1),
            }
            rounded = {key: round(value, 1) for key, value in percent.items()}
            print(json.dumps({"name": name, "places": room, "way": way} | read | {"percent": rounded}), flush=True)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?")
    bundle = parser.parse_args().bundle
    if bundle:
        for case in CASES:
            compare(case, recorded(Bundle.open(bundle), case), PLACES, list(WAYS))
    else:
        for common in COMMON:
            compare(f"common {common}", synthetic(common), [int(0.3 * LAYERS * EXPERTS)], list(WAYS)[1:2])


if __name__ == "__main__":
    main()
