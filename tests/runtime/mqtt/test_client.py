import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from moedge_runtime.mqtt.address import BrokerAddress, Connection
from moedge_runtime.mqtt.backoff import Backoff
from moedge_runtime.mqtt.client import MqttClient, Presence
from moedge_runtime.mqtt.message import Message, Received
from runtime.mqtt.brokers import Mosquitto
from runtime.mqtt.listener import DEADLINE_S, Listener

PRESENCE = Presence(*(Message("d/status", state, retain=True) for state in (b"online", b"stopped", b"offline")))


class WatchedBackoff(Backoff):
    """Short delays; `failed_twice` is set when the second of them begins."""

    def __init__(self) -> None:
        super().__init__(0.05, 0.2)
        self._delays = 0
        self.failed_twice = threading.Event()

    def next_s(self) -> float:
        self._delays += 1
        if self._delays == 2:
            self.failed_twice.set()
        return super().next_s()


def client_for(
    address: BrokerAddress,
    on_request: Callable[[Received], None] = lambda message: None,
    name: str = "d",
    backoff: Backoff | None = None,
) -> MqttClient:
    return MqttClient(
        Connection(address, client_id=name),
        presence=PRESENCE,
        requests="d/request/+",
        on_request=on_request,
        backoff=backoff or WatchedBackoff(),
    )


def wait_connected(client: MqttClient) -> None:
    deadline_s, tick = time.monotonic() + DEADLINE_S, threading.Event()
    while not client.connected:
        assert time.monotonic() < deadline_s, "no connection"
        tick.wait(0.005)


def answer(number: int) -> Message:
    return Message("d/answer", str(number).encode())


def test_it_says_online_first_then_states_then_what_waited_then_stopped(broker: BrokerAddress) -> None:
    with Listener(broker, "d/#") as listener:
        client = client_for(broker)
        client.publish(Message("d/info", b"i", retain=True))
        client.publish(answer(1))
        client.publish(Message("d/camera/status", b"online", retain=True))
        client.publish(answer(2))
        assert client.backlog() == (2, 0)
        client.start()
        listener.message("d/answer", "2")
        assert client.close(DEADLINE_S), "stopped was acknowledged"
        listener.message("d/status", "stopped")
        assert [(item.topic, item.payload) for item in listener.messages if not item.retain] == [
            ("d/status", b"online"),
            ("d/info", b"i"),
            ("d/camera/status", b"online"),
            ("d/answer", b"1"),
            ("d/answer", b"2"),
            ("d/status", b"stopped"),
        ]
    assert client.counters.published == 5
    assert not client.connected


def test_a_broker_that_comes_back_empty_gets_everything_again_and_nothing_is_lost(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path)
    address = broker.start()
    client = client_for(address)
    client.publish(Message("d/info", b"i", retain=True))
    client.publish(Message("d/camera/status", b"offline", retain=True))
    client.start()
    wait_connected(client)
    broker.kill()
    for number in range(50):
        client.publish(answer(number))
    client.publish(Message("d/camera/status", b"online", retain=True))
    broker.start()
    with Listener(address, "d/#") as listener:
        assert listener.message("d/status").payload == b"online"
        listener.message("d/camera/status", "online")
        client.publish(answer(50))
        listener.message("d/answer", "50")
        assert b"offline" not in listener.on("d/camera/status"), "no stale state is replayed"
    assert client.counters.connects == 2
    assert client.close(DEADLINE_S)
    broker.stop()


def test_what_was_published_during_an_outage_arrives_in_order(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path)
    client = client_for(broker.address)
    client.start()
    for number in range(200):
        client.publish(answer(number))
    address = broker.start()
    with Listener(address, "d/#") as listener:
        client.publish(answer(200))
        listener.message("d/answer", "200")
        heard = [int(payload) for payload in listener.on("d/answer")]
        assert heard == list(range(201))[-len(heard) :]
    assert client.close(DEADLINE_S)
    assert client.backlog() == (0, 0)
    broker.stop()


def test_requests_are_handed_over_and_a_failing_handler_does_no_harm(broker: BrokerAddress) -> None:
    received: list[Received] = []

    def handle(message: Received) -> None:
        received.append(message)
        if len(received) == 1:
            raise RuntimeError("a fault in the handler")
        client.publish(Message("d/response/x", message.payload))

    client = client_for(broker, handle)
    client.start()
    wait_connected(client)
    with Listener(broker, "d/response/#") as asker:
        asker.publish("d/request/x", b"first")
        asker.publish("d/request/x", b"second")
        assert asker.message("d/response/x").payload == b"second"
    assert client.close(DEADLINE_S)


def test_a_retained_request_is_never_handed_over(broker: BrokerAddress) -> None:
    received: list[bytes] = []
    with Listener(broker, "d/end") as other:
        other.publish("d/request/stored", b"retained", retain=True)
        client = client_for(broker, lambda message: received.append(message.payload))
        client.start()
        wait_connected(client)
        other.publish("d/request/x", b"fresh")
        other.publish("d/end", b"")
        other.message("d/end")
        assert client.close(DEADLINE_S)
        other.publish("d/request/stored", b"", retain=True)
    assert received == [b"fresh"]


def test_a_request_that_is_being_stored_is_not_handed_over_either(mosquitto: BrokerAddress) -> None:
    received: list[bytes] = []
    client = client_for(mosquitto, lambda message: received.append(message.payload))
    client.start()
    wait_connected(client)
    with Listener(mosquitto, "d/request/#") as other:
        other.publish("d/request/stored", b"stored while listening", retain=True)
        other.publish("d/request/x", b"fresh")
        other.message("d/request/x")
        other.publish("d/request/stored", b"", retain=True)
    assert client.close(DEADLINE_S)
    assert received == [b"fresh"]


def test_a_refused_broker_is_named_and_never_counts_as_connected(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Mosquitto(tmp_path, "allow_anonymous false")
    address = broker.start()
    backoff = WatchedBackoff()
    client = client_for(address, backoff=backoff)
    client.start()
    assert backoff.failed_twice.wait(DEADLINE_S)
    assert not client.connected
    assert not client.close(0.1)
    broker.stop()
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors == [
        f"Broker {address} refused the connection: Not authorized. "
        "Check username, password and the broker's access list. Trying again."
    ], "one line for any number of equal failures"
    assert client.counters.connects == 0


def test_two_clients_with_one_id_are_told_why_they_lose_the_connection(
    mosquitto: BrokerAddress, caplog: pytest.LogCaptureFixture
) -> None:
    first = client_for(mosquitto, name="twin")
    first.start()
    wait_connected(first)
    with Listener(mosquitto, "d/#") as listener:
        second = client_for(mosquitto, name="twin")
        second.start()
        listener.wait(lambda messages: sum(item.payload == b"online" for item in messages) >= 3, "a fight")
    first.close(1)
    second.close(1)
    assert any("another client uses the client id 'twin'." in record.getMessage() for record in caplog.records)
