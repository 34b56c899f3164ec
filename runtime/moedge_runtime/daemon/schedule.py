"""Which question is due, and which waiting question is answered next. Pure: no threads, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moedge_runtime.camera import Frame
from moedge_runtime.daemon.answerer import Question, Reply
from moedge_runtime.errors import MoedgeError, RequestError

MAX_WAITING_REQUESTS = 8
"""Requests that wait for the model; one more is told that the device is busy."""

_ROUNDING_S = 1e-6
"""Timestamps of frames are integers in a time base; this much is rounding."""


@dataclass(frozen=True, eq=False)
class Job:
    """One question about one frame.

    Attributes:
        camera: The camera's name.
        watch: The watch's name; None for a request.
        question: What to ask.
        frame: The picture.
        publish_reasoning: Whether the answer shows the reasoning.
        deliver: Called on the worker's thread with the result, once, unless the job is skipped or cancelled.
    """

    camera: str
    watch: str | None
    question: Question
    frame: Frame
    publish_reasoning: bool
    deliver: Callable[[Job, Result], None]


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


class Interval:
    """Says for each frame whether its watch is due, on a grid from the first frame on: a late frame shifts nothing."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._start_s: float | None = None
        self._next_s = float("-inf")

    def due(self, pts_s: float) -> bool:
        """Whether the frame at `pts_s`, not before the last one, is to be asked about."""
        if self._interval_s == 0:
            return True
        if self._start_s is None:
            self._start_s = pts_s
        if pts_s < self._next_s - _ROUNDING_S:
            return False
        steps = int((pts_s - self._start_s + _ROUNDING_S) / self._interval_s)
        self._next_s = self._start_s + (steps + 1) * self._interval_s
        return True


class Agenda:
    """The jobs that wait. Requests come first, in order; then watches, the longest waiting first.

    A watch waits with one frame at most: a newer one takes its place in the queue. Nothing cancels the running job.
    """

    def __init__(self) -> None:
        self._requests: deque[Job] = deque()
        self._watches: dict[str, Job] = {}
        self._running: Job | None = None

    def add_watches(self, jobs: Sequence[Job]) -> list[Job]:
        """Add jobs of watches; returns those that they replace."""
        replaced = []
        for job in jobs:
            assert job.watch is not None
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
        if self._requests:
            self._running = self._requests.popleft()
        elif self._watches:
            self._running = self._watches.pop(next(iter(self._watches)))
        else:
            return None
        return self._running

    def finished(self) -> None:
        """The job that `next` gave is done."""
        self._running = None

    def clear(self) -> list[Job]:
        """Drop all waiting jobs; returns those of requests."""
        requests = list(self._requests)
        self._requests.clear()
        self._watches.clear()
        return requests

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
