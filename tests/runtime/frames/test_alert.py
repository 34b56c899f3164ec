from typing import Any

import pytest
from moedge_runtime.frames.alert import AlertRule, AlertTracker


def states(rule: AlertRule, values: list[Any]) -> str:
    """The state after each value: + on, - off, ? unknown."""
    tracker, said = AlertTracker(rule), ""
    for value in values:
        before = tracker.state
        assert tracker.note(value) is (tracker.state != before)
        said += {"on": "+", "off": "-", "unknown": "?"}[tracker.state]
    return said


def people(*counts: Any) -> list[Any]:
    return [{"people": count} for count in counts]


def test_a_value_raises_and_another_ends_it() -> None:
    rule = AlertRule(("who",), equals="visitor", compares_equal=True)
    assert states(rule, [{"who": who} for who in ("nobody", "visitor", "visitor", "nobody")]) == "-++-"


def test_two_limits_keep_a_number_in_between_from_flickering() -> None:
    rule = AlertRule(("people",), above=4, clear=2)
    assert states(rule, people(3, 4, 5, 4, 3, 2, 3, 5)) == "--+++--+"
    rule = AlertRule(("people",), below=1, clear=3)
    assert states(rule, people(2, 1, 0, 1, 2, 3, 2)) == "--+++--"


def test_answers_in_a_row_are_needed() -> None:
    rule = AlertRule(("people",), above=0, raise_after=3, clear_after=2)
    assert states(rule, people(1, 1, 0, 1, 1, 1, 0, 1, 0, 0)) == "??---++++-"


def test_an_answer_that_does_not_say_changes_nothing() -> None:
    rule = AlertRule(("people",), above=0, raise_after=2)
    assert states(rule, [{"people": 1}, None, {}, {"people": "many"}, {"people": True}, {"people": 1}]) == "?????+"
    inside = AlertRule(("door", "open"), equals=True, compares_equal=True)
    assert states(inside, [{"door": {"open": True}}, {"door": None}, [], {"door": {"open": False}}]) == "+++-"


@pytest.mark.parametrize(
    ("equals", "value", "alarming"), [(1, 1.0, True), (1, True, False), (True, 1, False), ("1", 1, False), (2, 2, True)]
)
def test_a_number_is_no_boolean(equals: Any, value: Any, alarming: bool) -> None:
    rule = AlertRule(("x",), equals=equals, compares_equal=True)
    assert rule.judge({"x": value}, raised=False) is alarming
