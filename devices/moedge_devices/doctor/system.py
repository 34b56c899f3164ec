"""Checks of what every Linux has: clock, memory, swap, huge pages, room on disks, clocks of the cores."""

from __future__ import annotations

import re
from pathlib import Path

from moedge_runtime.inference.expert_core.memory import available_memory, total_memory

from moedge_devices.doctor.finding import Finding
from moedge_devices.doctor.machine import Machine
from moedge_devices.profile.model import Profile

GIB = 1 << 30

LEAST_SHARE_OF_TOTAL = 0.85
"""A system sees 90 to 97 % of the memory that a board is sold with; less means another board or a large carve-out."""

LEAST_SHARE_OF_AVAILABLE = 0.85
LEAST_FREE_BYTES = 1 << 30
HOT_CELSIUS = 80.0
"""A Raspberry Pi 5 slows down from 80 °C on (documentation, "Frequency management and thermal control"), a Jetson Orin
near 99 °C."""

THP = "sys/kernel/mm/transparent_hugepage/enabled"


def check_clock(synced: bool | None) -> Finding:
    """Whether the clock is kept by a time server; certificates and the times of answers need that."""
    if synced:
        return Finding("clock", "ok", "the clock is synchronised", value=True)
    text = (
        "the system does not say whether the clock is synchronised"
        if synced is None
        else "the clock is not synchronised"
    )
    return Finding(
        "clock",
        "warning",
        text,
        "enable a time service (timedatectl set-ntp true); TLS fails with a wrong clock",
        synced,
    )


def check_memory(machine: Machine, profile: Profile) -> Finding:
    """Memory of the machine, and what is available now, beside the profile."""
    total, available = total_memory(machine.root), available_memory(machine.root)
    if total is None or available is None:
        return Finding("memory", "warning", "the system does not say how much memory it has", "give --memory to moedge")
    expected_total = profile.memory.total_gib.value * GIB
    expected = profile.memory.available_gib.value * GIB
    text = (
        f"{available / GIB:.1f} of {total / GIB:.1f} GiB available "
        f"(profile {profile.memory.available_gib.value:g} of {profile.memory.total_gib.value:g})"
    )
    value = {"total_bytes": total, "available_bytes": available}
    if total < LEAST_SHARE_OF_TOTAL * expected_total:
        advice = "choose another profile with --device, or look for what the firmware or a control group keeps back"
        return Finding("memory", "warning", text, advice, value)
    if available < LEAST_SHARE_OF_AVAILABLE * expected:
        return Finding("memory", "warning", text, "stop what else runs: a desktop takes 1 GiB and more", value)
    return Finding("memory", "ok", text, value=value)


def check_swap(machine: Machine) -> Finding:
    """Swap in memory or on flash: a model that is swapped is 3 to 8 times slower than one that pages by itself."""
    text = machine.text("proc/swaps")
    if text is None:
        return Finding("swap", "skipped", "the system does not say whether it swaps")
    entries = [line.split() for line in text.splitlines()[1:] if len(line.split()) >= 4]
    if not entries:
        return Finding("swap", "ok", "no swap", value=0)
    used = sum(int(entry[3]) for entry in entries) << 10
    names = ", ".join(entry[0] for entry in entries)
    zram = any("zram" in entry[0] for entry in entries)
    advice = (
        "disable compressed swap (Jetson: systemctl disable nvzramconfig; Debian: zram-tools), or set model.mlock"
        if zram
        else "swapoff -a, and remove it from /etc/fstab: experts are paged by moedge, and flash wears"
    )
    return Finding("swap", "warning", f"swap on {names}, {used / GIB:.2f} GiB used", advice, used)


def check_huge_pages(machine: Machine) -> Finding:
    """Whether the slots of experts can lie on huge pages, which direct reads are faster with."""
    text = machine.text(THP)
    if text is None:
        return Finding("huge_pages", "warning", "the kernel has no transparent huge pages", "nothing; reads are slower")
    chosen = re.search(r"\[(\w+)\]", text)
    mode = chosen[1] if chosen else text
    if mode in ("always", "madvise"):
        return Finding("huge_pages", "ok", f"transparent huge pages: {mode}", value=mode)
    return Finding(
        "huge_pages", "warning", f"transparent huge pages: {mode}", f"echo madvise > /{THP}, at every start", mode
    )


def check_free_space(where: Path, free_bytes: int, bundle_bytes: int | None) -> Finding:
    """Room beside the bundle, where an update puts the next one before the old one goes."""
    value = {"path": str(where), "free_bytes": free_bytes}
    text = f"{free_bytes / 1e9:.1f} GB free at {where}"
    if free_bytes < LEAST_FREE_BYTES:
        return Finding("free_space", "failed", text, "free space, or put the bundle on a larger disk", value)
    if bundle_bytes is not None and free_bytes < bundle_bytes:
        advice = (
            f"an update of the model needs {bundle_bytes / 1e9:.1f} GB more for a while: free space, or a larger disk"
        )
        return Finding("free_space", "warning", text, advice, value)
    return Finding("free_space", "ok", text, value=value)


def check_governor(machine: Machine) -> Finding:
    """The frequency governor of the cores."""
    governors = set(machine.texts("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor").values())
    if not governors:
        return Finding("cpu.governor", "skipped", "the kernel does not scale the clocks of this processor")
    names = ", ".join(sorted(governors))
    if "powersave" in governors:
        advice = "set performance or schedutil (cpupower frequency-set -g schedutil); intel_pstate's powersave is fine"
        return Finding("cpu.governor", "warning", f"governor {names}", advice, names)
    return Finding("cpu.governor", "ok", f"governor {names}", value=names)


def check_temperature(machine: Machine) -> Finding:
    """The hottest sensor of the kernel."""
    degrees = [
        int(text) / 1000
        for text in machine.texts("sys/class/thermal/thermal_zone*/temp").values()
        if re.fullmatch(r"-?\d+", text)
    ]
    if not degrees:
        return Finding("temperature", "skipped", "the kernel has no temperature sensors")
    hottest = max(degrees)
    if hottest >= HOT_CELSIUS:
        advice = "a fan or a larger heat sink: hot boards lower their clocks"
        return Finding("temperature", "warning", f"{hottest:.0f} °C", advice, hottest)
    return Finding("temperature", "ok", f"{hottest:.0f} °C", value=hottest)
