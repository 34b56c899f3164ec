"""The embedded broker: rumqttd from the wheel of iotcore, MQTT 5 only, in a process of its own.

MQTT 5 only because rumqttd 0.20 dies in its MQTT 3.1.1 listener as soon as a message with MQTT 5 properties, such as a
request with a response topic, reaches a 3.1.1 subscriber. A process of its own because rumqttd cannot be stopped.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from moedge_runtime.errors import BrokerError
from moedge_runtime.mqtt.address import BrokerAddress

START_TIMEOUT_S = 20.0
"""Starting takes 0.2 s on a workstation; a board that reads Python from flash takes longer."""

STOP_TIMEOUT_S = 5.0

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


class EmbeddedBroker:
    """A broker that lives as long as this object, or this process if that ends first.

    Args:
        host: IPv4 or IPv6 address, or a name that resolves to one, to listen on.
        port: TCP port; 0 takes a free one.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._process: subprocess.Popen[bytes] | None = None

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
        listen = self._reserve()
        local = _reachable(listen[0])
        with tempfile.TemporaryDirectory(prefix="moedge-broker-") as directory:
            config = Path(directory) / "broker.toml"
            host = f"[{listen[0]}]" if ":" in listen[0] else listen[0]
            config.write_text(
                _CONFIG.format(connections=_MAX_CONNECTIONS, payload=_MAX_PAYLOAD_BYTES, listen=f"{host}:{listen[1]}")
            )
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moedge_runtime.mqtt.broker_process", str(config)],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
            self._wait_until_listening(local, listen[1])
        return BrokerAddress(local, listen[1])

    def stop(self) -> None:
        """End the process and free the port. May be called more than once."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _reserve(self) -> tuple[str, int]:
        """Address and port to listen on, seen to be free a moment ago."""
        try:
            family, kind, _, _, address = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                bound = probe.getsockname()
        except OSError as error:
            raise BrokerError(
                f"The embedded broker cannot listen on {self._host}:{self._port}: {error.strerror}. "
                f"Set mqtt.embedded to another port, or mqtt.url to the broker that already runs there.",
                key="broker.port_taken",
            ) from error
        return str(bound[0]), int(bound[1])

    def _wait_until_listening(self, host: str, port: int) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                self._process.wait(0.02)
                break
            except subprocess.TimeoutExpired:
                pass
            try:
                socket.create_connection((host, port), timeout=1.0).close()
                return
            except OSError:
                continue
        code = self._process.poll()
        self.stop()
        why = f"did not listen within {START_TIMEOUT_S:.0f} s" if code is None else f"ended with code {code}"
        raise BrokerError(
            f"The embedded broker {why}. Use a broker of your own and set mqtt.url.", key="broker.start_failed"
        )


def _reachable(host: str) -> str:
    address = ipaddress.ip_address(host)
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"
