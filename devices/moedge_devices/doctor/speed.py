"""Checks of what was measured beside what the profile says. Pure."""

from __future__ import annotations

from moedge_devices.doctor.finding import Finding
from moedge_devices.doctor.measure import Measurement
from moedge_devices.profile.model import Profile

LEAST_SHARE = 0.7
"""Of the profile's bandwidth; below it something is wrong, rather than another sample of the same parts."""


def check_speeds(measured: Measurement, profile: Profile, storage: str | None) -> list[Finding]:
    """Bandwidths and instruction sets.

    Args:
        measured: Of this board.
        profile: What it should be.
        storage: The profile's kind of the disk that was measured; None if it has none like it.
    """
    findings = [
        _bandwidth(
            "memory.bandwidth",
            "memory",
            measured.memory,
            profile.memory.read_gb_s.value,
            "check the power mode and what else runs",
        )
    ]
    expected = profile.storage[storage].read_gb_s.value if storage else None
    advice = "check the link (PCIe generation and lanes), the temperature of the disk, and what else reads"
    name = f"flash ({storage or 'a disk that the profile does not list'}), random records"
    findings.append(_bandwidth("flash.bandwidth", name, measured.flash, expected, advice))
    findings.append(_instruction_sets(measured.instruction_sets, profile))
    findings += [Finding("measurement", "failed", problem) for problem in measured.problems]
    return findings


def _bandwidth(check: str, name: str, got: float | None, expected_gb_s: float | None, advice: str) -> Finding:
    if got is None:
        return Finding(check, "skipped", f"{name}: not measured")
    text = f"{name}: {got / 1e9:.2f} GB/s"
    if expected_gb_s is None:
        return Finding(check, "ok", text, value=got)
    text += f" (profile {expected_gb_s:g})"
    if got < LEAST_SHARE * expected_gb_s * 1e9:
        return Finding(check, "warning", text, advice, got)
    return Finding(check, "ok", text, value=got)


def _instruction_sets(usable: list[str], profile: Profile) -> Finding:
    wanted = profile.instruction_sets.names[0]
    if not usable:
        advice = "install a wheel of moedge for this processor"
        return Finding("instruction_sets", "failed", "the expert core cannot be loaded", advice)
    text = f"the expert core can use {', '.join(reversed(usable))}"
    if usable[-1] == "scalar":
        advice = "this processor has none of the core's instruction sets: choose another board"
        return Finding("instruction_sets", "failed", text, advice, usable)
    if wanted not in usable:
        advice = "choose another profile with --device, or look why the system hides it (a virtual machine may)"
        return Finding("instruction_sets", "warning", f"{text}; the profile has {wanted}", advice, usable)
    return Finding("instruction_sets", "ok", text, value=usable)
