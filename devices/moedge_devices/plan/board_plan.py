"""The plan of one model on one board: memory, expected times, a verdict, and what would make it better. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

from moedge_runtime.bundle import Precision
from moedge_runtime.errors import ConfigError
from moedge_runtime.inference.expert_core.memory import default_memory
from moedge_runtime.inference.memory_plan import MemoryPlan, plan_memory
from moedge_runtime.inference.request import DEFAULT_MAX_CONTEXT

from moedge_devices.plan.calibration import Calibration, Routing
from moedge_devices.plan.models import with_expert_precision
from moedge_devices.plan.prediction import USUAL_FRAME, Case, Frame, Prediction, predict
from moedge_devices.plan.speeds import Speeds, speeds_of
from moedge_devices.plan.subject import Subject
from moedge_devices.profile.model import Profile

Verdict = Literal["fits", "tight", "refuse"]
VERDICTS: tuple[Verdict, ...] = ("fits", "tight", "refuse")
"""From good to bad."""

SLOW_FIRST_TOKEN_S = 30.0
SLOW_TOKENS_PER_S = 1.0
"""What is slower is called tight: a camera's standing question is asked every few seconds to minutes."""

SMALL_CONTEXT = 1024
"""A camera's prompt and answer rarely need more (docs/memory.md)."""

GIB = 1 << 30


@dataclass(frozen=True)
class Setup:
    """What somebody may choose.

    Attributes:
        subject: The model.
        profile: The board.
        storage: Kind of storage that the bundle lies on, one of the profile's.
        memory_bytes: For the whole process; None for what the board has available, less the runtime's reserve.
        max_context: Tokens of prompt and answer; None for the runtime's default.
        routing: Assumption that the verdict is about.
    """

    subject: Subject
    profile: Profile
    storage: str
    memory_bytes: int | None = None
    max_context: int | None = None
    routing: Routing = "skewed"

    @property
    def total_bytes(self) -> int:
        """Memory for the whole process."""
        if self.memory_bytes is not None:
            return self.memory_bytes
        return default_memory(round(self.profile.memory.available_gib.value * GIB))

    @property
    def context(self) -> int:
        """Tokens of prompt and answer."""
        longest = self.subject.manifest.model.text.max_position_embeddings
        return min(DEFAULT_MAX_CONTEXT, longest) if self.max_context is None else self.max_context


@dataclass(frozen=True)
class Remedy:
    """A change that makes the verdict better, and what it leads to."""

    text: str
    plan: BoardPlan


@dataclass(frozen=True)
class BoardPlan:
    """The outcome.

    Attributes:
        setup: What was planned.
        verdict: `fits`, `tight` or `refuse`.
        reasons: Why it is not `fits`.
        memory: None if it is refused.
        speeds: Of the board.
        predictions: For both assumptions about routing, the one that was asked for first; empty if refused.
        remedies: What would make it better, if anything that was tried does.
    """

    setup: Setup
    verdict: Verdict
    reasons: list[str]
    memory: MemoryPlan | None
    speeds: Speeds
    predictions: list[Prediction]
    remedies: list[Remedy]


def plan_board(
    setup: Setup, calibration: Calibration, frame: Frame = USUAL_FRAME, *, others: list[Profile]
) -> BoardPlan:
    """Plan `setup`, and if it is not good, look for what makes it better.

    Args:
        setup: What to plan.
        calibration: See `calibration`.
        frame: What is asked.
        others: Boards that may be proposed instead.

    Raises:
        ConfigError: The storage is none of the board's, or memory, context or experts of a prefill are out of range.
    """
    _check(setup, frame)
    plan = _plan(setup, calibration, frame)
    if plan.verdict == "fits":
        return plan
    return replace(plan, remedies=_remedies(plan, calibration, frame, others))


def _check(setup: Setup, frame: Frame) -> None:
    profile = setup.profile
    if setup.storage not in profile.storage:
        raise ConfigError(
            f"'{profile.name}' has no storage '{setup.storage}'. Its profile knows {', '.join(profile.storage)}.",
            key="plan.storage_unknown",
        )
    most = profile.memory.total_gib.value * GIB
    if setup.memory_bytes is not None and setup.memory_bytes > most:
        raise ConfigError(
            f"--memory {setup.memory_bytes / GIB:.2f} GiB is more than '{profile.name}' has, {most / GIB:.0f} GiB. "
            f"Give less, or leave it out.",
            key="plan.memory_too_large",
        )
    longest = setup.subject.manifest.model.text.max_position_embeddings
    if not 1 < setup.context <= longest:
        raise ConfigError(
            f"--max-context {setup.context:,} is not possible: this model has 2 to {longest:,}.", key="plan.context"
        )
    text = setup.subject.manifest.model.text
    if frame.experts is not None and not text.num_experts_per_tok <= frame.experts <= text.num_experts:
        raise ConfigError(
            f"--prefill-experts {frame.experts:g} is not possible: a token of this model chooses "
            f"{text.num_experts_per_tok} of {text.num_experts} experts of a layer.",
            key="plan.prefill_experts",
        )


def _plan(setup: Setup, calibration: Calibration, frame: Frame) -> BoardPlan:
    speeds = speeds_of(setup.profile, setup.storage, calibration)
    subject = setup.subject
    try:
        memory = plan_memory(
            subject.manifest,
            setup.total_bytes,
            max_context=setup.context,
            wanted_pixels=subject.max_pixels,
            dense=subject.dense,
            tower=subject.tower,
        )
    except ConfigError as error:
        return BoardPlan(setup, "refuse", [str(error)], None, speeds, [], [])
    routings: list[Routing] = [setup.routing, "uniform" if setup.routing == "skewed" else "skewed"]
    predictions = [predict(Case(subject.manifest, memory, speeds, calibration), each, frame) for each in routings]
    reasons = _reasons(setup, memory, predictions[0])
    return BoardPlan(setup, "tight" if reasons else "fits", reasons, memory, speeds, predictions, [])


def _reasons(setup: Setup, memory: MemoryPlan, prediction: Prediction) -> list[str]:
    """Why a plan that is possible is not good."""
    text, info = setup.subject.manifest.model.text, setup.subject.manifest.experts
    assert info is not None, "an inline bundle has no records"
    reasons = []
    one_token = len(text.moe_layers) * text.num_experts_per_tok * info.record_bytes
    if memory.experts < min(one_token, memory.all_experts):
        reasons.append(
            f"{memory.experts / GIB:.2f} GiB for experts is below one token's picks ({one_token / GIB:.2f} GiB): every "
            f"token reads most of them again"
        )
    if not memory.vision_resident:
        reasons.append("the vision tower is loaded for each picture")
    if memory.pixels_limited:
        reasons.append(f"memory limits pictures to {memory.max_pixels / 1e6:.3g} megapixels")
    if prediction.warm.seconds > SLOW_FIRST_TOKEN_S:
        reasons.append(
            f"the first token takes {prediction.warm.seconds:.0f} s, more than {SLOW_FIRST_TOKEN_S:.0f} "
            f"({'flash' if prediction.warm.flash_bound else 'computing'})"
        )
    if prediction.token.per_second < SLOW_TOKENS_PER_S:
        reasons.append(
            f"{prediction.token.per_second:.2f} tokens/s are less than {SLOW_TOKENS_PER_S:.0f} "
            f"({prediction.token.bound})"
        )
    return reasons


def _remedies(plan: BoardPlan, calibration: Calibration, frame: Frame, others: list[Profile]) -> list[Remedy]:
    """The smallest sets of changes that make the verdict better, and other boards that do."""
    changes = list(_changes(plan.setup))
    for count in range(1, len(changes) + 1):
        found = []
        for chosen in combinations(changes, count):
            setup = plan.setup
            for _, change in chosen:
                setup = change(setup)
            better = _plan(setup, calibration, frame)
            if VERDICTS.index(better.verdict) < VERDICTS.index(plan.verdict):
                found.append(Remedy(" and ".join(text for text, _ in chosen), better))
        if found:
            return found
    boards = []
    for profile in sorted(others, key=lambda other: other.memory.total_gib.value):
        setup = replace(plan.setup, profile=profile, storage=next(iter(profile.storage)), memory_bytes=None)
        better = _plan(setup, calibration, frame)
        if VERDICTS.index(better.verdict) < VERDICTS.index(plan.verdict):
            boards.append(Remedy(f"a {profile.title} with {setup.storage}", better))
    return boards


def _changes(setup: Setup) -> Iterator[tuple[str, Callable[[Setup], Setup]]]:
    """Changes that keep the board, each with its name."""
    profile, now = setup.profile, setup.profile.storage[setup.storage].read_gb_s.value
    for name, storage in profile.storage.items():
        if storage.read_gb_s.value > now:
            yield f"--storage {name} ({storage.read_gb_s.value:g} GB/s)", _with_storage(name)
    if setup.context > SMALL_CONTEXT:
        yield f"--max-context {SMALL_CONTEXT}", lambda before: replace(before, max_context=SMALL_CONTEXT)
    if setup.subject.manifest.quantization.experts.bits > 4:
        yield "an export with --precision int4", _with_int4
    available = default_memory(round(profile.memory.available_gib.value * GIB))
    if setup.memory_bytes is not None and setup.memory_bytes < available:
        yield (
            f"--memory {available / GIB:.1f}G, all that the board has to give",
            lambda before: replace(before, memory_bytes=None),
        )


def _with_storage(name: str) -> Callable[[Setup], Setup]:
    return lambda before: replace(before, storage=name)


def _with_int4(before: Setup) -> Setup:
    manifest = before.subject.manifest
    block = manifest.quantization.experts.block_size
    smaller = with_expert_precision(manifest, Precision(bits=4, block_size=block))
    return replace(before, subject=replace(before.subject, manifest=smaller))
