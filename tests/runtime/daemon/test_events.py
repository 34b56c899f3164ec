from datetime import datetime, timezone

import numpy as np
import pytest
from moedge_runtime.camera import Frame
from moedge_runtime.daemon.answerer import Question, Reply
from moedge_runtime.daemon.events import alert_payload, answered_event, dropped_event, pending_event
from moedge_runtime.daemon.schedule import DropReason, Job, Result
from moedge_runtime.daemon.watcher import AlertNote
from moedge_runtime.errors import MoedgeError, RequestError
from moedge_runtime.mqtt.payloads import EventPayload
from runtime.daemon.fakes import reply

NOW = datetime(2026, 11, 26, tzinfo=timezone.utc)


def job(freshness_s: float | None = None) -> Job:
    frame = Frame(np.zeros((1, 1, 3), np.uint8), NOW, 10.0, 7, 0.7)
    question = Question("?")
    return Job(
        "c", "w", question, frame, False, lambda job, result: None,
        identifier="x", trigger="motion", zones=("door",), freshness_s=freshness_s,
    )  # fmt: skip


def ended(outcome: Reply | MoedgeError, took_s: float, freshness_s: float | None = None) -> EventPayload:
    result = Result(outcome, 10.5, 10.0 + took_s)
    return answered_event(job(freshness_s), result, None, at=NOW, synced=True)


def test_a_pending_event_says_what_is_looked_at_and_why() -> None:
    event = pending_event(job(), at=NOW, synced=False)
    assert (event.id, event.type, event.status) == ("x", "new", "pending")
    assert (event.trigger, event.zones, event.frame.index, event.clock_synced) == ("motion", ["door"], 7, False)
    assert event.text is event.data is event.reason is event.alert is None


@pytest.mark.parametrize(
    ("took_s", "freshness_s", "status"), [(5, None, "answered"), (5, 5, "answered"), (6, 5, "late")]
)
def test_an_answer_is_late_after_its_freshness(took_s: float, freshness_s: float | None, status: str) -> None:
    event = ended(reply("yes", "stop", {"a": 1}), took_s, freshness_s)
    assert (event.type, event.status, event.text, event.data) == ("end", status, "yes", {"a": 1})
    if status == "late":
        assert event.reason is not None
        assert event.reason.key == "event.late"
        assert event.reason.message == "The answer came 6.0 s after the frame; freshness is 5 s."
    else:
        assert event.reason is None


def test_a_failure_has_the_model_s_reason_however_late_it_is() -> None:
    event = ended(RequestError("No.", key="request.x"), 60, 5)
    assert (event.status, event.text) == ("failed", None)
    assert event.reason is not None
    assert (event.reason.key, event.reason.message) == ("request.x", "No.")


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("replaced", "A newer frame took its place before the model was free."),
        ("stale", "The model was not free within freshness=5 s."),
        ("stopping", "The daemon ends."),
    ],
)
def test_what_is_dropped_says_why(reason: DropReason, text: str) -> None:
    event = dropped_event(job(5), reason, at=NOW, synced=None)
    assert (event.type, event.status) == ("end", "dropped")
    assert event.reason is not None
    assert event.reason.key == f"event.{reason}"
    assert event.reason.message.startswith(text)


def test_an_alert_names_the_answer_that_has_changed_it() -> None:
    note = AlertNote("on", True)
    event = answered_event(job(), Result(reply("1", "stop", {"n": 1}), 10.5, 11.0), note, at=NOW, synced=True)
    assert event.alert is not None
    assert (event.alert.state, event.alert.changed) == ("on", True)
    alert = alert_payload(event)
    assert (alert.state, alert.id, alert.data, alert.since) == ("on", "x", {"n": 1}, NOW)
