import dataclasses
import json
import re
import threading

import jsonschema
import numpy as np
import pytest
from moedge_runtime.bundle import Bundle
from moedge_runtime.errors import BundleError, ConfigError, RequestError
from moedge_runtime.inference import AskRequest, Engine, EngineOptions, Sampling
from moedge_runtime.inference.expert_core.memory import default_memory
from moedge_runtime.inference.memory_budget import plan_for
from moedge_runtime.inference.numpy_experts import NumpyExperts
from runtime.inference.reference import Reference
from runtime.inference.test_constraint import PANEL
from runtime.inference.test_image_processor import picture

PICTURES = [picture(90, 130, 0), picture(200, 300, 1), picture(64, 400, 2), picture(500, 260, 3)]
REQUESTS = {
    "text only": AskRequest("What is the reading?", max_new_tokens=24),
    "one image": AskRequest("What is the reading?", images=PICTURES[:1], max_new_tokens=24),
    "image first": AskRequest("Which lamps are lit?", images=PICTURES[1:2], image_first=True, max_new_tokens=24),
    "system prompt": AskRequest("?", images=PICTURES[3:], system="You read panels.", max_new_tokens=24),
    "three images": AskRequest("Compare them.", images=PICTURES[:3], max_new_tokens=24),
}


@pytest.fixture(scope="module")
def reference(checkpoint):
    return Reference(checkpoint)


@pytest.fixture(scope="module")
def engine(paged):
    with Engine.open(paged) as engine:
        yield engine


@pytest.fixture(scope="module")
def inline_engine(inline):
    with Engine.open(inline) as engine:
        yield engine


class Recorded:
    """An engine's decoder that remembers the logits of every step, and of every sequence in it."""

    def __init__(self, engine):
        self.engine, self.decoder, self.passes = engine, engine._decoder, []
        self.cache = self.decoder.cache

    def __enter__(self):
        self.engine._decoder = self.engine._prefiller._decoder = self
        return self

    def __exit__(self, *_):
        self.engine._decoder = self.engine._prefiller._decoder = self.decoder

    def forward(self, sequences, should_stop=None):
        self.passes.append(self.decoder.forward(sequences, should_stop))
        return self.passes[-1]

    @property
    def logits(self):
        """Of the first sequence of each step."""
        return [logits[0] for logits in self.passes]


@pytest.mark.parametrize("form", ["paged", "inline"])
@pytest.mark.parametrize("name", REQUESTS)
def test_greedy_answers_equal_transformers(form, name, engine, inline_engine, reference):
    request = REQUESTS[name]
    tokens, text = reference.generate(request)
    tested = engine if form == "paged" else inline_engine
    with Recorded(tested) as recorded:
        answer = tested.ask(request)
    assert [int(np.argmax(logits)) for logits in recorded.logits[: len(tokens)]] == tokens[: len(recorded.logits)]
    assert answer.text == text
    assert answer.prompt_tokens == reference.inputs(request)["input_ids"].shape[1]
    np.testing.assert_allclose(recorded.logits[0], reference.logits(request), atol=2e-3)


def test_paged_and_inline_with_the_same_numbers_say_the_same(paged_int4, inline_int4):
    with Engine.open(paged_int4) as one, Engine.open(inline_int4) as other:
        for request in REQUESTS.values():
            with Recorded(one) as first, Recorded(other) as second:
                one.ask(dataclasses.replace(request, max_new_tokens=1))
                other.ask(dataclasses.replace(request, max_new_tokens=1))
            # The attention of one computes with int8 activations, that of the other with float32.
            correlation = np.corrcoef(first.logits[0], second.logits[0])[0, 1]
            assert correlation > 0.98, request.question


def test_reusing_the_prefix_changes_no_token(paged, engine):
    questions = [("What is the reading?", 0), ("What is the reading?", 1), ("What is the lamp?", 2), ("Other", 3)]
    requests = [AskRequest(text, images=[PICTURES[i]], max_new_tokens=16) for text, i in questions]
    with Engine.open(paged, EngineOptions(reuse_prefix=False)) as fresh:
        for request in (*requests, *reversed(requests)):
            with Recorded(engine) as reusing, Recorded(fresh) as computing:
                got, wanted = engine.ask(request), fresh.ask(request)
            assert got.text == wanted.text
            assert wanted.cached_tokens == 0
            np.testing.assert_allclose(reusing.logits, computing.logits, atol=1e-3)
    assert got.cached_tokens > 0


def test_the_whole_text_before_the_image_is_cached_for_the_next_frame(engine):
    request = AskRequest("What does the display show?", system="You read instrument panels.", max_new_tokens=1)
    answers = [engine.ask(dataclasses.replace(request, images=[image])) for image in PICTURES]
    for answer in answers[1:]:
        text_after = 9  # <|vision_end|><|im_end|>\n<|im_start|>assistant\n, in this tokenizer's pieces
        assert answer.cached_tokens >= answer.prompt_tokens - answer.image_tokens - text_after


def test_the_same_text_question_twice_computes_one_token(engine):
    request = AskRequest("Just text.", max_new_tokens=8)
    first, second = engine.ask(request), engine.ask(request)
    assert second.text == first.text
    assert second.cached_tokens == second.prompt_tokens - 1


def test_the_answer_is_streamed_as_it_is_returned(engine):
    pieces = []
    answer = engine.ask(REQUESTS["one image"], on_text=pieces.append)
    assert "".join(pieces) == answer.text
    assert len(pieces) > 3


def test_every_answer_to_a_schema_fits_it_or_was_cut_off(engine):
    finished = 0
    for seed in range(12):
        request = AskRequest(
            "Answer as JSON.",
            images=PICTURES[seed % 4 : seed % 4 + 1],
            json_schema=PANEL,
            max_new_tokens=150,
            sampling=Sampling(temperature=1.5),
            seed=seed,
        )
        answer = engine.ask(request)
        if answer.finish_reason == "stop":
            finished += 1
            jsonschema.validate(answer.data, PANEL)
            assert json.loads(answer.text) == answer.data
        else:
            assert answer.finish_reason == "length" and answer.data is None and answer.text
    assert finished >= 8


def test_a_schema_holds_after_thinking_too(engine):
    request = AskRequest("Answer as JSON.", json_schema=PANEL, thinking=True, thinking_budget=12, max_new_tokens=300)
    answer = engine.ask(request)
    assert answer.reasoning and answer.reasoning_tokens >= 12
    assert answer.text.startswith("{")
    if answer.finish_reason == "stop":
        jsonschema.validate(answer.data, PANEL)


def test_an_impossible_schema_leaves_the_engine_usable(engine):
    with pytest.raises(RequestError, match="schema"):
        engine.ask(AskRequest("?", json_schema={"type": "nonsense"}))
    assert engine.ask(REQUESTS["text only"]).text


def test_a_seed_decides_what_is_drawn(engine):
    request = dataclasses.replace(REQUESTS["one image"], sampling=engine.recommended_sampling(temperature=2.0))
    texts = [engine.ask(dataclasses.replace(request, seed=seed)).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_the_recommended_sampling_is_the_checkpoints(engine):
    assert engine.recommended_sampling() == Sampling(temperature=0.7, top_k=20, top_p=0.8)


def test_a_prompt_that_does_not_fit_is_refused_before_any_work(paged):
    with Engine.open(paged, EngineOptions(max_context=64)) as engine:
        with pytest.raises(RequestError, match=r"The prompt has \d+ tokens .* max_context=64"):
            engine.ask(AskRequest("?", images=PICTURES[1:2], max_new_tokens=40))
        assert engine.ask(AskRequest("?", max_new_tokens=20)).text


def test_an_answer_goes_on_after_its_end_where_a_measurement_wants_it(paged, engine):
    plain = engine.ask(AskRequest("?", max_new_tokens=12, ignore_end=True))
    bundle = Bundle.open(paged)
    tokens = bundle.manifest.model.tokens.model_copy(update={"end_of_text": [plain.tokens[5]]})
    model = bundle.manifest.model.model_copy(update={"tokens": tokens})
    bundle.manifest = bundle.manifest.model_copy(update={"model": model})
    with Engine.open(bundle) as ends:
        short = ends.ask(AskRequest("?", max_new_tokens=12))
        whole = ends.ask(AskRequest("?", max_new_tokens=12, ignore_end=True))
    assert short.finish_reason == "stop"
    assert short.tokens == plain.tokens[: plain.tokens.index(plain.tokens[5]) + 1]
    assert (whole.finish_reason, whole.tokens) == ("length", plain.tokens)
    assert "tokens" not in whole.to_json()


def test_a_full_context_is_usable_to_its_last_token(engine, paged):
    wanted = engine.ask(dataclasses.replace(REQUESTS["one image"], max_new_tokens=20))
    with Engine.open(paged, EngineOptions(max_context=wanted.prompt_tokens + 20)) as tight:
        assert tight.ask(dataclasses.replace(REQUESTS["one image"], max_new_tokens=20)).text == wanted.text


def test_options_out_of_range_are_refused(paged):
    with pytest.raises(ConfigError, match=r"max_context=99,999 is not possible: this model has 2 to 2,048"):
        Engine.open(paged, EngineOptions(max_context=99_999))
    with pytest.raises(ConfigError, match="provider='cuda' needs"):
        Engine.open(paged, EngineOptions(provider="cuda"))


def test_a_thinking_budget_without_room_for_an_answer_is_refused(engine):
    with pytest.raises(RequestError, match=r"thinking_budget=50 leaves no room .* may have 50 tokens together"):
        engine.ask(AskRequest("?", thinking=True, thinking_budget=50, max_new_tokens=50))


@pytest.mark.parametrize("calls", [0, 2, 6, 9, 13])
def test_cancelling_at_any_moment_leaves_the_engine_correct(engine, inline_engine, calls):
    wanted = inline_engine.ask(REQUESTS["one image"])
    asked = []

    def stop():
        asked.append(None)
        return len(asked) > calls

    answer = engine.ask(REQUESTS["three images"], should_stop=stop)
    assert answer.finish_reason == "cancelled" and answer.data is None
    assert engine.ask(REQUESTS["one image"]).text == wanted.text


def test_two_threads_take_turns(engine):
    wanted = [engine.ask(request).text for request in REQUESTS.values()]
    got = [""] * len(wanted)

    def ask(index, request):
        got[index] = engine.ask(request).text

    threads = [threading.Thread(target=ask, args=pair) for pair in enumerate(REQUESTS.values())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert got == wanted


def test_a_damaged_expert_is_an_error_and_never_an_answer(paged, tmp_path):
    import shutil

    copy = tmp_path / "bundle"
    shutil.copytree(paged, copy)
    content = bytearray((copy / "experts.bin").read_bytes())
    for record in range(0, len(content), Bundle.open(copy).expert_layout.record_bytes):
        content[record + 100] ^= 1
    (copy / "experts.bin").write_bytes(content)
    with Engine.open(copy) as engine, pytest.raises(BundleError, match=r"Expert \d of layer 0 .* CRC-32C"):
        engine.ask(REQUESTS["one image"])


def least_budget(paged, **options):
    with pytest.raises(ConfigError, match="The memory for experts is too small") as caught:
        Engine.open(paged, EngineOptions(expert_budget_bytes=1, **options))
    return int(re.search(r"at least ([\d,]+) are needed", str(caught.value))[1].replace(",", ""))


@pytest.mark.parametrize("options", [{}, {"expert_readers": 1}, {"max_context": 400}], ids=str)
def test_the_memory_for_experts_never_changes_a_logit(paged_int4, options):
    tight = EngineOptions(expert_budget_bytes=least_budget(paged_int4, **options), **options)
    with Engine.open(paged_int4) as roomy, Engine.open(paged_int4, tight) as paging:
        for request in (*REQUESTS.values(), *REQUESTS.values()):
            with Recorded(roomy) as wanted, Recorded(paging) as got:
                answers = roomy.ask(request), paging.ask(request)
            np.testing.assert_array_equal(got.logits, wanted.logits)
            assert answers[0].text == answers[1].text
        assert roomy.experts.statistics().evictions == 0 < paging.experts.statistics().evictions


def test_watches_that_ask_in_turn_have_each_question_computed_once(paged, engine):
    questions = [AskRequest(text, images=PICTURES[:1], max_new_tokens=8) for text in ("Which lamps are lit?", "Why?")]
    with Engine.open(paged, EngineOptions(reuse_prefix=False)) as plain:
        wanted = [plain.ask(question) for question in questions]
    for question in questions:
        engine.ask(question)
    for question, plainly in zip(questions, wanted, strict=True):
        answer = engine.ask(question)
        assert answer.text == plainly.text
        text_after = 9  # as above
        assert answer.cached_tokens >= answer.prompt_tokens - answer.image_tokens - text_after > 0


def test_a_prompt_that_goes_through_the_graphs_in_pieces_gives_the_same_logits(paged_int4, monkeypatch):
    with Engine.open(paged_int4, EngineOptions(reuse_prefix=False)) as engine:
        for request in (REQUESTS["three images"], REQUESTS["text only"]):
            with Recorded(engine) as whole:
                answer = engine.ask(request)
            monkeypatch.setattr("moedge_runtime.inference.layer_call.PIECE_TOKENS", 7)
            with Recorded(engine) as pieces:
                assert engine.ask(request).text == answer.text
            monkeypatch.undo()
            np.testing.assert_allclose(pieces.logits, whole.logits, atol=1e-4)


def test_experts_get_what_the_other_parts_leave_of_the_memory(paged_int4, monkeypatch):
    monkeypatch.setattr("moedge_runtime.inference.memory_budget.available_memory", lambda: 2 << 30)
    with Engine.open(paged_int4) as default, Engine.open(paged_int4, EngineOptions(memory_bytes=1 << 30)) as given:
        assert default.plan.total == default_memory(2 << 30)
        assert given.plan.total == 1 << 30
        assert given.experts.statistics().budget_bytes == given.plan.experts == given.plan.parts()["experts"]
    monkeypatch.setattr("moedge_runtime.inference.memory_budget.available_memory", lambda: 600 << 20)
    with pytest.raises(ConfigError, match=r"memory=88 MiB is too small .* in MiB: process \d+, layers"):
        Engine.open(paged_int4)
    monkeypatch.setattr("moedge_runtime.inference.memory_budget.available_memory", lambda: None)
    with pytest.raises(ConfigError, match="does not say how much memory is available"):
        Engine.open(paged_int4)


def test_more_memory_than_the_machine_has_is_refused(paged_int4):
    with pytest.raises(ConfigError, match=r"is more than this machine, .* has: [\d,]+ MiB"):
        Engine.open(paged_int4, EngineOptions(memory_bytes=1 << 50))


def test_more_memory_than_is_available_now_is_said(paged_int4, monkeypatch, caplog):
    options = EngineOptions(memory_bytes=1 << 30)
    plan_for(Bundle.open(paged_int4), options)
    assert caplog.text == ""
    monkeypatch.setattr("moedge_runtime.inference.memory_budget.available_memory", lambda: 1 << 20)
    plan_for(Bundle.open(paged_int4), options)
    assert re.search(r"memory=1,024 MiB is more than is available now: \d+ MiB would be taken, 1 MiB are", caplog.text)


class Budgets(NumpyExperts):
    """Writes down its budget whenever it computes, and every change of it."""

    def __init__(self, bundle):
        super().__init__(bundle)
        self.set, self.while_computing = [], set()

    def set_budget(self, budget_bytes):
        super().set_budget(budget_bytes)
        self.set.append(budget_bytes)

    def compute(self, layer, moe_input, router_logits, next_router_logits=None):
        self.while_computing.add(self.statistics().budget_bytes)
        return super().compute(layer, moe_input, router_logits)


def with_plan(paged, **changes):
    """An engine whose plan differs in `changes` from the one that it was opened with."""
    opened = Engine.open(paged, EngineOptions(experts=Budgets, memory_bytes=1 << 30))
    opened.plan = opened._prefiller._plan = dataclasses.replace(opened.plan, **changes)
    return opened


def test_experts_make_room_for_a_large_picture_and_come_back(paged, engine):
    with with_plan(paged, least_experts=0) as tight:
        plan = tight.plan
        small, large = (dataclasses.replace(REQUESTS["one image"], images=PICTURES[i : i + 1]) for i in (0, 1))
        plan = dataclasses.replace(plan, total=sum(plan.parts().values()))
        buffers = plan.buffers  # 48 patches of the small picture fit in them, 140 of the large one do not
        plan = tight.plan = tight._prefiller._plan = dataclasses.replace(plan, patch_bytes=buffers // 100)
        tight.ask(small)
        assert tight.experts.set == []
        answer = tight.ask(large)
        assert tight.experts.set == [plan.experts + buffers - 140 * plan.patch_bytes, plan.experts]
        assert tight.experts.while_computing == {0, plan.experts}
    assert answer.text == engine.ask(large).text


def test_the_flash_is_used_when_nothing_is_computed(paged, monkeypatch):
    events = []

    class Idle(NumpyExperts):
        def preload(self):
            events.append("preload")

        def compute(self, *arguments):
            events.append("compute")
            return super().compute(*arguments)

    with Engine.open(paged, EngineOptions(experts=Idle)) as idle:
        assert events == ["preload"]
        encode = idle._prefiller._vision.encode
        monkeypatch.setattr(idle._prefiller._vision, "encode", lambda *rest: events.append("vision") or encode(*rest))
        idle.ask(REQUESTS["one image"])
    assert events[:3] == ["preload", "preload", "vision"] and events[-1] == "preload"
    assert set(events[3:-1]) == {"compute"}


def test_pictures_that_the_memory_cannot_hold_are_refused(paged):
    with with_plan(paged, patch_bytes=1 << 30) as tight:
        with pytest.raises(
            RequestError, match=r"The pictures have [\d,]+ pixels in all; memory=1,024 MiB is enough for"
        ):
            tight.ask(REQUESTS["one image"])
        assert tight.ask(REQUESTS["text only"]).text


def test_the_native_core_and_the_reference_say_the_same(paged, engine):
    with Engine.open(paged, EngineOptions(experts="numpy", expert_budget_bytes=1 << 20)) as plain:
        for request in REQUESTS.values():
            with Recorded(engine) as got, Recorded(plain) as wanted:
                assert engine.ask(request).text == plain.ask(request).text
            np.testing.assert_allclose(got.logits, wanted.logits, atol=1e-3)
        assert plain.experts.statistics().budget_bytes == 1 << 20


def test_an_answer_tells_what_its_experts_did(paged):
    with Engine.open(paged, EngineOptions(experts="numpy", expert_budget_bytes=1)) as fresh:
        first, second = fresh.ask(REQUESTS["one image"]), fresh.ask(REQUESTS["image first"])
        total = fresh.experts.statistics()
    for name in ("calls", "tokens", "hits", "misses", "reads", "read_bytes"):
        assert getattr(first.experts, name) + getattr(second.experts, name) == getattr(total, name)
    moe_layers = 3
    steps = first.answer_tokens  # the prefill, then every token but the last
    assert first.experts.calls == moe_layers * steps
    assert first.experts.tokens == moe_layers * (first.prompt_tokens + steps - 1)
    assert first.experts.misses > 0 and first.experts.read_bytes > 0
    assert first.timing.prefill_ms + first.timing.decode_ms > first.experts.compute_ms + first.experts.flash_wait_ms
    assert first.to_json()["experts"]["flash_wait_ms"] == first.experts.flash_wait_ms


def test_an_inline_bundle_has_no_expert_memory(inline, inline_engine):
    answer = inline_engine.ask(dataclasses.replace(REQUESTS["text only"], max_new_tokens=1))
    assert inline_engine.experts is None and answer.experts is None
    assert answer.to_json()["experts"] is None
    with pytest.raises(ConfigError, match="is inline: its experts are part of its model"):
        Engine.open(inline, EngineOptions(expert_budget_bytes=1 << 30))


def test_another_expert_bank_can_be_put_in_and_is_closed(paged, engine, monkeypatch):
    made = []

    def make(bundle):
        made.append(NumpyExperts(bundle))
        return made[-1]

    with Engine.open(paged, EngineOptions(experts=make)) as own:
        assert own.experts is made[0]
        assert own.ask(REQUESTS["text only"]).text == engine.ask(REQUESTS["text only"]).text
    assert made[0]._file == -1
    monkeypatch.setattr("moedge_runtime.inference.opening.PagedDecoder", None)
    with pytest.raises(TypeError):
        Engine.open(paged, EngineOptions(experts=make))
    assert made[1]._file == -1


def test_timing_adds_up(engine):
    timing = engine.ask(REQUESTS["three images"]).timing
    parts = timing.preprocess_ms + timing.vision_ms + timing.prefill_ms + timing.decode_ms
    assert timing.total_ms == pytest.approx(parts, abs=5)
    assert timing.time_to_first_token_ms < timing.total_ms
    assert timing.decode_tokens_per_s > 0


def test_max_pixels_lowers_the_image_tokens(paged, engine):
    request = dataclasses.replace(REQUESTS["image first"], max_new_tokens=1)
    with Engine.open(paged, EngineOptions(max_pixels=10_000)) as small:
        assert small.ask(request).image_tokens < engine.ask(request).image_tokens
