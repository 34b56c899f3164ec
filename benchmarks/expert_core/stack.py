"""48 layers of records on flash under a memory cap: prefill and decode beside what flash and kernels allow."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from expert_core.conductor import BesideFlash, Conductor
from expert_core.guest_memory import touch_memory
from expert_core.measured import PassesWanted, Setup
from expert_core.records import LAYERS
from expert_core.report import report

BUDGET_BYTES = 5 << 30
MOST_BEYOND_BUDGET_MIB = 64.0
BOUND = 1.25
FRAMES, RESIDENT_ROUNDS = 5, 10
KINDS = {
    "prefill": PassesWanted(tokens=220),
    "decode": PassesWanted(tokens=1, count=10, guess=True),
    "decode without a guess": PassesWanted(tokens=1, count=10),
}
BOUNDED = ("prefill", "decode")
"""What moedge does; its decode is told what the next three layers will probably need."""
RESIDENT_LAYERS = 8
"""That are measured with everything resident: 2.7 GB, far more than the processor's cache."""
RESIDENT_BUDGET_BYTES = 3 << 30


def stack(directory: Path) -> bool:
    """Frames of a prefill and a decode, at skewed and at uniform routing; whether every bound was kept."""
    touch_memory(BUDGET_BYTES)
    kept = [frames(directory, skew) for skew in (1.7, 0.0)]
    return all(kept)


def frames(directory: Path, skew: float) -> bool:
    """Frames at one routing, after two that fill the memory and tell what is missed."""
    resident_s = resident_seconds(directory, skew)
    done: dict[str, list[BesideFlash]] = {kind: [] for kind in KINDS}
    with Conductor(directory, Setup(str(directory), BUDGET_BYTES, skew)) as measured:
        for wanted in KINDS.values():
            measured.run(wanted)
        earlier = {kind: measured.run(wanted).missed for kind, wanted in KINDS.items()}
        for _ in range(FRAMES):
            for kind, wanted in KINDS.items():
                done[kind].append(measured.run_beside_flash(wanted, earlier[kind]))
                earlier[kind] = done[kind][-1].missed
        memory, most_anonymous_bytes = measured.memory(), measured.most_anonymous_bytes
    kept = []
    for kind, wanted in KINDS.items():
        label, passes = f"skew {skew}: {kind}", done[kind]
        report(label, [one.seconds / wanted.count for one in passes], "s")
        report(f"{label}: missed", [one.missed_bytes / wanted.count / 1e9 for one in passes], "GB")
        bandwidths = [bandwidth / 1e9 for one in passes for bandwidth in one.bandwidths]
        report(f"{label}: plain reader of the same records", bandwidths, "GB/s")
        shares = [one.over_limit(wanted.count * resident_s[kind]) for one in passes]
        kept.append(report(f"{label}: over its limit", shares, "ratio", BOUND if kind in BOUNDED else None))
    beyond = _mib(memory.peak - BUDGET_BYTES)
    details: dict[str, Any] = {
        "core_says_mib": _mib(memory.core_says),
        "before_core_mib": {kind: _mib(nbytes) for kind, nbytes in memory.before_core.items()},
        "at_the_end_mib": {kind: _mib(nbytes) for kind, nbytes in memory.now.items()},
        "anonymous_of_group_mib": _mib(most_anonymous_bytes),
    }
    label = f"skew {skew}: peak memory beyond the budget"
    kept.append(report(label, [beyond], "MiB", MOST_BEYOND_BUDGET_MIB, **details))
    return all(kept)


def resident_seconds(directory: Path, skew: float) -> dict[str, float]:
    """Seconds of a pass through all layers with everything resident, by kind; from `RESIDENT_LAYERS` of them."""
    setup = Setup(str(directory), RESIDENT_BUDGET_BYTES, skew, layers=RESIDENT_LAYERS, prefetch=False)
    result = {}
    with Conductor(directory, setup) as measured:
        while measured.run(PassesWanted(tokens=1000)).missed:
            pass  # until all that the routing ever wants has been read
        for kind, wanted in KINDS.items():
            scale = LAYERS / RESIDENT_LAYERS / wanted.count
            seconds = [scale * measured.run(wanted).seconds for _ in range(RESIDENT_ROUNDS)]
            report(f"skew {skew}: {kind}: with everything resident", seconds, "s")
            result[kind] = statistics.median(seconds)
    return result


def _mib(nbytes: int) -> float:
    return round(nbytes / 2**20, 1)
