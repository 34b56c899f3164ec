"""moedge over memory budgets: a cold frame, the same scene again and a scene change, with vision, each under a cap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moedge_runtime.bench.frame import FrameMeasurement
from moedge_runtime.bench.limits import Bandwidths
from moedge_runtime.bench.rounds import FRAMES

from full_size.systems import GIB, Running, ask_frame, moedge

SCENES = (1, 1, 2)
"""Seeds of the pictures of `FRAMES`."""
DECODE_TOKENS = 60


@dataclass
class Budget:
    """What was measured under one cap.

    Attributes:
        frames: By kind, one of each round, with the bandwidths around it.
        answers: Tokens of every frame's answer, in the order of `FRAMES`, of each round.
        peak_bytes: Most memory of the group, page cache included.
        anonymous_bytes: Of the group at the end, page cache excluded.
    """

    cap_gib: int
    frames: dict[str, list[tuple[FrameMeasurement, Bandwidths]]] = field(
        default_factory=lambda: {name: [] for name in FRAMES}
    )
    answers: list[list[list[int]]] = field(default_factory=list)
    peak_bytes: int = 0
    anonymous_bytes: int = 0


def run_curve(bundle: Path, caps_gib: Sequence[int], rounds: int, bandwidths: Callable[[], Bandwidths]) -> list[Budget]:
    """Every cap in turn, `rounds` times."""
    budgets = [Budget(cap) for cap in caps_gib]
    before = bandwidths()
    for _ in range(rounds):
        for budget in budgets:
            with Running(moedge(bundle, budget.cap_gib * GIB)) as running:
                measured = [ask_frame(running, scene, DECODE_TOKENS) for scene in SCENES]
                budget.peak_bytes = max(budget.peak_bytes, running.peak_bytes())
                budget.anonymous_bytes = max(budget.anonymous_bytes, running.anonymous_bytes())
            after = bandwidths()
            around = Bandwidths((before.memory + after.memory) / 2, (before.flash + after.flash) / 2)
            for name, frame in zip(FRAMES, measured, strict=True):
                budget.frames[name].append((frame, around))
            budget.answers.append([frame.tokens for frame in measured])
            before = after
    return budgets


def different_answers(budgets: Sequence[Budget]) -> int:
    """Answers, of all budgets and rounds, that are not token for token those of the first."""
    first = budgets[0].answers[0]
    every = [answers for budget in budgets for answers in budget.answers]
    return sum(answer != wanted for answers in every for answer, wanted in zip(answers, first, strict=True))
