import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from moedge_runtime.errors import BrokerError
from moedge_runtime.mqtt.address import BrokerAddress, Connection
from moedge_runtime.mqtt.backoff import Backoff
from moedge_runtime.mqtt.broker import EmbeddedBroker
from moedge_runtime.mqtt.listening import free_port
from moedge_runtime.mqtt.session import Session
from runtime.mqtt.listener import DEADLINE_S, Listener

pytest.importorskip("iotcore")

HOLDER = """
import sys, threading
from moedge_runtime.mqtt.broker import EmbeddedBroker
from moedge_runtime.mqtt.session import Session
print(EmbeddedBroker("127.0.0.1", 0).start().port, flush=True)
threading.Event().wait()
"""


def listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s, tick = time.monotonic() + DEADLINE_S, threading.Event()
    while not condition():
        assert time.monotonic() < deadline_s
        tick.wait(0.01)


def test_a_stopped_broker_frees_its_port_and_can_be_started_again() -> None:
    port = free_port()
    for _ in range(2):
        broker = EmbeddedBroker("127.0.0.1", port)
        address = broker.start()
        assert address == BrokerAddress("127.0.0.1", port)
        with Listener(address, "a") as listener:
            listener.publish("a", b"1")
            listener.message("a")
        broker.stop()
        broker.stop()
        assert not listening(port)


def test_a_taken_port_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(BrokerError) as caught:
            EmbeddedBroker("127.0.0.1", port).start()
    assert str(caught.value) == (
        f"The embedded broker cannot listen on 127.0.0.1:{port}: Address already in use. "
        "Set mqtt.embedded to another port, or mqtt.url to the broker that already runs there."
    )


def test_a_client_of_mqtt_3_is_told_what_to_check_and_does_no_harm() -> None:
    broker = EmbeddedBroker("127.0.0.1", 0)
    address = broker.start()
    with Listener(address, "a") as listener:
        with pytest.raises(BrokerError) as caught:
            Session(Connection(address, protocol="3.1.1", connect_timeout_s=1.0)).open()
        assert str(caught.value).endswith("Check that it is an MQTT broker and speaks MQTT 3.1.1.")
        listener.publish("a", b"1")
        listener.message("a")
    broker.stop()


def test_listening_everywhere_is_reached_over_loopback() -> None:
    broker = EmbeddedBroker("0.0.0.0", 0)
    assert broker.start().host == "127.0.0.1"
    broker.stop()


def test_a_broker_that_is_killed_starts_again_on_its_port(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    broker = EmbeddedBroker("127.0.0.1", 0, backoff=Backoff(0.01, 0.1))
    address = broker.start()
    for round_number in range(2):
        killed = broker.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda count=round_number + 2: caplog.text.count("The embedded broker listens on") == count)
        with Listener(address, "a") as listener:
            listener.publish("a", b"1")
            listener.message("a")
    broker.stop()
    assert not listening(address.port)
    assert broker.pid is None
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors.count("The embedded broker ended with code -9. Starting it again.") == 2


def test_a_broker_is_not_started_again_while_it_is_stopped() -> None:
    broker = EmbeddedBroker("127.0.0.1", 0, backoff=Backoff(60.0, 60.0))
    address = broker.start()
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGKILL)
    broker.stop()
    assert not listening(address.port)


def test_what_was_acknowledged_reaches_subscribers_before_the_broker_ends() -> None:
    for _ in range(5):
        broker = EmbeddedBroker("127.0.0.1", 0)
        address = broker.start()
        with Listener(address, "a") as listener:
            listener.publish("a", b"1")
            broker.stop()
            listener.message("a")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_broker_ends_with_the_process_that_started_it(how: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        port = int(holder.stdout.readline())
        assert listening(port)
        os.kill(holder.pid, how)
        holder.wait(10)
    wait_until(lambda: not listening(port))
