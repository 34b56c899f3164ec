"""Which system the machine runs: os-release, and slot and updates of a system image (docs/flash.md)."""

from __future__ import annotations

import json
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

from moedge_runtime.mqtt.payloads import SystemInfo, SystemUpdateFault

STATE = Path("/var/lib/moedge/system")
"""What a system image notes of itself; root's, and readable for the daemon."""

CONFIRMED_NAME = "confirmed.json"
"""In STATE: the build that has answered, by slot."""

FAULT_NAME = "update-fault.json"
"""In STATE: a SystemUpdateFault; not there if the last update went well."""

STATE_DIRECTORY = "STATE_DIRECTORY"
"""Set by systemd for a unit with StateDirectory=."""

_SLOT = "rauc.slot="


def system_info(root: Path = Path("/"), state: Path = STATE) -> SystemInfo:
    """What `info` says of the system, whose proc and sys are under `root`."""
    release: dict[str, str] = {}
    with suppress(OSError):
        release = platform.freedesktop_os_release()
    words: list[str] = []
    with suppress(OSError):
        words = (root / "proc/cmdline").read_text(errors="replace").split()
    slots = [word.removeprefix(_SLOT) for word in words if word.startswith(_SLOT)]
    slot = slots[0] if slots else None
    build = release.get("BUILD_ID")
    return SystemInfo(
        board=_board(root),
        name=release.get("PRETTY_NAME"),
        image_version=release.get("IMAGE_VERSION"),
        slot=slot,
        confirmed=None if slot is None else build is not None and confirmed_builds(state).get(slot) == build,
        update_fault=_fault(state),
    )


def confirmed_builds(state: Path = STATE) -> dict[str, str]:
    """Builds of systems that have answered, by slot."""
    value = _read(state / CONFIRMED_NAME)
    return {str(slot): str(build) for slot, build in value.items()}


def _fault(state: Path) -> SystemUpdateFault | None:
    with suppress(ValueError):
        return SystemUpdateFault.model_validate(_read(state / FAULT_NAME))
    return None


def _read(path: Path) -> dict[str, Any]:
    """A JSON object in a file; empty if there is none."""
    with suppress(OSError, ValueError):
        value = json.loads(path.read_text(encoding="utf-8"))
        return value if isinstance(value, dict) else {}
    return {}


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
