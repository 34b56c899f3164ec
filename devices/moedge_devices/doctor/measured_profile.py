"""The profile of the board that was measured: what `moedge plan --device FILE` takes. Pure."""

from __future__ import annotations

from typing import get_args

from moedge_devices.doctor.measure import Measurement
from moedge_devices.plan.calibration import Calibration
from moedge_devices.profile.model import (
    Compute,
    Cores,
    Figure,
    InstructionSet,
    InstructionSets,
    Memory,
    Profile,
    Storage,
)

GIB = 1 << 30
OTHER_STORAGE = "disk"
"""Kind of a disk that the profile does not list."""


def measured_profile(
    base: Profile,
    measured: Measurement,
    calibration: Calibration,
    *,
    source: str,
    total_bytes: int,
    available_bytes: int,
    cores: int,
    storage: str | None,
) -> Profile | None:
    """`base` with every figure that was measured put in its place.

    Args:
        base: The kind of board, for what is not measured.
        measured: Of this board.
        calibration: How fast layers and vision tower are beside experts, where only the latter were measured.
        source: Where and when, beginning with `moedge doctor`.
        total_bytes: Memory that the system sees.
        available_bytes: Memory that is available now.
        cores: That this process may use.
        storage: The kind of the disk that was measured; the profile of the board then has only that.

    Returns:
        None if memory, flash or instruction sets could not be measured.
    """
    if measured.memory is None or measured.flash is None or not measured.instruction_sets:
        return None

    def figure(value: float) -> Figure:
        return Figure(value=value, measured=source)

    names: list[InstructionSet] = [name for name in get_args(InstructionSet) if name in measured.instruction_sets]
    names.sort(key=measured.instruction_sets.index, reverse=True)
    in_order = measured.flash_in_order
    return Profile(
        version=1,
        name="measured",
        title=f"{base.title}, as measured" if base.family != "generic" else "this machine, as measured",
        family=base.family,
        architecture=base.architecture,
        memory=Memory(
            total_gib=figure(total_bytes / GIB),
            available_gib=figure(min(available_bytes, total_bytes) / GIB),
            read_gb_s=figure(measured.memory / 1e9),
        ),
        cores=[Cores(type=base.cores[0].type, count=figure(cores), ghz=base.cores[0].ghz)],
        instruction_sets=InstructionSets(names=names, measured=source),
        storage={
            storage or OTHER_STORAGE: Storage(
                read_gb_s=figure(measured.flash / 1e9),
                in_order_gb_s=None if in_order is None else figure(in_order / 1e9),
            )
        },
        power_modes=base.power_modes,
        cameras=base.cameras,
        providers=base.providers,
        compute=_compute(measured, calibration, names[0], source),
    )


def _compute(measured: Measurement, calibration: Calibration, isa: InstructionSet, source: str) -> Compute:
    """Measured rates; of a part that was not measured, the core's times what the calibration has between the two."""
    if measured.experts is None:
        return Compute()
    per_cycle = calibration.operations_per_cycle

    def part(value: float | None, name: str) -> Figure:
        if value is not None:
            return Figure(value=value / 1e9, measured=source)
        assert measured.experts is not None
        share = getattr(per_cycle, name)[isa].value / per_cycle.experts[isa].value
        return Figure(
            value=measured.experts * share / 1e9,
            assumed="not measured: what the expert core does here, times what calibration.yaml has between the two",
        )

    return Compute(
        experts_gops=Figure(value=measured.experts / 1e9, measured=source),
        layers_gops=part(measured.layers, "layers"),
        vision_gops=part(measured.vision, "vision"),
    )
