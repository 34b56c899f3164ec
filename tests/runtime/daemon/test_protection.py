"""Heat and weak power, with made-up sensors: trees of files that look like sysfs, and no board."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from moedge_runtime.config import ProtectionConfig
from moedge_runtime.daemon.board import FlashLife, Reading, Zone, read_board
from moedge_runtime.daemon.protection import CALM_S, LONGEST_PAUSE_S, Governor, Level, Protection


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


ZONE = "sys/class/thermal/thermal_zone"

FAKE_JETSON = {
    f"{ZONE}0/type": "cpu-thermal",
    f"{ZONE}0/temp": "61500",
    f"{ZONE}0/trip_point_0_type": "critical",
    f"{ZONE}0/trip_point_0_temp": "104500",
    f"{ZONE}0/trip_point_1_type": "passive",
    f"{ZONE}0/trip_point_1_temp": "99000",
    f"{ZONE}1/type": "cpu-thermal",
    f"{ZONE}1/temp": "-256000",
    f"{ZONE}2/type": "cv0-thermal",
    f"{ZONE}2/temp": "",
}
VOLTAGE_ALARM = "sys/class/hwmon/hwmon1/in0_lcrit_alarm"
FAKE_PI = {
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    f"{ZONE}0/type": "cpu-thermal",
    f"{ZONE}0/temp": "55000",
    f"{ZONE}0/trip_point_0_type": "critical",
    f"{ZONE}0/trip_point_0_temp": "110000",
    f"{ZONE}0/trip_point_1_type": "active",
    f"{ZONE}0/trip_point_1_temp": "50000",
    "sys/class/hwmon/hwmon1/name": "rpi_volt",
    VOLTAGE_ALARM: "0",
}
THROTTLED = "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"


def test_zones_say_their_temperature_and_limit_and_broken_ones_are_left_out(tmp_path: Path) -> None:
    reading = read_board(write(tmp_path, FAKE_JETSON))
    assert reading.zones == (Zone("cpu-thermal", 61.5, 99.0),)
    assert (reading.under_voltage, reading.throttled, reading.hottest_c) == (None, None, 61.5)


def test_zones_of_one_type_keep_different_names(tmp_path: Path) -> None:
    files = {f"{ZONE}{n}/{key}": value for n in (0, 7) for key, value in (("type", "soc"), ("temp", "40000"))}
    assert [zone.name for zone in read_board(write(tmp_path, files)).zones] == ["soc", "soc-7"]


@pytest.mark.parametrize(
    ("alarm", "bits", "under_voltage", "throttled"),
    [
        ("0", None, False, None),
        ("1", None, True, None),
        ("0", "0", False, False),
        ("0", "50005", True, True),
        ("0", "0x50000", False, False),
        ("0", "8", False, True),
        ("0", "no number", False, None),
    ],
)
def test_a_raspberry_pi_says_how_its_power_is(
    tmp_path: Path, alarm: str, bits: str | None, under_voltage: bool, throttled: bool | None
) -> None:
    files = FAKE_PI | {VOLTAGE_ALARM: alarm} | ({THROTTLED: bits} if bits else {})
    reading = read_board(write(tmp_path, files))
    assert (reading.under_voltage, reading.throttled) == (under_voltage, throttled)


def test_a_raspberry_pis_limit_is_that_of_its_firmware(tmp_path: Path) -> None:
    assert read_board(write(tmp_path, FAKE_PI)).zones == (Zone("cpu-thermal", 55.0, 80.0),)


def test_a_machine_without_sensors_is_never_slowed_down(tmp_path: Path) -> None:
    reading = read_board(tmp_path)
    assert reading == Reading()
    assert Governor(None).note(reading, 0.0) == Level.NORMAL


def levels(governor: Governor, temperatures: list[float], limit_c: float | None) -> list[Level]:
    return [governor.note(Reading((Zone("cpu", value, limit_c),)), 0.0) for value in temperatures]


N, S, T = Level.NORMAL, Level.SLOW, Level.SLOWER


def test_answers_are_spaced_out_before_the_kernel_acts_and_not_at_every_degree() -> None:
    rise, fall = [60, 88.9, 89, 93.9, 94, 99], [91, 89.1, 89, 88, 84.1, 83.9, 88.9]
    assert levels(Governor(None), rise + fall, 99.0) == [N, N, S, S, T, T, T, T, T, S, S, N, N]
    assert levels(Governor(None), [69, 90, 120], None) == [N, N, N], "how hot it may become is not known"
    assert levels(Governor(60.0), [59, 60, 65], None) == [N, S, T]
    assert levels(Governor(50.0), [49, 50, 56], 99.0) == [N, S, T]


def test_weak_power_counts_until_it_was_good_for_a_while() -> None:
    governor = Governor(None)
    assert governor.note(Reading(under_voltage=True), 0.0) == T
    assert "power" in governor.reason
    assert governor.note(Reading(under_voltage=False), CALM_S - 1) == T
    assert governor.note(Reading(under_voltage=False), CALM_S) == N
    assert governor.note(Reading(throttled=True), CALM_S + 1) == T


def test_a_change_is_logged_once_and_the_pause_follows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, FAKE_PI)
    protection = Protection(ProtectionConfig(), lambda: read_board(tmp_path))
    with caplog.at_level(logging.INFO):
        protection.look()
        assert (protection.level, protection.pause_s(10.0), caplog.text) == (N, 0.0, "")
        write(tmp_path, {f"{ZONE}0/temp": "72000"})
        for _ in range(3):
            protection.look()
        assert (protection.level, protection.pause_s(10.0)) == (S, 10.0)
        assert caplog.text.count("spaced out") == 1 and "cpu-thermal is at 72 °C" in caplog.text
        write(tmp_path, {f"{ZONE}0/temp": "79000"})
        protection.look()
        assert (protection.pause_s(10.0), protection.pause_s(1000.0)) == (40.0, LONGEST_PAUSE_S)
        write(tmp_path, {f"{ZONE}0/temp": "50000"})
        protection.look()
    assert protection.pause_s(10.0) == 0.0
    assert "full speed again" in caplog.text


def test_switched_off_it_only_reports(tmp_path: Path) -> None:
    protection = Protection(ProtectionConfig(enabled=False), lambda: Reading((Zone("cpu", 120.0),), under_voltage=True))
    protection.look()
    assert protection.level == N
    assert protection.reading.hottest_c == 120.0


NVPMODEL = """\
# < POWER_MODEL ID=2 NAME=commented >
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
< PM_CONFIG DEFAULT=0 >"""


@pytest.mark.parametrize(
    ("status", "mode"),
    [("pmode:0002 fmode:quiet", "MAXN_SUPER"), ("pmode:0000", "15W"), ("pmode:0007", None), ("", None)],
)
def test_a_jetsons_power_mode_is_told_by_its_name(tmp_path: Path, status: str, mode: str | None) -> None:
    write(tmp_path, {"var/lib/nvpmodel/status": status, "etc/nvpmodel.conf": NVPMODEL})
    assert read_board(tmp_path).power_mode == mode


def test_an_emmc_says_how_much_of_its_life_is_used(tmp_path: Path) -> None:
    files = {"sys/block/mmcblk0/device/life_time": "0x03 0x0b", "sys/block/mmcblk1/device/life_time": "0x00 0x0C"}
    assert read_board(write(tmp_path, files)).flash == (
        FlashLife("mmcblk0", "a", 0.3),
        FlashLife("mmcblk0", "b", 1.1),
    )


def test_a_change_of_the_power_supply_is_told_at_once_and_once(tmp_path: Path) -> None:
    told: list[tuple[bool | None, str | None]] = []
    alarm = "sys/class/hwmon/hwmon1/in0_lcrit_alarm"
    steps = iter([{}, {alarm: "1"}, {alarm: "1"}, {f"{ZONE}0/temp": "56000", alarm: "1"}, {}])
    protection = Protection(ProtectionConfig(enabled=False), lambda: read_board(write(tmp_path, FAKE_PI | next(steps))))
    protection.on_change = lambda: told.append((protection.reading.under_voltage, protection.reading.power_mode))
    for _ in range(5):
        protection.look()
    assert told == [(False, None), (True, None), (False, None)]
