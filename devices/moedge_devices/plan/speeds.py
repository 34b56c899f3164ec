"""How fast a board reads and computes, from its profile and the calibration. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from moedge_runtime.bench.limits import Bandwidths

from moedge_devices.plan.calibration import Calibration
from moedge_devices.profile.model import Figure, InstructionSet, Profile


@dataclass(frozen=True)
class Speeds:
    """A board with one of its kinds of storage.

    Attributes:
        bandwidths: Of memory and flash.
        experts: Operations a second of the expert core in a prefill.
        layers: Of the decoder's graphs in a prefill.
        vision: Of the vision tower.
        vision_packing_s: Time to pack the vision tower's weights when it is loaded.
        preprocess_s: Time from a picture to patches.
    """

    bandwidths: Bandwidths
    experts: float
    layers: float
    vision: float
    vision_packing_s: float
    preprocess_s: float


def speeds_of(profile: Profile, storage: str, calibration: Calibration) -> Speeds:
    """Speeds of `profile` with the bundle on `storage`, one of its kinds."""
    per_cycle = calibration.operations_per_cycle
    isa = profile.instruction_sets.names[0]
    vision = _rate(profile, profile.compute.vision_gops, isa, per_cycle.vision)
    reference = per_cycle.vision["avx512vnni"].value / per_cycle.vision[isa].value
    return Speeds(
        bandwidths=Bandwidths(
            memory=profile.memory.read_gb_s.value * 1e9, flash=profile.storage[storage].read_gb_s.value * 1e9
        ),
        experts=_rate(profile, profile.compute.experts_gops, isa, per_cycle.experts),
        layers=_rate(profile, profile.compute.layers_gops, isa, per_cycle.layers),
        vision=vision,
        vision_packing_s=calibration.vision_packing_core_s.value * reference / sum(c.count.value for c in profile.cores),
        preprocess_s=calibration.preprocess_s.value,
    )


def _rate(
    profile: Profile, measured: Figure | None, isa: InstructionSet, per_cycle: dict[InstructionSet, Figure]
) -> float:
    """Operations a second of all cores: as measured, or from their clocks."""
    if measured is not None:
        return measured.value * 1e9
    cycles = sum(
        cores.count.value * cores.ghz.value * 1e9 * (cores.share.value if cores.share else 1.0)
        for cores in profile.cores
    )
    return cycles * per_cycle[isa].value
