from datetime import datetime, timezone

import numpy as np
import pytest
from moedge_runtime.camera import Frame
from moedge_runtime.daemon.answerer import Question
from moedge_runtime.daemon.schedule import MAX_WAITING_REQUESTS, Agenda, Job
from moedge_runtime.errors import RequestError


def job(watch: str | None, index: int = 0, camera: str = "c") -> Job:
    frame = Frame(np.zeros((1, 1, 3), np.uint8), datetime.now(timezone.utc), 0.0, index, 0.0)
    return Job(camera, watch, Question("?"), frame, False, lambda job, result: None)


def order(agenda: Agenda) -> list[tuple[str | None, int]]:
    taken = []
    while (next_job := agenda.next()) is not None:
        taken.append((next_job.watch, next_job.frame.index))
        agenda.finished(1.0)
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
        agenda.finished(1.0)
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
    assert agenda.next() is not None
    assert not agenda.busy_with("c")
    agenda.finished(1.0)
    agenda.add_watches([job("a")])
    assert agenda.busy_with("c")
    assert not agenda.busy_with("other")
    agenda.next()
    assert agenda.busy_with("c")
    agenda.finished(1.0)
    assert not agenda.busy_with()
