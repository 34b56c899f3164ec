"""Keeps a device on its broker: connects, says online, publishes in order, reconnects, and says stopped at the end."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from moedge_runtime.errors import BrokerError
from moedge_runtime.mqtt.address import Connection
from moedge_runtime.mqtt.backoff import Backoff
from moedge_runtime.mqtt.line import one_line
from moedge_runtime.mqtt.message import Message, Received
from moedge_runtime.mqtt.outbox import Outbox
from moedge_runtime.mqtt.session import Session

MAX_IN_FLIGHT = 16
"""Messages sent before the first of them is acknowledged; mosquitto takes 20."""

STABLE_S = 10.0
"""A connection that lasted less does not make the next attempt faster: two clients with one id kick each other out."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Presence:
    """What a device says about itself on one retained topic."""

    online: Message
    stopped: Message
    offline: Message


@dataclass
class MqttCounters:
    """Since start. Read from any thread."""

    published: int = 0
    received: int = 0
    connects: int = 0


@dataclass(frozen=True)
class _Delivered:
    number: int
    refusal: str | None = None


@dataclass(frozen=True)
class _Lost:
    reason: str


_WAKE = object()
_Event = _Delivered | _Lost | object


class MqttClient:
    """A device's client. `publish`, `connected` and `close` may be called from any thread.

    On every connect it subscribes to the requests, publishes `presence.online`, then all retained messages published so
    far, then what waited. Messages published without a connection wait (see Outbox). The will is `presence.offline`.

    Args:
        connection: Where and as whom.
        presence: The status messages; all three retained, on one topic.
        requests: Topic filter to subscribe to. The broker is asked not to replay retained requests.
        on_request: Called on the network's thread with each message; must not block.
        on_delivered: Called when a message was acknowledged, so that `backlog` has become shorter; must not block.
        backoff: Delays between attempts.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        presence: Presence,
        requests: str,
        on_request: Callable[[Received], None],
        on_delivered: Callable[[], None] = lambda: None,
        backoff: Backoff | None = None,
    ) -> None:
        self._connection, self._presence, self._requests = connection, presence, requests
        self._on_request, self._on_delivered = on_request, on_delivered
        self._backoff = backoff or Backoff()
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._outbox = Outbox()
        self._online = threading.Event()
        self._closing = threading.Event()
        self._close_by_s = float("inf")
        self._said_stopped = False
        self._connected_s = 0.0
        self._last_error = ""
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self.counters = MqttCounters()

    def start(self) -> None:
        """Begin to connect, in the background and for as long as it takes."""
        self._thread.start()

    def publish(self, message: Message) -> None:
        """Publish with QoS 1, now or when there is a connection. Never blocks."""
        with self._lock:
            self._outbox.add(message)
            dropped = self._outbox.dropped
        if dropped == 1:
            log.warning("No broker for too long: the oldest answers are dropped.")
        self._events.put(_WAKE)

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us and the connection is alive as far as we know."""
        return self._online.is_set()

    def backlog(self) -> tuple[int, int]:
        """Messages that wait for an acknowledgement, and messages dropped since start."""
        with self._lock:
            return len(self._outbox), self._outbox.dropped

    def close(self, timeout_s: float) -> bool:
        """Deliver what waits, then `presence.stopped`, then disconnect.

        Returns:
            Whether the broker has acknowledged all of it within `timeout_s` seconds. If not, it publishes the will.
        """
        self._close_by_s = time.monotonic() + timeout_s
        self._closing.set()
        self._events.put(_WAKE)
        if self._thread.is_alive():
            self._thread.join(timeout_s + self._connection.connect_timeout_s)
        return self._said_stopped

    def _run(self) -> None:
        while not self._closing.is_set():
            self._connected_s = float("inf")
            try:
                self._connect_and_serve()
            except BrokerError as error:
                if str(error) != self._last_error:
                    log.error("%s Trying again.", error)
                self._last_error = str(error)
            except Exception:
                log.exception("The connection to broker %s failed. Trying again.", self._connection.address)
            finally:
                self._online.clear()
            if time.monotonic() - self._connected_s >= STABLE_S:
                self._backoff.reset()
            self._closing.wait(self._backoff.next_s())

    def _connect_and_serve(self) -> None:
        events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        session = Session(
            self._connection,
            will=self._presence.offline,
            on_message=self._receive,
            on_delivered=lambda number, refusal: events.put(_Delivered(number, refusal)),
            on_lost=lambda reason: events.put(_Lost(reason)),
        )
        session.open()
        try:
            session.subscribe(self._requests, retained=False)
            with self._lock:
                self._events = events
                self._outbox.restart()
            number = session.publish(self._presence.online)
            with self._lock:
                self._outbox.sent(number, self._presence.online)
            self._last_error = ""
            self._connected_s = time.monotonic()
            self.counters.connects += 1
            self._online.set()
            log.info("Connected to broker %s.", self._connection.address)
            self._serve(session, events)
        finally:
            session.close()

    def _serve(self, session: Session, events: queue.SimpleQueue[_Event]) -> None:
        """Publish and note acknowledgements until the connection is lost or everything is said."""
        while True:
            self._publish_waiting(session)
            with self._lock:
                done = self._closing.is_set() and self._outbox.empty
            if done or time.monotonic() > self._close_by_s:
                break
            if self._handle(self._next_event(events)):
                return
        number = session.publish(self._presence.stopped)
        while (event := self._next_event(events)) is not None:
            if isinstance(event, _Delivered) and event.number == number:
                self._said_stopped = done
                log.info("Said stopped to broker %s.", self._connection.address)
                return
            if self._handle(event):
                return

    def _next_event(self, events: queue.SimpleQueue[_Event]) -> _Event | None:
        """The next event; None when the time to close is over."""
        try:
            if not self._closing.is_set():
                return events.get()
            return events.get(timeout=max(0.0, self._close_by_s - time.monotonic()))
        except queue.Empty:
            return None

    def _handle(self, event: _Event | None) -> bool:
        """Note an event; True if the connection is lost."""
        if isinstance(event, _Lost):
            log.warning("%s Connecting again.%s", event.reason, self._suspicion())
            return True
        if isinstance(event, _Delivered):
            with self._lock:
                message = self._outbox.delivered(event.number)
            if event.refusal is None:
                self.counters.published += message is not None
            elif message is not None:
                log.error("The broker refused a message on '%s': %s.", message.topic, event.refusal)
            self._on_delivered()
        return False

    def _suspicion(self) -> str:
        """What a connection that was lost soon may mean: mosquitto 2.0 does not tell the client that was kicked out."""
        if time.monotonic() - self._connected_s >= STABLE_S:
            return ""
        return f" If this repeats, another client uses the client id '{self._connection.client_id}'."

    def _publish_waiting(self, session: Session) -> None:
        window = min(MAX_IN_FLIGHT, session.receive_maximum)
        while True:
            with self._lock:
                message = self._outbox.next() if self._outbox.in_flight < window else None
            if message is None:
                return
            number = session.publish(message)
            with self._lock:
                self._outbox.sent(number, message)

    def _receive(self, message: Received) -> None:
        self.counters.received += 1
        if message.retain:
            log.warning(
                "Ignored the retained request on '%s': a stored command is never executed.", one_line(message.topic)
            )
            return
        try:
            self._on_request(message)
        except Exception:
            log.exception("A request on '%s' was not handled.", one_line(message.topic))
