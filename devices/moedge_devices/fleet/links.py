"""An operator's connections to the brokers of a fleet: usually one, one for each broker where sites have their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from moedge_runtime.errors import BrokerError, ConfigError
from moedge_runtime.mqtt.address import Connection, Protocol, parse_broker_url
from moedge_runtime.mqtt.message import Message, Received
from moedge_runtime.mqtt.session import Session

from moedge_devices.fleet.load import Device

FILTERS_AT_ONCE = 100
"""Of one subscription: stored messages of so many topics come before the next is asked for. mosquitto drops what goes
beyond 1,000 waiting messages of a subscriber."""


@dataclass(frozen=True)
class Access:
    """As whom an operator connects, and where.

    Attributes:
        url: The broker that all devices are asked at; None for the one in each device's configuration.
        username: None for no credentials.
        password: Never logged.
        protocol: MQTT version.
        ca: PEM file of authorities; None for the system's.
        cert: PEM file of the operator's certificate.
        key: PEM file of its key.
    """

    url: str | None = None
    username: str | None = None
    password: str | None = None
    protocol: Protocol = "5"
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def url_of(self, device: Device) -> str:
        """Where a device is reached.

        Raises:
            ConfigError: It starts its own broker, and no url was given.
        """
        url = self.url or device.config.mqtt.url
        if url is None:
            raise ConfigError(
                f"Device '{device.name}' starts its own broker, so that this machine does not know its address. "
                f"Give it with --url, or choose other devices with --group.",
                key="fleet.no_broker",
            )
        return url


class Links:
    """Connections by url. `open` first; then `subscribe` and `publish` from one thread; `close` at the end.

    Args:
        urls: Of the brokers.
        access: As whom.
        on_message: Called with every message, on a network thread; must not block.
    """

    def __init__(self, urls: Iterable[str], access: Access, on_message: Callable[[Received], None]) -> None:
        self._urls = list(dict.fromkeys(urls))
        self._access, self._on_message = access, on_message
        self._sessions: dict[str, Session] = {}
        self._lost: list[str] = []

    def open(self) -> None:
        """Connect to all.

        Raises:
            BrokerError: One cannot be used; none is connected then.
        """
        self._lost.clear()
        try:
            for url in self._urls:
                session = Session(
                    Connection(
                        parse_broker_url(url),
                        username=self._access.username,
                        password=self._access.password,
                        protocol=self._access.protocol,
                        ca=self._access.ca,
                        cert=self._access.cert,
                        key=self._access.key,
                    ),
                    on_message=self._on_message,
                    on_lost=self._lost.append,
                )
                session.open()
                self._sessions[url] = session
        except BrokerError:
            self.close()
            raise

    def subscribe(self, filters: Mapping[str, Sequence[str]], *, retained: bool, qos: int = 1) -> None:
        """Subscribe to filters by url, a few at a time.

        Raises:
            BrokerError: A broker refuses or a connection is lost.
        """
        for url, topics in filters.items():
            for start in range(0, len(topics), FILTERS_AT_ONCE):
                self._sessions[url].subscribe(*topics[start : start + FILTERS_AT_ONCE], retained=retained, qos=qos)

    def publish(self, url: str, message: Message) -> None:
        """Publish with QoS 1. What a lost connection leaves undelivered, `check` tells."""
        self._sessions[url].publish(message)

    def check(self) -> None:
        """Raise BrokerError if a connection was lost."""
        if self._lost:
            raise BrokerError(self._lost[0], key="broker.lost")

    def close(self) -> None:
        """Disconnect from all. May be called more than once."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            session.close()
