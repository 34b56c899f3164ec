from pathlib import Path

import pytest
from devices.doctor.fake_board import MEMINFO_PI_8, board
from moedge_devices.doctor import system
from moedge_devices.doctor.machine import Machine, run_command
from moedge_devices.profile import shipped_profiles

GOVERNOR = "sys/devices/system/cpu/cpu{}/cpufreq/scaling_governor"


@pytest.mark.parametrize(("synced", "status"), [(True, "ok"), (False, "warning"), (None, "warning")])
def test_a_clock_that_nobody_keeps_is_a_warning(synced: bool | None, status: str) -> None:
    finding = system.check_clock(synced)
    assert finding.status == status
    assert (finding.advice is None) == (status == "ok")


def test_memory_as_the_profile_has_it_is_ok(tmp_path: Path) -> None:
    machine = board(tmp_path, {"proc/meminfo": MEMINFO_PI_8})
    finding = system.check_memory(machine, shipped_profiles()["raspberry-pi-5-8gb"])
    assert finding.status == "ok"
    assert finding.text == "7.3 of 7.8 GiB available (profile 7.35 of 8)"


def test_less_memory_than_the_board_is_sold_with_is_a_warning(tmp_path: Path) -> None:
    machine = board(tmp_path, {"proc/meminfo": MEMINFO_PI_8})
    finding = system.check_memory(machine, shipped_profiles()["raspberry-pi-5-16gb"])
    assert finding.status == "warning"
    assert "choose another profile" in (finding.advice or "")


def test_memory_that_others_take_is_a_warning(tmp_path: Path) -> None:
    machine = board(tmp_path, {"proc/meminfo": MEMINFO_PI_8.replace("7706816", "4000000")})
    finding = system.check_memory(machine, shipped_profiles()["raspberry-pi-5-8gb"])
    assert finding.status == "warning"
    assert "stop what else runs" in (finding.advice or "")


@pytest.mark.parametrize(
    ("swaps", "status", "words"),
    [
        ("Filename Type Size Used Priority\n", "ok", "no swap"),
        ("Filename Type Size Used Priority\n/dev/zram0 partition 637988 1024 5\n", "warning", "nvzramconfig"),
        ("Filename Type Size Used Priority\n/var/swap file 524272 0 -2\n", "warning", "swapoff -a"),
    ],
)
def test_swap_is_a_warning_with_the_way_to_turn_it_off(tmp_path: Path, swaps: str, status: str, words: str) -> None:
    finding = system.check_swap(board(tmp_path, {"proc/swaps": swaps}))
    assert finding.status == status
    assert words in finding.line()


@pytest.mark.parametrize(
    ("enabled", "status"),
    [("[always] madvise never", "ok"), ("always [madvise] never", "ok"), ("always madvise [never]", "warning")],
)
def test_huge_pages_must_be_possible(tmp_path: Path, enabled: str, status: str) -> None:
    assert system.check_huge_pages(board(tmp_path, {system.THP: enabled})).status == status


def test_a_kernel_without_huge_pages_is_a_warning(tmp_path: Path) -> None:
    assert system.check_huge_pages(board(tmp_path)).status == "warning"


@pytest.mark.parametrize(
    ("free", "bundle", "status"),
    [(50e9, 18.7e9, "ok"), (10e9, 18.7e9, "warning"), (10e9, None, "ok"), (0.5e9, None, "failed")],
)
def test_a_disk_needs_room_for_the_next_bundle(free: float, bundle: float | None, status: str) -> None:
    finding = system.check_free_space(Path("/data"), round(free), None if bundle is None else round(bundle))
    assert finding.status == status


def test_one_core_on_powersave_is_a_warning(tmp_path: Path) -> None:
    files = {GOVERNOR.format(0): "schedutil\n", GOVERNOR.format(1): "powersave\n"}
    assert system.check_governor(board(tmp_path, files)).status == "warning"
    assert system.check_governor(board(tmp_path, {GOVERNOR.format(1): "schedutil\n"})).status == "ok"
    assert system.check_governor(Machine(tmp_path / "nothing")).status == "skipped"


def test_the_hottest_sensor_counts(tmp_path: Path) -> None:
    zone = "sys/class/thermal/thermal_zone{}/temp"
    machine = board(tmp_path, {zone.format(0): "45000\n", zone.format(1): "84500\n", zone.format(2): "invalid\n"})
    finding = system.check_temperature(machine)
    assert (finding.status, finding.value) == ("warning", 84.5)


def test_a_program_that_is_not_there_says_nothing() -> None:
    assert run_command(["moedge-no-such-program"]) is None
    output = run_command(["echo", "there"])
    assert output is not None and output.text == "there\n"
