"""Checks that concern Raspberry Pi boards. Written from documentation; not yet run on a Pi."""

from __future__ import annotations

import re

from moedge_devices.doctor.finding import Finding
from moedge_devices.doctor.machine import Machine

NOW = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}
"""Bits of `vcgencmd get_throttled`; 16 higher: the same since the start.
Source: raspberrypi.com/documentation/computers/os.html, get_throttled."""

SINCE_START = 16


def check_throttling(machine: Machine) -> Finding:
    """What the firmware says about supply and temperature."""
    output = machine.run(["vcgencmd", "get_throttled"])
    match = re.search(r"throttled=0x([0-9a-fA-F]+)", output.text) if output else None
    if match is None:
        return Finding(
            "power.throttling", "warning", "vcgencmd cannot be run", "install raspi-utils; join the group video"
        )
    bits = int(match[1], 16)
    now = [name for bit, name in NOW.items() if bits >> bit & 1]
    before = [name for bit, name in NOW.items() if bits >> bit + SINCE_START & 1]
    advice = (
        "use the 27 W supply and a short cable" if any("voltage" in name for name in now + before) else "cool the board"
    )
    if now:
        return Finding("power.throttling", "failed", f"now: {', '.join(now)}", advice, hex(bits))
    if before:
        return Finding("power.throttling", "warning", f"since the start: {', '.join(before)}", advice, hex(bits))
    return Finding("power.throttling", "ok", "never throttled since the start", value=hex(bits))
