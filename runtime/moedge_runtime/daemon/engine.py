"""The engine of moedge_runtime.inference as an Answerer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial

from moedge_runtime.bundle import Bundle
from moedge_runtime.config import ModelConfig
from moedge_runtime.daemon.answerer import ExpertUse, Picture, Question, QuestionProblem, Reply, ShouldStop
from moedge_runtime.inference import Answer, AskRequest, Engine, EngineOptions
from moedge_runtime.inference.check import RequestChecker, RequestProblem
from moedge_runtime.inference.engine import Asked
from moedge_runtime.inference.experts import ExpertStatistics
from moedge_runtime.inference.memory_budget import native_layers, plan_of
from moedge_runtime.inference.memory_plan import MemoryPlan
from moedge_runtime.inference.onnx_session import providers_for

log = logging.getLogger(__name__)


class EngineAnswerer:
    """Answers with a bundle on this machine.

    Args:
        engine: What answers.
        most_together: Questions that share a prefill at most.
    """

    def __init__(self, engine: Engine, most_together: int = 1) -> None:
        self._engine, self._most_together = engine, most_together

    @classmethod
    def open(cls, bundle: Bundle, config: ModelConfig) -> EngineAnswerer:
        """Load an opened bundle.

        Raises:
            MoedgeError: The bundle cannot be used with these settings.
        """
        engine = Engine.open(bundle, engine_options(config))
        if engine.plan is not None:
            log.info("%s", engine.plan.line())
        return cls(engine, config.prefill_together)

    def close(self) -> None:
        """See Answerer."""
        self._engine.close()

    def keep_cameras(self, cameras: Collection[str]) -> None:
        """See Answerer."""
        self._engine.keep_cameras(cameras)

    def check(self, question: Question) -> list[QuestionProblem]:
        """See Answerer."""
        return _problems(self._engine.check(_request(question), unseen_images=1))

    @property
    def together(self) -> int:
        """See Answerer: as many as are computed in the time in which their experts are read."""
        return min(self._most_together, self._engine.together)

    def ask(self, question: Question, image: Picture, should_stop: ShouldStop) -> Reply:
        """See Answerer."""
        return _reply(self._engine.ask(_request(question, image), should_stop=should_stop))

    def begin(
        self, questions: Sequence[tuple[Question, Picture]], should_stop: ShouldStop, enough: Callable[[], bool]
    ) -> list[Callable[[ShouldStop], Reply]]:
        """See Answerer."""
        requests = [_request(question, image) for question, image in questions]
        return [partial(_finish, asked) for asked in self._engine.begin(requests, should_stop, enough)]


def _finish(asked: Asked, should_stop: ShouldStop) -> Reply:
    return _reply(asked.answer(should_stop=should_stop))


def _reply(answer: Answer) -> Reply:
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
        waited_s=timing.waited_ms / 1000,
        prefilled_together=answer.prefilled_together,
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
        mlock=config.mlock,
    )


def _use(statistics: ExpertStatistics | None) -> ExpertUse | None:
    if statistics is None:
        return None
    return ExpertUse(statistics.hits, statistics.misses, statistics.read_bytes, statistics.flash_wait_ms / 1000)


def _request(question: Question, image: Picture | None = None) -> AskRequest:
    return AskRequest(
        question.text,
        [] if image is None else [image],
        system=question.system,
        json_schema=question.json_schema,
        thinking=question.thinking,
        thinking_budget=question.thinking_budget,
        max_new_tokens=question.max_tokens,
        camera=question.camera,
    )


def _problems(problems: Iterable[RequestProblem]) -> list[QuestionProblem]:
    return [
        QuestionProblem("max_tokens" if problem.field == "max_new_tokens" else problem.field, problem.error)
        for problem in problems
    ]
