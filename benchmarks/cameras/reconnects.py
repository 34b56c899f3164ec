"""A camera that drops its connection again and again: does the daemon's side come back each time, and stay as large?

PYTHONPATH=benchmarks:tests python benchmarks/cameras/reconnects.py [--count 300]

GStreamer's RTSP server closes the connection as soon as a frame has come; every tenth time it is killed and started
anew. Prints one JSON object a line.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from figures import report
from moedge_runtime.config import CameraConfig, TimeConfig
from moedge_runtime.daemon.cameras import check_of, gate_of, open_camera, policy_of, preparation_of
from moedge_runtime.daemon.clock import clock_synced, rss_bytes
from moedge_runtime.daemon.job_queue import JobQueue
from moedge_runtime.daemon.reader import CameraReader
from moedge_runtime.daemon.watcher import Watcher
from moedge_runtime.mqtt.backoff import Backoff
from runtime.camera.rtsp import RtspServer, h264

RESTART_EVERY = 10
WARM_UP = 6
"""One in so many of the reconnects comes before memory is looked at: the allocator's arenas have their size by then."""

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


@dataclass(frozen=True)
class Outcome:
    """What reconnecting has cost.

    Attributes:
        count: Connections that were lost and made again.
        warm_bytes: Resident memory when a sixth of them was done.
        growth: Of resident memory since then, as a share of it.
        more_files: Files that are open beyond those that were then.
        more_threads: Threads likewise.
        took_s: In all.
    """

    count: int
    warm_bytes: int
    growth: float
    more_files: int
    more_threads: int
    took_s: float


def reconnected(count: int) -> Outcome:
    """Lose an RTSP camera and find it again, `count` times.

    Raises:
        TimeoutError: It was not found again.
    """
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
    try:
        reader.start()
        states.next(lambda state: state == "online")
        warm = min(count, max(5, count // WARM_UP))
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
            if number == warm:
                files, threads = _open_files(), threading.active_count()
        more_files, more_threads = _open_files() - files, threading.active_count() - threads
    finally:
        reader.stop()
        reader.join(DEADLINE_S)
        server.kill()
    growth = max(sizes[-20:]) / sizes[warm - 1] - 1
    return Outcome(count, sizes[warm - 1], growth, more_files, more_threads, time.monotonic() - began_s)


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=300)
    count = parser.parse_args().count
    logging.disable()
    outcome = reconnected(count)
    held = [
        report("rtsp_reconnects", outcome.count, "connections", count, least=True),
        report("rtsp_reconnects_memory_growth", outcome.growth, "of resident memory", MAX_GROWTH),
        report("rtsp_reconnects_memory", outcome.warm_bytes, "bytes"),
        report("rtsp_reconnects_open_files_growth", outcome.more_files, "files", 0),
        report("rtsp_reconnects_threads_growth", outcome.more_threads, "threads", 0),
        report("rtsp_reconnects_time", outcome.took_s, "s"),
    ]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
