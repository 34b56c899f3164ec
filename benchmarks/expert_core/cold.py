"""Experts that nobody has asked for before, beside a plain reader of the same records."""

from __future__ import annotations

from pathlib import Path

from expert_core.conductor import BesideFlash, Conductor
from expert_core.guest_memory import touch_memory
from expert_core.measured import PassesWanted, Setup
from expert_core.report import report

BUDGET_BYTES = 512 << 20
LEAST_SHARE = 0.90
ROUNDS = 9
SLOTS = ("new slots", "used slots")


def cold(directory: Path) -> bool:
    """Tokens of uniform routing; whether both bounds were kept.

    A process' first token goes into slots that were never touched, which the system backs with zeroed pages meanwhile;
    its second into slots that were.
    """
    touch_memory(BUDGET_BYTES)
    token = PassesWanted(tokens=1)
    done: dict[str, list[BesideFlash]] = {slots: [] for slots in SLOTS}
    keeping: dict[str, list[float]] = {slots: [] for slots in SLOTS}
    with Conductor(directory, Setup(str(directory), BUDGET_BYTES, 0.0, ROUNDS)) as measured:
        earlier = measured.run(token).missed
    for seed in range(ROUNDS):
        with Conductor(directory, Setup(str(directory), BUDGET_BYTES, 0.0, seed)) as measured:
            for slots in SLOTS:
                done[slots].append(measured.run_beside_flash(token, earlier))
                earlier = done[slots][-1].missed
                keeping[slots].append(measured.plain_bandwidth(earlier, BUDGET_BYTES))
    kept = []
    for slots, passes in done.items():
        label = f"cold experts, {slots}"
        report(f"{label}: core", [one.missed_bytes / one.seconds / 1e9 for one in passes], "GB/s")
        bandwidths = [bandwidth / 1e9 for one in passes for bandwidth in one.bandwidths]
        report(f"{label}: plain reader of the same records", bandwidths, "GB/s")
        shares = [1 / one.over_limit() for one in passes]
        kept.append(report(f"{label}: core over a plain reader", shares, "ratio", LEAST_SHARE, "higher"))
        into_memory = [
            one.missed_bytes / one.seconds / bandwidth for one, bandwidth in zip(passes, keeping[slots], strict=True)
        ]
        report(f"{label}: core over a plain reader into as much memory", into_memory, "ratio")
    return all(kept)
