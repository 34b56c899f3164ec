"""1,000 prefills and decodes in turn while the budget changes: the same bits, and memory that does not grow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from moedge_runtime.bundle import Precision
from moedge_runtime.inference.expert_core import NativeExperts

from expert_core.records import HIDDEN, write_records
from expert_core.report import report
from expert_core.routing import Router

ROUNDS, TOKENS, INPUTS = 500, 32, 10
BUDGETS = [mib << 20 for mib in (40, 400, 120, 250, 60)]
BUDGET_ROUNDS = 7
"""Rounds between two changes of the budget."""
MOST_GROWTH_MIB = 1.0
"""Of memory between the first half's peak and the second half's, both at the same budgets."""


def endurance(directory: Path) -> bool:
    """Run it; whether both bounds were kept."""
    bundle = write_records(directory / "layer-int4-32", 1, Precision(bits=4))
    router = Router(1, 1.7)
    rng = np.random.default_rng(0)
    inputs = [
        (rng.standard_normal((tokens, HIDDEN), dtype=np.float32), router.logits(tokens)[0])
        for _ in range(INPUTS)
        for tokens in (TOKENS, 1)
    ]
    core = NativeExperts(bundle, BUDGETS[-1], threads=2, max_tokens=TOKENS)
    first = [core.compute(0, *pair) for pair in inputs]
    different = 0
    memory: list[int] = []
    for turn in range(ROUNDS):
        if turn % BUDGET_ROUNDS == 0:
            core.set_budget(BUDGETS[turn // BUDGET_ROUNDS % len(BUDGETS)])
        for index in (2 * turn % len(inputs), (2 * turn + 1) % len(inputs)):
            different += not np.array_equal(core.compute(0, *inputs[index]), first[index])
        memory.append(_resident_bytes())
    core.close()
    growth = (max(memory[ROUNDS // 2 :]) - max(memory[: ROUNDS // 2])) / 2**20
    same = report(f"{2 * ROUNDS} prefills and decodes under changing budgets: results that differ", [different], "", 0)
    return report("the same: growth of memory", [growth], "MiB", MOST_GROWTH_MIB) and same


def _resident_bytes() -> int:
    return 4096 * int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
