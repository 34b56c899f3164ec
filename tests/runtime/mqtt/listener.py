"""A client for tests that keeps everything it hears and waits for conditions with a deadline."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

import paho.mqtt.client as paho
from moedge_runtime.mqtt.address import BrokerAddress
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

DEADLINE_S = 30.0


class Listener:
    """Subscribes with QoS 1; use as a context manager."""

    def __init__(
        self,
        address: BrokerAddress,
        *filters: str,
        protocol: int = paho.MQTTv5,
        username: str | None = None,
        password: str | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._changed = threading.Condition()
        self._subscribed = False
        self.messages: list[paho.MQTTMessage] = []
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=protocol)
        self.client.on_message = self._received
        self.client.on_subscribe = self._ready
        if username is not None:
            self.client.username_pw_set(username, password)
        if context is not None:
            self.client.tls_set_context(context)
        self.client.connect(address.host, address.port)
        self.client.loop_start()
        for topic_filter in filters or ("#",):
            self.client.subscribe(topic_filter, 1)
        self._until(lambda: self._subscribed, "the subscription")

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def wait(self, condition: Callable[[list[paho.MQTTMessage]], Any], what: str = "the condition") -> Any:
        """The first true value of `condition(messages)`."""
        result: list[Any] = []

        def holds() -> bool:
            result[:] = [condition(self.messages)]
            return bool(result[0])

        self._until(holds, what)
        return result[0]

    def message(self, topic: str, text: str = "") -> paho.MQTTMessage:
        """The first message on `topic` whose payload contains `text`."""

        def find(messages: list[paho.MQTTMessage]) -> paho.MQTTMessage | None:
            return next((item for item in messages if item.topic == topic and text.encode() in item.payload), None)

        return self.wait(find, f"{text!r} on {topic}")

    def json(self, topic: str, text: str = "") -> Any:
        return json.loads(self.message(topic, text).payload)

    def on(self, topic: str) -> list[bytes]:
        """Payloads on `topic` so far."""
        with self._changed:
            return [item.payload for item in self.messages if item.topic == topic]

    def clear(self) -> None:
        with self._changed:
            self.messages.clear()

    def publish(
        self,
        topic: str,
        payload: bytes | str,
        *,
        retain: bool = False,
        response_topic: str | None = None,
        correlation: bytes | None = None,
    ) -> None:
        properties = None
        if response_topic is not None:
            properties = Properties(PacketTypes.PUBLISH)
            properties.ResponseTopic = response_topic
            if correlation is not None:
                properties.CorrelationData = correlation
        self.client.publish(topic, payload, 1, retain, properties).wait_for_publish(DEADLINE_S)

    def _received(self, client: paho.Client, data: object, message: paho.MQTTMessage) -> None:
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    def _ready(self, *arguments: object) -> None:
        with self._changed:
            self._subscribed = True
            self._changed.notify_all()

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        with self._changed:
            if not self._changed.wait_for(condition, DEADLINE_S):
                heard = "\n".join(f"  {item.topic} {item.payload[:200]!r}" for item in self.messages[-20:])
                raise AssertionError(f"waited {DEADLINE_S} s for {what}; heard:\n{heard}")
