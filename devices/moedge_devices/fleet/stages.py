"""In which steps a configuration goes out, and when that stops. Pure.

Groups go one after the other, in the order of the fleet file; in each of them a few canaries go first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from moedge_devices.fleet.load import Device


@dataclass(frozen=True)
class Stage:
    """Devices that get their configuration together.

    Attributes:
        name: Of the group, and which part of it.
        devices: In the order of the fleet file.
        max_failures: With more failures than that, nothing further goes out.
    """

    name: str
    devices: list[Device]
    max_failures: int


def stages_of(devices: Sequence[Device], *, canaries: int, max_failures: int) -> list[Stage]:
    """Two stages a group: its first `canaries` devices, none of which may fail, then the others.

    A group of no more devices than that has one.
    """
    stages = []
    for (site, group), together in groupby(devices, key=lambda device: (device.site, device.group)):
        members = list(together)
        first, others = members[:canaries], members[canaries:]
        if first:
            stages.append(Stage(f"{site}/{group}, canaries" if others else f"{site}/{group}", first, 0))
        if others:
            stages.append(Stage(f"{site}/{group}", others, max_failures))
    return stages
