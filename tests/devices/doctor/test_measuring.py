"""What is measured, beside the profile, and the profile that is made of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from moedge_devices.doctor.measure import Measurement, measure
from moedge_devices.doctor.measured_profile import measured_profile
from moedge_devices.doctor.probe import probe_bundle
from moedge_devices.doctor.speed import check_speeds
from moedge_devices.plan.board_plan import Setup, plan_board
from moedge_devices.plan.calibration import calibration
from moedge_devices.plan.subject import find_subject
from moedge_devices.profile import Profile, shipped_profiles
from moedge_runtime.errors import StorageError

PI = shipped_profiles()["raspberry-pi-5-8gb"]
GOOD = Measurement(11e9, 0.44e9, 0.45e9, 150e9, None, None, ["scalar", "neondot"], [])


def of_here(measured: Measurement, storage: str | None = "nvme") -> Profile | None:
    return measured_profile(
        PI, measured, calibration(), source="moedge doctor 2026-11-26", total_bytes=8 << 30, available_bytes=7 << 30,
        cores=4, storage=storage,
    )  # fmt: skip


def statuses(measured: Measurement, storage: str | None = "nvme") -> dict[str, str]:
    return {finding.check: finding.status for finding in check_speeds(measured, PI, storage)}


def test_what_the_profile_says_is_ok() -> None:
    assert statuses(GOOD) == {"memory.bandwidth": "ok", "flash.bandwidth": "ok", "instruction_sets": "ok"}


def test_a_slow_memory_or_flash_is_a_warning() -> None:
    assert statuses(replace(GOOD, memory=5e9))["memory.bandwidth"] == "warning"
    assert statuses(replace(GOOD, flash=0.1e9))["flash.bandwidth"] == "warning"


def test_a_disk_that_the_profile_does_not_list_is_measured_without_a_comparison() -> None:
    assert statuses(replace(GOOD, flash=0.001e9), None)["flash.bandwidth"] == "ok"


def test_a_processor_without_the_cores_instructions_fails() -> None:
    assert statuses(replace(GOOD, instruction_sets=["scalar"]))["instruction_sets"] == "failed"
    assert statuses(replace(GOOD, instruction_sets=["scalar", "avx2"]))["instruction_sets"] == "warning"
    assert statuses(replace(GOOD, instruction_sets=[]))["instruction_sets"] == "failed"


def test_what_could_not_be_measured_fails_with_the_reason() -> None:
    findings = check_speeds(
        replace(GOOD, flash=None, problems=["The flash cannot be measured: no O_DIRECT."]), PI, None
    )
    assert [finding.status for finding in findings if finding.check == "measurement"] == ["failed"]
    assert [finding.status for finding in findings if finding.check == "flash.bandwidth"] == ["skipped"]


def test_the_measured_profile_says_what_was_measured_and_plans_with_it() -> None:
    profile = of_here(GOOD)
    assert profile is not None
    assert Profile.model_validate(profile.model_dump(mode="json")) == profile
    origins = {path: figure.origin for path, figure in profile.figures().items()}
    assert origins["memory.read_gb_s"] == origins["storage.nvme.read_gb_s"] == "measured"
    assert origins["compute.experts_gops"] == "measured"
    assert origins["compute.layers_gops"] == "assumed"
    assert list(profile.storage) == ["nvme"]
    plan = plan_board(Setup(find_subject("qwen3-vl-30b-a3b"), profile, "nvme"), calibration(), others=[])
    assert plan.speeds.bandwidths.flash == 0.44e9
    assert plan.speeds.flash_in_order == 0.45e9
    assert plan.speeds.experts == 150e9
    assert plan.speeds.layers == pytest.approx(150e9 * 7 / 16)


def test_with_a_bundle_every_rate_is_measured() -> None:
    profile = of_here(replace(GOOD, layers=60e9, vision=50e9))
    assert profile is not None and profile.compute.layers_gops is not None and profile.compute.vision_gops is not None
    assert profile.compute.layers_gops.value == 60
    assert profile.compute.vision_gops.origin == "measured"


@pytest.mark.parametrize("missing", [{"memory": None}, {"flash": None}, {"instruction_sets": []}])
def test_without_a_bandwidth_there_is_no_measured_profile(missing: dict[str, object]) -> None:
    assert of_here(replace(GOOD, **missing)) is None  # type: ignore[arg-type]


def test_a_probe_is_measured_for_real_and_leaves_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    with probe_bundle(tmp_path, 8) as bundle:
        measured = measure(bundle, 1, whole=False, say=said.append)
    assert measured.problems == []
    assert measured.memory and measured.flash and measured.flash_in_order and measured.experts
    assert measured.layers is None and measured.vision is None
    assert "scalar" in measured.instruction_sets
    assert list(tmp_path.iterdir()) == []
    assert said[0] == "bandwidth of the memory"


def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Nothing can be written to"), probe_bundle(tmp_path / "nowhere", 8):
        pass
