"""One slow model and many cameras in simulated time: counters, fairness, priorities, freshness."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moedge_runtime.daemon.answerer import Question
from moedge_runtime.daemon.schedule import Job, Priority
from moedge_runtime.frames.gate import WatchRule
from runtime.daemon.simulation import START, Frame, Plan, Simulation

plans = st.builds(
    Plan,
    period_s=st.floats(0.05, 5.0),
    answer_s=st.floats(0.05, 20.0),
    rules=st.lists(st.builds(WatchRule, interval_s=st.sampled_from([0.0, 0.5, 3.0])), max_size=3),
    freshness_s=st.none() | st.floats(0.1, 30.0),
    priority=st.sampled_from(list(Priority)),
    fails=st.sampled_from([0, 0, 1, 3]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(plans, min_size=1, max_size=5), st.floats(5.0, 90.0), st.integers(1, 4))
def test_frames_seen_are_skipped_answered_dropped_or_waiting_at_any_moment(
    monkeypatch: pytest.MonkeyPatch, cameras: list[Plan], until_s: float, together: int
) -> None:
    with monkeypatch.context() as patch:
        simulation = Simulation(cameras, patch, together)
        simulation.run(until_s, simulation.check)
        running = simulation._running
        assert simulation.jobs.close() == []
        for job in running:
            job.drop(job, "stopping")
        simulation.check()
        assert all(counts.waiting == 0 for counts in simulation.counts())
        for statuses in simulation.events.told.values():
            assert statuses[0] == "pending" and len(statuses) == 2, "each event ends once"


def saturated(*answers_s: float, **keys: object) -> list[Plan]:
    return [Plan(0.5, answer_s, **keys) for answer_s in answers_s]  # type: ignore[arg-type]


def test_the_model_s_time_is_shared_equally_however_long_the_answers_are(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation(saturated(1.0, 3.0, 10.0), monkeypatch)
    fair: list[bool] = []

    def check() -> None:
        fair.append(max(simulation.served_s) - min(simulation.served_s) <= 10.0 + 3.0)

    simulation.run(3000.0, check)
    assert all(fair), "never further apart than the two longest answers"
    assert min(simulation.served_s) > 980
    counts = [counts.answered for counts in simulation.counts()]
    assert counts[0] > 2.5 * counts[1] > 6 * counts[2], "hence more answers for the quick ones"


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(1.0, 15.0), min_size=2, max_size=6))
def test_served_times_stay_within_two_answers_of_each_other(
    monkeypatch: pytest.MonkeyPatch, answers_s: list[float]
) -> None:
    with monkeypatch.context() as patch:
        simulation = Simulation([Plan(0.5, answer_s) for answer_s in answers_s], patch)

        def check() -> None:
            assert max(simulation.served_s) - min(simulation.served_s) <= 2 * max(answers_s) + 1e-6

        simulation.run(150.0, check)


@pytest.mark.parametrize("together", [1, 2, 3])
def test_a_camera_with_three_watches_gets_no_more_than_one_with_one(
    monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    cameras = [Plan(0.5, 2.0, rules=(WatchRule(0.0),) * 3), Plan(0.5, 2.0)]
    simulation = Simulation(cameras, monkeypatch, together)
    simulation.run(500.0)
    assert abs(simulation.served_s[0] - simulation.served_s[1]) <= 4.0
    assert (sum(simulation.begun.values()) - simulation.begun[1] > 50) == (together > 1)


@pytest.mark.parametrize("answers_s", [(1.0, 3.0, 10.0, 2.0), (2.0, 2.0, 2.0, 2.0)])
def test_sharing_a_prefill_changes_nothing_of_who_gets_how_much(
    monkeypatch: pytest.MonkeyPatch, answers_s: tuple[float, ...]
) -> None:
    simulation = Simulation(saturated(*answers_s), monkeypatch, together=3)

    def check() -> None:
        assert max(simulation.served_s) - min(simulation.served_s) <= 2 * max(answers_s) + 3.0

    simulation.run(3000.0, check)
    assert min(simulation.served_s) > 700
    assert simulation.begun[3] > (400 if len(set(answers_s)) == 1 else 50)


def test_alerts_share_with_nobody_and_go_before_those_that_do(monkeypatch: pytest.MonkeyPatch) -> None:
    alerts = Plan(1.0, 0.5, rules=(WatchRule(20.0),), priority=Priority.HIGH)
    simulation = Simulation([alerts, *saturated(3.0, 3.0, 3.0)], monkeypatch, together=3)
    simulation.run(600.0)
    delays_s = [at_s % 20.0 for at_s, camera in simulation.answers if camera == "0"]
    assert len(delays_s) >= 29
    assert max(delays_s) <= 1.0 + 3.0 + 0.5, "it waits for the answer under way, not for its company"
    assert simulation.begun[3] > 20


def test_a_camera_that_was_quiet_gets_no_credit_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = Plan(0.5, 2.0, rules=(WatchRule(500.0),))
    simulation = Simulation([Plan(0.5, 2.0), Plan(0.5, 2.0), quiet], monkeypatch)
    simulation.run(1600.0)
    last = simulation.answers[-40:]
    assert {camera for _, camera in last} >= {"0", "1"}, "no burst of the third"
    assert simulation.counts()[2].answered == 4


def test_what_a_higher_class_was_served_is_no_debt_of_a_lower_one(monkeypatch: pytest.MonkeyPatch) -> None:
    alerts = Plan(1.0, 0.8, priority=Priority.HIGH)
    simulation = Simulation([alerts, Plan(0.05, 0.1), Plan(0.5, 1.0, rules=(WatchRule(200.0),))], monkeypatch)
    simulation.run(1010.0)
    delays_s = [at_s % 200.0 for at_s, camera in simulation.answers if camera == "2"]
    assert len(delays_s) == 6
    assert max(delays_s) < 5.0, "the third does not wait until the second has been served as long as the first"


def test_higher_classes_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    cameras = [
        Plan(1.0, 2.0, priority=Priority.LOW),
        Plan(1.0, 2.0),
        Plan(1.0, 2.0, rules=(WatchRule(10.0),), priority=Priority.HIGH),
    ]
    simulation = Simulation(cameras, monkeypatch)
    simulation.run(300.0)
    low, normal, high = simulation.counts()
    assert high.dropped == 0 and high.answered >= 29
    assert low.answered <= 1, "it gets what the others leave, here nothing"
    assert normal.answered > 100


def test_what_waits_for_longer_than_its_freshness_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Plan(100.0, 30.0, priority=Priority.HIGH)
    simulation = Simulation([slow, Plan(1.0, 1.0, rules=(WatchRule(40.0),), freshness_s=5.0)], monkeypatch)
    simulation.run(1000.0, simulation.check)
    assert simulation.events.reasons["stale"] > 0
    assert simulation.counts()[1].reasons["stale"] == simulation.events.reasons["stale"]


def test_a_request_goes_first_drops_nothing_and_does_not_starve_alerts(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation([Plan(1.0, 1.0, priority=Priority.HIGH), Plan(1.0, 1.0)], monkeypatch)
    order: list[str] = []
    frame = Frame(np.zeros((1, 1, 3), np.uint8), START, 0.0, 0, 0.0)
    simulation.run(1.0)  # the high watch runs, the normal one waits
    simulation.jobs.done(simulation._running[0], 1.0)
    simulation._frame(0)
    waiting = simulation.counts()
    for number in range(4):
        simulation.jobs.ask(Job("0", None, Question(f"request {number}"), frame, False, lambda job, result: None))
    assert simulation.counts() == waiting, "nothing was dropped for them"
    while not simulation.jobs.idle:
        job = simulation.jobs.take()
        assert job is not None
        order.append(job.question.text if job.watch is None else job.watch)
        simulation.jobs.done(job, 0.0)
    assert order == ["request 0", "0.0", "request 1", "request 2", "request 3", "1.0"]
