"""The watches of one camera: gates its frames, makes questions of them, and follows each to its end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np

from moedge_runtime.camera import Frame
from moedge_runtime.daemon.answerer import Question, Reply
from moedge_runtime.daemon.job_queue import JobQueue
from moedge_runtime.daemon.schedule import DropReason, Job, Priority, Result
from moedge_runtime.errors import MoedgeError
from moedge_runtime.frames.alert import AlertTracker
from moedge_runtime.frames.gate import Condition, FrameGate, Verdict, frame_reason
from moedge_runtime.frames.ledger import FrameCounts, FrameLedger
from moedge_runtime.frames.motion import Moving
from moedge_runtime.frames.polygon import WHOLE, Box
from moedge_runtime.mqtt.topics import MOTION, zone_feature

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Watch:
    """A standing question, ready to be asked.

    Attributes:
        name: The watch's name.
        question: What to ask.
        publish_reasoning: Whether the answers show the reasoning.
        view: The part of the picture that the model gets.
        freshness_s: Longest time from the frame to the model, and to an answer that is not late; None for no limit.
        priority: Its class.
        alert: What its answers raise; None for no alert.
    """

    name: str
    question: Question
    publish_reasoning: bool = False
    view: Box = WHOLE
    freshness_s: float | None = None
    priority: Priority = Priority.NORMAL
    alert: AlertTracker | None = None


@dataclass(frozen=True)
class AlertNote:
    """The alert of a watch after an answer, and whether that answer has changed it."""

    state: str
    changed: bool


class Announcer(Protocol):
    """What tells the world; called from any thread, never blocks."""

    def pending(self, job: Job) -> None:
        """A watch asks."""
        ...

    def answered(self, job: Job, result: Result, alert: AlertNote | None) -> None:
        """The model has answered, or failed."""
        ...

    def dropped(self, job: Job, reason: DropReason) -> None:
        """There will be no answer."""
        ...

    def motion(self, camera: str, moving: Moving | None) -> None:
        """Motion began, reached another zone, or is over; None if it is not looked for any more."""
        ...


class Watcher:
    """Takes the frames of one camera; see FrameTaker.

    Args:
        camera: The camera's name.
        watches: Its watches.
        gate: Decides when they ask; its rules are in the order of `watches`.
        jobs: Where questions go.
        announcer: Is told of every question and its end.
        lossless: Wait until the answers to a frame are there before the next one is asked about; else the newest frame
            takes the place of one that waits.
        new_identifier: Makes the identifier of an event.
        clock_synced: Whether the wall clock is set.
    """

    def __init__(
        self,
        camera: str,
        watches: Sequence[Watch],
        gate: FrameGate,
        jobs: JobQueue,
        announcer: Announcer,
        *,
        lossless: bool,
        new_identifier: Callable[[], str],
        clock_synced: Callable[[], bool | None],
    ) -> None:
        self._camera, self._watches, self._gate, self._jobs = camera, watches, gate, jobs
        self._announcer, self._lossless = announcer, lossless
        self._new_identifier, self._clock_synced = new_identifier, clock_synced
        self._ledger = FrameLedger()
        self._moving: Moving | None = None

    def counts(self) -> FrameCounts:
        """What became of the frames so far."""
        return self._ledger.counts()

    def switch(self, feature: str, on: bool) -> None:
        """Let watches wait for motion, or ask by their interval alone (`motion`); let one of them ask, or not, which
        leaves what it has asked before (`watch/<watch>`); look at a zone, or not (`zone/<zone>`, and `look_at` has to
        follow). From any thread.
        """
        name = feature.partition("/")[2]
        if feature == MOTION:
            self._gate.look_for_motion(on)
        elif zone_feature(name) == feature:
            self._gate.enable_zone(name, on)
        else:
            self._gate.enable([watch.name for watch in self._watches].index(name), on)

    def look_at(self, watches: Sequence[Watch]) -> None:
        """Ask with the views and questions of `watches`, the same ones in the same order. From any thread."""
        self._watches = [replace(new, alert=old.alert) for new, old in zip(watches, self._watches, strict=True)]

    def reopened(self) -> None:
        """See FrameTaker."""
        self._gate.reopened()

    def take(self, frame: Frame, condition: Condition | None) -> bool:
        """See FrameTaker."""
        self._jobs.drop_stale()
        if self._lossless and any(watch.alert for watch in self._watches):
            self.drain()  # whether this frame is asked about may depend on the answer to the one before
        verdicts = self._gate.decide(frame, condition, self._clock_synced())
        self._tell_motion()
        reason = frame_reason(verdicts)
        if reason is not None:
            self._ledger.skipped(reason)
            log.debug("Camera '%s': frame %d is skipped: %s.", self._camera, frame.index, reason)
            return True
        asking = [index for index, verdict in enumerate(verdicts) if verdict.trigger]
        ticket = self._ledger.begun(len(asking))
        jobs = [self._job(index, frame, verdicts[index], ticket) for index in asking]
        for job in jobs:
            self._announcer.pending(job)
        return self._jobs.submit(jobs, wait=self._lossless)

    def drain(self) -> None:
        """See FrameTaker."""
        self._jobs.drain(self._camera)

    def _tell_motion(self) -> None:
        moving = self._gate.moving
        if moving != self._moving:
            self._moving = moving
            self._announcer.motion(self._camera, moving)

    def _job(self, index: int, frame: Frame, verdict: Verdict, ticket: int) -> Job:
        watch = self._watches[index]
        assert verdict.trigger is not None
        return Job(
            self._camera,
            watch.name,
            watch.question,
            _seen_through(watch.view, frame),
            watch.publish_reasoning,
            partial(self._answered, index, ticket),
            partial(self._dropped, ticket),
            identifier=self._new_identifier(),
            trigger=verdict.trigger,
            zones=verdict.zones,
            freshness_s=watch.freshness_s,
            priority=watch.priority,
        )

    def _answered(self, index: int, ticket: int, job: Job, result: Result) -> None:
        self._ledger.ended(ticket, "failed" if isinstance(result.outcome, MoedgeError) else None)
        self._announcer.answered(job, result, self._note(index, job, result))

    def _dropped(self, ticket: int, job: Job, reason: DropReason) -> None:
        self._ledger.ended(ticket, reason)
        self._announcer.dropped(job, reason)

    def _note(self, index: int, job: Job, result: Result) -> AlertNote | None:
        alert = self._watches[index].alert
        if alert is None:
            return None
        changed = isinstance(result.outcome, Reply) and alert.note(result.outcome.data)
        if changed and alert.state == "on":
            self._gate.rest(index, job.frame.pts_s)
        return AlertNote(alert.state, changed)


def _seen_through(view: Box, frame: Frame) -> Frame:
    """`frame` with the part of the picture that is in `view`."""
    if view == WHOLE:
        return frame
    rows, columns = view.pixels(*frame.image.shape[:2])
    return replace(frame, image=np.ascontiguousarray(frame.image[rows, columns]))
