from datetime import datetime, timezone

import numpy as np
from moedge_runtime.camera import Frame
from moedge_runtime.daemon.answerer import Question
from moedge_runtime.daemon.answers import answer_payload, question_id, schema_id
from moedge_runtime.daemon.clock import Ulids, clock_synced, rss_bytes
from moedge_runtime.daemon.schedule import Job, Result
from moedge_runtime.errors import RequestError
from moedge_runtime.mqtt.payloads import AnswerModel, AnswerPayload
from runtime.daemon.fakes import reply

NOW = datetime(2026, 11, 23, tzinfo=timezone.utc)


def payload(result: Result, *, reasoning: bool = False) -> AnswerPayload:
    frame = Frame(np.zeros((1, 1, 3), np.uint8), NOW, 10.0, 7, 0.7)
    return answer_payload(
        Job("c", "w", Question("?", json_schema={"$id": "level"}), frame, reasoning, lambda job, result: None),
        result,
        identifier="x",
        answered_at=NOW,
        synced=True,
        model=AnswerModel(name="n", bundle="b", precision="int4"),
    )


def test_times_are_counted_from_the_frame() -> None:
    answer = payload(Result(reply("yes", "stop"), 10.5, 12.0))
    assert answer.timing is not None
    assert (answer.timing.queue_s, answer.timing.total_s) == (0.5, 2.0)
    assert (answer.frame.index, answer.frame.pts_s) == (7, 0.7)
    assert answer.schema_id == "level"
    assert (answer.status, answer.error) == ("ok", None)


def test_reasoning_is_shown_only_on_request() -> None:
    result = Result(reply("yes", "stop"), 10.5, 12.0)
    assert payload(result).reasoning is None
    assert payload(result, reasoning=True).reasoning == "fake reasoning"


def test_an_error_is_an_answer_without_text() -> None:
    answer = payload(Result(RequestError("No.", key="request.x"), 10.5, 10.6))
    assert answer.status == "error"
    assert answer.error is not None
    assert (answer.error.key, answer.error.message) == ("request.x", "No.")
    assert answer.text is answer.data is answer.timing is answer.tokens is None


def test_a_schema_without_an_id_gets_one_from_its_content() -> None:
    assert schema_id(None) is None
    assert schema_id({"a": 1, "b": 2}) == schema_id({"b": 2, "a": 1}) == "sha256-43258cff783f"
    assert schema_id({"a": 1}) != schema_id({"a": 2})


def test_a_question_is_known_by_all_that_the_model_is_told_and_nothing_else() -> None:
    question = Question("Which frame?", camera="panel")
    assert question_id(question) == question_id(Question("Which frame?", camera="gate")) == "sha256-aa0a5c155f46"
    others = [
        Question("Which one?"),
        Question("Which frame?", system="Be short."),
        Question("Which frame?", json_schema={"properties": {"a": {}, "b": {}}}),
        Question("Which frame?", json_schema={"properties": {"b": {}, "a": {}}}),
        Question("Which frame?", thinking=True),
        Question("Which frame?", thinking_budget=9),
        Question("Which frame?", max_tokens=9),
    ]
    assert len({question_id(each) for each in [question, *others]}) == 8
    assert payload(Result(reply("yes", "stop"), 10.5, 12.0)).question_id == question_id(
        Question("?", json_schema={"$id": "level"})
    )


def test_identifiers_are_unique_and_sorted() -> None:
    ulids = Ulids()
    made = [ulids.next() for _ in range(5000)]
    assert made == sorted(set(made))
    assert {len(identifier) for identifier in made} == {26}
    assert made[0][0] in "01234567"


def test_facts_about_the_process() -> None:
    assert clock_synced() in (True, False, None)
    memory = rss_bytes()
    assert memory is not None
    assert 1 << 20 < memory < 1 << 40
