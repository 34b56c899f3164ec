"""The system that the machine runs, as os-release and a system image (docs/flash.md) say; and what systemd gives it."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path

from moedge_runtime.mqtt.payloads import SystemInfo

STATE_DIRECTORY = "STATE_DIRECTORY"
"""Set by systemd for a unit with StateDirectory=."""

_SLOT = "rauc.slot="


def system_info(root: Path = Path("/")) -> SystemInfo:
    """What `info` says of the system, whose proc and sys are under `root`."""
    release: dict[str, str] = {}
    with suppress(OSError):
        release = platform.freedesktop_os_release()
    words: list[str] = []
    with suppress(OSError):
        words = (root / "proc/cmdline").read_text(errors="replace").split()
    slots = [word.removeprefix(_SLOT) for word in words if word.startswith(_SLOT)]
    return SystemInfo(
        board=_board(root),
        name=release.get("PRETTY_NAME"),
        image_version=release.get("IMAGE_VERSION"),
        slot=slots[0] if slots else None,
    )


def state_directory() -> Path | None:
    """Where this unit keeps what outlives it; None if systemd gives it no such directory."""
    directory = os.environ.get(STATE_DIRECTORY, "").partition(":")[0]
    return Path(directory) if directory else None


def _board(root: Path) -> str | None:
    for name in ("proc/device-tree/model", "sys/class/dmi/id/product_name"):
        with suppress(OSError):
            text = (root / name).read_text(errors="replace").rstrip("\0\n ")
            if text:
                return text
    return None
