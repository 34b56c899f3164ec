"""The engine of moedge_runtime.inference as an Answerer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moedge_runtime.bundle import Bundle
from moedge_runtime.config import ModelConfig
from moedge_runtime.daemon.answerer import ExpertUse, Question, QuestionProblem, Reply
from moedge_runtime.inference import AskRequest, Engine, EngineOptions
from moedge_runtime.inference.check import RequestChecker, RequestProblem
from moedge_runtime.inference.experts import ExpertStatistics
from moedge_runtime.inference.memory_budget import native_layers, plan_of
from moedge_runtime.inference.memory_plan import MemoryPlan
from moedge_runtime.inference.onnx_session import providers_for

log = logging.getLogger(__name__)


class EngineAnswerer:
    """Answers with a bundle on this machine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, bundle: Bundle, config: ModelConfig) -> EngineAnswerer:
        """Load an opened bundle.

        Raises:
            MoedgeError: The bundle cannot be used with these settings.
        """
        engine = Engine.open(bundle, engine_options(config))
        if engine.plan is not None:
            log.info("%s", engine.plan.line())
        return cls(engine)

    def close(self) -> None:
        """See Answerer."""
        self._engine.close()

    def check(self, question: Question) -> list[QuestionProblem]:
        """See Answerer."""
        return _problems(self._engine.check(_request(question), unseen_images=1))

    def ask(self, question: Question, image: NDArray[np.uint8], should_stop: Callable[[], bool]) -> Reply:
        """See Answerer."""
        answer = self._engine.ask(replace(_request(question), images=[image]), should_stop=should_stop)
        timing = answer.timing
        return Reply(
            text=answer.text,
            reasoning=answer.reasoning,
            data=answer.data,
            finish_reason=answer.finish_reason,
            vision_s=(timing.preprocess_ms + timing.vision_ms) / 1000,
            prefill_s=timing.prefill_ms / 1000,
            decode_s=timing.decode_ms / 1000,
            decode_tok_s=timing.decode_tokens_per_s,
            prompt_tokens=answer.prompt_tokens,
            image_tokens=answer.image_tokens,
            cached_tokens=answer.cached_tokens,
            answer_tokens=answer.answer_tokens,
            reasoning_tokens=answer.reasoning_tokens,
            experts=_use(answer.experts),
        )


def question_checker(bundle: Bundle, config: ModelConfig) -> Callable[[Question], list[QuestionProblem]]:
    """`EngineAnswerer.check` without loading the weights.

    Raises:
        MoedgeError: The bundle cannot be used with these settings.
    """
    providers_for(config.provider)
    options = engine_options(config)
    if bundle.manifest.form == "paged":
        native_layers(bundle, options)
    if options.memory_bytes is not None:
        plan_of(bundle, options, options.memory_bytes)
    checker = RequestChecker(bundle, config.max_context, config.max_pixels)
    return lambda question: _problems(checker.problems(_request(question), unseen_images=1))


def memory_plan(bundle: Bundle, config: ModelConfig, total: int) -> MemoryPlan:
    """How the engine would divide `total` bytes, on any machine.

    Raises:
        ConfigError: They are too few, or the bundle is inline.
    """
    return plan_of(bundle, engine_options(config), total)


def engine_options(config: ModelConfig) -> EngineOptions:
    """How a configuration sets up its engine."""
    return EngineOptions(
        threads=config.threads,
        provider=config.provider,
        layers=config.layers,
        max_context=config.max_context,
        max_pixels=config.max_pixels,
        memory_bytes=config.memory,
        expert_budget_bytes=config.expert_memory,
        hot_set=config.hot_set,
    )


def _use(statistics: ExpertStatistics | None) -> ExpertUse | None:
    if statistics is None:
        return None
    return ExpertUse(statistics.hits, statistics.misses, statistics.read_bytes, statistics.flash_wait_ms / 1000)


def _request(question: Question) -> AskRequest:
    return AskRequest(
        question.text,
        system=question.system,
        json_schema=question.json_schema,
        thinking=question.thinking,
        thinking_budget=question.thinking_budget,
        max_new_tokens=question.max_tokens,
    )


def _problems(problems: Iterable[RequestProblem]) -> list[QuestionProblem]:
    return [
        QuestionProblem("max_tokens" if problem.field == "max_new_tokens" else problem.field, problem.error)
        for problem in problems
    ]
