"""The thread that runs the model: what shares a prefill, what goes in between, and what may go wrong there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone

import numpy as np
import pytest
from moedge_runtime.camera import Frame
from moedge_runtime.daemon.answerer import Question, Reply, ShouldStop
from moedge_runtime.daemon.job_queue import JobQueue
from moedge_runtime.daemon.schedule import DropReason, Job, Priority, Result
from moedge_runtime.daemon.worker import Worker
from runtime.daemon.fakes import FakeAnswerer
from runtime.daemon.pages import wait_until


class Desk:
    """A worker and what it delivers."""

    def __init__(self, answerer: FakeAnswerer) -> None:
        self.answerer, self.jobs = answerer, JobQueue()
        self.ended: list[tuple[str, str]] = []
        self.pauses: list[float] = []
        self.jobs.pause_s = self._pause_s
        self.worker = Worker(self.jobs, answerer)

    def _pause_s(self, spent_s: float) -> float:
        self.pauses.append(spent_s)
        return 0.0

    def job(self, question: str, watch: str | None = None, priority: Priority = Priority.NORMAL) -> Job:
        frame = Frame(np.zeros((1, 1, 3), np.uint8), datetime.now(timezone.utc), 0.0, 0, 0.0)
        return Job(watch or "c", watch, Question(question), frame, False, self._deliver, self._drop, priority=priority)

    def watches(self, *questions: str) -> None:
        for question in questions:
            self.jobs.submit([self.job(question, question)], wait=False)

    def _deliver(self, job: Job, result: Result) -> None:
        outcome = result.outcome
        self.ended.append((job.question.text, "answered" if isinstance(outcome, Reply) else outcome.key))

    def _drop(self, job: Job, reason: DropReason) -> None:
        self.ended.append((job.question.text, reason))


@pytest.fixture
def desk() -> Iterator[Desk]:
    answerer = FakeAnswerer()
    answerer.together = 3
    desk = Desk(answerer)
    yield desk
    answerer.gate.set()
    desk.jobs.close()
    assert desk.worker.stop(finish_within_s=10, give_up_after_s=10)


def test_what_waits_already_shares_a_prefill_and_nothing_waits_for_company(desk: Desk) -> None:
    desk.watches("GATE 0")
    desk.worker.start()
    assert desk.answerer.held.wait(10)
    desk.watches("a", "b", "c")
    desk.answerer.gate.set()
    wait_until(lambda: len(desk.ended) == 4)
    assert desk.answerer.begun == [["a", "b", "c"]], "the first went at once"
    assert all(status == "answered" for _, status in desk.ended)


def test_answers_come_one_after_the_other_in_the_order_of_their_turn(desk: Desk) -> None:
    desk.watches("a", "b", "c", "d")
    desk.worker.start()
    wait_until(lambda: len(desk.ended) == 4)
    assert [question for question, _ in desk.ended] == ["a", "b", "c", "d"]
    assert desk.answerer.begun == [["a", "b", "c"]]
    assert len(desk.pauses) == 2, "the model rests after all of them"


def test_a_request_and_an_alert_are_answered_between_two_that_share_a_prefill(desk: Desk) -> None:
    desk.watches("GATE 0", "b", "c")
    desk.worker.start()
    assert desk.answerer.held.wait(10)
    desk.jobs.ask(desk.job("request"))
    desk.jobs.submit([desk.job("alert", "alert", Priority.HIGH)], wait=False)
    desk.jobs.submit([desk.job("normal", "normal")], wait=False)
    desk.answerer.gate.set()
    wait_until(lambda: len(desk.ended) == 6)
    assert [question for question, _ in desk.ended] == ["GATE 0", "request", "alert", "b", "c", "normal"]
    assert desk.answerer.begun == [["GATE 0", "b", "c"]]


@pytest.mark.parametrize("word", ["FAIL", "CRASH", "PANIC"])
def test_one_that_fails_takes_no_other_one_with_it(desk: Desk, word: str) -> None:
    desk.watches("a", f"{word} b", "c")
    desk.worker.start()
    wait_until(lambda: len(desk.ended) == 3)
    key = "request.fake" if word == "FAIL" else "internal"
    assert desk.ended == [("a", "answered"), (f"{word} b", key), ("c", "answered")]
    assert desk.answerer.begun == [["a", f"{word} b", "c"]]


def test_where_beginning_together_fails_each_goes_alone() -> None:
    class Together(FakeAnswerer):
        together = 3

        def begin(
            self, questions: Sequence[tuple[Question, np.ndarray]], should_stop: ShouldStop, enough: Callable[[], bool]
        ) -> list[Callable[[ShouldStop], Reply]]:
            raise MemoryError

    desk = Desk(Together())
    desk.watches("a", "b")
    desk.worker.start()
    wait_until(lambda: len(desk.ended) == 2)
    assert desk.ended == [("a", "answered"), ("b", "answered")]
    desk.jobs.close()
    assert desk.worker.stop(finish_within_s=10, give_up_after_s=10)


def test_the_end_of_the_daemon_cancels_all_of_them(desk: Desk) -> None:
    desk.watches("HANG a", "HANG b", "c", "d")
    desk.worker.start()
    assert desk.answerer.held.wait(10)
    desk.jobs.close()
    assert desk.worker.stop(finish_within_s=0, give_up_after_s=10)
    assert sorted(desk.ended)[:2] == [("HANG a", "stopping"), ("HANG b", "stopping")]
    assert desk.jobs.idle


def test_a_reload_gets_the_answers_of_all_that_were_begun(desk: Desk) -> None:
    desk.watches("GATE a", "b", "c", "d")
    desk.worker.start()
    assert desk.answerer.held.wait(10)
    desk.jobs.close()
    assert desk.ended == [("d", "stopping")], "it was not begun"
    desk.answerer.gate.set()
    assert desk.worker.join(10)
    assert desk.ended[1:] == [("GATE a", "answered"), ("b", "answered"), ("c", "answered")]


def test_signs_of_life_count_while_they_begin_together_and_a_request_ends_it() -> None:
    silences: list[float] = []
    crowded: list[bool] = []

    class Silent(FakeAnswerer):
        together = 2

        def begin(
            self, questions: Sequence[tuple[Question, np.ndarray]], should_stop: ShouldStop, enough: Callable[[], bool]
        ) -> list[Callable[[ShouldStop], Reply]]:
            self.held.set()
            assert self.gate.wait(10)
            should_stop()
            silences.append(desk.worker.silent_s())
            crowded.append(enough())
            desk.jobs.ask(desk.job("request"))
            crowded.append(enough())
            return super().begin(questions, should_stop, enough)

    answerer = Silent()
    desk = Desk(answerer)
    desk.watches("a", "b")
    desk.worker.start()
    assert answerer.held.wait(10)
    wait_until(lambda: desk.worker.silent_s() > 0.05)
    answerer.gate.set()
    wait_until(lambda: len(desk.ended) == 3)
    assert silences[0] < 0.05
    assert crowded == [False, True], "no more pictures are encoded once a request waits"
    assert desk.worker.silent_s() == 0
    desk.jobs.close()
    assert desk.worker.stop(finish_within_s=10, give_up_after_s=10)
