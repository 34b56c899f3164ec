"""Answers questions about pictures with one bundle: joins all parts of this package."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from moedge_runtime.bundle import Bundle
from moedge_runtime.inference.check import RequestChecker, RequestProblem, context_of
from moedge_runtime.inference.decoder import Cancelled, Decoder, DecoderInput, ShouldStop
from moedge_runtime.inference.dequantize import FloatArray
from moedge_runtime.inference.embedding import EmbeddingTable
from moedge_runtime.inference.experts import ExpertBank
from moedge_runtime.inference.generation import Generated, Generation, OnText, TokenChooser
from moedge_runtime.inference.heap import return_large_blocks
from moedge_runtime.inference.hot_set_file import HotSetFile
from moedge_runtime.inference.image_processor import ImageProcessor, ImageProcessorSettings, ProcessedImage
from moedge_runtime.inference.memory_budget import plan_for, room_for_pictures
from moedge_runtime.inference.memory_plan import MemoryPlan
from moedge_runtime.inference.onnx_session import providers_for
from moedge_runtime.inference.opening import open_dense, open_experts, open_hot_set
from moedge_runtime.inference.positions import image_tokens, mrope_positions
from moedge_runtime.inference.prefix_store import PrefixStore
from moedge_runtime.inference.prompt import Prompt
from moedge_runtime.inference.request import Answer, AskRequest, EngineOptions
from moedge_runtime.inference.sampling import Sampling
from moedge_runtime.inference.stopwatch import Stopwatch
from moedge_runtime.inference.thinking import ThinkingTracker
from moedge_runtime.inference.vision import VisionEncoder, VisionFeatures


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
        *,
        experts: ExpertBank | None = None,
        plan: MemoryPlan | None = None,
        hot_set: HotSetFile | None = None,
    ) -> None:
        """Join the parts of `bundle`; use `open` unless some are your own.

        Args:
            bundle: What the others belong to.
            options: Taken as they are.
            decoder: Closed with the engine.
            vision: The vision tower.
            experts: The decoder's; the decoder closes them.
            plan: What `experts` and `vision` were opened with.
            hot_set: Written while the engine is used.
        """
        self.bundle = bundle
        self.options = options
        self.experts = experts
        self.plan = plan
        self._hot_set = hot_set
        self._model = bundle.manifest.model
        self._decoder = decoder
        max_pixels = plan.max_pixels if plan is not None and plan.pixels_limited else options.max_pixels
        self._checker = RequestChecker(bundle, decoder.cache.capacity, max_pixels)
        settings = ImageProcessorSettings.from_config(bundle.json("preprocessor_config.json"))
        self._image_processor = ImageProcessor(settings, max_pixels)
        self._vision = vision
        self._embedding = EmbeddingTable(bundle)
        self._lock = threading.Lock()
        self._prefixes = PrefixStore(decoder.cache)

    @classmethod
    def open(cls, bundle: str | Path | Bundle, options: EngineOptions | None = None) -> Engine:
        """Load a bundle, paged or inline, and begin to read experts, those that a hot set knows first.

        Raises:
            BundleError: It cannot be used.
            ConfigError: An option is out of range, or the memory is too small.
            StorageError: The hot set cannot be read.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        options = options or EngineOptions()
        options = replace(options, max_context=context_of(opened, options.max_context))
        providers_for(options.provider)
        plan = plan_for(opened, options)
        return_large_blocks()
        experts = open_experts(opened, options, plan)
        opening: Decoder | ExpertBank | None = experts
        try:
            hot_set = open_hot_set(opened, options, experts)
            opening, vision = open_dense(opened, options, plan, experts)
            engine = cls(opened, options, opening, vision, experts=experts, plan=plan, hot_set=hot_set)
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

    def recommended_sampling(self, **changes: float | int | None) -> Sampling:
        """What the checkpoint's generation_config.json recommends, with the `changes` that are not None."""
        return Sampling.from_generation_config(self.bundle.json("generation_config.json"), **changes)

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
            should_stop: Asked before every layer of the prefill (paged bundles) and every token; True cancels.
            on_reasoning: As `on_text`, for the reasoning.

        Raises:
            RequestError: This question cannot be answered; the engine stays usable.
            BundleError: A file of the bundle is damaged.
        """
        with self._lock:
            answer = self._ask(request, on_text, should_stop, on_reasoning)
            if self.experts is not None:
                self.experts.preload()  # the flash is idle until the next question
            if self._hot_set is not None:
                self._hot_set.after_answer()
        return answer

    def check(self, request: AskRequest, unseen_images: int = 0) -> list[RequestProblem]:
        """What `ask` would refuse in `request`, all of it, as far as it can be said without pictures.

        Args:
            request: Its own images are not looked at.
            unseen_images: Images to come; each is counted with the fewest tokens that it can have.
        """
        with self._lock:
            return self._checker.problems(request, unseen_images)

    def _ask(
        self,
        request: AskRequest,
        on_text: OnText | None,
        should_stop: ShouldStop | None,
        on_reasoning: OnText | None,
    ) -> Answer:
        clock = Stopwatch()
        before = self.experts.statistics() if self.experts is not None else None
        images = [self._image_processor(image) for image in request.images]
        grids = [image.grid_thw for image in images]
        counts = [image_tokens(grid, self._model.vision.spatial_merge_size) for grid in grids]
        prompt = self._checker.prompts.build(request, counts)
        self._checker.check_lengths(request, prompt)
        generation = self._generation(request, prompt, on_text, on_reasoning)
        clock.lap("preprocess")
        features = self._features(images)
        del images  # their patches take more memory than the picture
        clock.lap("vision")
        positions = mrope_positions(
            prompt.tokens,
            self._model.tokens.image,
            grids,
            self._model.vision.spatial_merge_size,
        )
        reused = self._reused(prompt)
        generated: Generated
        try:
            logits = self._prefill(prompt, positions, features, reused, should_stop)
        except Cancelled:
            clock.lap("prefill")
            generated = generation.cancelled()
        else:
            clock.lap("prefill")
            generated = generation.run(logits, self._advance(int(positions.max()) + 1), should_stop)
        clock.lap("decode")
        return Answer(
            text=generated.text,
            reasoning=generated.reasoning,
            data=json.loads(generated.text) if generated.valid else None,
            finish_reason=generated.finish_reason,
            prompt_tokens=len(prompt.tokens),
            image_tokens=sum(counts),
            cached_tokens=reused,
            answer_tokens=generated.answer_tokens,
            reasoning_tokens=generated.reasoning_tokens,
            timing=clock.timing(len(generation.tokens)),
            experts=self.experts.statistics() - before if self.experts is not None and before is not None else None,
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
            end_tokens=tokens.end_of_text,
            max_new_tokens=request.max_new_tokens,
            on_text=on_text,
            on_reasoning=on_reasoning,
        )

    def _features(self, images: list[ProcessedImage]) -> VisionFeatures:
        if images:
            with room_for_pictures(self.plan, self.experts, images):
                if self.experts is not None:
                    self.experts.preload()  # the flash is idle while the graph runs
                return self._vision.encode(images)
        taps, hidden_size = len(self._model.vision.deepstack_visual_indexes), self._model.text.hidden_size
        return VisionFeatures(
            np.zeros((0, hidden_size), np.float32),
            np.zeros((taps, 0, hidden_size), np.float32),
        )

    def _reused(self, prompt: Prompt) -> int:
        """Tokens of the prompt that the KV cache holds now; at least one token is left to compute."""
        reusable = min(prompt.text_prefix, len(prompt.tokens) - 1) if self.options.reuse_prefix else 0
        return self._prefixes.begin(prompt.tokens[:reusable])

    def _prefill(
        self,
        prompt: Prompt,
        positions: npt.NDArray[np.int64],
        features: VisionFeatures,
        reused: int,
        should_stop: ShouldStop | None,
    ) -> FloatArray:
        new = prompt.tokens[reused:]
        hidden = self._embedding.rows(new)
        places = np.flatnonzero(np.asarray(new) == self._model.tokens.image)
        hidden[places] = features.image
        logits = self._decoder.forward(
            DecoderInput(hidden, positions[:, reused:], places, features.deepstack), should_stop
        )
        if self.options.reuse_prefix:
            self._prefixes.keep(prompt.tokens[: prompt.text_prefix])
        return logits

    def _advance(self, position: int) -> Callable[[list[int]], FloatArray]:
        """A function that runs generated tokens, the first of them at `position`."""
        nothing = self._features([])
        next_position = position

        def advance(tokens: list[int]) -> FloatArray:
            nonlocal next_position
            positions = np.arange(next_position, next_position + len(tokens), dtype=np.int64)
            next_position += len(tokens)
            return self._decoder.forward(
                DecoderInput(
                    self._embedding.rows(tokens),
                    np.repeat(positions[None], 3, axis=0),
                    np.zeros(0, np.int64),
                    nothing.deepstack,
                )
            )

        return advance
