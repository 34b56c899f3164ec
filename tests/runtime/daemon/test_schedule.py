from datetime import datetime, timezone

import numpy as np
import pytest
from moedge_runtime.camera import Frame
from moedge_runtime.daemon.answerer import Question
from moedge_runtime.daemon.schedule import MAX_WAITING_REQUESTS, Agenda, Job, Priority
from moedge_runtime.errors import RequestError


def job(watch: str | None, index: int = 0, camera: str = "c", priority: Priority = Priority.NORMAL) -> Job:
    frame = Frame(np.zeros((1, 1, 3), np.uint8), datetime.now(timezone.utc), 0.0, index, 0.0)
    return Job(camera, watch, Question("?"), frame, False, lambda job, result: None, priority=priority)


def order(agenda: Agenda) -> list[tuple[str | None, int]]:
    taken = []
    while (next_job := agenda.next()) is not None:
        taken.append((next_job.watch, next_job.frame.index))
        agenda.finished(next_job, 1.0)
    return taken


def test_requests_go_first_and_watches_by_waiting_time() -> None:
    agenda = Agenda()
    agenda.add_watches([job("a"), job("b")])
    agenda.add_request(job(None, 1))
    agenda.add_request(job(None, 2))
    assert order(agenda) == [(None, 1), (None, 2), ("a", 0), ("b", 0)]


def test_a_newer_frame_takes_the_place_of_the_waiting_one() -> None:
    agenda = Agenda()
    agenda.add_watches([job("a", 1), job("b", 1)])
    replaced = agenda.add_watches([job("a", 2)])
    assert [(old.watch, old.frame.index) for old in replaced] == [("a", 1)]
    assert order(agenda) == [("a", 2), ("b", 1)], "a busy watch does not lose its turn to a quieter one"


def test_one_slow_model_serves_all_watches_in_turn() -> None:
    agenda, served = Agenda(), []
    for index in range(30):
        agenda.add_watches([job(watch, index) for watch in ("a", "b", "c")])
        taken = agenda.next()
        assert taken is not None
        served.append(taken.watch)
        agenda.finished(taken, 1.0)
    assert served == ["a", "b", "c"] * 10


def test_too_many_requests_are_refused() -> None:
    agenda = Agenda()
    for _ in range(MAX_WAITING_REQUESTS):
        agenda.add_request(job(None))
    with pytest.raises(RequestError) as caught:
        agenda.add_request(job(None))
    assert str(caught.value) == "8 requests are waiting for the model already. Ask again later."


def test_a_camera_is_busy_while_its_watch_waits_or_runs_but_not_for_a_request() -> None:
    agenda = Agenda()
    agenda.add_request(job(None))
    assert not agenda.busy_with("c")
    assert agenda.busy_with()
    asked = agenda.next()
    assert asked is not None
    assert not agenda.busy_with("c")
    agenda.finished(asked, 1.0)
    agenda.add_watches([job("a")])
    assert agenda.busy_with("c")
    assert not agenda.busy_with("other")
    watching = agenda.next()
    assert watching is not None
    assert agenda.busy_with("c")
    agenda.finished(watching, 1.0)
    assert not agenda.busy_with()


def names(jobs: list[Job]) -> list[str | None]:
    return [job.watch for job in jobs]


def test_company_is_what_waits_in_the_order_of_its_turn() -> None:
    agenda = Agenda()
    cameras = {"a": "one", "b": "two", "c": "two", "d": "three"}
    for cost_s in (1.0, 0.0):
        agenda.add_watches([job(watch, camera=camera) for watch, camera in cameras.items()])
        first = agenda.next()
        assert first is not None and first.watch == "a"
        assert names(agenda.company(0)) == []
        if cost_s:
            for served in (first, *agenda.company(3)):
                agenda.finished(served, cost_s / 2 if served.camera == "two" else cost_s)
    assert names(agenda.company(9)) == ["b", "d", "c"], "the second watch of a camera comes after the first of others"
    assert agenda.busy_with("two") and not agenda.waiting()


def test_no_camera_gets_ahead_by_sharing() -> None:
    agenda, served = Agenda(), {"one": 0.0, "two": 0.0}
    for _ in range(20):
        agenda.add_watches([job(watch, camera="one") for watch in ("a", "b", "c")])
        agenda.add_watches([job("d", camera="two")])
        first = agenda.next()
        assert first is not None
        for each in (first, *agenda.company(2)):
            agenda.finished(each, 2.0)
            served[each.camera] += 2.0
        assert abs(served["one"] - served["two"]) <= 4.0


def test_requests_and_high_watches_neither_get_company_nor_are_it() -> None:
    agenda = Agenda()
    agenda.add_watches([job("a"), job("low", priority=Priority.LOW), job("alert", priority=Priority.HIGH)])
    agenda.add_request(job(None))
    for wanted in (None, "alert", "a", "low"):
        taken = agenda.next()
        assert taken is not None and taken.watch == wanted
        assert agenda.company(3) == [], "a watch is not slowed down by one of a lower class"
        agenda.finished(taken, 1.0)


def test_what_is_urgent_goes_before_what_shares_a_prefill() -> None:
    agenda = Agenda()
    agenda.add_watches([job("a"), job("b", camera="other"), job("c", camera="other")])
    assert agenda.next() is not None and len(agenda.company(1)) == 1
    assert agenda.urgent() is None, "a watch of the same class waits for its turn"
    assert not agenda.urgent_waits
    agenda.add_request(job(None, 1))
    agenda.add_request(job(None, 2))
    agenda.add_watches([job("alert", priority=Priority.HIGH)])
    assert agenda.urgent_waits
    urgent = []
    while (taken := agenda.urgent()) is not None:
        urgent.append((taken.watch, taken.frame.index))
        agenda.finished(taken, 1.0)
    assert urgent == [(None, 1), ("alert", 0), (None, 2)]
    assert agenda.running
