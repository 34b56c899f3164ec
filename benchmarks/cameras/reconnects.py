"""A camera that drops its connection again and again: does the daemon's side come back each time, and stay as large?

PYTHONPATH=tests python benchmarks/cameras/reconnects.py [--count 300]

GStreamer's RTSP server closes the connection as soon as a frame has come; every tenth time it is killed and started
anew. Prints one JSON object a line.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from moedge_runtime.config import CameraConfig, TimeConfig
from moedge_runtime.daemon.cameras import check_of, gate_of, open_camera, policy_of, preparation_of
from moedge_runtime.daemon.clock import clock_synced, rss_bytes
from moedge_runtime.daemon.job_queue import JobQueue
from moedge_runtime.daemon.reader import CameraReader
from moedge_runtime.daemon.watcher import Watcher
from moedge_runtime.mqtt.backoff import Backoff
from runtime.camera.rtsp import RtspServer, h264

RESTART_EVERY = 10
WARM_UP = 50
"""Reconnects before memory is looked at: the allocator's arenas have their size by then."""

MAX_GROWTH = 0.02
DEADLINE_S = 60.0


class States:
    """The states of one camera, as they are said."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._names: list[str] = []

    def note(self, camera: str, state: str, reason: object) -> None:
        """A new one."""
        with self._changed:
            self._names.append(state)
            self._changed.notify_all()

    def next(self, condition: Callable[[str], bool]) -> None:
        """Forget all up to the first that fulfils `condition`; waits for it."""
        with self._changed:
            if not self._changed.wait_for(lambda: any(map(condition, self._names)), DEADLINE_S):
                raise TimeoutError(f"waited {DEADLINE_S:.0f} s in vain; since then: {self._names}")
            while not condition(self._names.pop(0)):
                pass


class Silence:
    """Tells nobody, since nothing is asked."""

    def pending(self, job: object) -> None:
        """Not called."""

    def answered(self, job: object, result: object, alert: object) -> None:
        """Not called."""

    def dropped(self, job: object, reason: object) -> None:
        """Not called."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=300)
    count = parser.parse_args().count
    logging.disable()
    states, sizes, began_s = States(), [], time.monotonic()
    server = RtspServer(h264(size="640x480", key_interval=5))
    camera = CameraConfig.model_validate({"source": server.url, "frozen_after": "never"})
    preparation = preparation_of(camera)
    watcher = Watcher(
        "gate",
        [],
        gate_of(camera, [], TimeConfig()),
        JobQueue(),
        Silence(),
        lossless=False,
        new_identifier=str,
        clock_synced=clock_synced,
    )
    reader = CameraReader(
        "gate",
        server.url,
        lambda: open_camera(camera, [], preparation),
        watcher,
        policy=policy_of(camera, gives_up=False),
        on_state=states.note,
        on_end=lambda: None,
        check=check_of(camera, preparation),
        backoff=Backoff(0.01, 0.05),
    )
    reader.start()
    states.next(lambda state: state == "online")
    open_files = 0
    for number in range(1, count + 1):
        if number % RESTART_EVERY:
            server.tell("drop")
            states.next(lambda state: state == "offline")
        else:
            server.kill()
            states.next(lambda state: state == "offline")
            server = RtspServer(h264(size="640x480", key_interval=5), port=server.port)
        states.next(lambda state: state == "online")
        gc.collect()
        sizes.append(rss_bytes() or 0)
        if number == min(WARM_UP, count):
            open_files = len(list(Path("/proc/self/fd").iterdir()))
    reader.stop()
    reader.join(DEADLINE_S)
    warm = sizes[min(WARM_UP, count) - 1]
    growth = max(sizes[-20:]) / warm - 1
    more_files = len(list(Path("/proc/self/fd").iterdir())) - open_files
    report("rtsp_reconnects", count, "connections", count, ok=True)
    report("rtsp_reconnects_memory_growth", round(growth, 4), "of resident memory", MAX_GROWTH, ok=growth <= MAX_GROWTH)
    report("rtsp_reconnects_memory", warm, "bytes", None, ok=True)
    report("rtsp_reconnects_open_files_growth", more_files, "files", 0, ok=more_files <= 0)
    report("rtsp_reconnects_time", round(time.monotonic() - began_s, 1), "s", None, ok=True)
    server.kill()


def report(name: str, value: float, unit: str, bound: float | None, *, ok: bool) -> None:
    """One result."""
    print(json.dumps({"name": name, "value": value, "unit": unit, "bound": bound, "ok": ok}), flush=True)


if __name__ == "__main__":
    main()
