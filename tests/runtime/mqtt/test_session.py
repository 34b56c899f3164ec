import re
import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from moedge_runtime.errors import BrokerError
from moedge_runtime.mqtt.address import BrokerAddress, Connection, parse_broker_url
from moedge_runtime.mqtt.listening import free_port
from moedge_runtime.mqtt.message import Message
from moedge_runtime.mqtt.session import Session
from runtime.mqtt.brokers import Mosquitto, add_password
from runtime.mqtt.certificates import Authority


def refusal(connection: Connection) -> BrokerError:
    session = Session(connection)
    with pytest.raises(BrokerError) as caught:
        session.open()
    return caught.value


def test_nobody_listening() -> None:
    port = free_port()
    error = refusal(Connection(BrokerAddress("127.0.0.1", port)))
    assert str(error) == (
        f"Broker mqtt://127.0.0.1:{port} cannot be reached: Connection refused. "
        "Check that it runs, its address and its port."
    )
    assert error.key == "broker.unreachable"


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_wrong_password(tmp_path: Path, protocol: str) -> None:
    broker = Mosquitto(tmp_path, f"password_file {add_password(tmp_path, 'panel', 'right')}", "allow_anonymous false")
    address = broker.start()
    version = "5" if protocol == "5" else "3.1.1"
    try:
        for password in ("wrong", None):
            error = refusal(Connection(address, username="panel", password=password, protocol=version))
            assert str(error) == (
                f"Broker {address} refused the connection: Not authorized. "
                "Check username, password and the broker's access list."
            )
            assert error.key == "broker.refused"
        session = Session(Connection(address, username="panel", password="right", protocol=version))
        session.open()
        session.close()
    finally:
        broker.stop()


def test_a_subscription_that_is_denied(tmp_path: Path) -> None:
    access = tmp_path / "access"
    access.write_text("topic read open/#\n")
    broker = Mosquitto(tmp_path, "allow_anonymous true", f"acl_file {access}")
    address = broker.start()
    try:
        delivered: list[str | None] = []
        said = threading.Event()

        def on_delivered(number: int, reason: str | None) -> None:
            delivered.append(reason)
            said.set()

        session = Session(Connection(address), on_delivered=on_delivered)
        session.open()
        session.publish(Message("closed/a", b""))
        assert said.wait(10)
        session.close()
        assert delivered == ["Not authorized"], "a refused message is not a delivered one"
    finally:
        broker.stop()


class HalfBroker:
    """A broker of MQTT 5 for one connection, which it accepts; to the subscription it says `answer` and hangs up.

    Args:
        answer: Bytes; None to say nothing and stay.
    """

    CONNACK = bytes([0x20, 3, 0, 0, 0])
    """Success. MQTT 5.0, section 3.2."""
    NOT_AUTHORIZED = 0x87
    """MQTT 5.0, section 2.4."""

    def __init__(self, answer: bytes | None) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = BrokerAddress("127.0.0.1", self._server.getsockname()[1])
        self._answer = answer
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> BrokerAddress:
        self._thread.start()
        return self.address

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self._server.close()

    def _serve(self) -> None:
        connection = self._server.accept()[0]
        with connection:
            connection.recv(1000)
            connection.sendall(self.CONNACK)
            connection.recv(1000)
            if self._answer is None:
                self._over.wait()
            else:
                connection.sendall(self._answer)


def subscription_failure(answer: bytes | None) -> tuple[str, str | None]:
    """What is said about a subscription, the broker's address left out, and the error's key."""
    with HalfBroker(answer) as address:
        session = Session(Connection(address, connect_timeout_s=1 if answer is None else 30))
        session.open()
        with pytest.raises(BrokerError) as caught:
            session.subscribe("a/+", "b/+", retained=False)
        session.close()
    return str(caught.value).replace(str(address), "X"), caught.value.key


def test_a_refused_subscription_points_to_the_access_list() -> None:
    suback = bytes([0x90, 5, 0, 1, 0, HalfBroker.NOT_AUTHORIZED, HalfBroker.NOT_AUTHORIZED])  # section 3.9
    said, key = subscription_failure(suback)
    assert said == ("Broker X refused the subscription to 'a/+, b/+': Not authorized. Check the broker's access list.")
    assert key == "broker.subscription_refused"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "it was closed without a reason"),
        (bytes([0xE0, 1, HalfBroker.NOT_AUTHORIZED]), "Not authorized"),  # DISCONNECT, section 3.14
    ],
)
def test_a_connection_lost_while_subscribing_is_no_refusal(answer: bytes, why: str) -> None:
    said, key = subscription_failure(answer)
    assert said == (
        f"Connection to broker X ended during the subscription to 'a/+, b/+': {why}. "
        "Check the network and the broker's log."
    )
    assert key == "broker.lost"


def test_a_broker_that_does_not_answer_a_subscription() -> None:
    said, key = subscription_failure(None)
    assert said == (
        "Broker X did not answer the subscription to 'a/+, b/+' within 1.0 s. Check the network and the broker's log."
    )
    assert key == "broker.no_answer"


def test_subscribing_on_a_lost_connection_fails_at_once(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path)
    lost = threading.Event()
    session = Session(Connection(broker.start(), connect_timeout_s=600), on_lost=lambda reason: lost.set())
    session.open()
    broker.kill()
    assert lost.wait(10)
    with pytest.raises(BrokerError) as caught:
        session.subscribe("a/+", retained=False)
    session.close()
    assert caught.value.key == "broker.lost"


def test_a_clean_end_ends_the_connection_of_a_broker_that_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moedge_runtime.mqtt.session.CLOSE_TIMEOUT_S", 20)
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def serve() -> None:
            with server.accept()[0] as connection:
                connection.recv(1000)
                connection.sendall(HalfBroker.CONNACK)
                connection.settimeout(10)
                with suppress(TimeoutError):
                    while connection.recv(1000):
                        pass
                    ended.set()

        thread = threading.Thread(target=serve)
        thread.start()
        session = Session(Connection(BrokerAddress("127.0.0.1", server.getsockname()[1])))
        session.open()
        session.close()
        thread.join()
    assert ended.is_set()


@pytest.mark.parametrize("behaviour", ["silent", "closes"])
def test_a_port_that_is_no_broker(behaviour: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = BrokerAddress("127.0.0.1", server.getsockname()[1])
        held: list[socket.socket] = []

        def serve() -> None:
            connection = server.accept()[0]
            held.append(connection)
            if behaviour == "closes":
                connection.recv(100)
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        error = refusal(Connection(address, connect_timeout_s=0.5 if behaviour == "silent" else 30))
        thread.join()
        held[0].close()
    what = "did not answer within 0.5 s" if behaviour == "silent" else "closed the connection without an answer"
    assert str(error) == f"Broker {address} {what}. Check that it is an MQTT broker and speaks MQTT 5."
    assert error.key == "broker.no_answer"


def test_tls_with_a_certificate_on_both_sides(tmp_path: Path) -> None:
    files = tmp_path
    authority = Authority(files)
    authority.issue("server")
    authority.issue("client")
    broker = Mosquitto(
        tmp_path,
        f"cafile {files}/ca.pem",
        f"certfile {files}/server.pem",
        f"keyfile {files}/server.key",
        "require_certificate true",
        "allow_anonymous true",
    )
    plain = broker.start()
    address = BrokerAddress(plain.host, plain.port, tls=True)
    try:
        ca, cert, key = files / "ca.pem", files / "client.pem", files / "client.key"
        session = Session(Connection(address, ca=ca, cert=cert, key=key))
        session.open()
        session.close()
        error = refusal(Connection(address))
        assert re.fullmatch(
            rf"TLS with broker {address} failed: .*certificate.*\. Check ca, cert, key and this board's clock "
            r"\(it says 20\d\d-\d\d-\d\d\)\.",
            str(error),
        )
        assert error.key == "broker.tls"
        assert refusal(Connection(address, ca=ca)).key in ("broker.tls", "broker.no_answer")
    finally:
        broker.stop()


def test_tls_to_a_port_without_it(mosquitto: BrokerAddress) -> None:
    error = refusal(Connection(BrokerAddress(mosquitto.host, mosquitto.port, tls=True), connect_timeout_s=5))
    assert error.key in ("broker.tls", "broker.unreachable")
    assert "mqtts://127.0.0.1" in str(error)


def test_urls() -> None:
    assert parse_broker_url("mqtt://host") == BrokerAddress("host", 1883)
    assert parse_broker_url("mqtts://host") == BrokerAddress("host", 8883, tls=True)
    assert str(parse_broker_url("mqtt://[::1]:1884/")) == "mqtt://[::1]:1884"
    for url in (
        "host",
        "mqtt://",
        "mqtt://u:p@host",
        "mqtt://host/topic",
        "mqtt://host:x",
        "ws://host",
        "mqtt://a..b",
        "mqtt://\udcff",
    ):
        with pytest.raises(ValueError, match=r"^a broker's "):
            parse_broker_url(url)
