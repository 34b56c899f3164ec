import json
from pathlib import Path

import numpy as np
import pytest
from moedge_runtime.bundle import Bundle
from moedge_runtime.config import ModelConfig
from moedge_runtime.daemon.answerer import Question
from moedge_runtime.daemon.engine import EngineAnswerer, question_checker
from moedge_runtime.daemon.supervision import Progress, WatchedAnswerer
from moedge_runtime.errors import ConfigError, RequestError


def test_the_memory_for_experts_reaches_the_core(tiny: Path) -> None:
    with pytest.raises(ConfigError, match=r"budget of 1,000 bytes, at least [\d,]+ are needed"):
        EngineAnswerer.open(Bundle.open(tiny), ModelConfig(bundle=tiny, expert_memory=1000))
    answerer = EngineAnswerer.open(Bundle.open(tiny), ModelConfig(bundle=tiny, expert_memory=5 << 20))
    experts = answerer._engine.experts
    assert experts is not None and experts.statistics().budget_bytes == 5 << 20
    answerer._engine.close()


def test_memory_and_hot_set_reach_the_engine_and_the_plan_is_logged(
    tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = ModelConfig(bundle=tiny, memory=1 << 30, max_pixels=40_000, hot_set=tmp_path / "hot.json")
    with caplog.at_level("INFO"):
        answerer = EngineAnswerer.open(Bundle.open(tiny), config)
    plan = answerer._engine.plan
    assert plan is not None and (plan.total, plan.max_pixels) == (1 << 30, 40_000)
    assert plan.line() in caplog.messages
    image = np.zeros((64, 64, 3), np.uint8)
    watched = WatchedAnswerer(answerer, Progress("The model"))
    for camera in ("gate", "yard", None):
        watched.ask(Question("What is the reading?", max_tokens=2, camera=camera), image, lambda: False)
    watched.keep_cameras({"yard": None}.keys())
    answerer.close()
    hot_set = json.loads((tmp_path / "hot.json").read_text())
    assert hot_set["format"] == "moedge-expert-counts"
    assert list(hot_set["cameras"]) == ["yard"]


def test_what_computes_the_layers_reaches_the_engine_and_is_checked_before_it_starts(tiny: Path) -> None:
    bundle = Bundle.open(tiny)
    layers = {}
    for choice in ("auto", "core", "onnxruntime"):
        answerer = EngineAnswerer.open(bundle, ModelConfig(bundle=tiny, layers=choice, memory=1 << 30))
        assert answerer._engine.plan is not None
        layers[choice] = answerer._engine.plan.layers
        answerer.close()
    assert layers["auto"] == layers["core"] != layers["onnxruntime"]
    old = Bundle(tiny, bundle.manifest.model_copy(update={"weights": {}}))
    question_checker(old, ModelConfig(bundle=tiny))
    with pytest.raises(ConfigError, match=r"--layers core \(model.layers\) is not possible with .* export it again"):
        question_checker(old, ModelConfig(bundle=tiny, layers="core"))


def test_a_memory_that_is_too_small_is_refused_before_the_weights_are_loaded(tiny: Path) -> None:
    with pytest.raises(ConfigError, match="memory=1 MiB is too small"):
        question_checker(Bundle.open(tiny), ModelConfig(bundle=tiny, memory=1 << 20))
    assert question_checker(Bundle.open(tiny), ModelConfig(bundle=tiny, memory=1 << 40))(Question("?")) == []


def test_frames_that_wait_are_answered_together_as_each_alone(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    questions = [
        (question, random.integers(0, 256, (64, 64, 3), dtype=np.uint8))
        for question in (
            Question("What is the reading?", max_tokens=8),
            Question("Which lamps are lit?", max_tokens=500_000),
            Question("How many?", json_schema=schema, max_tokens=20),
            Question("What is the reading?", max_tokens=5),
        )
    ]
    answerer = EngineAnswerer.open(Bundle.open(tiny), ModelConfig(bundle=tiny, prefill_together=3))
    watched = WatchedAnswerer(answerer, Progress("The model"))
    try:
        assert watched.together == 1, "what sharing gains is not known yet"
        monkeypatch.setattr(answerer._engine._prefiller.gain, "prompts", lambda: 9)
        assert watched.together == 3
        wanted = [answerer.ask(*questions[index], lambda: False) for index in (0, 2, 3)]
        signs: list[None] = []
        first, wrong, second, third = watched.begin(questions, lambda: signs.append(None) is not None, lambda: False)
        assert len(signs) > 4, "each layer is a sign of life"
        with pytest.raises(RequestError, match="max_context"):
            wrong(lambda: False)
        replies = [answer(lambda: False) for answer in (first, second, third)]
        assert [(reply.text, reply.data) for reply in replies] == [(reply.text, reply.data) for reply in wanted]
        assert [reply.prefilled_together for reply in replies] == [3, 3, 3]
        first_token_s = [reply.waited_s + reply.vision_s + reply.prefill_s for reply in replies]
        assert first_token_s == sorted(first_token_s), "each waits for the answers before it"
        assert {reply.prefilled_together for reply in wanted} == {1}
    finally:
        watched.close()
