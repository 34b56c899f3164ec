"""The agenda shared by the camera readers, the requests and the one thread that runs the model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from moedge_runtime.daemon.schedule import Agenda, DropReason, Job
from moedge_runtime.errors import RequestError


def stopping() -> RequestError:
    """What a request hears that comes too late."""
    return RequestError("The daemon is stopping. Ask again when its status is online.", key="request.stopping")


class JobQueue:
    """An Agenda with waiting. All methods may be called from any thread; those that take jobs and `done` belong to one
    worker.

    Attributes:
        pause_s: How long the model rests after it has worked for so many seconds.
        has_room: Whether more answers can be delivered now; asked by cameras that wait. Call `recheck` when it changes.
    """

    def __init__(self) -> None:
        self.has_room: Callable[[], bool] = lambda: True
        self.pause_s: Callable[[float], float] = lambda spent_s: 0.0
        self._agenda = Agenda()
        self._changed = threading.Condition()
        self._closed = False
        self._spent_s = 0.0
        self._rests_until_s = 0.0

    def submit(self, jobs: Sequence[Job], *, wait: bool) -> bool:
        """Add the jobs of one frame, and drop those that they replace.

        Args:
            jobs: All of one camera.
            wait: Block until the camera's earlier jobs are done, so that none is replaced, and until there is room for
                the answers, so that none is dropped.

        Returns:
            False if the queue is closed; `jobs` are then dropped.
        """
        with self._changed:
            if wait:
                camera = jobs[0].camera
                self._changed.wait_for(lambda: self._closed or (not self._agenda.busy_with(camera) and self.has_room()))
            closed = self._closed
            replaced = [] if closed else self._agenda.add_watches(jobs)
            self._changed.notify_all()
        _drop(jobs if closed else replaced, "stopping" if closed else "replaced")
        return not closed

    def ask(self, job: Job) -> None:
        """Add the job of a request; never blocks.

        Raises:
            RequestError: Too many wait already, or the queue is closed.
        """
        with self._changed:
            if self._closed:
                raise stopping()
            self._agenda.add_request(job)
            self._changed.notify_all()

    def take(self) -> Job | None:
        """Wait for a job; None once closed."""
        while True:
            with self._changed:
                if self._closed:
                    return None
                now_s = time.monotonic()
                stale = self._agenda.take_stale(now_s)
                rest_s = max(0.0, self._rests_until_s - now_s)
                job = None if stale or rest_s else self._agenda.next()
                if job is not None:
                    return job
                if stale:
                    self._changed.notify_all()
                else:
                    self._changed.wait(rest_s or None)
            _drop(stale, "stale")

    def company(self, most: int) -> list[Job]:
        """Up to `most` jobs that wait already and may share the prefill of the one that `take` gave."""
        with self._changed:
            return [] if self._closed else self._agenda.company(most)

    def urgent(self) -> Job | None:
        """A job that goes before those of a shared prefill that are not answered yet; never waits."""
        with self._changed:
            return None if self._closed else self._agenda.urgent()

    def urgent_waits(self) -> bool:
        """Whether `urgent` would give a job."""
        with self._changed:
            return self._agenda.urgent_waits

    def done(self, job: Job, spent_s: float) -> None:
        """A job is done and delivered.

        Args:
            job: What one of the methods above gave.
            spent_s: How long the model was busy with it. It rests once none of the jobs runs.
        """
        with self._changed:
            self._agenda.finished(job, spent_s)
            self._spent_s += spent_s
            if not self._agenda.running:
                self._rests_until_s = time.monotonic() + self.pause_s(self._spent_s)
                self._spent_s = 0.0
            self._changed.notify_all()

    def drop_stale(self) -> None:
        """Drop what has waited for too long."""
        with self._changed:
            stale = self._agenda.take_stale(time.monotonic())
            if stale:
                self._changed.notify_all()
        _drop(stale, "stale")

    def drain(self, camera: str) -> None:
        """Wait until no job of a watch of `camera` waits or runs, or the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._agenda.busy_with(camera))

    def recheck(self) -> None:
        """Let waiting cameras ask `has_room` again."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> list[Job]:
        """Drop what waits and end all waiting; returns the jobs of requests. Running jobs go on."""
        with self._changed:
            self._closed = True
            waiting = self._agenda.clear()
            self._changed.notify_all()
        _drop([job for job in waiting if job.watch is not None], "stopping")
        return [job for job in waiting if job.watch is None]

    @property
    def idle(self) -> bool:
        """Whether no job waits or runs."""
        with self._changed:
            return not self._agenda.busy_with()

    @property
    def requests_waiting(self) -> int:
        """Requests that wait for the model."""
        with self._changed:
            return self._agenda.requests_waiting

    def waiting(self) -> tuple[int, float | None]:
        """How many questions wait for the model, and how old the oldest of their frames is in seconds."""
        with self._changed:
            waiting = self._agenda.waiting()
        oldest_s = min((job.frame.monotonic_s for job in waiting), default=None)
        return len(waiting), None if oldest_s is None else time.monotonic() - oldest_s


def _drop(jobs: Sequence[Job], reason: DropReason) -> None:
    """Outside of the lock: what is told of it may take other locks."""
    for job in jobs:
        job.drop(job, reason)
