"""Which waiting question is answered next. Pure: no threads, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from moedge_runtime.camera import Frame
from moedge_runtime.daemon.answerer import Question, Reply
from moedge_runtime.errors import MoedgeError, RequestError
from moedge_runtime.frames.gate import Trigger

MAX_WAITING_REQUESTS = 8
"""Requests that wait for the model; one more is told that the device is busy."""

DropReason = Literal["replaced", "stale", "failed", "stopping"]
"""Why a question came to nothing: a newer frame took its place, it waited for too long, the model failed, the daemon
ends."""


class Priority(IntEnum):
    """Class of a watch; a lower number goes first."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


@dataclass(frozen=True, eq=False)
class Job:
    """One question about one frame.

    Attributes:
        camera: The camera's name.
        watch: The watch's name; None for a request.
        question: What to ask.
        frame: The picture.
        publish_reasoning: Whether the answer shows the reasoning.
        deliver: Called on the worker's thread with the result, once, unless the job is dropped.
        drop: Called once if the job comes to nothing, by whoever notices.
        identifier: Of its event and its answer; None for a request, whose answer gets one.
        trigger: Why a watch asks.
        zones: Names of the zones it is about.
        freshness_s: The job is stale when the frame is so old and the model has not begun; None for never.
        priority: Its class.
    """

    camera: str
    watch: str | None
    question: Question
    frame: Frame
    publish_reasoning: bool
    deliver: Callable[[Job, Result], None]
    drop: Callable[[Job, DropReason], None] = lambda job, reason: None
    identifier: str | None = None
    trigger: Trigger = "interval"
    zones: tuple[str, ...] = ()
    freshness_s: float | None = None
    priority: Priority = Priority.NORMAL

    def too_old(self, now_s: float) -> bool:
        """Whether at `now_s`, `time.monotonic()`, the frame is older than it may be."""
        return self.freshness_s is not None and now_s - self.frame.monotonic_s > self.freshness_s


@dataclass(frozen=True)
class Result:
    """How a job ended.

    Attributes:
        outcome: The reply, or what prevented it.
        began_s: `time.monotonic()` when the model began.
        ended_s: `time.monotonic()` when it had finished.
    """

    outcome: Reply | MoedgeError
    began_s: float
    ended_s: float


class Agenda:
    """The jobs that wait: which of them is next, and which are given up.

    A watch waits with one frame at most: a newer one takes its place, so a camera has at most as many waiting jobs as
    watches. Nothing cancels the running job. The next job is, in this order,

    1. a request, in their order; but no two of them in a row while a watch of the class HIGH waits,
    2. a watch of the highest class that waits,
    3. of these, one of the camera that the model has served the shortest time, by seconds and not by answers. A camera
       that had nothing waiting gets no credit for that: it begins where the one is that was served last in its class,
    4. of these, the one that has waited the longest.
    """

    def __init__(self) -> None:
        self._requests: deque[Job] = deque()
        self._watches: dict[str, Job] = {}
        self._running: Job | None = None
        self._served_s: dict[str, float] = {}
        self._level_s = dict.fromkeys(Priority, 0.0)
        self._request_was_last = False

    def add_watches(self, jobs: Sequence[Job]) -> list[Job]:
        """Add jobs of watches; returns those that they replace."""
        replaced = []
        for job in jobs:
            assert job.watch is not None
            if not self.busy_with(job.camera):
                level_s = self._level_s[job.priority]
                self._served_s[job.camera] = max(self._served_s.get(job.camera, 0.0), level_s)
            if job.watch in self._watches:
                replaced.append(self._watches[job.watch])
            self._watches[job.watch] = job
        return replaced

    def add_request(self, job: Job) -> None:
        """Add the job of a request.

        Raises:
            RequestError: Too many wait already.
        """
        if len(self._requests) >= MAX_WAITING_REQUESTS:
            raise RequestError(
                f"{len(self._requests)} requests are waiting for the model already. Ask again later.",
                key="request.busy",
            )
        self._requests.append(job)

    def next(self) -> Job | None:
        """Take the job to run now; None if none waits. Follow with `finished`."""
        watch = self._next_watch()
        alarming = watch is not None and watch.priority == Priority.HIGH
        if self._requests and not (alarming and self._request_was_last):
            self._running = self._requests.popleft()
            self._request_was_last = True
        elif watch is not None and watch.watch is not None:
            self._running = self._watches.pop(watch.watch)
            self._level_s[watch.priority] = max(self._level_s[watch.priority], self._served_s[watch.camera])
            self._request_was_last = False
        else:
            return None
        return self._running

    def finished(self, spent_s: float) -> None:
        """The job that `next` gave is done, after the model was busy with it for `spent_s` seconds."""
        if self._running is not None and self._running.watch is not None:
            self._served_s[self._running.camera] += spent_s
        self._running = None

    def take_stale(self, now_s: float) -> list[Job]:
        """Give up the watches' jobs whose frames have become too old at `now_s`, and return them."""
        stale = [job for job in self._watches.values() if job.too_old(now_s)]
        for job in stale:
            assert job.watch is not None
            del self._watches[job.watch]
        return stale

    def clear(self) -> list[Job]:
        """Give up all waiting jobs and return them."""
        waiting = self.waiting()
        self._requests.clear()
        self._watches.clear()
        return waiting

    def waiting(self) -> list[Job]:
        """All jobs that wait."""
        return [*self._requests, *self._watches.values()]

    @property
    def requests_waiting(self) -> int:
        """Requests that wait."""
        return len(self._requests)

    def busy_with(self, camera: str | None = None) -> bool:
        """Whether a watch of `camera`, or any job if None, waits or runs."""
        jobs = [*self._watches.values(), *([self._running] if self._running else [])]
        if camera is None:
            return bool(jobs or self._requests)
        return any(job.camera == camera and job.watch is not None for job in jobs)

    def _next_watch(self) -> Job | None:
        if not self._watches:
            return None
        waiting = self._watches.values()  # the longest waiting first; min takes the first of equals
        return min(waiting, key=lambda job: (job.priority, self._served_s[job.camera]))
