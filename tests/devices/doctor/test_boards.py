from pathlib import Path

import pytest
from devices.doctor.fake_board import (
    EFI_ATTRIBUTES,
    MEMINFO_PI_8,
    NVPMODEL_15W,
    NVPMODEL_CONF,
    NVPMODEL_MAXN,
    PI_MODEL,
    board,
)
from moedge_devices.doctor import jetson, raspberry_pi
from moedge_devices.doctor.identity import recognise, storage_kind
from moedge_devices.profile import shipped_profiles

PROFILES = shipped_profiles()
NANO = PROFILES["orin-nano-8gb"]


def test_a_slower_power_mode_is_a_warning_with_the_number_that_the_fastest_has_here(tmp_path: Path) -> None:
    machine = board(tmp_path, {"etc/nvpmodel.conf": NVPMODEL_CONF}, {"nvpmodel -q": NVPMODEL_15W})
    finding = jetson.check_power_mode(machine, NANO)
    assert finding.status == "warning"
    assert finding.text == "power mode 15W; MAXN_SUPER is faster"
    assert (finding.advice or "").startswith("nvpmodel -m 2,")


def test_the_fastest_power_mode_is_ok(tmp_path: Path) -> None:
    conf = NVPMODEL_CONF.replace("MAXN_SUPER", "MAXN")
    machine = board(tmp_path, {"etc/nvpmodel.conf": conf}, {"nvpmodel -q": NVPMODEL_MAXN})
    finding = jetson.check_power_mode(machine, PROFILES["orin-nx-16gb"])
    assert (finding.status, finding.value) == ("ok", "MAXN")


def test_nvpmodel_that_cannot_be_run_or_says_nothing_is_a_warning(tmp_path: Path) -> None:
    assert jetson.check_power_mode(board(tmp_path), NANO).status == "warning"
    assert jetson.check_power_mode(board(tmp_path, commands={"nvpmodel -q": ""}), NANO).status == "warning"


@pytest.mark.parametrize(("level", "status"), [(None, "warning"), (0, "warning"), (1, "ok")])
def test_root_file_systems_that_are_not_redundant_are_a_warning(tmp_path: Path, level: int | None, status: str) -> None:
    files = {} if level is None else {jetson.REDUNDANCY: EFI_ATTRIBUTES + level.to_bytes(4, "little")}
    finding = jetson.check_rootfs_redundancy(board(tmp_path, files))
    assert finding.status == status
    assert ("ROOTFS_AB=1" in finding.line()) == (status == "warning")


@pytest.mark.parametrize(
    ("throttled", "status", "words"),
    [
        ("throttled=0x0\n", "ok", "never"),
        ("throttled=0x50000\n", "warning", "since the start: under-voltage, throttled → use the 27 W supply"),
        ("throttled=0x50005\n", "failed", "now: under-voltage, throttled → use the 27 W supply"),
        ("throttled=0x80008\n", "failed", "now: soft temperature limit → cool the board"),
        ("", "warning", "vcgencmd cannot be run"),
    ],
)
def test_a_pi_that_is_throttled_says_so(tmp_path: Path, throttled: str, status: str, words: str) -> None:
    """Texts: raspberrypi.com/documentation/computers/os.html, get_throttled."""
    finding = raspberry_pi.check_throttling(board(tmp_path, commands={"vcgencmd get_throttled": throttled}))
    assert finding.status == status
    assert words in finding.line()


@pytest.mark.parametrize(("kilobytes", "name"), [(8132800, "raspberry-pi-5-8gb"), (16604160, "raspberry-pi-5-16gb")])
def test_a_board_is_known_by_its_device_tree_and_its_memory(tmp_path: Path, kilobytes: int, name: str) -> None:
    meminfo = MEMINFO_PI_8.replace("8132800", str(kilobytes))
    machine = board(tmp_path, {"proc/device-tree/model": PI_MODEL, "proc/meminfo": meminfo})
    assert recognise(machine, "aarch64", PROFILES.values()).name == name


def test_a_board_is_known_by_what_it_is_compatible_with(tmp_path: Path) -> None:
    files = {"proc/device-tree/compatible": b"radxa,rock-5b\0rockchip,rk3588\0", "proc/meminfo": MEMINFO_PI_8}
    assert recognise(board(tmp_path, files), "aarch64", PROFILES.values()).name == "rk3588-16gb"


@pytest.mark.parametrize(("architecture", "name"), [("aarch64", "generic-arm64"), ("x86_64", "generic-x86-64")])
def test_any_other_machine_is_the_generic_one_of_its_processor(tmp_path: Path, architecture: str, name: str) -> None:
    assert recognise(board(tmp_path), architecture, PROFILES.values()).name == name


@pytest.mark.parametrize(
    ("disk", "kind"),
    [
        ("platform/pcie/nvme/nvme0/nvme0n1/nvme0n1p2", "nvme"),
        ("platform/mmc0/block/mmcblk0/mmcblk0p2", "sd"),
        ("platform/virtio0/block/vda/vda1", None),
    ],
)
def test_the_kind_of_a_disk_follows_from_where_it_hangs(tmp_path: Path, disk: str, kind: str | None) -> None:
    machine = board(tmp_path, {"sys/block/mmcblk0/device/type": "SD\n"})
    (tmp_path / "sys/devices" / disk).mkdir(parents=True)
    link = tmp_path / "sys/dev/block/259:2"
    link.parent.mkdir(parents=True)
    link.symlink_to(f"../../devices/{disk}")
    assert storage_kind(machine, (259, 2), PROFILES["raspberry-pi-5-8gb"]) == kind
    assert storage_kind(machine, (0, 40), PROFILES["raspberry-pi-5-8gb"]) is None
