"""Speeds follow from cores, clocks and the calibration, or from what was measured."""

from __future__ import annotations

import pytest
from moedge_devices.plan.calibration import calibration
from moedge_devices.plan.speeds import assumed_figures, speeds_of
from moedge_devices.profile import shipped_profiles
from moedge_devices.profile.model import Compute, Figure

PROFILES = shipped_profiles()
SOURCE = "moedge doctor 2026-11-26"


def test_a_board_computes_with_all_its_cores_and_small_ones_count_less() -> None:
    rk3588 = speeds_of(PROFILES["rk3588-16gb"], "nvme", calibration())
    assert rk3588.experts == pytest.approx((4 * 2.3e9 + 4 * 1.8e9 * 0.4) * 16)
    assert rk3588.layers == pytest.approx((4 * 2.3e9 + 4 * 1.8e9 * 0.4) * 7)
    assert rk3588.vision == pytest.approx((4 * 2.3e9 + 4 * 1.8e9 * 0.4) * 12)


def test_what_was_measured_counts_instead_of_the_clock() -> None:
    measured = PROFILES["rk3588-16gb"].model_copy(
        update={"compute": Compute(experts_gops=Figure(value=99, measured=SOURCE))}
    )
    speeds = speeds_of(measured, "nvme", calibration())
    assert speeds.experts == 99e9
    assert "operations_per_cycle.experts.neondot" not in assumed_figures(measured, calibration())
    assert "operations_per_cycle.layers.neondot" in assumed_figures(measured, calibration())


def test_packing_the_vision_tower_takes_as_much_longer_as_vectors_are_slower() -> None:
    pi = speeds_of(PROFILES["raspberry-pi-5-8gb"], "nvme", calibration())
    assert pi.vision == pytest.approx(1.7 * pi.vision_in_onnxruntime)
    assert pi.vision_packing_s == pytest.approx(1.8 * 102 / 16 / 4)
    assert pi.vision_loading_s == pytest.approx(0.5 * 102 / 16 / 4)


def test_products_on_amx_tiles_bring_no_weights_into_their_layout_faster() -> None:
    profile = PROFILES["generic-x86-64"]
    plain, amx = (
        speeds_of(
            profile.model_copy(
                update={"instruction_sets": profile.instruction_sets.model_copy(update={"names": [name]})}
            ),
            "nvme",
            calibration(),
        )
        for name in ("avx512vnni", "amx")
    )
    assert amx.vision > 2 * plain.vision
    assert (amx.vision_packing_s, amx.vision_loading_s) == (plain.vision_packing_s, plain.vision_loading_s)


def test_bandwidths_are_those_of_the_storage_that_was_chosen() -> None:
    pi = PROFILES["raspberry-pi-5-8gb"]
    assert speeds_of(pi, "nvme", calibration()).bandwidths.flash == 0.442e9
    fast = speeds_of(pi, "nvme-gen3", calibration())
    assert (fast.bandwidths.flash, fast.flash_in_order, fast.bandwidths.memory) == (0.858e9, 0.858e9, 11.6e9)
