"""Cameras, gate, queue and a slow model in simulated time, in one thread: the real classes, without waiting."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from moedge_runtime.camera import Frame
from moedge_runtime.daemon.answerer import Question, Reply
from moedge_runtime.daemon.job_queue import JobQueue
from moedge_runtime.daemon.schedule import Job, Priority, Result
from moedge_runtime.daemon.watcher import AlertNote, Watch, Watcher
from moedge_runtime.errors import MoedgeError, RequestError
from moedge_runtime.frames.gate import FrameGate, WatchRule
from moedge_runtime.frames.ledger import FrameCounts
from moedge_runtime.frames.motion import Moving
from runtime.daemon.fakes import reply

START = datetime(2026, 11, 26, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Plan:
    """One simulated camera.

    Attributes:
        period_s: Between two frames.
        answer_s: What the model takes for an answer.
        rules: Of its watches.
        freshness_s: Of all of them.
        priority: Of all of them.
        fails: Every so many-th answer is an error; 0 for none.
    """

    period_s: float
    answer_s: float
    rules: Sequence[WatchRule] = (WatchRule(0.0),)
    freshness_s: float | None = None
    priority: Priority = Priority.NORMAL
    fails: int = 0


@dataclass
class Events:
    """What was told of each question: its statuses by identifier."""

    told: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    reasons: Counter[str] = field(default_factory=Counter)

    def pending(self, job: Job) -> None:
        self.told[job.identifier or ""].append("pending")

    def answered(self, job: Job, result: Result, alert: AlertNote | None) -> None:
        self.told[job.identifier or ""].append("answered" if isinstance(result.outcome, Reply) else "failed")

    def dropped(self, job: Job, reason: str) -> None:
        self.told[job.identifier or ""].append("dropped")
        self.reasons[reason] += 1

    def motion(self, camera: str, moving: Moving) -> None:
        pass


class Simulation:
    """Runs `plans` with one model, which begins up to `together` questions at once and answers one after the other.

    `now` is the simulated time; `time.monotonic` is made to return it.
    """

    def __init__(self, plans: Sequence[Plan], monkeypatch: pytest.MonkeyPatch, together: int = 1) -> None:
        self.now, self.together = 0.0, together
        self.begun: Counter[int] = Counter()
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        numbers = itertools.count()
        self.jobs, self.events, self.plans = JobQueue(), Events(), plans
        self.served_s = [0.0] * len(plans)
        self.answers: list[tuple[float, str]] = []
        self.watchers = [
            Watcher(
                str(index),
                [
                    Watch(f"{index}.{at}", Question("?"), freshness_s=plan.freshness_s, priority=plan.priority)
                    for at in range(len(plan.rules))
                ],
                FrameGate(plan.rules),
                self.jobs,
                self.events,
                lossless=False,
                new_identifier=lambda: str(next(numbers)),
                clock_synced=lambda: True,
            )
            for index, plan in enumerate(plans)
        ]
        self._frames = [0] * len(plans)
        self._running: list[Job] = []
        self._answering = False

    def run(self, until_s: float, after_each_step: Callable[[], None] = lambda: None) -> None:
        """Let frames come and answers be made until `until_s`."""
        agenda: list[tuple[float, int, int]] = [(plan.period_s, 1, index) for index, plan in enumerate(self.plans)]
        heapq.heapify(agenda)
        while agenda[0][0] <= until_s:
            self.now, kind, camera = heapq.heappop(agenda)
            if kind == 0:
                self._finish(camera)
            else:
                self._frame(camera)
                heapq.heappush(agenda, (self.now + self.plans[camera].period_s, 1, camera))
            if not self._running:
                self._running = self._take()
                self._answering = False
            elif not self._answering and (urgent := self.jobs.urgent()) is not None:
                self._running.insert(0, urgent)
            if self._running and not self._answering:
                self._answering = True
                camera = int(self._running[0].camera)
                heapq.heappush(agenda, (self.now + self.plans[camera].answer_s, 0, camera))
            after_each_step()

    def counts(self) -> list[FrameCounts]:
        return [watcher.counts() for watcher in self.watchers]

    def check(self) -> None:
        """The counters add up for every camera, now."""
        for index, counts in enumerate(self.counts()):
            assert counts.seen == self._frames[index]
            assert counts.seen == counts.skipped + counts.answered + counts.dropped + counts.waiting
            assert sum(counts.reasons.values()) == counts.skipped + counts.dropped
            most = len(self.plans[index].rules) + self.together
            assert counts.waiting <= most, "one frame a watch, and those with the model"

    def _take(self) -> list[Job]:
        self.jobs.drop_stale()
        job = None if self.jobs.idle else self.jobs.take()
        if job is None:
            return []
        jobs = [job, *self.jobs.company(self.together - 1)]
        self.begun[len(jobs)] += 1
        return jobs

    def _frame(self, camera: int) -> None:
        index = self._frames[camera]
        self._frames[camera] += 1
        image = np.zeros((1, 1, 3), np.uint8)
        frame = Frame(image, START + timedelta(seconds=self.now), self.now, index, self.now)
        assert self.watchers[camera].take(frame, None)

    def _finish(self, camera: int) -> None:
        job, plan = self._running.pop(0), self.plans[camera]
        self._answering = False
        self.served_s[camera] += plan.answer_s
        self.answers.append((self.now, job.camera))
        fails = plan.fails and len(self.answers) % plan.fails == 0
        outcome: Reply | MoedgeError = RequestError("No.", key="request.fake") if fails else reply("yes", "stop")
        job.deliver(job, Result(outcome, self.now - plan.answer_s, self.now))
        self.jobs.done(job, plan.answer_s)
