"""What watches ask and what became of it as payloads. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from moedge_runtime.daemon.answerer import Reply
from moedge_runtime.daemon.answers import error_info
from moedge_runtime.daemon.schedule import DropReason, Job, Result
from moedge_runtime.daemon.watcher import AlertNote
from moedge_runtime.errors import MoedgeError
from moedge_runtime.frames.motion import Moving
from moedge_runtime.mqtt.payloads import (
    AlertPayload,
    AnswerFrame,
    ErrorInfo,
    EventAlert,
    EventPayload,
    EventStatus,
    MotionPayload,
)

_WHY = {
    "replaced": "A newer frame took its place before the model was free. Ask less often, or about fewer things.",
    "stale": "The model was not free within freshness={freshness_s:g} s. Ask less often, or allow older frames.",
    "stopping": "The daemon ends.",
}


def pending_event(job: Job, *, at: datetime, synced: bool | None) -> EventPayload:
    """`job` waits for the model."""
    return _event(job, "pending", at=at, synced=synced)


def dropped_event(job: Job, reason: DropReason, *, at: datetime, synced: bool | None) -> EventPayload:
    """`job` came to nothing."""
    message = _WHY[reason].format(freshness_s=job.freshness_s or 0.0)
    return _event(job, "dropped", at=at, synced=synced, reason=ErrorInfo(key=f"event.{reason}", message=message))


def answered_event(
    job: Job, result: Result, alert: AlertNote | None, *, at: datetime, synced: bool | None
) -> EventPayload:
    """`job` was answered, perhaps late, or has failed."""
    noted = EventAlert.model_validate({"state": alert.state, "changed": alert.changed}) if alert else None
    if isinstance(result.outcome, MoedgeError):
        return _event(job, "failed", at=at, synced=synced, reason=error_info(result.outcome), alert=noted)
    reply: Reply = result.outcome
    took_s = result.ended_s - job.frame.monotonic_s
    late = job.freshness_s is not None and took_s > job.freshness_s
    reason = None
    if late:
        message = f"The answer came {took_s:.1f} s after the frame; freshness is {job.freshness_s:g} s."
        reason = ErrorInfo(key="event.late", message=message)
    status: EventStatus = "late" if late else "answered"
    event = _event(job, status, at=at, synced=synced, reason=reason, alert=noted)
    return event.model_copy(update={"text": reply.text, "data": reply.data})


def alert_payload(event: EventPayload) -> AlertPayload:
    """The alert that the answer of `event` has changed."""
    assert event.alert is not None
    return AlertPayload(
        state=event.alert.state, since=event.at, clock_synced=event.clock_synced, id=event.id, data=event.data
    )


def motion_payload(moving: Moving | None, *, at: datetime, synced: bool | None) -> MotionPayload:
    """Whether something moves; None while that is not known."""
    state: Literal["on", "off", "unknown"] = "unknown"
    if moving is not None:
        state = "on" if moving.on else "off"
    zones = sorted(moving.zones) if moving else []
    return MotionPayload(state=state, zones=zones, at=at, clock_synced=synced)


def _event(
    job: Job,
    status: EventStatus,
    *,
    at: datetime,
    synced: bool | None,
    reason: ErrorInfo | None = None,
    alert: EventAlert | None = None,
) -> EventPayload:
    assert job.watch is not None and job.identifier is not None
    return EventPayload(
        id=job.identifier,
        type="new" if status == "pending" else "end",
        status=status,
        reason=reason,
        camera=job.camera,
        watch=job.watch,
        trigger=job.trigger,
        zones=list(job.zones),
        captured_at=job.frame.captured_at,
        at=at,
        clock_synced=synced,
        alert=alert,
        frame=AnswerFrame(index=job.frame.index, pts_s=job.frame.pts_s),
    )
