"""Answers questions about pictures with one bundle: joins all parts of this package."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from moedge_runtime.bundle import Bundle
from moedge_runtime.inference.camera_pins import CameraPins
from moedge_runtime.inference.check import RequestChecker, RequestProblem, context_of
from moedge_runtime.inference.decoder import Decoder, DecoderInput, ShouldStop
from moedge_runtime.inference.dequantize import FloatArray
from moedge_runtime.inference.experts import ExpertBank
from moedge_runtime.inference.generation import Generation, OnText, TokenChooser
from moedge_runtime.inference.heap import return_large_blocks
from moedge_runtime.inference.hot_set_file import HotSetFile
from moedge_runtime.inference.image_processor import ProcessedImage
from moedge_runtime.inference.memory_budget import plan_for
from moedge_runtime.inference.memory_plan import MemoryPlan
from moedge_runtime.inference.onnx_session import providers_for
from moedge_runtime.inference.opening import open_dense, open_experts, open_hot_set
from moedge_runtime.inference.prefill import Prefilled, Prefiller, no_features
from moedge_runtime.inference.prompt import Prompt
from moedge_runtime.inference.request import Answer, AskRequest, EngineOptions
from moedge_runtime.inference.sampling import Sampling
from moedge_runtime.inference.stopwatch import Stopwatch
from moedge_runtime.inference.thinking import ThinkingTracker
from moedge_runtime.inference.vision import VisionEncoder


class Engine:
    """A loaded model. One question at a time; another thread that asks waits for its turn.

    Attributes:
        bundle: What it was opened from. Its files are not hashed here: see `moedge_runtime.bundle.verify_bundle`.
        options: How it runs.
        experts: Where a paged decoder has its experts; None for an inline bundle.
        plan: How a paged bundle's memory is divided; None for an inline one.
    """

    def __init__(
        self,
        bundle: Bundle,
        options: EngineOptions,
        decoder: Decoder,
        vision: VisionEncoder,
        checker: RequestChecker,
        *,
        experts: ExpertBank | None = None,
        plan: MemoryPlan | None = None,
        pins: CameraPins | None = None,
        hot_set: HotSetFile | None = None,
    ) -> None:
        """Join the parts of `bundle`; use `open` unless some are your own.

        Args:
            bundle: What the others belong to.
            options: Taken as they are.
            decoder: Closed with the engine.
            vision: The vision tower.
            checker: Of `bundle`, with the decoder's context and the plan's limit of pictures.
            experts: The decoder's; the decoder closes them.
            plan: What `experts` and `vision` were opened with.
            pins: What keeps a camera's experts in memory; None for one that knows no camera yet.
            hot_set: Written while the engine is used.
        """
        self.bundle = bundle
        self.options = options
        self.experts = experts
        self.plan = plan
        self._model = bundle.manifest.model
        self._pins = pins or CameraPins(experts, self._model.text)
        self._hot_set = hot_set
        self._decoder = decoder
        self._shares = decoder.shares and options.experts != "numpy"
        self._checker = checker
        self._prefiller = Prefiller(
            bundle,
            checker,
            decoder,
            vision,
            experts=experts,
            plan=plan,
            reuse_prefix=options.reuse_prefix,
        )
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls, bundle: str | Path | Bundle, options: EngineOptions | None = None, first: AskRequest | None = None
    ) -> Engine:
        """Load a bundle, paged or inline, and begin to read experts, those that a hot set knows first.

        Args:
            bundle: An opened bundle, or where it is.
            options: How it is to run.
            first: A question that is to be asked; refused before any weights are loaded.

        Raises:
            RequestError: `ask` would refuse `first`.
            BundleError: It cannot be used.
            ConfigError: An option is out of range, or the memory is too small.
            StorageError: The hot set cannot be read.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        options = options or EngineOptions()
        options = replace(options, max_context=context_of(opened, options.max_context))
        providers_for(options.provider)
        plan = plan_for(opened, options)
        max_pixels = plan.max_pixels if plan is not None and plan.pixels_limited else options.max_pixels
        checker = RequestChecker(opened, options.max_context, max_pixels)
        if first is not None:
            checker.refuse(first)
        return_large_blocks()
        experts = open_experts(opened, options, plan)
        opening: Decoder | ExpertBank | None = experts
        try:
            pins = CameraPins(experts, opened.manifest.model.text)
            hot_set = open_hot_set(opened, options, experts, pins.counts)
            opening, vision = open_dense(opened, options, plan, experts)
            engine = cls(
                opened, options, opening, vision, checker, experts=experts, plan=plan, pins=pins, hot_set=hot_set
            )
        except BaseException:
            if opening is not None:
                opening.close()
            raise
        if experts is not None:
            experts.preload()
        return engine

    def close(self) -> None:
        """Write the hot set; release sessions, files and memory. May be called again."""
        if self._hot_set is not None:
            self._hot_set.save()
            self._hot_set = None
        self._decoder.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def keep_cameras(self, cameras: Collection[str]) -> None:
        """Forget what was learned about the experts of all other cameras."""
        with self._lock:
            self._pins.counts.keep(cameras)

    def recommended_sampling(self, **changes: float | int | None) -> Sampling:
        """What the checkpoint's generation_config.json recommends, with the `changes` that are not None."""
        return Sampling.from_generation_config(self.bundle.json("generation_config.json"), **changes)

    @property
    def together(self) -> int:
        """How many questions `begin` is worth to be given now; 1 where sharing a pass gains nothing."""
        return self._prefiller.gain.prompts() if self._shares else 1

    def ask(
        self,
        request: AskRequest,
        on_text: OnText | None = None,
        should_stop: ShouldStop | None = None,
        on_reasoning: OnText | None = None,
    ) -> Answer:
        """Answer one question; blocks until the answer is complete.

        Args:
            request: The question.
            on_text: Called on this thread with each piece of the answer; together they are `Answer.text`.
            should_stop: Asked before every block of the vision tower (where the native core computes it), every layer
                of the prefill (paged bundles) and every token; True cancels.
            on_reasoning: As `on_text`, for the reasoning.

        Raises:
            RequestError: This question cannot be answered; the engine stays usable.
            BundleError: A file of the bundle is damaged.
        """
        return Asked(self, request).answer(on_text, should_stop, on_reasoning)

    def begin(
        self,
        requests: Sequence[AskRequest],
        should_stop: ShouldStop | None = None,
        enough: Callable[[], bool] | None = None,
    ) -> list[Asked]:
        """Compute the prompts of several questions in one pass over the experts, as far as they fit together.

        Their answers, one after the other and in any order, are those that `ask` gives. Another question may be asked
        in between. The next `begin` of several lets go of what is not answered: it is then computed again.

        Args:
            requests: The questions. One alone is begun with its answer, as are those of an inline bundle.
            should_stop: As in `ask`; the answers are then cancelled.
            enough: Asked before the pictures of each question after the first are encoded; once True, it and the rest
                are begun with their answers.
        """
        asked = [Asked(self, request) for request in requests]
        if self._shares and len(asked) > 1:
            with self._lock:
                clocks = [each.clock for each in asked]
                self._pins.begin(requests[0].camera)
                prefilled = self._prefiller.together(requests, clocks, should_stop, enough)
                self._pins.prompted([request.camera for request, each in zip(requests, prefilled, strict=True) if each])
            for each, result in zip(asked, prefilled, strict=True):
                each.prefilled = result
        return asked

    def check(self, request: AskRequest, unseen_images: int = 0) -> list[RequestProblem]:
        """What `ask` would refuse in `request`, all of it, as far as it can be said without pictures.

        Args:
            request: Its own images are not looked at.
            unseen_images: Images to come; each is counted with the fewest tokens that it can have.
        """
        with self._lock:
            return self._checker.problems(request, unseen_images)

    def read(self, request: AskRequest) -> tuple[list[ProcessedImage], Prompt]:
        """Pictures and prompt of `request` as `ask` computes them.

        Raises:
            RequestError: It cannot be answered.
        """
        with self._lock:
            return self._prefiller.read(request)

    def answer(
        self, asked: Asked, on_text: OnText | None, should_stop: ShouldStop | None, on_reasoning: OnText | None
    ) -> Answer:
        """See `Asked.answer`."""
        with self._lock:
            answer = self._answer(asked, on_text, should_stop, on_reasoning)
            if self.experts is not None:
                self.experts.preload()  # the flash is idle until the next question
            if self._hot_set is not None:
                self._hot_set.after_answer()
        return answer

    def _answer(
        self, asked: Asked, on_text: OnText | None, should_stop: ShouldStop | None, on_reasoning: OnText | None
    ) -> Answer:
        request, clock, prefilled = asked.request, asked.clock, asked.prefilled
        clock.lap("wait")
        self._pins.begin(request.camera)
        if prefilled is None or not self._prefiller.taken(prefilled):
            prefilled = self._prefiller.alone(request, clock, should_stop)
            self._pins.prompted([request.camera])
        before = None if self.experts is None else self.experts.statistics()
        generation = self._generation(request, prefilled.prompt, on_text, on_reasoning)
        if prefilled.logits is None:
            generated = generation.cancelled()
        else:
            generated = generation.run(prefilled.logits, self._advance(prefilled), should_stop)
        self._pins.answered(request.camera)
        clock.lap("decode")
        experts = prefilled.experts
        if self.experts is not None and before is not None and experts is not None:
            experts += self.experts.statistics() - before
        return Answer(
            text=generated.text,
            reasoning=generated.reasoning,
            data=json.loads(generated.text) if generated.valid else None,
            finish_reason=generated.finish_reason,
            prompt_tokens=len(prefilled.prompt.tokens),
            image_tokens=prefilled.image_tokens,
            cached_tokens=prefilled.cached_tokens,
            prefilled_together=prefilled.prompts,
            answer_tokens=generated.answer_tokens,
            reasoning_tokens=generated.reasoning_tokens,
            timing=clock.timing(len(generation.tokens)),
            experts=experts,
            tokens=tuple(generation.tokens),
        )

    def _generation(
        self, request: AskRequest, prompt: Prompt, on_text: OnText | None, on_reasoning: OnText | None
    ) -> Generation:
        tokens = self._model.tokens
        constraint = None if request.json_schema is None else self._checker.schemas.compile(request.json_schema)
        return Generation(
            self._checker.tokenizer,
            chooser=TokenChooser(request.sampling, request.seed, prompt.tokens),
            tracker=ThinkingTracker(tokens.think_start, tokens.think_end, prompt.thinking, request.thinking_budget),
            constraint=constraint,
            end_tokens=[] if request.ignore_end else tokens.end_of_text,
            max_new_tokens=request.max_new_tokens,
            on_text=on_text,
            on_reasoning=on_reasoning,
        )

    def _advance(self, prefilled: Prefilled) -> Callable[[list[int]], FloatArray]:
        """A function that runs the tokens of the answer."""
        nothing = no_features(self._model.vision.deepstack_visual_indexes, self._model.text.hidden_size)
        next_position = prefilled.next_position

        def advance(tokens: list[int]) -> FloatArray:
            nonlocal next_position
            positions = np.arange(next_position, next_position + len(tokens), dtype=np.int64)
            next_position += len(tokens)
            rows = self._prefiller.embedding.rows(tokens)
            places = np.zeros(0, np.int64)
            [logits] = self._decoder.forward(
                [DecoderInput(prefilled.cache, rows, np.repeat(positions[None], 3, axis=0), places, nothing.deepstack)]
            )
            return logits

        return advance


class Asked:
    """A question to an engine; its prompt may be in the KV cache already.

    Attributes:
        request: The question.
        clock: Runs from here to the answer.
        prefilled: The prompt, if it went through a pass with others.
    """

    def __init__(self, engine: Engine, request: AskRequest) -> None:
        self._engine = engine
        self.request = request
        self.clock = Stopwatch()
        self.prefilled: Prefilled | None = None

    def answer(
        self,
        on_text: OnText | None = None,
        should_stop: ShouldStop | None = None,
        on_reasoning: OnText | None = None,
    ) -> Answer:
        """See `Engine.ask`; once."""
        return self._engine.answer(self, on_text, should_stop, on_reasoning)
