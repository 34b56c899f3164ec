import json

import numpy as np
from moedge_panel.questions import KIND_WEIGHTS, KINDS, all_questions, final_answer, full_answer
from moedge_panel.state import PanelState, sample_state

STATE = PanelState(1234, ("blue", "red", "green"), ("red", "blue"), 70)


def answers(state: PanelState) -> dict[str, str]:
    return {q.question: q.answer for q in all_questions(state)}


def test_answers_say_what_the_panel_shows() -> None:
    got = answers(STATE)
    assert got["What is the reading?"] == "1234"
    assert got["Which lamps are lit?"] == "red, blue"
    assert got["Is the green lamp lit?"] == "no"
    assert got["Is the amber lamp lit?"] == "no"
    assert got["How many lamps are lit?"] == "2"
    assert got["Is the gauge above half?"] == "yes"
    assert got["Is the gauge below half?"] == "no"
    assert got["Report the panel as JSON."] == '{"reading": 1234, "lamps": ["red", "blue"], "gauge": "high"}'


def test_a_dark_panel_has_no_lamps() -> None:
    got = answers(PanelState(10, ("red", "green"), (), 5))
    assert got["Which lamps are lit?"] == "none"
    assert got["Which lamps are lit? Answer as JSON."] == '{"lamps": []}'


def test_json_answers_parse() -> None:
    for question in all_questions(STATE):
        if question.kind.startswith("json"):
            assert isinstance(json.loads(question.answer), dict)


def test_thinking_is_cut_from_the_answer() -> None:
    text = full_answer(STATE, "1234", thinking=True)
    assert text == "display 1234, lamps red blue, gauge high\n</think>\n\n1234"
    assert final_answer(text) == "1234"


def test_every_kind_has_a_weight_and_weights_sum_to_one() -> None:
    assert set(KINDS) == set(KIND_WEIGHTS)
    assert abs(sum(KIND_WEIGHTS.values()) - 1) < 1e-9


def test_lit_lamps_are_fitted_and_in_the_fixed_order() -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        state = sample_state(rng)
        assert set(state.lit) <= set(state.fitted)
        assert list(state.lit) == [c for c in ("red", "amber", "green", "blue") if c in state.lit]
        assert 10 <= state.reading <= 9999
        assert not 40 < state.gauge_percent < 60
