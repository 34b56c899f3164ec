"""What moedge needs of a broker; the embedded one and mosquitto have to pass the same tests."""

import queue
import socket
import subprocess
import sys
from contextlib import closing

import pytest
from moedge_runtime.mqtt.address import BrokerAddress, Connection
from moedge_runtime.mqtt.message import Message, Received
from moedge_runtime.mqtt.session import Session
from runtime.mqtt.listener import DEADLINE_S, Listener

MORTAL = """
import sys
from moedge_runtime.mqtt.address import BrokerAddress, Connection
from moedge_runtime.mqtt.message import Message
from moedge_runtime.mqtt.session import Session
import threading
said = threading.Event()
session = Session(
    Connection(BrokerAddress("127.0.0.1", int(sys.argv[1])), client_id="mortal"),
    will=Message("mortal/status", b"offline", retain=True), on_delivered=lambda *_: said.set())
session.open()
session.publish(Message("mortal/status", b"online", retain=True))
said.wait(10)
print("ready", flush=True)
threading.Event().wait()
"""


def publish(address: BrokerAddress, *messages: Message) -> None:
    with Listener(address, "unused") as client:
        for message in messages:
            client.publish(message.topic, message.payload, retain=message.retain)


def test_a_retained_message_reaches_who_subscribes_later(broker: BrokerAddress) -> None:
    publish(broker, Message("retained/a", b"1", retain=True), Message("retained/a", b"2", retain=True))
    with Listener(broker, "retained/a") as late:
        message = late.message("retained/a")
        assert message.payload == b"2"
        assert message.retain
        assert message.qos == 1


def test_an_empty_retained_message_clears(broker: BrokerAddress) -> None:
    publish(
        broker,
        Message("cleared/a", b"1", retain=True),
        Message("cleared/a", b"", retain=True),
        Message("cleared/b", b"end", retain=True),
    )
    with Listener(broker, "cleared/#") as late:
        late.message("cleared/b")
        assert late.on("cleared/a") == []


def test_the_will_is_published_and_retained_when_a_client_is_killed(broker: BrokerAddress) -> None:
    with Listener(broker, "mortal/#") as listener:
        with subprocess.Popen(
            [sys.executable, "-c", MORTAL, str(broker.port)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.kill()
        listener.message("mortal/status", "offline")
    with Listener(broker, "mortal/#") as late:
        assert late.message("mortal/status").payload == b"offline"


def test_a_clean_end_publishes_no_will(broker: BrokerAddress) -> None:
    with Listener(broker, "clean/#") as listener:
        session = Session(Connection(broker), will=Message("clean/status", b"offline"))
        session.open()
        session.close()
        listener.publish("clean/end", b"")
        listener.message("clean/end")
        assert listener.on("clean/status") == []


def test_connections_that_follow_at_once_publish_no_will_and_the_last_has_it(broker: BrokerAddress) -> None:
    will = Message("again/status", b"offline")
    with Listener(broker, "again/#") as listener:
        for _ in range(40):
            session = Session(Connection(broker, client_id="again"), will=will)
            session.open()
            session.subscribe("again/request", retained=False)
            session.publish(Message("again/online", b""))
            session.close()
        listener.publish("again/end", b"")
        listener.message("again/end")
        assert listener.on("again/status") == []
        with closing(Session(Connection(broker, client_id="again"), will=will)) as session:
            session.open()
            listener.publish("again/status", b"taken over")
            listener.message("again/status", "taken over")
            another = Session(Connection(broker, client_id="again"))
            another.open()
            another.close()
            listener.message("again/status", "offline")


def test_response_topic_and_correlation_data_arrive(broker: BrokerAddress) -> None:
    received: queue.SimpleQueue[Received] = queue.SimpleQueue()
    session = Session(Connection(broker), on_message=received.put)
    session.open()
    session.subscribe("asked/+", retained=False)
    with Listener(broker, "unused") as asker:
        asker.publish("asked/x", b"?", response_topic="reply/1", correlation=b"\x00\xff7")
    assert received.get(timeout=DEADLINE_S) == Received("asked/x", b"?", False, "reply/1", b"\x00\xff7")
    session.close()


def test_a_thousand_messages_arrive_once_each_and_in_order(broker: BrokerAddress) -> None:
    with Listener(broker, "many") as listener:
        session = Session(Connection(broker))
        session.open()
        for number in range(1000):
            session.publish(Message("many", str(number).encode()))
        listener.wait(lambda messages: len(messages) >= 1000, "1,000 messages")
        session.close()
        assert listener.on("many") == [str(number).encode() for number in range(1000)]


def test_a_large_answer_passes(broker: BrokerAddress) -> None:
    with Listener(broker, "large") as listener:
        listener.publish("large", b"x" * 200_000)
        assert len(listener.message("large").payload) == 200_000


def test_garbage_from_one_client_leaves_the_others_alone(broker: BrokerAddress) -> None:
    with Listener(broker, "calm") as listener:
        for garbage in (
            b"GET / HTTP/1.0\r\n\r\n",
            b"\x10\xff\xff\xff\x7f",
            b"\x10\x0c\x00\x04MQTT\x09\x02\x00\x3c\x00\x00",
        ):
            with socket.create_connection((broker.host, broker.port), DEADLINE_S) as connection:
                connection.sendall(garbage)
        listener.publish("calm", b"still here")
        assert listener.message("calm").payload == b"still here"


def test_a_retained_command_is_recognised(broker: BrokerAddress) -> None:
    """Asked not to send stored messages on subscribing, a broker does not, or sends them marked."""
    publish(broker, Message("commands/old", b"1", retain=True))
    received: queue.SimpleQueue[Received] = queue.SimpleQueue()
    session = Session(Connection(broker), on_message=received.put)
    session.open()
    session.subscribe("commands/+", retained=False)
    publish(broker, Message("commands/new", b"2"))
    first = received.get(timeout=DEADLINE_S)
    if first.topic == "commands/old":
        assert first.retain
        first = received.get(timeout=DEADLINE_S)
    assert first == Received("commands/new", b"2")
    session.close()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_mosquitto_serves_both_protocols(mosquitto: BrokerAddress, protocol: str) -> None:
    delivered: list[str | None] = []
    session = Session(
        Connection(mosquitto, protocol="5" if protocol == "5" else "3.1.1"),
        on_delivered=lambda _number, refusal: delivered.append(refusal),
    )
    session.open()
    with Listener(mosquitto, "both") as listener:
        session.publish(Message("both", b"1"))
        listener.message("both")
    session.close()
    assert delivered == [None]
