"""Cameras and brokers: real files, a real mosquitto with access lists."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from moedge_devices.doctor import service
from moedge_devices.doctor.finding import Finding
from moedge_devices.doctor.service import check_broker, check_cameras, check_config_file
from moedge_runtime.camera.frame import Frame
from moedge_runtime.config import Config, load_config, pushed
from moedge_runtime.daemon.broker import connection_of
from moedge_runtime.mqtt.address import parse_broker_url
from moedge_runtime.mqtt.session import Session
from PIL import Image
from runtime.mqtt.brokers import Mosquitto, add_password

ACL = "user gate-01\ntopic readwrite moedge/gate-01/#\nuser narrow\ntopic write other/#\n"


def configuration(folder: Path, *, mqtt: dict[str, Any], cameras: dict[str, Any] | None = None) -> Config:
    (folder / "frames").mkdir(exist_ok=True)
    Image.new("RGB", (64, 48)).save(folder / "frames" / "1.png")
    document = {
        "version": 1,
        "device": "gate-01",
        "model": {"bundle": "bundle"},
        "mqtt": mqtt,
        "cameras": cameras or {"shelf": {"source": "folder:frames"}},
    }
    path = folder / "moedge.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return load_config(path)


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


@pytest.fixture
def pushed_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what is pushed for `tmp_path/moedge.yaml` would be: its directory stands for /etc/moedge."""
    monkeypatch.setattr(pushed, "ETC", tmp_path)
    monkeypatch.setattr(pushed, "PUSHED", tmp_path / "pushed")
    (tmp_path / "pushed").mkdir()
    return tmp_path / "pushed" / "moedge.yaml"


def test_which_configuration_counts_is_said(tmp_path: Path, pushed_to: Path) -> None:
    config = configuration(tmp_path, mqtt={"embedded": True})
    finding = check_config_file(config)
    assert (finding.status, finding.value) == ("ok", str(tmp_path / "moedge.yaml"))
    pushed_to.write_text((tmp_path / "moedge.yaml").read_text())
    os.utime(tmp_path / "moedge.yaml", (1000, 1000))
    finding = check_config_file(load_config(tmp_path / "moedge.yaml"))
    assert (finding.status, finding.value) == ("ok", str(pushed_to))
    os.utime(pushed_to, (500, 500))
    finding = check_config_file(load_config(tmp_path / "moedge.yaml"))
    assert finding.status == "warning" and "changed later" in finding.text
    assert str(pushed_to) in (finding.advice or "")


def test_commands_that_the_daemon_wrote_are_not_run_by_another_user(
    tmp_path: Path, pushed_to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "made"
    camera = {"source": f"exec:touch {made}", "first_frame_timeout": 0.1}
    configuration(tmp_path, mqtt={"embedded": True}, cameras={"door": camera})
    pushed_to.write_text((tmp_path / "moedge.yaml").read_text())
    config = load_config(tmp_path / "moedge.yaml")
    owner = pushed_to.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    (finding,) = check_cameras(config)
    assert finding.status == "skipped" and "sudo -u moedge" in (finding.advice or "")
    assert not made.exists()
    monkeypatch.setattr(os, "geteuid", lambda: owner)
    (finding,) = check_cameras(config)
    assert finding.status == "failed" and made.exists()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mosquitto")
    add_password(folder, "gate-01", "one")
    passwords = add_password(folder, "narrow", "two")
    acl = folder / "acl"
    acl.write_text(ACL)
    for path in (passwords, acl):
        path.chmod(0o600)
    mosquitto = Mosquitto(folder, "allow_anonymous false", f"password_file {passwords}", f"acl_file {acl}")
    yield str(mosquitto.start())
    mosquitto.stop()


def test_a_broker_that_grants_the_device_its_topics_is_ok(tmp_path: Path, broker: str) -> None:
    config = configuration(tmp_path, mqtt={"url": broker, "username": "gate-01", "password": "one"})
    findings = by_check(check_broker(config))
    assert {name: finding.status for name, finding in findings.items()} == {
        "broker.connect": "ok",
        "broker.publish": "ok",
        "broker.subscribe": "ok",
    }
    assert "'moedge/gate-01/response/doctor'" in findings["broker.publish"].text


def test_a_daemon_that_runs_stays_connected(tmp_path: Path, broker: str) -> None:
    config = configuration(tmp_path, mqtt={"url": broker, "username": "gate-01", "password": "one"})
    lost: list[str] = []
    daemon = Session(connection_of(config, parse_broker_url(broker)), on_lost=lost.append)
    daemon.open()
    check_broker(config)
    daemon.subscribe("moedge/gate-01/request/+", retained=False)  # raises if the connection is gone
    daemon.close()
    assert lost == []


def test_an_access_list_that_grants_other_topics_only_is_found(tmp_path: Path, broker: str) -> None:
    config = configuration(tmp_path, mqtt={"url": broker, "username": "narrow", "password": "two"})
    findings = by_check(check_broker(config))
    assert findings["broker.connect"].status == "ok"
    assert findings["broker.publish"].status == "failed"
    assert "Not authorized" in findings["broker.publish"].text
    assert "access list" in (findings["broker.publish"].advice or "")


def test_a_wrong_password_is_found(tmp_path: Path, broker: str) -> None:
    config = configuration(tmp_path, mqtt={"url": broker, "username": "gate-01", "password": "wrong"})
    findings = by_check(check_broker(config))
    assert list(findings) == ["broker.connect"]
    assert findings["broker.connect"].status == "failed"
    assert "refused the connection" in findings["broker.connect"].text


def test_publishing_is_not_claimed_where_the_protocol_cannot_tell(tmp_path: Path, broker: str) -> None:
    mqtt = {"url": broker, "username": "narrow", "password": "two", "protocol": "3.1.1"}
    findings = by_check(check_broker(configuration(tmp_path, mqtt=mqtt)))
    assert findings["broker.publish"].status == "skipped"


def test_a_broker_that_is_not_there_is_found(tmp_path: Path) -> None:
    config = configuration(tmp_path, mqtt={"url": "mqtt://127.0.0.1:1"})
    findings = check_broker(config)
    assert [finding.status for finding in findings] == ["failed"]
    assert "cannot be reached" in findings[0].text


def test_an_embedded_broker_is_left_to_the_daemon(tmp_path: Path) -> None:
    config = configuration(tmp_path, mqtt={"embedded": True})
    assert [finding.status for finding in check_broker(config)] == ["skipped"]


def test_cameras_that_give_pictures_are_ok_and_others_are_named(tmp_path: Path) -> None:
    cameras = {
        "shelf": {"source": "folder:frames"},
        "gone": {"source": "folder:nowhere"},
        "street": {"source": "rtsp://127.0.0.1:1/x", "first_frame_timeout": 2},
        "off": {"source": "folder:frames", "enabled": False},
    }
    findings = by_check(check_cameras(configuration(tmp_path, mqtt={"embedded": True}, cameras=cameras)))
    assert {name: finding.status for name, finding in findings.items()} == {
        "camera.shelf": "ok",
        "camera.gone": "failed",
        "camera.street": "failed",
        "camera.off": "skipped",
    }
    assert findings["camera.shelf"].value == "64x48"
    assert "nowhere" in findings["camera.gone"].text


class Silent:
    """A source that gives nothing until it is closed."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def frames(self) -> Iterator[Frame]:
        self.closed.wait()
        yield from ()

    def close(self) -> None:
        self.closed.set()


def test_a_camera_that_hangs_is_given_up_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "RECORDING_TIMEOUT_S", 0.05)
    config = configuration(tmp_path, mqtt={"embedded": True})
    source = Silent()
    [finding] = check_cameras(config, lambda camera, intervals_s, preparation: source)
    assert finding.status == "failed"
    assert "gave no picture within" in finding.text
    assert source.closed.is_set()


def test_no_login_of_a_camera_is_shown(tmp_path: Path) -> None:
    cameras = {"street": {"source": "http://127.0.0.1:1/x?token=hidden", "first_frame_timeout": 1}}
    cameras["street"] |= {"username": "guard", "password": "hidden"}
    [finding] = check_cameras(configuration(tmp_path, mqtt={"embedded": True}, cameras=cameras))
    assert finding.status == "failed"
    assert "hidden" not in finding.line()
