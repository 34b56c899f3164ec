"""The access list as text, and kept by a real mosquitto."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from moedge_runtime.cli.mqtt import mqtt
from moedge_runtime.mqtt.acl import Access, acl_text
from moedge_runtime.mqtt.address import BrokerAddress, Connection
from moedge_runtime.mqtt.client import MqttClient, Presence
from moedge_runtime.mqtt.home_assistant import discovery_topic
from moedge_runtime.mqtt.message import Message
from moedge_runtime.mqtt.topics import Topics
from runtime.mqtt.brokers import Mosquitto, add_password
from runtime.mqtt.listener import Listener
from runtime.mqtt.test_client import WatchedBackoff, wait_connected

PASSWORD = "secret"
USERS = ("panel-01", "gate-02", "alice", "wall", "ha", "nobody")
ACCESS = Access("moedge", ["panel-01", "gate-02"], ["alice"], ["wall"], ["inbox"], "ha")
PANEL = Topics("moedge", "panel-01")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerAddress]:
    directory = tmp_path_factory.mktemp("guarded")
    (directory / "acl").write_text(acl_text(ACCESS))
    for user in USERS:
        passwords = add_password(directory, user, PASSWORD)
    broker = Mosquitto(
        directory, "allow_anonymous false", f"password_file {passwords}", f"acl_file {directory / 'acl'}"
    )
    yield broker.start()
    broker.stop()


def test_a_device_has_what_it_needs_and_nothing_else() -> None:
    assert acl_text(Access("moedge", ["panel-01"])) == (
        "# Made by `moedge mqtt acl`. The user name of a device is its name in moedge.yaml.\n"
        "\n"
        "user panel-01\n"
        "topic read moedge/panel-01/request/+\n"
        "topic read moedge/panel-01/+/+/set\n"
        "topic read moedge/panel-01/+/watch/+/set\n"
        "topic read moedge/panel-01/+/zone/+/set\n"
        "topic write moedge/panel-01/status\n"
        "topic write moedge/panel-01/info\n"
        "topic write moedge/panel-01/health\n"
        "topic write moedge/panel-01/log\n"
        "topic write moedge/panel-01/update/state\n"
        "topic write moedge/panel-01/response/+\n"
        "topic write moedge/panel-01/+/status\n"
        "topic write moedge/panel-01/+/event\n"
        "topic write moedge/panel-01/+/answer\n"
        "topic write moedge/panel-01/+/answer/last\n"
        "topic write moedge/panel-01/+/alert/+\n"
        "topic write moedge/panel-01/+/motion\n"
        "topic write moedge/panel-01/+/snapshot\n"
        "topic write moedge/panel-01/+/watch/+\n"
        "topic write moedge/panel-01/+/+/state\n"
        "topic write moedge/panel-01/+/watch/+/state\n"
        "topic write moedge/panel-01/+/zone/+/state\n"
    )


@pytest.mark.parametrize("name", ["", "a\ntopic write #", "+", "a/b", " a", "#"])
def test_no_name_can_open_the_list(name: str) -> None:
    with pytest.raises(ValueError, match="a user's name"):
        acl_text(Access("moedge", [name]))


@pytest.mark.parametrize("topic", ["", "a\ntopic write #", "+", " a", "#", "a/#"])
def test_no_topic_can_open_the_list(topic: str) -> None:
    with pytest.raises(ValueError, match=r"a (base )?topic has"):
        acl_text(Access("moedge", ["d"], inboxes=[topic]))
    with pytest.raises(ValueError, match=r"a (base )?topic has"):
        acl_text(Access(topic, ["d"]))


def test_nobody_has_two_roles() -> None:
    with pytest.raises(ValueError, match="named twice: alice"):
        acl_text(Access("moedge", ["alice"], ["alice"]))


def test_the_command_writes_the_file(tmp_path: Path) -> None:
    runner = CliRunner()
    printed = runner.invoke(mqtt, ["acl", "--device", "panel-01", "--base", "site/moedge"])
    assert printed.exit_code == 0 and "topic write site/moedge/panel-01/status\n" in printed.stdout
    path = tmp_path / "moedge.acl"
    assert runner.invoke(mqtt, ["acl", "--device", "panel-01", "--out", str(path)]).exit_code == 0
    assert path.read_text() == acl_text(Access("moedge", ["panel-01"]))
    refused = runner.invoke(mqtt, ["acl", "--device", "a/b"])
    assert "The access list cannot be written: a user's name has no blanks" in str(refused.exception)


def client_of(address: BrokerAddress, device: str) -> MqttClient:
    topics = Topics("moedge", device)
    presence = Presence(*(Message(topics.status, state, retain=True) for state in (b"online", b"stopped", b"offline")))
    return MqttClient(
        Connection(address, client_id=device, username=device, password=PASSWORD),
        presence=presence,
        requests=topics.requests,
        on_request=lambda message: None,
        also=["homeassistant/status"],
        backoff=WatchedBackoff(),
    )


def test_mosquitto_takes_everything_that_a_device_says_and_nothing_of_another(
    guarded: BrokerAddress, caplog: pytest.LogCaptureFixture
) -> None:
    allowed = [
        PANEL.info,
        PANEL.health,
        PANEL.log,
        PANEL.update_state,
        PANEL.camera_status("c"),
        PANEL.answer("c"),
        PANEL.last_answer("c"),
        PANEL.event("c"),
        PANEL.alert("c", "w"),
        PANEL.motion("c"),
        PANEL.snapshot("c"),
        PANEL.watch("c", "w"),
        PANEL.feature_state("c", "enabled"),
        PANEL.feature_state("c", "watch/w"),
        PANEL.feature_state("c", "zone/z"),
        PANEL.response("ask"),
        "inbox/alice",
        discovery_topic("homeassistant", "panel-01"),
    ]
    denied = [
        "moedge/gate-02/status",
        "moedge/gate-02/c/answer",
        PANEL.request("ask"),
        PANEL.latest_version,
        PANEL.feature_set("c", "enabled"),
        PANEL.feature_set("c", "watch/w"),
        "moedge/gate-02/c/enabled/state",
        "moedge/gate-02/request/restart",
        discovery_topic("homeassistant", "gate-02"),
        "homeassistant/status",
        "elsewhere",
    ]
    client = client_of(guarded, "panel-01")
    client.start()
    wait_connected(client)
    for topic in (*allowed, *denied):
        client.publish(Message(topic, b"x"))
    assert client.close(30)
    assert client.counters.refused == len(denied)
    refused = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert refused == [f"The broker refused a message on '{topic}': Not authorized." for topic in denied]


@pytest.mark.parametrize(
    ("sender", "verb", "reader", "arrives"),
    [
        ("alice", "restart", "panel-01", True),
        ("alice", "config", "panel-01", True),
        ("ha", "snapshot", "panel-01", True),
        ("ha", "config", "panel-01", False),
        ("wall", "ask", "panel-01", False),
        ("nobody", "ask", "panel-01", False),
        ("gate-02", "ask", "panel-01", False),
        ("alice", "ask", "gate-02", False),
    ],
)
def test_who_may_send_which_request(guarded: BrokerAddress, sender: str, verb: str, reader: str, arrives: bool) -> None:
    with (
        Listener(guarded, "moedge/+/request/+", username=reader, password=PASSWORD) as listener,
        Listener(guarded, "unused", username=sender, password=PASSWORD) as asker,
        Listener(guarded, "unused", username="alice", password=PASSWORD) as alice,
    ):
        asker.publish(f"moedge/panel-01/request/{verb}", b"{}")
        alice.publish(f"moedge/{reader}/request/end", b"end")
        listener.message(f"moedge/{reader}/request/end")
        assert bool(listener.on(f"moedge/panel-01/request/{verb}")) is arrives


@pytest.mark.parametrize("feature", ["enabled", "watch/w", "zone/z"])
@pytest.mark.parametrize(("sender", "arrives"), [("alice", True), ("ha", True), ("wall", False), ("gate-02", False)])
def test_who_may_switch(guarded: BrokerAddress, sender: str, arrives: bool, feature: str) -> None:
    topic = PANEL.feature_set("c", feature)
    with (
        Listener(guarded, *PANEL.feature_sets, username="panel-01", password=PASSWORD) as device,
        Listener(guarded, *Topics("moedge", "panel-01").feature_sets, username="gate-02", password=PASSWORD) as other,
        Listener(guarded, "unused", username=sender, password=PASSWORD) as user,
        Listener(guarded, "unused", username="alice", password=PASSWORD) as alice,
    ):
        user.publish(topic, b"OFF")
        alice.publish(PANEL.feature_set("c", "end"), b"")
        device.message(PANEL.feature_set("c", "end"))
        assert bool(device.on(topic)) is arrives
        assert other.messages == []


def test_a_device_does_not_read_what_others_say(guarded: BrokerAddress) -> None:
    with (
        Listener(guarded, "#", username="gate-02", password=PASSWORD) as gate,
        Listener(guarded, "#", username="wall", password=PASSWORD) as wall,
        Listener(guarded, "unused", username="panel-01", password=PASSWORD) as panel,
        Listener(guarded, "unused", username="alice", password=PASSWORD) as alice,
    ):
        panel.publish("moedge/panel-01/c/answer", b"x")
        wall.message("moedge/panel-01/c/answer")
        alice.publish("moedge/gate-02/request/end", b"end")
        gate.message("moedge/gate-02/request/end")
        assert [message.topic for message in gate.messages] == ["moedge/gate-02/request/end"]
