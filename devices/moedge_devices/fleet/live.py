"""A fleet's view kept up to date from its brokers, each of which may come and go by itself."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from moedge_runtime.errors import BrokerError, MoedgeError
from moedge_runtime.mqtt.backoff import Backoff
from moedge_runtime.mqtt.message import Received

from moedge_devices.fleet.links import Access, Links
from moedge_devices.fleet.load import Device
from moedge_devices.fleet.status import FleetView, Row, filters_of

NOT_LIVE = "its broker is not connected"
"""A problem of every device of such a broker: what its row says was true before."""

_STEP_S = 0.02


class LiveView:
    """The rows of some devices. Use as a context manager, from one thread.

    A connection that is lost, or was not to be had, is opened again by `rows` in the background, with back-off; the
    rows of its devices stay as they were meanwhile, those of other brokers stay live.

    Args:
        devices: Which.
        access: As whom.
    """

    def __init__(self, devices: Sequence[Device], access: Access) -> None:
        self.view = FleetView(devices)
        together: dict[str, list[Device]] = defaultdict(list)
        for device in devices:
            together[access.url_of(device)].append(device)
        self._brokers = [_Broker(url, theirs, access, self._note) for url, theirs in together.items()]

    def __enter__(self) -> LiveView:
        attempts = [broker.begin() for broker in self._brokers]
        for attempt in attempts:
            attempt.join()
        errors = [broker.error for broker in self._brokers if broker.error is not None]
        if errors and len(errors) == len(self._brokers):
            self.__exit__()
            raise errors[0]
        return self

    def __exit__(self, *_: object) -> None:
        for broker in self._brokers:
            broker.close()

    @property
    def fault(self) -> str | None:
        """Why some rows are not live at the moment; None if all are."""
        return " ".join(str(broker.error) for broker in self._brokers if broker.error is not None) or None

    def settle(self, wait_s: float) -> None:
        """Wait until every device has been heard, for `wait_s` seconds at most. What brokers have stored has come then.

        With QoS 0 a broker such as mosquitto sends stored messages before its consent to the next subscription, so that
        after `__enter__` everything of one broker is here; a bridge or a cluster may take longer.
        """
        away = {name for broker in self._brokers if broker.error is not None for name in broker.names}
        deadline_s = time.monotonic() + wait_s
        while set(self.view.silent()) - away and time.monotonic() < deadline_s:
            time.sleep(_STEP_S)

    def rows(self) -> list[Row]:
        """The rows now."""
        for broker in self._brokers:
            broker.look_after()
        away = {name for broker in self._brokers if broker.error is not None for name in broker.names}
        return [
            replace(row, problems=[*row.problems, NOT_LIVE]) if row.device in away else row for row in self.view.rows()
        ]

    def _note(self, message: Received) -> None:
        self.view.note(message.topic, message.payload)


class _Broker:
    """One broker. Its links belong to the thread that opens them while it does, else to the view's.

    Attributes:
        names: Of the devices that are asked there.
        error: Why it is not connected; None while it is.
    """

    def __init__(
        self, url: str, devices: Sequence[Device], access: Access, on_message: Callable[[Received], None]
    ) -> None:
        self.names = [device.name for device in devices]
        self._filters = {url: [topic for device in devices for topic in filters_of(device)]}
        self._links = Links([url], access, on_message)
        self._backoff = Backoff(cap_s=10.0)
        self._next_attempt_s = 0.0
        self._attempt: threading.Thread | None = None
        self._closed = False
        self.error: MoedgeError | None = BrokerError(f"Broker {url} is not connected yet.", key="broker.unreachable")

    def begin(self) -> threading.Thread:
        """Connect and subscribe, in a thread that nobody has to wait for; `error` says then whether it went well."""
        self._attempt = threading.Thread(target=self._open, name="fleet-broker", daemon=True)
        self._attempt.start()
        return self._attempt

    def close(self) -> None:
        """Disconnect, or let the attempt that is under way end by itself."""
        self._closed = True
        if self._attempt is None or not self._attempt.is_alive():
            self._links.close()

    def _open(self) -> None:
        self._links.close()
        try:
            self._links.open()
            self._links.subscribe(self._filters, retained=True, qos=0)
            # Its consent comes after all that was stored.
            self._links.subscribe({url: topics[:1] for url, topics in self._filters.items()}, retained=False, qos=0)
            self._backoff.reset()
            self.error = None
        except MoedgeError as error:
            self._next_attempt_s = time.monotonic() + self._backoff.next_s()
            self.error = error
        if self._closed:
            self._links.close()

    def look_after(self) -> None:
        """Notice a connection that was lost, and have it opened again."""
        if self._attempt is not None and self._attempt.is_alive():
            return
        if self.error is None:
            try:
                self._links.check()
            except BrokerError as error:
                self.error = error
        if self.error is not None and time.monotonic() >= self._next_attempt_s:
            self.begin()
