"""Which system the machine runs, for whoever keeps many: os-release, and the slot of a system image (docs/flash.md)."""

from __future__ import annotations

import platform
from contextlib import suppress
from pathlib import Path

from moedge_runtime.mqtt.payloads import SystemInfo

_SLOT = "rauc.slot="


def system_info(command_line: Path = Path("/proc/cmdline")) -> SystemInfo:
    """What `info` says of the system."""
    release: dict[str, str] = {}
    with suppress(OSError):
        release = platform.freedesktop_os_release()
    words: list[str] = []
    with suppress(OSError):
        words = command_line.read_text(errors="replace").split()
    slots = [word.removeprefix(_SLOT) for word in words if word.startswith(_SLOT)]
    return SystemInfo(
        name=release.get("PRETTY_NAME"), image_version=release.get("IMAGE_VERSION"), slot=slots[0] if slots else None
    )
