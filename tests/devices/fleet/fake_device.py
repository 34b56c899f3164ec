"""A fake of the daemon: the runtime's own MQTT client with its presence, and a scripted answer to `request/config`."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable
from datetime import datetime, timezone
from types import TracebackType
from typing import Any, Literal

import yaml
from moedge_runtime.mqtt.address import BrokerAddress, Connection
from moedge_runtime.mqtt.backoff import Backoff
from moedge_runtime.mqtt.client import MqttClient, Presence
from moedge_runtime.mqtt.message import Message, Received
from moedge_runtime.mqtt.payloads import DeviceStatus, ErrorInfo, Response, rfc3339
from moedge_runtime.mqtt.topics import Topics
from runtime.mqtt.listener import Listener

Behaviour = Literal["ok", "refuse", "silent", "stop"]


class FakeDevice:
    """Says online, and answers requests for `config`. Use as a context manager.

    Args:
        address: The broker.
        name: The device.
        behaviour: ok takes the configuration, refuse says why not, silent never answers, stop takes it and goes away.
        base: Base topic.
        on_config: Called with every configuration that comes.
    """

    def __init__(
        self,
        address: BrokerAddress,
        name: str,
        behaviour: Behaviour = "ok",
        *,
        base: str = "moedge",
        on_config: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.name, self.behaviour, self._on_config = name, behaviour, on_config
        self.topics = Topics(base, name)
        self.configs: list[dict[str, Any]] = []
        self._stops: queue.SimpleQueue[None] = queue.SimpleQueue()
        states = (Message(self.topics.status, DeviceStatus(state=state).encode(), retain=True) for state in _STATES)
        self.client = MqttClient(
            Connection(address, client_id=f"moedge-{name}"),
            presence=Presence(*states),
            requests=self.topics.requests,
            on_request=self._handle,
            backoff=Backoff(0.05, 0.2),
        )

    def __enter__(self) -> FakeDevice:
        self.client.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close(5.0)

    def say(
        self,
        *,
        answer: str = "42",
        minutes_old: float = 0.0,
        bundle: str = "qwen3-vl-30b-int4",
        version: str | None = None,
        system: dict[str, Any] | None = None,
    ) -> None:
        """Publish info, health and an answer as the daemon does; only the keys that a view reads."""
        at = rfc3339(datetime.fromtimestamp(datetime.now().timestamp() - 60 * minutes_old, timezone.utc))
        model = {"bundle": bundle, "version": version}
        info = {"version": "0.1.0", "system": system, "model": {**model, "manifest_sha256": "0" * 64}}
        health = {"at": at, "rss_bytes": 1, "mqtt": {"queued": 0, "dropped": 0}}
        last = {"answered_at": at, "camera": "gate", "watch": "level", "status": "ok", "text": answer, "data": None}
        for topic, value in (
            (self.topics.info, info),
            (self.topics.health, health),
            (self.topics.camera_status("gate"), {"state": "online", "reason": None}),
            (self.topics.last_answer("gate"), {**last, "model": model, "error": None}),
        ):
            self.client.publish(Message(topic, json.dumps(value).encode(), retain=True))

    def _handle(self, message: Received) -> None:
        assert message.topic == f"{self.topics.root}/request/config"
        request = json.loads(message.payload)
        self.configs.append(yaml.safe_load(request["config"]))
        self._on_config(self.name)
        if self.behaviour == "silent":
            return
        error = ErrorInfo(key="config.invalid", message="The camera is another one.")
        response = Response(
            status="error" if self.behaviour == "refuse" else "ok",
            error=error if self.behaviour == "refuse" else None,
            transaction=request["transaction"],
        )
        self.client.publish(Message(self.topics.response("config"), response.encode()))
        if self.behaviour == "stop":
            self.client.publish(Message(self.topics.status, DeviceStatus(state="stopped").encode(), retain=True))


_STATES: tuple[Literal["online"], Literal["stopped"], Literal["offline"]] = ("online", "stopped", "offline")


def wait_online(address: BrokerAddress, *devices: FakeDevice) -> None:
    """Wait until the broker has every device's presence."""
    with Listener(address) as listener:
        for device in devices:
            listener.message(device.topics.status, "online")
