"""Hears every answer: `python -m fleet.collector HOST PORT` until SIGTERM, then one JSON object.

The answers carry the sender's monotonic time, which on Linux is the same in every process of a machine.
"""

from __future__ import annotations

import json
import queue
import signal
import sys
import threading
import time
from collections import defaultdict

from moedge_runtime.mqtt.address import BrokerAddress, Connection
from moedge_runtime.mqtt.message import Received
from moedge_runtime.mqtt.session import Session
from moedge_runtime.mqtt.topics import answer_filter

QUIET_S = 2.0
"""After SIGTERM it ends when nothing has come for so long."""


def main() -> None:
    host, port = sys.argv[1:]
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    inbox: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()

    def note(message: Received) -> None:
        inbox.put((time.monotonic_ns(), message.payload))

    lost: list[str] = []
    session = Session(
        Connection(BrokerAddress(host, int(port)), client_id="collector"), on_message=note, on_lost=lost.append
    )
    session.open()
    session.subscribe(answer_filter("moedge"), retained=False)
    print("ready", flush=True)
    numbers: dict[str, set[int]] = defaultdict(set)
    twice: dict[str, int] = defaultdict(int)
    delays_s = []
    while True:
        try:
            came_ns, payload = inbox.get(timeout=QUIET_S)
        except queue.Empty:
            if stop.is_set():
                break
            continue
        data = json.loads(payload)["data"]
        if data["number"] in numbers[data["device"]]:
            twice[data["device"]] += 1
            continue
        numbers[data["device"]].add(data["number"])
        delays_s.append((came_ns - data["sent_ns"]) / 1e9)
    session.close()
    heard = {device: len(values) for device, values in numbers.items()}
    print(json.dumps({"heard": heard, "twice": twice, "delays_s": delays_s, "lost_connections": lost}), flush=True)


if __name__ == "__main__":
    main()
