import dataclasses
from pathlib import Path

import numpy as np
import pytest
from moedge_export.options import ExportOptions
from moedge_export.pipeline import export_bundle
from moedge_runtime.errors import BundleError, RequestError
from moedge_runtime.inference import AskRequest, Engine, EngineOptions, Sampling
from moedge_runtime.inference.expert_core.bank import NativeExperts
from runtime.inference.test_constraint import PANEL
from runtime.inference.test_engine import PICTURES, Recorded, least_budget

REQUESTS = [
    AskRequest("What is the reading?", images=PICTURES[:1], max_new_tokens=24),
    AskRequest("Which lamps are lit?", images=PICTURES[1:2], system="You read panels.", max_new_tokens=9),
    AskRequest("Answer as JSON.", images=PICTURES[2:3], json_schema=PANEL, max_new_tokens=60),
    AskRequest("What is the reading?", images=PICTURES[3:], thinking=True, thinking_budget=12, max_new_tokens=40),
    AskRequest("Just text.", sampling=Sampling(temperature=1.5), seed=3, max_new_tokens=12),
]


@pytest.fixture(scope="module", params=["int4", "int8"])
def bundle(request, checkpoint: Path) -> Path:
    destination = checkpoint.with_name(f"together-{request.param}")
    if not destination.exists():
        export_bundle(checkpoint, destination, ExportOptions(precision=request.param, form="paged"))
    return destination


def said(answer):
    """All of an answer but what depends on the company and on what was asked before."""
    unlike = {"timing": None, "experts": None, "prefilled_together": 0, "cached_tokens": 0}
    return dataclasses.replace(answer, **unlike)


def together(engine, requests):
    """Answers to questions that share a pass, and all logits of each."""
    with Recorded(engine) as prefill:
        asked = engine.begin(requests)
    steps, answers = [], []
    for index, each in enumerate(asked):
        with Recorded(engine) as decode:
            answers.append(each.answer())
        steps.append([prefill.passes[0][index], *decode.logits])
    assert [len(logits) for logits in prefill.passes] == [len(requests)]
    return answers, steps


@pytest.mark.parametrize("layers", ["core", "onnxruntime"])
def test_what_shares_a_pass_gets_the_bits_that_it_gets_alone(bundle, layers):
    options = EngineOptions(layers=layers, reuse_prefix=False, max_context=1024)
    tight = dataclasses.replace(options, expert_budget_bytes=least_budget(bundle, max_context=1024))
    with Engine.open(bundle, options) as plain, Engine.open(bundle, tight) as paging:
        wanted, alone = [], []
        for request in REQUESTS:
            with Recorded(plain) as recorded:
                wanted.append(plain.ask(request))
            alone.append(recorded.logits)
        for some in (slice(0, 2), slice(0, 5), slice(4, 1, -1)):
            for engine in (plain, paging):
                answers, steps = together(engine, REQUESTS[some])
                for answer, logits, want, single in zip(answers, steps, wanted[some], alone[some], strict=True):
                    assert said(answer) == said(want)
                    assert answer.prefilled_together == len(answers) and want.prefilled_together == 1
                    np.testing.assert_array_equal(logits, single)


@pytest.mark.parametrize("layers", ["core", "onnxruntime"])
def test_the_texts_before_the_pictures_are_computed_once_there_too(bundle, layers):
    frames = [dataclasses.replace(REQUESTS[index], images=PICTURES[index : index + 1]) for index in (0, 1, 0)]
    with Engine.open(bundle, EngineOptions(layers=layers, max_context=1024)) as engine:
        first = [asked.answer() for asked in engine.begin(frames)]
        again = [asked.answer() for asked in engine.begin(frames)]
        alone = [engine.ask(frame) for frame in frames]
        assert [answer.cached_tokens for answer in again] == [answer.cached_tokens for answer in alone]
        assert min(answer.cached_tokens for answer in again) > 0
        if layers == "core":
            assert [said(answer) for answer in first] == [said(answer) for answer in again]
        assert [said(answer) for answer in again] == [said(answer) for answer in alone]


def test_each_expert_is_read_once_for_all_of_them(bundle):
    tight = least_budget(bundle, max_context=1024)
    options = EngineOptions(max_context=1024, expert_budget_bytes=tight, reuse_prefix=False)
    requests = [dataclasses.replace(request, max_new_tokens=1, thinking=None, json_schema=None) for request in REQUESTS]
    with Engine.open(bundle, options) as engine:
        alone = [engine.ask(request).experts for request in requests]
        before = engine.experts.statistics()
        shared = [asked.answer().experts for asked in engine.begin(requests)]
        total = engine.experts.statistics() - before
    moe_layers = 3
    assert total.calls == moe_layers
    for name in ("calls", "tokens", "hits", "misses", "flash_wait_ms", "compute_ms"):
        assert sum(getattr(part, name) for part in shared) == pytest.approx(getattr(total, name))
    assert total.tokens == sum(part.tokens for part in alone)
    assert total.hits + total.misses < sum(part.hits + part.misses for part in alone) / 2


@pytest.mark.parametrize("context", [1024, 260])
def test_a_question_that_comes_in_between_changes_no_answer(bundle, context):
    requests, urgent = REQUESTS[:2], dataclasses.replace(REQUESTS[3], max_new_tokens=150)
    with Engine.open(bundle, EngineOptions(max_context=context)) as engine:
        wanted = [said(engine.ask(request)) for request in (*requests, urgent)]
        for place in range(3):
            asked = engine.begin(requests)
            answers = []
            for index in range(3):
                if index == place:
                    urgently = engine.ask(urgent)
                if index < 2:
                    answers.append(asked[index].answer())
            assert [said(answer) for answer in (*answers, urgently)] == wanted
            shared = [answer.prefilled_together for answer in answers]
            # Where there are no places for it behind the others, those that it took them from are computed again.
            if place == 0:
                assert shared == [1, 2 if context == 1024 else 1]
            else:
                assert shared == [2, 1 if place == 1 and context == 260 else 2]


def test_what_does_not_fit_beside_the_others_goes_alone(bundle):
    requests = [dataclasses.replace(request, max_new_tokens=60) for request in REQUESTS[:3]]
    with Engine.open(bundle, EngineOptions(max_context=1024)) as engine:
        alone = [engine.ask(request) for request in requests]
    context = alone[0].prompt_tokens + alone[1].prompt_tokens + 120
    for missing in (0, 1):
        with Engine.open(bundle, EngineOptions(max_context=context - missing)) as engine:
            answers = [asked.answer() for asked in engine.begin(requests)]
            assert [answer.prefilled_together for answer in answers] == ([1, 1, 1] if missing else [2, 2, 1])
            assert [said(answer) for answer in answers] == [said(answer) for answer in alone]


def test_no_more_are_begun_once_there_are_enough(bundle):
    asked = []

    def enough():
        asked.append(None)
        return len(asked) == 2

    with Engine.open(bundle, EngineOptions(max_context=1024)) as engine:
        wanted = [said(engine.ask(request)) for request in REQUESTS[:4]]
        answers = [each.answer() for each in engine.begin(REQUESTS[:4], enough=enough)]
    assert [answer.prefilled_together for answer in answers] == [2, 2, 1, 1]
    assert [said(answer) for answer in answers] == wanted
    assert len(asked) == 2


def test_a_question_that_cannot_be_answered_harms_no_other_one(bundle):
    wrong = [
        dataclasses.replace(REQUESTS[0], json_schema={"type": "nonsense"}),
        dataclasses.replace(REQUESTS[0], max_new_tokens=2000),
    ]
    with Engine.open(bundle, EngineOptions(max_context=1024)) as engine:
        wanted = [said(engine.ask(request)) for request in REQUESTS[:2]]
        first, failing, other, second = engine.begin([REQUESTS[0], *wrong, REQUESTS[1]])
        assert said(first.answer()) == wanted[0]
        with pytest.raises(RequestError, match="The JSON schema cannot be used"):
            failing.answer()
        with pytest.raises(RequestError, match="max_context=1,024"):
            other.answer()
        answer = second.answer()
        assert said(answer) == wanted[1] and answer.prefilled_together == 2


def test_a_pass_that_fails_is_repeated_for_each_alone(bundle):
    class Damaged(NativeExperts):
        most_tokens = 1 << 20

        def compute(self, layer, moe_input, *logits):
            if len(moe_input) > self.most_tokens:
                raise BundleError("This expert is damaged.", key="bundle.expert_damaged")
            return super().compute(layer, moe_input, *logits)

    with Engine.open(bundle, EngineOptions(max_context=1024, experts=Damaged, reuse_prefix=False)) as engine:
        wanted = [engine.ask(request) for request in REQUESTS[:2]]
        assert wanted[0].prompt_tokens < wanted[1].prompt_tokens
        engine.experts.most_tokens = wanted[0].prompt_tokens
        first, second = engine.begin(REQUESTS[:2])
        assert said(first.answer()) == said(wanted[0])
        with pytest.raises(BundleError, match="This expert is damaged"):
            second.answer()


@pytest.mark.parametrize("calls", [0, 1, 4, 7, 12])
def test_cancelling_at_any_moment_ends_all_of_them(bundle, calls):
    asked = []

    def stop():
        asked.append(None)
        return len(asked) > calls

    with Engine.open(bundle, EngineOptions(max_context=1024)) as engine:
        wanted = [said(engine.ask(request)) for request in REQUESTS[:2]]
        answers = [each.answer(should_stop=stop) for each in engine.begin(REQUESTS[:2], stop)]
        assert answers[-1].finish_reason == "cancelled"
        assert len(asked) > calls
        assert [said(each.answer()) for each in engine.begin(REQUESTS[:2])] == wanted


def test_what_was_begun_and_never_answered_is_in_nobodys_way(bundle):
    with Engine.open(bundle, EngineOptions(max_context=1024)) as engine:
        wanted = [said(engine.ask(request)) for request in REQUESTS[:3]]
        abandoned = engine.begin(REQUESTS[:2])
        assert [said(asked.answer()) for asked in engine.begin(REQUESTS[:3])] == wanted
        assert [said(asked.answer()) for asked in abandoned] == wanted[:2]


def test_pictures_of_others_are_in_the_memory_that_experts_leave(bundle, monkeypatch):
    held = []

    def noting(plan, experts, images, held_bytes=0):
        held.append(held_bytes)
        return real(plan, experts, images, held_bytes)

    from moedge_runtime.inference import prefill

    real = prefill.room_for_pictures
    monkeypatch.setattr(prefill, "room_for_pictures", noting)
    with Engine.open(bundle, EngineOptions(max_context=1024)) as engine:
        engine.begin(REQUESTS[:3])
        plan = engine.plan
    assert held[0] == 0 < held[1] < held[2] <= plan.buffers
    assert plan.experts_beside(10) - plan.experts_beside(10, held[2]) <= held[2]


def test_inline_bundles_and_the_numpy_reference_share_nothing(inline, paged):
    for path, options in ((inline, EngineOptions()), (paged, EngineOptions(experts="numpy"))):
        with Engine.open(path, options) as engine:
            assert engine.together == 1
            answers = [asked.answer() for asked in engine.begin(REQUESTS[:2])]
            assert [answer.prefilled_together for answer in answers] == [1, 1]
            assert [said(answer) for answer in answers] == [said(engine.ask(request)) for request in REQUESTS[:2]]


def test_times_of_a_shared_pass_add_up(bundle):
    with Engine.open(bundle, EngineOptions(max_context=1024)) as engine:
        first, second = (asked.answer().timing for asked in engine.begin(REQUESTS[:2]))
    assert first.prefill_ms == pytest.approx(second.prefill_ms, abs=1)
    assert second.time_to_first_token_ms > first.total_ms
    for timing in (first, second):
        assert timing.total_ms == pytest.approx(timing.time_to_first_token_ms + timing.decode_ms)
