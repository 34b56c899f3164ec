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
        deadline_s: `time.monotonic()` from which on nobody wants the answer, begun or not; None for never.
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
    deadline_s: float | None = None
    priority: Priority = Priority.NORMAL

    def overdue(self, now_s: float) -> bool:
        """Whether at `now_s`, `time.monotonic()`, its deadline has passed."""
        return self.deadline_s is not None and now_s >= self.deadline_s

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
    watches. Nothing cancels a running job. The next job is, in this order,

    1. a request, in their order; but no two of them in a row while a watch of the class HIGH waits,
    2. a watch of the highest class that waits,
    3. of these, one of the camera that the model has served the shortest time, by seconds and not by answers. A camera
       that had nothing waiting gets no credit for that: it begins where the one is that was served last in its class,
    4. of these, the one that has waited the longest.

    Others may share the prefill of the next job if it is a watch's and its class is not HIGH: those that wait already
    and are of the same class, in the order in which they would be next if each took as long as the last one of its
    camera, and as long as no camera gets ahead of another one in this way. Requests and watches of the class HIGH go
    alone, and before those of a shared prefill that are not answered yet.
    """

    def __init__(self) -> None:
        self._requests: deque[Job] = deque()
        self._watches: dict[str, Job] = {}
        self._running: list[Job] = []
        self._last_s: dict[str, float] = {}
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
        return self._take_request() or self._take_watch(self._next_watch())

    def urgent(self) -> Job | None:
        """As `next`, but only a request or a watch of the class HIGH."""
        job = self._next_watch()
        return self._take_request() or self._take_watch(job if _alarming(job) else None)

    @property
    def urgent_waits(self) -> bool:
        """Whether `urgent` would take a job."""
        return bool(self._requests) or _alarming(self._next_watch())

    def company(self, most: int) -> list[Job]:
        """Take up to `most` jobs that share the prefill of what `next` gave; follow with `finished` for each."""
        first = self._running[-1]
        company: list[Job] = []
        while first.watch is not None and not _alarming(first) and len(company) < most:
            waiting = [job for job in self._watches.values() if job.priority == first.priority]
            if not waiting:
                break
            job = min(waiting, key=self._expected)
            if self._expected(job) > min(map(self._expected, self._running)):
                break
            self._take_watch(job)
            company.append(job)
        return company

    def finished(self, job: Job, spent_s: float) -> None:
        """A job is done, after the model was busy with it for `spent_s` seconds."""
        self._running.remove(job)
        if job.watch is not None:
            self._served_s[job.camera] += spent_s
            self._last_s[job.camera] = spent_s

    def take_stale(self, now_s: float) -> list[Job]:
        """Give up watches' jobs whose frames are too old at `now_s` and requests past their deadline; return them."""
        stale = [job for job in self.waiting() if job.too_old(now_s) or job.overdue(now_s)]
        for job in stale:
            if job.watch is None:
                self._requests.remove(job)
            else:
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
        jobs = [*self._watches.values(), *self._running]
        if camera is None:
            return bool(jobs or self._requests)
        return any(job.camera == camera and job.watch is not None for job in jobs)

    @property
    def running(self) -> bool:
        """Whether a job runs."""
        return bool(self._running)

    def _expected(self, job: Job) -> tuple[float, int]:
        """Seconds that the camera of `job` will have been served after its running jobs, and how many these are."""
        running = sum(other.camera == job.camera for other in self._running)
        return self._served_s[job.camera] + running * self._last_s.get(job.camera, 0.0), running

    def _take_request(self) -> Job | None:
        if not self._requests or (self._request_was_last and _alarming(self._next_watch())):
            return None
        self._running.append(self._requests.popleft())
        self._request_was_last = True
        return self._running[-1]

    def _take_watch(self, job: Job | None) -> Job | None:
        if job is None:
            return None
        assert job.watch is not None
        del self._watches[job.watch]
        self._running.append(job)
        self._level_s[job.priority] = max(self._level_s[job.priority], self._served_s[job.camera])
        self._request_was_last = False
        return job

    def _next_watch(self) -> Job | None:
        if not self._watches:
            return None
        waiting = self._watches.values()  # the longest waiting first; min takes the first of equals
        return min(waiting, key=lambda job: (job.priority, self._served_s[job.camera]))


def _alarming(job: Job | None) -> bool:
    return job is not None and job.priority == Priority.HIGH
