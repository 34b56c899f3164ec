"""Keeps a device on its broker: connects, says online, publishes in order, reconnects, and says stopped at the end."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moedge_runtime.errors import BrokerError
from moedge_runtime.mqtt.address import Connection
from moedge_runtime.mqtt.backoff import Backoff
from moedge_runtime.mqtt.keeper import Keeper
from moedge_runtime.mqtt.line import one_line
from moedge_runtime.mqtt.message import Message, Received
from moedge_runtime.mqtt.outbox import MAX_QUEUED, Entry, Outbox
from moedge_runtime.mqtt.session import SUBSCRIPTION_REFUSED, Session
from moedge_runtime.mqtt.spool import Spool
from moedge_runtime.mqtt.tls import TlsFiles

MAX_IN_FLIGHT = 16
"""Messages sent before the first of them is acknowledged; mosquitto takes 20."""

STABLE_S = 10.0
"""A connection that lasted less does not make the next attempt faster: two clients with one id kick each other out."""

TLS_CHECK_S = 30.0
"""Between two looks whether certificates were renewed."""

PACKET_OVERHEAD_BYTES = 256
"""Of a PUBLISH beside topic and payload, generously: header, packet number, properties."""

MAX_OFFERED = 100
"""Messages that wait with QoS 0 for the thread that publishes."""

SUSPECT_BYTES = 4096
SUSPECT_LOSSES = 5
"""A message of so many bytes with which so many connections in a row broke soon is not sent again: without MQTT 5 a
broker that finds a message too large can say so only by closing the connection."""

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
    refused: int = 0
    """By the broker's access list or its limits; not sent again."""
    replayed: int = 0
    """Taken from the spool to be published."""
    lost: int = 0
    """With QoS 0: taken, and not sent."""


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
    far, then what waited. Messages published without a connection wait (see Outbox), those that last on the disk if
    there is a spool. The will is `presence.offline`.

    Args:
        connection: Where and as whom.
        presence: The status messages; all three retained, on one topic.
        requests: Topic filter to subscribe to. The broker is asked not to replay retained requests.
        on_request: Called on the network's thread with each message; must not block.
        sets: Further filters of messages for `on_request`; a broker that refuses them is not left.
        on_delivered: Called when a message was acknowledged, so that `backlog` has become shorter; must not block.
        on_connected: Called on every connect before anything but `presence.online` is published; may publish.
        also: Further topics to subscribe to, stored or not; likewise.
        on_also: Called with messages of these topics; must not block.
        spool: Closed by `close`.
        backoff: Delays between attempts.
        tls_check_s: Seconds between two looks whether certificates were renewed.

    Attributes:
        counters: What happened since the start.
        largest_packet_bytes: What the broker takes at most; None if it has not said.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        presence: Presence,
        requests: str,
        on_request: Callable[[Received], None],
        sets: Sequence[str] = (),
        on_delivered: Callable[[], None] = lambda: None,
        on_connected: Callable[[], None] = lambda: None,
        also: Sequence[str] = (),
        on_also: Callable[[Received], None] = lambda message: None,
        spool: Spool | None = None,
        backoff: Backoff | None = None,
        tls_check_s: float = TLS_CHECK_S,
    ) -> None:
        self._connection, self._presence, self._requests = connection, presence, requests
        self._on_request, self._on_delivered, self._on_connected = on_request, on_delivered, on_connected
        self._sets, self._also, self._on_also = sets, also, on_also
        self._backoff = backoff or Backoff()
        self._tls, self._tls_check_s = TlsFiles(connection), tls_check_s
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._outbox = Outbox()
        self._offered: deque[Message] = deque()
        self._spool = spool
        self._online = threading.Event()
        self._closing = threading.Event()
        self._close_by_s = float("inf")
        self._farewell = True
        self._said_stopped = False
        self._connected_s = 0.0
        self._last_error = ""
        self._complaints: set[tuple[str, str]] = set()
        self._suspect: tuple[Entry | int | None, int] = (None, 0)
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._keeper = (
            Keeper(spool, self._outbox, self._changed, self._online.is_set, lambda: self._events.put(_WAKE))
            if spool
            else None
        )
        self.counters = MqttCounters()
        self.largest_packet_bytes: int | None = None

    def start(self) -> None:
        """Begin to connect, in the background and for as long as it takes."""
        self._thread.start()
        if self._keeper:
            self._keeper.start()

    def publish(self, message: Message) -> None:
        """Publish with QoS 1, now or when there is a connection. Never blocks for the network."""
        with self._changed:
            self._outbox.add(message, time.monotonic())
            dropped = self._outbox.dropped
            self._changed.notify_all()
        if dropped == 1:
            log.warning("No broker for too long: the oldest answers are dropped.")
        self._events.put(_WAKE)

    def offer(self, message: Message) -> bool:
        """Publish what may be lost, with QoS 0, if there is a connection; it is never kept for a later one.

        May be called with any lock held and inside of logging: it takes no lock, waits for nothing and logs nothing.

        Returns:
            Whether it was taken: no if there is no connection, or too many wait.
        """
        if not self._online.is_set() or len(self._offered) >= MAX_OFFERED:
            return False
        self._offered.append(message)
        self._events.put(_WAKE)
        return True

    def restate(self) -> None:
        """Publish all retained messages once more."""
        with self._changed:
            self._outbox.restate()
        self._events.put(_WAKE)

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us and the connection is alive as far as we know."""
        return self._online.is_set()

    def backlog(self) -> tuple[int, int]:
        """Messages that wait for an acknowledgement, in memory and spool, and messages dropped from memory."""
        with self._changed:
            spooled = self._spool.messages if self._spool else 0
            return len(self._outbox) + spooled, self._outbox.dropped

    def waiting_bytes(self) -> int:
        """Payloads of answers and responses that are in memory only and not delivered."""
        return sum(len(message.payload) for message in self.rest())

    def rest(self) -> list[Message]:
        """Answers and responses that are in memory only and not delivered."""
        with self._changed:
            return self._outbox.rest()

    def has_room(self) -> bool:
        """Whether there is room for more answers than those that wait, with some to spare."""
        with self._changed:
            return len(self._outbox) < MAX_QUEUED // 2 and not (self._spool and self._spool.full)

    @property
    def spool_error(self) -> str | None:
        """What keeps the spool from being written; None if nothing does."""
        return self._keeper.error if self._keeper else None

    def close(self, timeout_s: float, *, farewell: bool = True) -> bool:
        """Deliver what waits in memory, then `presence.stopped`, then disconnect. What remains goes to the spool.

        Args:
            timeout_s: How long this may take.
            farewell: Say stopped; else the status stays as it is.

        Returns:
            Whether the broker has acknowledged all of it within `timeout_s` seconds. If not, it publishes the will.
        """
        self._close_by_s = time.monotonic() + timeout_s
        self._farewell = farewell
        self._closing.set()
        self._events.put(_WAKE)
        if self._thread.is_alive():
            self._thread.join(timeout_s + self._connection.connect_timeout_s)
        if self._keeper:
            self._keeper.stop()
        if self._spool:
            self._spool.close()
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
                with self._changed:
                    self._online.clear()
                    self._changed.notify_all()
            if time.monotonic() - self._connected_s >= STABLE_S:
                self._backoff.reset()
            self._closing.wait(self._backoff.next_s())

    def _connect_and_serve(self) -> None:
        events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        session = Session(
            self._connection,
            context=self._tls.context(),
            will=self._presence.offline,
            on_message=self._receive,
            on_delivered=lambda number, refusal: events.put(_Delivered(number, refusal)),
            on_lost=lambda reason: events.put(_Lost(reason)),
        )
        session.open()
        self.largest_packet_bytes = session.maximum_packet_bytes
        try:
            session.subscribe(self._requests, retained=False)
            self._subscribe_optional(session)
            with self._changed:
                self._events = events
                self._outbox.restart()
                self.counters.lost += len(self._offered)
                self._offered.clear()
                if self._spool:
                    self._spool.rewind()
            number = session.publish(self._presence.online)
            with self._changed:
                self._outbox.sent(number, Entry(self._presence.online))
            self._last_error = ""
            self._connected_s = time.monotonic()
            self.counters.connects += 1
            self._online.set()
            log.info("Connected to broker %s.", self._connection.address)
            self._on_connected()
            self._serve(session, events)
        finally:
            session.close()

    def _subscribe_optional(self, session: Session) -> None:
        for topic in (*self._sets, *self._also):
            try:
                session.subscribe(topic, retained=False)
            except BrokerError as error:
                if error.key != SUBSCRIPTION_REFUSED:
                    raise
                self._complain(topic, SUBSCRIPTION_REFUSED, str(error))

    def _serve(self, session: Session, events: queue.SimpleQueue[_Event]) -> None:
        """Publish and note acknowledgements until the connection is lost or everything is said."""
        check_at_s = time.monotonic() + self._tls_check_s
        while True:
            self._publish_waiting(session)
            with self._changed:
                spooled = self._spool is not None and self._spool.unread
                done = self._closing.is_set() and self._outbox.settled(hold=spooled)
            if done or time.monotonic() > self._close_by_s:
                break
            if self._handle(self._next_event(events, check_at_s)):
                return
            if time.monotonic() >= check_at_s and not self._closing.is_set():
                check_at_s = time.monotonic() + self._tls_check_s
                if self._tls.renewed():
                    log.info("The TLS files were renewed: connecting again to broker %s.", self._connection.address)
                    return
        if not self._farewell:
            self._said_stopped = done
            return
        number = session.publish(self._presence.stopped)
        while (event := self._next_event(events)) is not None:
            if isinstance(event, _Delivered) and event.number == number:
                self._said_stopped = done
                log.info("Said stopped to broker %s.", self._connection.address)
                return
            if self._handle(event):
                return

    def _next_event(self, events: queue.SimpleQueue[_Event], by_s: float = float("inf")) -> _Event | None:
        """The next event; None when the time to close, or `by_s`, has come."""
        try:
            until_s = min(self._close_by_s, by_s)
            return events.get(timeout=None if until_s == float("inf") else max(0.0, until_s - time.monotonic()))
        except queue.Empty:
            return None

    def _handle(self, event: _Event | None) -> bool:
        """Note an event; True if the connection is lost."""
        if isinstance(event, _Lost):
            log.warning("%s Connecting again.%s", event.reason, self._suspicion())
            self._suspect_message()
            return True
        if isinstance(event, _Delivered):
            with self._changed:
                entry = self._outbox.delivered(event.number)
                if entry is not None and entry.sequence is not None and self._spool:
                    self._spool.delivered(entry.sequence)
            if event.refusal is None:
                self.counters.published += entry is not None
            elif entry is not None:
                self._refused(entry.message, f"The broker refused a message on '{entry.message.topic}'", event.refusal)
            self._on_delivered()
        return False

    def _refused(self, message: Message, what: str, reason: str) -> None:
        self.counters.refused += 1
        self._complain(message.topic, reason, f"{what}: {reason}.")

    def _complain(self, topic: str, reason: str, text: str) -> None:
        """Log an error of a topic, once for any number with the same reason."""
        if (topic, reason) not in self._complaints:
            self._complaints.add((topic, reason))
            log.error("%s", text)

    def _suspect_message(self) -> None:
        """Give up a large message with which one connection after the other breaks."""
        with self._changed:
            entry = self._outbox.oldest_sent()
            soon = time.monotonic() - self._connected_s < STABLE_S
            if entry is None or not soon or len(entry.message.payload) < SUSPECT_BYTES:
                self._suspect = (None, 0)
                return
            mark = entry if entry.sequence is None else entry.sequence
            count = self._suspect[1] + 1 if self._suspect[0] == mark else 1
            self._suspect = (mark, count)
            if count < SUSPECT_LOSSES:
                return
            self._outbox.forget(entry)
            if entry.sequence is not None and self._spool:
                self._spool.delivered(entry.sequence)
        topic, size = entry.message.topic, len(entry.message.payload)
        self._refused(
            entry.message,
            f"The broker closed {SUSPECT_LOSSES} connections while it was sent {size:,} bytes on '{topic}'",
            "they are probably too large for it and are not sent again",
        )

    def _suspicion(self) -> str:
        """What a connection that was lost soon may mean: mosquitto 2.0 does not tell the client that was kicked out."""
        if time.monotonic() - self._connected_s >= STABLE_S:
            return ""
        return f" If this repeats, another client uses the client id '{self._connection.client_id}'."

    def _publish_waiting(self, session: Session) -> None:
        window, largest = min(MAX_IN_FLIGHT, session.receive_maximum), session.maximum_packet_bytes
        while self._offered:
            message = self._offered.popleft()
            if largest is None or _packet_bytes(message) <= largest:
                session.publish(message)
            else:
                self.counters.lost += 1
        while True:
            with self._changed:
                entry = self._take() if self._outbox.in_flight < window else None
            if entry is None:
                return
            message = entry.message
            if largest is not None and _packet_bytes(message) > largest:
                with self._changed:
                    if entry.sequence is not None and self._spool:
                        self._spool.delivered(entry.sequence)
                what = f"A message of {len(message.payload):,} bytes on '{message.topic}' is not sent"
                self._refused(message, what, f"the broker takes packets of {largest:,} bytes at most")
                continue
            number = session.publish(message)
            with self._changed:
                self._outbox.sent(number, entry)

    def _take(self) -> Entry | None:
        """The next message: states and responses, then what is in the spool, then newer answers."""
        if self._spool is None or not self._spool.unread:
            return self._outbox.next()
        entry = self._outbox.next(hold=True)
        if entry is not None or self._closing.is_set() or self._outbox.keeping:
            return entry
        record = self._spool.read()
        if record is None:
            return self._outbox.next()
        self.counters.replayed += 1
        return Entry(Message(record.topic, record.payload), sequence=record.sequence)

    def _receive(self, message: Received) -> None:
        if message.topic in self._also:
            self._on_also(message)
            return
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


def _packet_bytes(message: Message) -> int:
    return len(message.topic.encode()) + len(message.payload) + PACKET_OVERHEAD_BYTES
