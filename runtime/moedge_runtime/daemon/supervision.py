"""Tells systemd how the daemon is, and feeds its watchdog only while the model and the cameras get on."""

from __future__ import annotations

import faulthandler
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from moedge_runtime.camera import Frame, FrameSource, is_live
from moedge_runtime.config import CameraConfig
from moedge_runtime.counted import counted
from moedge_runtime.daemon.answerer import Answerer, Picture, Question, QuestionProblem, Reply, ShouldStop
from moedge_runtime.daemon.sd_notify import ServiceManager
from moedge_runtime.mqtt.payloads import DeviceHealth

PINGS = 4
"""So many times within WatchdogSec progress is looked at and reported; sd_watchdog_enabled(3) recommends 2 at least."""

STATUS_S = 30.0
"""Between two reports without a watchdog, and at most with one."""

STDERR = 2

log = logging.getLogger(__name__)

T = TypeVar("T")


class Progress:
    """Whether one part of the daemon gets on. May be used from any thread.

    Args:
        name: For people, as the subject of a sentence.
        pause_s: How long it may be silent by itself, in addition to the watchdog's limit.
        clock: Seconds that only grow.
    """

    def __init__(self, name: str, pause_s: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._pause_s, self._clock = pause_s, clock
        self._since_s: float | None = None

    def sign(self) -> None:
        """It works, and has just got on."""
        self._since_s = self._clock()

    def rest(self) -> None:
        """It has nothing to do, or waits for another part."""
        self._since_s = None

    def silent_s(self) -> float:
        """Seconds without a sign while it works, beyond what it may be silent by itself."""
        since_s = self._since_s
        return 0.0 if since_s is None else max(0.0, self._clock() - since_s - self._pause_s)


class WatchedAnswerer:
    """An answerer whose every layer of a prefill and every token is a sign of progress."""

    def __init__(self, answerer: Answerer, progress: Progress) -> None:
        self._answerer, self._progress = answerer, progress

    def keep_cameras(self, cameras: Collection[str]) -> None:
        """See Answerer."""
        self._answerer.keep_cameras(cameras)

    def check(self, question: Question) -> list[QuestionProblem]:
        """See Answerer."""
        return self._answerer.check(question)

    @property
    def together(self) -> int:
        """See Answerer."""
        return self._answerer.together

    def ask(self, question: Question, image: Picture, should_stop: ShouldStop) -> Reply:
        """See Answerer."""
        return self._watched(partial(self._answerer.ask, question, image), should_stop)

    def begin(
        self, questions: Sequence[tuple[Question, Picture]], should_stop: ShouldStop, enough: Callable[[], bool]
    ) -> list[Callable[[ShouldStop], Reply]]:
        """See Answerer."""
        begun = self._watched(lambda asked: self._answerer.begin(questions, asked, enough), should_stop)
        return [partial(self._watched, answer) for answer in begun]

    def _watched(self, work: Callable[[ShouldStop], T], should_stop: ShouldStop) -> T:
        def asked() -> bool:
            self._progress.sign()
            return should_stop()

        self._progress.sign()
        try:
            return work(asked)
        finally:
            self._progress.rest()

    def close(self) -> None:
        """See Answerer."""
        self._answerer.close()


class WatchedSource:
    """A source whose frames are signs of progress; while its consumer has one, it rests."""

    def __init__(self, source: FrameSource, progress: Progress) -> None:
        self._source, self._progress = source, progress

    def frames(self) -> Iterator[Frame]:
        """See FrameSource."""
        self._progress.sign()
        try:
            for frame in self._source.frames():
                self._progress.rest()
                yield frame
                self._progress.sign()
        finally:
            self._progress.rest()

    def close(self) -> None:
        """See FrameSource."""
        self._source.close()


class Supervision:
    """What the daemon says to systemd; does nothing without a manager.

    A camera that fails or is away is the network's matter: its source raises an error in time and is opened again: that
    is progress. A source that gives neither a frame nor an error, and a model that gives no token, need a new process.

    Args:
        manager: The service manager, or None.
    """

    def __init__(self, manager: ServiceManager | None) -> None:
        self._manager = manager
        self._parts: dict[str, Progress] = {}
        self._health: Callable[[], DeviceHealth] | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Supervision:
        """As systemd started this process, or with nothing to do."""
        return cls(ServiceManager.from_environment(environment))

    def answerer(self, answerer: Answerer) -> Answerer:
        """`answerer`, whose progress counts."""
        return WatchedAnswerer(answerer, self._part("The model"))

    def source(self, name: str, camera: CameraConfig, source: FrameSource) -> FrameSource:
        """The source of the camera `name`, whose progress counts if it is live."""
        if not is_live(camera.source):
            return source
        period_s = 1 / camera.fps if camera.fps else 0.0
        pause_s = max(camera.first_frame_timeout, camera.stall_timeout, period_s)
        return WatchedSource(source, self._part(f"Camera '{name}'", pause_s))

    def starting(self, what: str) -> None:
        """Show what keeps the daemon from being ready."""
        if self._manager:
            self._manager.tell(STATUS=what)

    def ready(self, health: Callable[[], DeviceHealth]) -> None:
        """The daemon serves; from now on `health` is shown and the watchdog fed. Also ends a reload."""
        self._health = health
        if self._manager is None:
            return
        self._manager.tell(READY=1, STATUS=describe(health()))
        if self._thread is None:
            if self._manager.watchdog_s is not None:
                faulthandler.enable(STDERR)  # systemd ends what hangs with SIGABRT: the journal then has every stack
            self._thread = threading.Thread(target=self._report, name="supervision", daemon=True)
            self._thread.start()

    def reloading(self) -> None:
        """The daemon takes over a new configuration; `ready` follows."""
        if self._manager:
            now_usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            self._manager.tell(RELOADING=1, MONOTONIC_USEC=now_usec, STATUS="Taking over a new configuration.")

    def stopping(self) -> None:
        """The daemon ends in order; systemd's own limit for that applies from now on."""
        self._ended.set()
        if self._manager:
            self._manager.tell(STOPPING=1, STATUS="Stopping.")

    def _part(self, name: str, pause_s: float = 0.0) -> Progress:
        self._parts[name] = Progress(name, pause_s)
        return self._parts[name]

    def _report(self) -> None:
        assert self._manager is not None and self._health is not None
        limit_s = self._manager.watchdog_s
        period_s = STATUS_S if limit_s is None else min(STATUS_S, limit_s / PINGS)
        while not self._ended.wait(period_s):
            hung = [part for part in list(self._parts.values()) if limit_s is not None and part.silent_s() > limit_s]
            if hung:
                text = f"{hung[0].name} has not got on for {limit_s:g} s (WatchdogSec)."
                log.critical("%s This process is ended, so that a new one takes its place.", text)
                self._manager.tell(STATUS=text, WATCHDOG="trigger")
                return
            status = describe(self._health())
            if limit_s is None:
                self._manager.tell(STATUS=status)
            else:
                self._manager.tell(WATCHDOG=1, STATUS=status)


def describe(health: DeviceHealth) -> str:
    """A line for `systemctl status`."""
    cameras = [camera for camera in health.cameras.values() if camera.state != "disabled"]
    online = sum(camera.state == "online" for camera in cameras)
    broker = "broker connected" if health.mqtt.connected else "no connection to the broker"
    age_s = health.last_answer_age_s
    answer = "no answer yet" if age_s is None else f"last answer {age_s:.0f} s ago"
    return f"{online} of {counted(len(cameras), 'camera')} online; {broker}; {answer}."
