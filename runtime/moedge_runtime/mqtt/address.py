"""Where a broker is: `mqtt://host:1883` and `mqtts://host:8883`, parsed in one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}

Protocol = Literal["5", "3.1.1"]


@dataclass(frozen=True)
class BrokerAddress:
    """Host and port of a broker, with or without TLS."""

    host: str
    port: int
    tls: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


@dataclass(frozen=True)
class Connection:
    """All that a client needs to connect.

    Attributes:
        address: Where the broker is.
        client_id: MQTT client id; "" lets the broker choose.
        username: None for no credentials.
        password: Never logged.
        protocol: MQTT version.
        ca: PEM file of authorities; None for the system's. Only with TLS, as `cert` and `key`.
        cert: PEM file of the client certificate.
        key: PEM file of its key.
        keepalive_s: Seconds.
        connect_timeout_s: Seconds that the TCP connection, and then the broker's answer, may take.
    """

    address: BrokerAddress
    client_id: str = ""
    username: str | None = None
    password: str | None = None
    protocol: Protocol = "5"
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    keepalive_s: int = 30
    connect_timeout_s: float = 10.0


def parse_broker_url(url: str) -> BrokerAddress:
    """Parse a broker's URL.

    Raises:
        ValueError: It has another scheme, no host, a wrong port, credentials or a path; the text says what to write.
    """
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError("a broker's url starts with mqtt:// or mqtts://, for example mqtt://localhost:1883")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a broker's url holds no user or password; give them as username and password")
    if not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("a broker's url is scheme, host and port, for example mqtt://localhost:1883")
    try:
        parts.hostname.encode("idna")
    except UnicodeError as error:
        raise ValueError("a broker's host is a name of labels of 1 to 63 characters, or an address") from error
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError("a broker's port is a number from 1 to 65535") from error
    return BrokerAddress(parts.hostname, port or DEFAULT_PORTS[parts.scheme], parts.scheme == "mqtts")
