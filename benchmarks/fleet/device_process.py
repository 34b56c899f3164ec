"""Simulated devices in one process: `python -m fleet.device_process HOST PORT RATE NAME...` until SIGTERM.

Each is the runtime's own MqttClient with the topics and payloads of the daemon; there is no model and no camera. At
the end it prints one JSON object: how many answers each device has published, and how many were not acknowledged.
"""

from __future__ import annotations

import heapq
import json
import os
import random
import signal
import sys
import threading
import time
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

from moedge_runtime import __version__
from moedge_runtime.config.schema import config_schema
from moedge_runtime.mqtt.address import BrokerAddress, Connection
from moedge_runtime.mqtt.client import MqttClient, Presence
from moedge_runtime.mqtt.message import Message
from moedge_runtime.mqtt.payloads import DeviceStatus, rfc3339
from moedge_runtime.mqtt.topics import Topics

CAMERA, WATCH = "gate", "level"
HEALTH_INTERVAL_S = 30.0
CLOSE_S = 20.0

GOLDEN = Path(__file__).parents[2] / "tests/runtime/mqtt/golden"
"""Every payload of the daemon, as the runtime's tests keep them."""


class SimulatedDevice:
    """One device."""

    def __init__(self, address: BrokerAddress, name: str) -> None:
        self.name, self.answers = name, 0
        self._topics = Topics("moedge", name)
        self._started_s = time.monotonic()
        self._started_at = _now()
        states = ("online", "stopped", "offline")
        messages = (Message(self._topics.status, DeviceStatus(state=state).encode(), retain=True) for state in states)
        self.client = MqttClient(
            Connection(address, client_id=f"moedge-{name}"),
            presence=Presence(*messages),
            requests=self._topics.requests,
            on_request=lambda message: None,
        )

    def start(self) -> None:
        """Connect, and say info and health."""
        self.client.start()
        info = _golden("info") | {
            "device": self.name,
            "version": __version__,
            "started_at": self._started_at,
            "config": {"version": 1, "device": self.name},
            "config_schema": config_schema(),
        }
        self.client.publish(Message(self._topics.info, _encoded(info), retain=True))
        camera = _encoded(_golden("camera_status_online"))
        self.client.publish(Message(self._topics.camera_status(CAMERA), camera, retain=True))
        self.health()

    def health(self) -> None:
        """Publish the health message."""
        queued, dropped = self.client.backlog()
        golden = _golden("health")
        health = golden | {
            "at": _now(),
            "uptime_s": round(time.monotonic() - self._started_s, 3),
            "cameras": {CAMERA: {"state": "online", "frames": self.answers, "last_frame_age_s": 0.1}},
            "watches": {WATCH: {"due": self.answers, "answered": self.answers, "failed": 0, "skipped": 0}},
            "mqtt": golden["mqtt"] | {"queued": queued, "dropped": dropped},
        }
        self.client.publish(Message(self._topics.health, _encoded(health), retain=True))

    def answer(self) -> None:
        """Publish an answer that holds its number and the time, on both topics as the daemon does."""
        number, self.answers = self.answers, self.answers + 1
        payload = _encoded(
            _golden("answer")
            | {
                "id": f"{self.name}-{number}",
                "camera": CAMERA,
                "watch": WATCH,
                "captured_at": _now(),
                "answered_at": _now(),
                "text": json.dumps({"level": number}),
                "data": {"device": self.name, "number": number, "sent_ns": time.monotonic_ns()},
            }
        )
        self.client.publish(Message(self._topics.answer(CAMERA), payload))
        self.client.publish(Message(self._topics.last_answer(CAMERA), payload, retain=True))


def main() -> None:
    host, port, rate, *names = sys.argv[1:]
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(os.getppid(), stop), daemon=True).start()
    devices = [SimulatedDevice(BrokerAddress(host, int(port)), name) for name in names]
    for device in devices:
        device.start()
        stop.wait(0.01)
    period_s = 60.0 / float(rate)
    now_s = time.monotonic()
    due = [(now_s + random.uniform(0, period_s), number, False) for number in range(len(devices))]
    due += [(now_s + random.uniform(0, HEALTH_INTERVAL_S), number, True) for number in range(len(devices))]
    heapq.heapify(due)
    while not stop.is_set():
        at_s, number, is_health = due[0]
        if stop.wait(max(0.0, at_s - time.monotonic())):
            break
        if is_health:
            devices[number].health()
        else:
            devices[number].answer()
        heapq.heapreplace(due, (at_s + (HEALTH_INTERVAL_S if is_health else period_s), number, is_health))
    closers = [threading.Thread(target=device.client.close, args=(CLOSE_S,)) for device in devices]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join()
    print(
        json.dumps(
            {
                "published": {device.name: device.answers for device in devices},
                "unacknowledged": sum(device.client.backlog()[0] for device in devices),
                "dropped": sum(device.client.backlog()[1] for device in devices),
                "connects": sum(device.client.counters.connects for device in devices),
            }
        ),
        flush=True,
    )


def _end_with_parent(parent: int, stop: threading.Event) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    stop.set()


@cache
def _golden(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return value


def _encoded(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _now() -> str:
    return rfc3339(datetime.now(timezone.utc))


if __name__ == "__main__":
    main()
