from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest
from moedge_runtime.bundle import Bundle
from moedge_runtime.daemon.bridge import Bridge
from moedge_runtime.daemon.job_queue import JobQueue
from moedge_runtime.daemon.system import CONFIRMED_NAME, FAULT_NAME, system_info
from moedge_runtime.mqtt.address import BrokerAddress
from moedge_runtime.mqtt.message import Message
from moedge_runtime.mqtt.payloads import SystemInfo, SystemUpdateFault
from runtime.daemon.fakes import config_for


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a machine that runs build `b2` of a system image in slot B."""
    release = {"PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)", "IMAGE_VERSION": "2026.12", "BUILD_ID": "b2"}
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_text("Raspberry Pi 5 Model B Rev 1.0\0")
    (tmp_path / "proc/cmdline").write_text("ro root=PARTLABEL=root-b rauc.slot=B quiet\n")
    return tmp_path


def test_a_system_image_says_its_version_and_slot_and_whether_it_counts(tmp_path: Path, image: Path) -> None:
    found = system_info(image, tmp_path)
    assert found == SystemInfo(
        board="Raspberry Pi 5 Model B Rev 1.0",
        name="Debian GNU/Linux 12 (bookworm)",
        image_version="2026.12",
        slot="B",
        confirmed=False,
    )
    for builds, confirmed in (('{"A": "b2", "B": "b1"}', False), ('{"B": "b2"}', True), ("damaged", False)):
        (tmp_path / CONFIRMED_NAME).write_text(builds)
        assert system_info(image, tmp_path).confirmed is confirmed


def test_a_system_says_why_its_last_update_failed(tmp_path: Path, image: Path) -> None:
    fault = SystemUpdateFault(version="2027.01", key="update.failed", message="no daemon ran")
    (tmp_path / FAULT_NAME).write_bytes(fault.encode())
    assert system_info(image, tmp_path).update_fault == fault
    (tmp_path / FAULT_NAME).write_text('{"version": 1, "of another moedge": true}')
    assert system_info(image, tmp_path).update_fault is None


def test_a_machine_that_says_nothing_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> dict[str, str]:
        raise OSError

    monkeypatch.setattr(platform, "freedesktop_os_release", missing)
    assert system_info(tmp_path / "none", tmp_path) == SystemInfo(board=None, name=None, image_version=None, slot=None)


def test_a_machine_with_firmware_of_a_pc_is_called_what_that_says(tmp_path: Path) -> None:
    (tmp_path / "sys/class/dmi/id").mkdir(parents=True)
    (tmp_path / "sys/class/dmi/id/product_name").write_text("NUC12WSKi5\n")
    assert system_info(tmp_path).board == "NUC12WSKi5"


def test_info_is_published_again_when_the_system_counts(
    tmp_path: Path, bundle: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moedge_runtime.daemon.bridge.system_info", lambda: system_info(image, tmp_path))
    config = config_for(tmp_path, bundle, 1)
    bridge = Bridge(config, Bundle.open(bundle), BrokerAddress("127.0.0.1", 1), JobQueue())
    sent: list[Message] = []
    monkeypatch.setattr(bridge.client, "publish", sent.append)
    bridge.publish_health()
    (tmp_path / CONFIRMED_NAME).write_text('{"B": "b2"}')
    bridge.publish_health()
    bridge.publish_health()
    assert [message.topic for message in sent] == ["t/d/health", "t/d/info", "t/d/health", "t/d/health"]
    assert json.loads(sent[1].payload)["system"]["confirmed"] is True
