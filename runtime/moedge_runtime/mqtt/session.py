"""One connection to a broker, from CONNECT to its end, over paho-mqtt. It never reconnects by itself."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from moedge_runtime.errors import BrokerError
from moedge_runtime.mqtt.address import Connection
from moedge_runtime.mqtt.message import Message, Received
from moedge_runtime.mqtt.tls import tls_context, today

MAX_PACKET_BYTES = 1 << 20
"""An MQTT 5 broker is told not to send us anything larger; well above the largest request that is read."""

DEFAULT_RECEIVE_MAXIMUM = 65535
"""MQTT 5.0, section 3.2.2.3.3."""

SUBSCRIPTION_REFUSED = "broker.subscription_refused"
"""Key of the error of a subscription that the broker does not allow."""

CLOSE_TIMEOUT_S = 1.0
"""How long a broker has to close its end after our goodbye."""

SETTLE_S = 0.02

_QOS = 1
_RETAIN_NEVER_SENT_ON_SUBSCRIBE = 2


class Session:
    """A connection. `open` first; then `publish` and `subscribe` from one thread; `close` at the end.

    Attributes:
        receive_maximum: Messages that the broker takes before it has acknowledged the first of them.
        maximum_packet_bytes: The largest packet that the broker takes; None if it has not said.

    The callbacks run on paho's thread, hold paho's locks and therefore must neither block nor call the session.

    Args:
        connection: Where and as whom.
        will: Published by the broker when the connection ends without `close`.
        on_message: Called with every message received.
        on_delivered: Called with the number that `publish` returned when the broker has acknowledged the message, and
            with its reason if it refused it (MQTT 5 only).
        on_lost: Called once, with a sentence, if the connection ends without `close`.
        context: For a broker with TLS; None to read the connection's files.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        context: ssl.SSLContext | None = None,
        will: Message | None = None,
        on_message: Callable[[Received], None] = lambda message: None,
        on_delivered: Callable[[int, str | None], None] = lambda number, refusal: None,
        on_lost: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._connection = connection
        self._v5 = connection.protocol == "5"
        self._context = context
        self.maximum_packet_bytes: int | None = None
        self.receive_maximum = DEFAULT_RECEIVE_MAXIMUM
        self._answered = threading.Event()
        self._ended = threading.Event()
        self._subscribed = threading.Event()
        self._subscribe_refusal: str | None = None
        self._end = "it was closed without a reason"
        self._connack: ReasonCode | None = None
        self._closing = False
        self._closed: socket.socket | None = None
        self._on_message, self._on_delivered, self._on_lost = on_message, on_delivered, on_lost
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=connection.client_id,
            protocol=paho.MQTTv5 if self._v5 else paho.MQTTv311,
            clean_session=None if self._v5 else True,
            reconnect_on_failure=False,
        )
        client.connect_timeout = connection.connect_timeout_s
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_message = self._received
        client.on_publish = self._acknowledged_publication
        client.on_subscribe = self._acknowledged_subscription
        client.on_socket_close = self._socket_closes
        if connection.username is not None:
            client.username_pw_set(connection.username, connection.password)
        if will is not None:
            client.will_set(will.topic, will.payload, _QOS, will.retain)
        self._client = client

    def open(self) -> None:
        """Connect. Blocks until the broker has accepted.

        Raises:
            BrokerError: It cannot be reached, does not answer, or refuses; the text gives its reason.
        """
        connection, address = self._connection, self._connection.address
        properties = None
        if self._v5:
            properties = _properties(PacketTypes.CONNECT)
            properties.MaximumPacketSize = MAX_PACKET_BYTES
        try:
            if address.tls:
                self._client.tls_set_context(self._context or tls_context(connection))
            self._client.connect(
                address.host,
                address.port,
                keepalive=connection.keepalive_s,
                clean_start=True if self._v5 else paho.MQTT_CLEAN_START_FIRST_ONLY,
                properties=properties,
            )
        except ssl.SSLError as error:
            raise BrokerError(
                f"TLS with broker {address} failed: {getattr(error, 'verify_message', '') or error.reason or error}. "
                f"Check ca, cert, key and this board's clock (it says {today()}).",
                key="broker.tls",
            ) from error
        except OSError as error:
            raise BrokerError(
                f"Broker {address} cannot be reached: {error.strerror or error}. "
                f"Check that it runs, its address and its port.",
                key="broker.unreachable",
            ) from error
        self._client.loop_start()
        self._answered.wait(connection.connect_timeout_s)
        if not self._accepted:
            refusal = self._refusal()
            self.close()
            raise refusal

    def publish(self, message: Message) -> int:
        """Hand a message to the connection; the number that `on_delivered` gets.

        If the connection is lost, `on_lost` is or was called and the message counts as undelivered.
        """
        properties = _publication_properties(message) if self._v5 else None
        return self._client.publish(message.topic, message.payload, message.qos, message.retain, properties).mid

    def subscribe(self, *topic_filters: str, retained: bool, qos: int = _QOS) -> None:
        """Subscribe and wait for the broker's consent.

        Args:
            topic_filters: May hold wildcards. All go in one packet.
            retained: Whether stored messages are wanted. MQTT 3.1.1 sends them in any case.
            qos: Of the messages that come. With 0 they come in order with the broker's consent to later subscriptions,
                and without the limit that brokers set to messages under way.

        Raises:
            BrokerError: The broker refuses or does not answer, or the connection ends; its key says which.
        """
        self._subscribed.clear()
        self._subscribe_refusal = None
        if self._v5:
            handling = SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE if retained else _RETAIN_NEVER_SENT_ON_SUBSCRIBE
            options = SubscribeOptions(qos, retainAsPublished=True, retainHandling=handling)
            self._client.subscribe([(topic_filter, options) for topic_filter in topic_filters])
        else:
            self._client.subscribe([(topic_filter, qos) for topic_filter in topic_filters])
        # A connection that ended before has woken nobody since the event was cleared.
        answered = self._ended.is_set() or self._subscribed.wait(self._connection.connect_timeout_s)
        failure = self._subscription_failure(answered, ", ".join(topic_filters[:3]))
        if failure:
            raise failure

    def close(self) -> None:
        """Disconnect cleanly, so that the broker drops the will. May be called more than once.

        Returns when the broker has closed its end, and a moment later: a connection under the same id that comes within
        1 ms makes rumqttd publish the will of the new one, and forget it (300 of 500 connections, 2026-11-27).
        """
        self._closing = True
        self._client.disconnect()
        self._client.loop_stop()
        closed, self._closed = self._closed, None
        if closed is not None:
            _wait_for_end(closed)
            time.sleep(SETTLE_S)

    @property
    def _accepted(self) -> bool:
        return self._connack is not None and not self._connack.is_failure

    def _subscription_failure(self, answered: bool, topics: str) -> BrokerError | None:
        address = self._connection.address
        if self._subscribe_refusal is not None:
            return BrokerError(
                f"Broker {address} refused the subscription to '{topics}': {self._subscribe_refusal}. "
                f"Check the broker's access list.",
                key=SUBSCRIPTION_REFUSED,
            )
        if self._ended.is_set():
            return BrokerError(
                f"Connection to broker {address} ended during the subscription to '{topics}': {self._end}. "
                f"Check the network and the broker's log.",
                key="broker.lost",
            )
        if not answered:
            return BrokerError(
                f"Broker {address} did not answer the subscription to '{topics}' within "
                f"{self._connection.connect_timeout_s:.1f} s. Check the network and the broker's log.",
                key="broker.no_answer",
            )
        return None

    def _refusal(self) -> BrokerError:
        address = self._connection.address
        if self._connack is not None:
            advice = "Check username, password and the broker's access list."
            if "protocol" in self._connack.getName().lower():
                advice = "Set protocol to the version that the broker speaks."
            return BrokerError(
                f"Broker {address} refused the connection: {self._connack.getName()}. {advice}", key="broker.refused"
            )
        what = (
            "closed the connection without an answer"
            if self._ended.is_set()
            else f"did not answer within {self._connection.connect_timeout_s:.1f} s"
        )
        return BrokerError(
            f"Broker {address} {what}. Check that it is an MQTT broker and speaks MQTT {self._connection.protocol}.",
            key="broker.no_answer",
        )

    def _connected(
        self, client: paho.Client, data: object, flags: object, reason: ReasonCode, properties: object
    ) -> None:
        self._connack = reason
        self.receive_maximum = getattr(properties, "ReceiveMaximum", self.receive_maximum)
        self.maximum_packet_bytes = getattr(properties, "MaximumPacketSize", None)
        self._answered.set()

    def _disconnected(
        self, client: paho.Client, data: object, flags: paho.DisconnectFlags, reason: ReasonCode, properties: object
    ) -> None:
        first = not self._ended.is_set()
        if flags.is_disconnect_packet_from_server:
            self._end = reason.getName()
        self._ended.set()
        self._answered.set()
        self._subscribed.set()
        if first and self._accepted and not self._closing:
            self._on_lost(f"Connection to broker {self._connection.address} ended: {self._end}.")

    def _socket_closes(self, client: paho.Client, data: object, connected: paho.SocketLike) -> None:
        """Keep the connection that `close` ends; here, since elsewhere its number may be another file's by now."""
        if self._closing and self._accepted:
            with suppress(OSError):
                self._closed = socket.socket(fileno=os.dup(connected.fileno()))

    def _received(self, client: paho.Client, data: object, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return
        properties = message.properties
        self._on_message(
            Received(
                topic,
                bytes(message.payload),
                message.retain,
                getattr(properties, "ResponseTopic", None),
                getattr(properties, "CorrelationData", None),
            )
        )

    def _acknowledged_publication(
        self, client: paho.Client, data: object, number: int, reason: ReasonCode, properties: object
    ) -> None:
        self._on_delivered(number, reason.getName() if reason.is_failure else None)

    def _acknowledged_subscription(
        self, client: paho.Client, data: object, number: int, reasons: list[ReasonCode], properties: object
    ) -> None:
        refused = [reason.getName() for reason in reasons if reason.is_failure]
        self._subscribe_refusal = refused[0] if refused else None
        self._subscribed.set()


def _wait_for_end(connected: socket.socket) -> None:
    """End our side, as closing would have; read what comes until the other end closes the connection, and close it."""
    by_s = time.monotonic() + CLOSE_TIMEOUT_S
    with connected, suppress(OSError):
        connected.shutdown(socket.SHUT_WR)
        while (left_s := by_s - time.monotonic()) > 0:
            connected.settimeout(left_s)
            if not connected.recv(1 << 16):
                break


def _properties(packet_type: int) -> Properties:
    return Properties(packet_type)  # type: ignore[no-untyped-call]


def _publication_properties(message: Message) -> Properties | None:
    if message.correlation is None and message.identifier is None and message.content_type is None:
        return None
    properties = _properties(PacketTypes.PUBLISH)
    if message.correlation is not None:
        properties.CorrelationData = message.correlation
    if message.identifier is not None:
        properties.UserProperty = ("id", message.identifier)
    if message.content_type is not None:
        properties.ContentType = message.content_type
    return properties
