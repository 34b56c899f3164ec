from __future__ import annotations

import platform
from pathlib import Path

import pytest
from moedge_runtime.daemon.system import system_info
from moedge_runtime.mqtt.payloads import SystemInfo


def test_a_system_image_says_its_version_and_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = {"PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)", "IMAGE_VERSION": "2026.12"}
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_text("Raspberry Pi 5 Model B Rev 1.0\0")
    (tmp_path / "proc/cmdline").write_text("ro root=PARTLABEL=root-b rauc.slot=B quiet\n")
    assert system_info(tmp_path) == SystemInfo(
        board="Raspberry Pi 5 Model B Rev 1.0",
        name="Debian GNU/Linux 12 (bookworm)",
        image_version="2026.12",
        slot="B",
    )


def test_a_machine_that_says_nothing_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> dict[str, str]:
        raise OSError

    monkeypatch.setattr(platform, "freedesktop_os_release", missing)
    assert system_info(tmp_path / "none") == SystemInfo(board=None, name=None, image_version=None, slot=None)


def test_a_machine_with_firmware_of_a_pc_is_called_what_that_says(tmp_path: Path) -> None:
    (tmp_path / "sys/class/dmi/id").mkdir(parents=True)
    (tmp_path / "sys/class/dmi/id/product_name").write_text("NUC12WSKi5\n")
    assert system_info(tmp_path).board == "NUC12WSKi5"
