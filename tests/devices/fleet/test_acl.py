"""Access lists of fleets, as text and kept by a real mosquitto."""

import queue
from pathlib import Path

import pytest
from click.testing import CliRunner
from devices.fleet.sample import FLEET, sample, write
from moedge_devices.fleet.acl import fleet_acl
from moedge_devices.fleet.cli import fleet as command
from moedge_runtime.errors import ConfigError
from moedge_runtime.mqtt.acl import Access, acl_text
from moedge_runtime.mqtt.address import Connection
from moedge_runtime.mqtt.message import Message
from moedge_runtime.mqtt.session import Session
from runtime.mqtt.brokers import Mosquitto, add_password

NAMES = ["panel-01", "panel-02", "panel-03", "panel-04"]
TWO_BASES = FLEET.replace("  paris:\n", "  paris:\n    config: {mqtt: {base_topic: moedge/paris}}\n")


def test_it_is_the_list_of_moedge_mqtt_acl_with_the_names_of_the_fleet(tmp_path: Path) -> None:
    expected = acl_text(Access("moedge", NAMES, ["alice"], ["wall"]))
    assert fleet_acl(list(sample(tmp_path).devices.values()), operators=["alice"], viewers=["wall"]) == expected
    out = tmp_path / "acl"
    arguments = ["acl", "-f", str(write(tmp_path)), "--operator", "alice", "--viewer", "wall", "--out", str(out)]
    assert CliRunner().invoke(command, arguments).exception is None and out.read_text() == expected


def test_every_device_has_its_own_base_topic_and_an_operator_has_all(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text(fleet_acl(list(sample(tmp_path, TWO_BASES).devices.values()), operators=["alice"]))
    for user in ("alice", "panel-04"):
        passwords = add_password(tmp_path, user, "secret")
    broker = Mosquitto(tmp_path, "allow_anonymous false", f"password_file {passwords}", f"acl_file {tmp_path / 'acl'}")
    address = broker.start()
    delivered: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    sessions = {
        user: Session(
            Connection(address, username=user, password="secret"),
            on_delivered=lambda number, refusal: delivered.put(refusal),
        )
        for user in ("alice", "panel-04")
    }
    try:
        for session in sessions.values():
            session.open()
        for user, topic, allowed in (
            ("panel-04", "moedge/panel-04/info", False),
            ("panel-04", "moedge/paris/panel-04/info", True),
            ("alice", "moedge/panel-01/request/ask", True),
            ("alice", "moedge/paris/panel-04/request/ask", True),
            ("alice", "moedge/paris/panel-04/info", False),
        ):
            sessions[user].publish(Message(topic, b"{}"))
            assert (delivered.get(timeout=20) is None) is allowed, (user, topic)
    finally:
        for session in sessions.values():
            session.close()
        broker.stop()


def test_devices_on_several_brokers_are_refused_unless_they_are_bridged(tmp_path: Path) -> None:
    text = FLEET.replace("  paris:\n", '  paris:\n    config: {mqtt: {url: "mqtt://paris"}}\n')
    devices = list(sample(tmp_path, text).devices.values())
    with pytest.raises(ConfigError, match=r"on 2 brokers: mqtt://127.0.0.1:1883, mqtt://paris"):
        fleet_acl(devices)
    assert fleet_acl(devices, bridged=True).count("user panel-0") == 4


def test_a_device_that_logs_in_under_another_name_is_refused(tmp_path: Path) -> None:
    text = FLEET.replace('url: "mqtt://127.0.0.1:1883"', 'url: "mqtt://127.0.0.1:1883", username: all')
    with pytest.raises(ConfigError, match=r"panel-01 \('all'\)"):
        fleet_acl(list(sample(tmp_path, text).devices.values()))
