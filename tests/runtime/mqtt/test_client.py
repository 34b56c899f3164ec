import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from moedge_runtime.mqtt.address import BrokerAddress, Connection, Protocol
from moedge_runtime.mqtt.backoff import Backoff
from moedge_runtime.mqtt.client import MqttClient, Presence
from moedge_runtime.mqtt.message import Message, Received
from moedge_runtime.mqtt.spool import Spool
from runtime.mqtt.brokers import Mosquitto
from runtime.mqtt.listener import DEADLINE_S, Listener
from runtime.mqtt.test_session import HalfBroker

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
    *,
    protocol: Protocol = "5",
    spool: Spool | None = None,
) -> MqttClient:
    return MqttClient(
        Connection(address, client_id=name, protocol=protocol),
        presence=PRESENCE,
        requests="d/request/+",
        on_request=on_request,
        backoff=backoff or WatchedBackoff(),
        spool=spool,
    )


def spool_in(directory: Path) -> Spool:
    return Spool(directory, max_bytes=1 << 26, max_age_s=3600)


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline_s, tick = time.monotonic() + DEADLINE_S, threading.Event()
    while not condition():
        assert time.monotonic() < deadline_s, what
        tick.wait(0.005)


def lasting(number: int) -> Message:
    return Message("d/answer", b"%d" % number, late=lambda: b"%d late" % number)


def wait_connected(client: MqttClient) -> None:
    wait_until(lambda: client.connected, "no connection")


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


def test_with_a_broker_no_answer_touches_the_disk(tmp_path: Path, broker: BrokerAddress) -> None:
    spool = spool_in(tmp_path / "spool")
    client = client_for(broker, spool=spool)
    client.start()
    wait_connected(client)
    with Listener(broker, "d/answer") as listener:
        for number in range(100):
            client.publish(lasting(number))
        listener.message("d/answer", "99")
        assert listener.on("d/answer") == [b"%d" % number for number in range(100)]
    assert client.close(DEADLINE_S)
    assert spool.written_bytes == 0
    assert not (tmp_path / "spool").exists()


def test_answers_wait_on_the_disk_for_a_later_process_and_come_in_order_with_a_mark_behind_the_states(
    tmp_path: Path,
) -> None:
    broker = Mosquitto(tmp_path)
    first = client_for(broker.address, spool=spool_in(tmp_path / "spool"))
    first.start()
    for number in range(50):
        first.publish(lasting(number))
    wait_until(lambda: first.backlog() == (50, 0) and not first.rest(), "all are on the disk")
    for number in range(50, 60):
        first.publish(lasting(number))
    assert not first.close(0.1)
    assert first.rest() == [], "nothing is left in memory"
    address = broker.start()
    with Listener(address, "d/#") as listener:
        spool = spool_in(tmp_path / "spool")
        second = client_for(address, spool=spool)
        second.publish(Message("d/info", b"i", retain=True))
        second.publish(lasting(60))
        second.start()
        listener.message("d/answer", "60")
        second.publish(lasting(61))
        listener.message("d/answer", "61")
        assert second.close(DEADLINE_S)
        listener.message("d/status", "stopped")
        heard = [(item.topic, item.payload) for item in listener.messages][:-1]
    assert heard[:2] == [("d/status", b"online"), ("d/info", b"i")]
    assert [payload for _, payload in heard[2:]] == [*(b"%d late" % number for number in range(61)), b"61"]
    assert second.counters.replayed in (60, 61)
    assert spool.messages == 0 and not list((tmp_path / "spool").glob("*.seg")), "it shrinks after use"
    broker.stop()


def test_a_hundred_thousand_messages_on_the_disk_keep_no_device_from_being_online_within_five_seconds(
    tmp_path: Path, mosquitto: BrokerAddress
) -> None:
    earlier = Spool(tmp_path / "spool", max_bytes=1 << 30, max_age_s=3600)
    for start in range(0, 100_000, 2000):
        earlier.append([("h/answer", b"%d" % number + b"." * 400) for number in range(start, start + 2000)])
    earlier.close()
    with Listener(mosquitto, "h/#") as listener:
        began_s = time.monotonic()
        spool = Spool(tmp_path / "spool", max_bytes=1 << 30, max_age_s=3600)
        client = client_for(mosquitto, name="h", spool=spool)
        client.start()
        first = listener.message("h/answer")
        took_s = time.monotonic() - began_s
        assert first.payload.startswith(b"0.")
        assert client.backlog()[0] > 90_000
        client.close(0.1)
    assert took_s < 5


def test_a_broker_killed_in_the_middle_loses_no_answer_and_keeps_their_order(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path)
    address = broker.start()
    client = client_for(address, spool=spool_in(tmp_path / "spool"))
    client.start()
    heard: list[int] = []
    for round_number in range(4):
        with Listener(address, "d/answer") as listener:
            wait_connected(client)
            for number in range(round_number * 200, round_number * 200 + 200):
                client.publish(lasting(number))
            if round_number == 3:
                listener.message("d/answer", "799")
            else:
                listener.wait(lambda messages: len(messages) >= 20, "some of them")
                broker.kill()
            heard += [int(payload.split()[0]) for payload in listener.on("d/answer")]
        if round_number < 3:
            broker.start()
    assert client.close(DEADLINE_S)
    broker.stop()
    first_time = list(dict.fromkeys(heard))
    assert first_time == sorted(first_time), "no newer answer overtakes an older one"
    assert client.counters.published == 800 + client.counters.connects, "each was acknowledged, once"
    assert client.backlog() == (0, 0)


def test_a_spool_that_cannot_be_written_is_reported_and_answers_wait_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    broker = Mosquitto(tmp_path)
    client = client_for(broker.address, spool=spool_in(tmp_path / "file" / "spool"))
    client.start()
    client.publish(lasting(0))
    wait_until(lambda: client.spool_error, "the error")
    client.publish(lasting(1))
    assert client.spool_error is not None and "Not a directory" in client.spool_error
    address = broker.start()
    with Listener(address, "d/#") as listener:
        client.publish(lasting(2))
        listener.message("d/answer", "2")
    assert client.close(DEADLINE_S)
    assert client.backlog() == (0, 0)
    broker.stop()
    errors = [record.message for record in caplog.records if "Answers wait in memory." in record.message]
    assert len(errors) == 1


def test_states_that_change_without_a_broker_take_no_memory(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path)
    client = client_for(broker.address)
    for number in range(1000):
        client.publish(Message("d/camera/snapshot", b"%d" % number, retain=True))
    client.start()
    address = broker.start()
    with Listener(address, "d/#") as listener:
        listener.message("d/camera/snapshot", "999")
    assert client.close(DEADLINE_S)
    assert client.counters.published == 2, "online and the newest state"
    broker.stop()


def test_the_bytes_that_wait_are_those_of_answers_and_responses() -> None:
    client = client_for(BrokerAddress("127.0.0.1", 1))
    client.publish(Message("d/info", b"state", retain=True))
    for size in (10, 20):
        client.publish(Message("d/response/x", b"x" * size))
    assert client.waiting_bytes() == 30


def test_what_may_be_lost_is_taken_only_with_a_connection(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path, "allow_anonymous true", "max_packet_size 2000")
    client = client_for(broker.start())
    assert not client.offer(Message("d/log", b"before", qos=0))
    with Listener(broker.address, "d/#") as listener:
        client.start()
        wait_connected(client)
        assert client.offer(Message("d/log", b"x" * 3000, qos=0))
        assert client.offer(Message("d/log", b"after", qos=0))
        assert listener.message("d/log").payload == b"after"
    assert client.counters.lost == 1, "what the broker would not take"
    assert client.close(DEADLINE_S)
    assert not client.offer(Message("d/log", b"at last", qos=0))
    broker.stop()


def test_a_message_too_large_for_the_broker_is_reported_once_and_the_others_arrive(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Mosquitto(tmp_path, "allow_anonymous true", "max_packet_size 20000")
    address = broker.start()
    client = client_for(address, spool=spool_in(tmp_path / "spool"))
    client.publish(Message("d/info", b"x" * 30_000, retain=True))
    client.publish(Message("d/answer", b"y" * 25_000, late=lambda: b"y" * 25_000))
    client.publish(lasting(1))
    client.start()
    with Listener(address, "d/#") as listener:
        wait_connected(client)
        client.publish(Message("d/info", b"x" * 31_000, retain=True))
        client.publish(lasting(2))
        listener.message("d/answer", "2")
    assert client.close(DEADLINE_S)
    assert (client.counters.connects, client.counters.refused) == (1, 3)
    errors = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert errors == [
        f"A message of {size} bytes on '{topic}' is not sent: the broker takes packets of 20,000 bytes at most."
        for topic, size in (("d/info", "30,000"), ("d/answer", "25,000"))
    ]
    broker.stop()


def test_without_mqtt_5_a_message_that_the_broker_cuts_off_is_given_up_after_a_while(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Mosquitto(tmp_path, "allow_anonymous true", "max_packet_size 20000")
    address = broker.start()
    client = client_for(address, protocol="3.1.1")
    client.publish(Message("d/info", b"x" * 30_000, retain=True))
    client.publish(answer(1))
    client.start()
    with Listener(address, "d/#") as listener:
        listener.message("d/answer", "1")
    assert client.close(DEADLINE_S)
    assert client.counters.refused == 1
    assert any("are probably too large for it and are not sent again." in record.message for record in caplog.records)
    broker.stop()


def test_a_broker_that_refuses_switches_is_not_left(caplog: pytest.LogCaptureFixture) -> None:
    over = threading.Event()

    def serve() -> None:
        connection = server.accept()[0]
        with connection:
            connection.recv(1000)
            connection.sendall(HalfBroker.CONNACK)
            for _ in range(3):
                packet = connection.recv(1000)
                reason = 1 if b"d/request/+" in packet else HalfBroker.NOT_AUTHORIZED
                connection.sendall(bytes([0x90, 4, *packet[2:4], 0, reason]))  # MQTT 5.0, section 3.9
            over.wait()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        address = BrokerAddress("127.0.0.1", server.getsockname()[1])
        client = MqttClient(
            Connection(address, client_id="d"),
            presence=PRESENCE,
            requests="d/request/+",
            on_request=lambda message: None,
            sets=["d/+/+/set", "d/+/watch/+/set"],
        )
        client.start()
        wait_connected(client)
        client.close(0.0)
        over.set()
        thread.join()
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert said == [
        f"Broker {address} refused the subscription to '{topic}': Not authorized. Check the broker's access list."
        for topic in ("d/+/+/set", "d/+/watch/+/set")
    ]
