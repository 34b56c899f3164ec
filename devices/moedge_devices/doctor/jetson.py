"""Checks that concern NVIDIA Jetson boards. Written from documentation; not yet run on a Jetson."""

from __future__ import annotations

import re

from moedge_devices.doctor.finding import Finding
from moedge_devices.doctor.machine import Machine
from moedge_devices.profile.model import Profile

REDUNDANCY = "sys/firmware/efi/efivars/RootfsRedundancyLevel-781e084c-a330-417c-b678-38e696380cb9"
"""Source: github.com/OE4T/meta-tegra issue 1852. efivarfs puts four bytes of attributes before the value."""

ATTRIBUTE_BYTES = 4


def check_power_mode(machine: Machine, profile: Profile) -> Finding:
    """The mode of nvpmodel by its name: numbers of modes differ between modules (github.com/almond-bot/axol, 220)."""
    output = machine.run(["nvpmodel", "-q"])
    if output is None:
        return Finding(
            "power.mode", "warning", "nvpmodel cannot be run", "run doctor as root; install nvidia-l4t-nvpmodel"
        )
    match = re.search(r"NV Power Mode:\s*(\S+)", output.text)
    if match is None:
        return Finding("power.mode", "warning", "nvpmodel -q names no power mode", "run doctor as root")
    mode, fastest = match[1], _fastest(machine, profile)
    if fastest is None or mode == fastest[1]:
        return Finding("power.mode", "ok", f"power mode {mode}", value=mode)
    return Finding(
        "power.mode",
        "warning",
        f"power mode {mode}; {fastest[1]} is faster",
        f"nvpmodel -m {fastest[0]}, if supply and cooling allow it",
        mode,
    )


def check_rootfs_redundancy(machine: Machine) -> Finding:
    """Whether the firmware switches between two root file systems; without it every update of one is rolled back."""
    content = machine.content(REDUNDANCY)
    advice = (
        'before updates of the system: flash with ROOTFS_AB=1 (NVIDIA\'s "Root File System Redundancy"); the variable '
        "cannot be relied on to be writable from a running Orin"
    )
    if content is None:
        text = "RootfsRedundancyLevel is not set: one root file system, nvbootctrl does nothing"
        return Finding("jetson.redundancy", "warning", text, advice)
    level = int.from_bytes(content[ATTRIBUTE_BYTES:], "little")
    if level == 0:
        return Finding(
            "jetson.redundancy", "warning", "RootfsRedundancyLevel is 0: one root file system", advice, level
        )
    return Finding("jetson.redundancy", "ok", f"RootfsRedundancyLevel is {level}", value=level)


def _fastest(machine: Machine, profile: Profile) -> tuple[int, str] | None:
    """Number and name of the first of the profile's modes that this board's nvpmodel.conf has."""
    config = machine.text("etc/nvpmodel.conf") or ""
    modes = {match[2]: int(match[1]) for match in re.finditer(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", config)}
    for name in profile.power_modes.names if profile.power_modes else []:
        if name in modes:
            return modes[name], name
    return None
