"""The embedded broker: rumqttd from the wheel of iotcore, MQTT 5 only, in a process of its own.

MQTT 5 only because rumqttd 0.20 dies in its MQTT 3.1.1 listener as soon as a message with MQTT 5 properties, such as a
request with a response topic, reaches a 3.1.1 subscriber. A process of its own because rumqttd cannot be stopped.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import logging
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from moedge_runtime.errors import BrokerError
from moedge_runtime.mqtt.address import BrokerAddress
from moedge_runtime.mqtt.backoff import Backoff
from moedge_runtime.mqtt.listening import bindable, free_port, wait_until_listening

START_TIMEOUT_S = 20.0
"""Starting takes 0.2 s on a workstation; a board that reads Python from flash takes longer."""

STOP_TIMEOUT_S = 5.0

STABLE_S = 60.0
"""A broker that lived for less does not make the next restart faster."""

LINGER_S = 0.5
"""rumqttd acknowledges a message before it forwards it, and does not say when that is done. Ended at once, it kept the
last message from 20 of 30 subscribers on 2 cores with 4 busy processes beside; after 0.1 s from none (2026-11-24)."""

_MAX_CONNECTIONS = 100
_MAX_PAYLOAD_BYTES = 1 << 20

_CONFIG = """\
id = 0
[router]
id = 0
max_connections = {connections}
max_outgoing_packet_count = 200
max_segment_size = 10485760
max_segment_count = 4
[v5.1]
name = "v5"
listen = "{listen}"
next_connection_delay_ms = 1
[v5.1.connections]
connection_timeout_ms = 10000
max_payload_size = {payload}
max_inflight_count = 100
dynamic_filters = true
"""

log = logging.getLogger(__name__)


class EmbeddedBroker:
    """A broker that lives as long as this object, or this process if that ends first.

    A process of it that ends by itself is started again on the same port. What it had retained is gone then; a client
    such as MqttClient says everything again when it connects.

    Args:
        host: IPv4 or IPv6 address, or a name that resolves to one, to listen on.
        port: TCP port; 0 takes a free one.
        backoff: Delays before a new process is started.

    Attributes:
        pid: The process that runs now; None before `start` and after `stop`.
    """

    def __init__(self, host: str, port: int, *, backoff: Backoff | None = None) -> None:
        self._host, self._port = host, port
        self._backoff = backoff or Backoff()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._supervisor: threading.Thread | None = None
        self._address = BrokerAddress(host, port)

    @property
    def pid(self) -> int | None:
        """See the class."""
        process = self._process
        return process.pid if process else None

    def start(self) -> BrokerAddress:
        """Start and wait until it accepts connections.

        Returns:
            Where this machine reaches it.

        Raises:
            BrokerError: iotcore is not installed, the port is taken, or it does not start.
        """
        if importlib.util.find_spec("iotcore") is None:
            raise BrokerError(
                "The embedded broker needs the Python package 'iotcore', which is not installed. "
                "Install it with: pip install 'moedge[broker]'",
                key="broker.package_missing",
            )
        self._stopping.clear()
        self._host, self._port = self._reserve()
        self._address = BrokerAddress(_reachable(self._host), self._port)
        process = self._launch()
        self._supervisor = threading.Thread(target=self._supervise, args=(process,), name="broker", daemon=True)
        self._supervisor.start()
        return self._address

    def stop(self) -> None:
        """Let subscribers have what was published, end the process and free the port. May be called more than once."""
        self._stopping.set()
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        with suppress(subprocess.TimeoutExpired):
            process.wait(LINGER_S)
        _end(process)
        if self._supervisor is not None:
            self._supervisor.join(STOP_TIMEOUT_S)

    def _launch(self) -> subprocess.Popen[bytes]:
        """Start a process and wait until it accepts connections.

        Raises:
            BrokerError: It does not.
        """
        with tempfile.TemporaryDirectory(prefix="moedge-broker-") as directory:
            config = Path(directory) / "broker.toml"
            host = f"[{self._host}]" if ":" in self._host else self._host
            listen = f"{host}:{self._port}"
            config.write_text(_CONFIG.format(connections=_MAX_CONNECTIONS, payload=_MAX_PAYLOAD_BYTES, listen=listen))
            with self._lock:
                if self._stopping.is_set():
                    raise BrokerError("The embedded broker is being stopped.", key="broker.start_failed")
                process = self._process = subprocess.Popen(
                    [sys.executable, "-m", "moedge_runtime.mqtt.broker_process", str(config)],
                    stdin=subprocess.PIPE,
                    start_new_session=True,
                )
            if not wait_until_listening(process, self._address.host, self._port, START_TIMEOUT_S):
                code = process.poll()
                _end(process)
                why = f"did not listen within {START_TIMEOUT_S:.0f} s" if code is None else f"ended with code {code}"
                raise BrokerError(
                    f"The embedded broker {why}. Use a broker of your own and set mqtt.url.", key="broker.start_failed"
                )
        log.info("The embedded broker listens on %s (process %d).", self._address, process.pid)
        return process

    def _supervise(self, process: subprocess.Popen[bytes]) -> None:
        """Start the broker again whenever it has ended, until `stop`."""
        while True:
            began_s = time.monotonic()
            code = process.wait()
            if self._stopping.is_set():
                return
            if time.monotonic() - began_s >= STABLE_S:
                self._backoff.reset()
            log.error("The embedded broker ended with code %d. Starting it again.", code)
            while True:
                if self._stopping.wait(self._backoff.next_s()):
                    return
                try:
                    process = self._launch()
                    break
                except (BrokerError, OSError) as error:
                    log.error("%s Trying again.", error)

    def _reserve(self) -> tuple[str, int]:
        """Address and port to listen on, seen to be free a moment ago."""
        try:
            return bindable(self._host, self._port or free_port(self._host))
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "the host is no name or address"
            raise BrokerError(
                f"The embedded broker cannot listen on {self._host}:{self._port}: {reason}. "
                f"Set mqtt.embedded to another port, or mqtt.url to the broker that already runs there.",
                key="broker.port_taken",
            ) from error


def _reachable(host: str) -> str:
    address = ipaddress.ip_address(host)
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
