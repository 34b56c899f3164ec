"""Which board this is."""

from __future__ import annotations

from collections.abc import Iterable

from moedge_runtime.inference.expert_core.memory import total_memory

from moedge_devices.doctor.machine import Machine
from moedge_devices.profile.model import Profile

GIB = 1 << 30


def recognise(machine: Machine, architecture: str, profiles: Iterable[Profile]) -> Profile:
    """The profile that the device tree names; of several the one with the memory that fits; else the generic one.

    Args:
        machine: The board.
        architecture: As `platform.machine()` says it.
        profiles: Those that are known.
    """
    described = " ".join(
        text
        for text in (machine.text("proc/device-tree/model"), machine.text("proc/device-tree/compatible"))
        if text is not None
    )
    known = list(profiles)
    named = [profile for profile in known if profile.device_tree and profile.device_tree in described]
    if named:
        total = total_memory(machine.root) or 0
        return min(named, key=lambda profile: abs(profile.memory.total_gib.value * GIB - total))
    generic = [profile for profile in known if profile.family == "generic"]
    return next((profile for profile in generic if profile.architecture == architecture), generic[0])


def storage_kind(machine: Machine, device: tuple[int, int], profile: Profile) -> str | None:
    """Which of the profile's kinds of storage a block device is; None if it is another.

    Args:
        machine: The board.
        device: Major and minor number, as `os.stat` tells them of a file on it.
        profile: The board's. Of kinds that differ only in the speed of the link, such as `nvme-gen3`, the first counts.
    """
    link = machine.root / f"sys/dev/block/{device[0]}:{device[1]}"
    try:
        path = link.resolve().as_posix()
    except OSError:
        return None
    parts = path.split("/")
    kinds = []
    if any(part.startswith("nvme") for part in parts):
        kinds = ["nvme"]
    elif any(part.startswith("mmcblk") for part in parts):
        disk = next(part for part in parts if part.startswith("mmcblk")).split("p")[0]
        kinds = ["sd" if machine.text(f"sys/block/{disk}/device/type") == "SD" else "emmc"]
    elif any(part.startswith("usb") for part in parts):
        kinds = ["usb"]
    elif any(part.startswith("ata") for part in parts):
        kinds = ["sata"]
    return next((kind for kind in kinds if kind in profile.storage), None)
