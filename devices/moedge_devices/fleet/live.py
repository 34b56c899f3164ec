"""A fleet's view kept up to date from its brokers."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence

from moedge_runtime.errors import BrokerError
from moedge_runtime.mqtt.backoff import Backoff
from moedge_runtime.mqtt.message import Received

from moedge_devices.fleet.links import Access, Links
from moedge_devices.fleet.load import Device
from moedge_devices.fleet.status import FleetView, Row, filters_of

_STEP_S = 0.02


class LiveView:
    """The rows of some devices. Use as a context manager, from one thread.

    A connection that is lost is opened again at the next `rows`, with back-off; the rows stay as they were meanwhile.

    Args:
        devices: Which.
        access: As whom.
    """

    def __init__(self, devices: Sequence[Device], access: Access) -> None:
        self.view = FleetView(devices)
        self._filters: dict[str, list[str]] = defaultdict(list)
        for device in devices:
            self._filters[access.url_of(device)] += filters_of(device)
        self._links = Links(self._filters, access, self._note)
        self._backoff = Backoff(cap_s=10.0)
        self._next_attempt_s = 0.0
        self.fault: str | None = None
        """Why the rows are not live at the moment."""

    def __enter__(self) -> LiveView:
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self._links.close()

    def settle(self, wait_s: float) -> None:
        """Wait until every device has been heard, for `wait_s` seconds at most. What brokers have stored has come then.

        With QoS 0 a broker such as mosquitto sends stored messages before its consent to the next subscription, so that
        after `__enter__` everything of one broker is here; a bridge or a cluster may take longer.
        """
        deadline_s = time.monotonic() + wait_s
        while self.view.silent() and time.monotonic() < deadline_s:
            time.sleep(_STEP_S)

    def rows(self) -> list[Row]:
        """The rows now."""
        try:
            self._links.check()
        except BrokerError as error:
            self.fault = self.fault or str(error)
        if self.fault is not None and time.monotonic() >= self._next_attempt_s:
            self._reopen()
        return self.view.rows()

    def _reopen(self) -> None:
        self._links.close()
        try:
            self._open()
            self.fault = None
            self._backoff.reset()
        except BrokerError as error:
            self.fault = str(error)
            self._next_attempt_s = time.monotonic() + self._backoff.next_s()

    def _open(self) -> None:
        self._links.open()
        self._links.subscribe(self._filters, retained=True, qos=0)
        # Its consent comes after all that was stored.
        self._links.subscribe({url: topics[:1] for url, topics in self._filters.items()}, retained=False, qos=0)

    def _note(self, message: Received) -> None:
        self.view.note(message.topic, message.payload)
