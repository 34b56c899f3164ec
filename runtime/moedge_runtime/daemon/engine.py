"""The engine of moedge_runtime.inference as an Answerer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from moedge_runtime.bundle import Bundle
from moedge_runtime.config import ModelConfig
from moedge_runtime.daemon.answerer import Question, Reply
from moedge_runtime.inference import AskRequest, Engine, EngineOptions


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
        options = EngineOptions(threads=config.threads, provider=config.provider, max_context=config.max_context)
        return cls(Engine.open(bundle, options))

    def ask(self, question: Question, image: NDArray[np.uint8], should_stop: Callable[[], bool]) -> Reply:
        """See Answerer."""
        answer = self._engine.ask(
            AskRequest(
                question.text,
                images=[image],
                system=question.system,
                json_schema=question.json_schema,
                thinking=question.thinking,
                thinking_budget=question.thinking_budget,
                max_new_tokens=question.max_tokens,
            ),
            should_stop=should_stop,
        )
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
        )
