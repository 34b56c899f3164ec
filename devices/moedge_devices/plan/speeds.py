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
        flash_in_order: Of the flash, in bytes a second, when neighbouring records are read.
        experts: Operations a second of the expert core in a prefill.
        layers: Of the decoder's graphs in a prefill.
        vision: Of the vision tower.
        vision_in_onnxruntime: Of that of a bundle whose manifest does not say where its weights lie.
        vision_packing_s: Time that ONNX Runtime packs the vision tower's weights when it is loaded.
        vision_loading_s: Time that the native core brings them into its layout while they come in turn.
        preprocess_s: Time from a picture to patches.
    """

    bandwidths: Bandwidths
    flash_in_order: float
    experts: float
    layers: float
    vision: float
    vision_in_onnxruntime: float
    vision_packing_s: float
    vision_loading_s: float
    preprocess_s: float


def speeds_of(profile: Profile, storage: str, calibration: Calibration) -> Speeds:
    """Speeds of `profile` with the bundle on `storage`, one of its kinds."""
    per_cycle = calibration.operations_per_cycle
    isa = profile.instruction_sets.names[0]
    vision = _rate(profile, profile.compute.vision_gops, isa, per_cycle.vision)
    measured = profile.compute.vision_gops is not None and profile.compute.vision_gops.measured is not None
    slower = 1.0 if measured else calibration.vision_in_onnxruntime.value  # a board measures what its bundle is run by
    # Bringing weights into a layout gains what vectors gain, and nothing from AMX's products.
    reference = per_cycle.experts["avx512vnni"].value / per_cycle.experts[isa].value
    cores = sum(each.count.value for each in profile.cores)
    place = profile.storage[storage]
    in_order = place.in_order_gb_s or place.read_gb_s
    return Speeds(
        bandwidths=Bandwidths(memory=profile.memory.read_gb_s.value * 1e9, flash=place.read_gb_s.value * 1e9),
        flash_in_order=in_order.value * 1e9,
        experts=_rate(profile, profile.compute.experts_gops, isa, per_cycle.experts),
        layers=_rate(profile, profile.compute.layers_gops, isa, per_cycle.layers),
        vision=vision,
        vision_in_onnxruntime=vision / slower,
        vision_packing_s=calibration.vision_packing_core_s.value * reference / cores,
        vision_loading_s=calibration.vision_loading_core_s.value * reference / cores,
        preprocess_s=calibration.preprocess_s.value,
    )


def assumed_figures(profile: Profile, calibration: Calibration) -> dict[str, Figure]:
    """What of a board's speeds nobody has measured or stated: figures of profile and calibration by path."""
    figures = profile.figures()
    isa = profile.instruction_sets.names[0]
    for part in ("experts", "layers", "vision"):
        if getattr(profile.compute, f"{part}_gops") is None:
            figures[f"operations_per_cycle.{part}.{isa}"] = getattr(calibration.operations_per_cycle, part)[isa]
    return {path: figure for path, figure in figures.items() if figure.origin == "assumed"}


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
