"""Answers questions about pictures with one bundle: joins all parts of this package."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt

from moedge_runtime.bundle import Bundle
from moedge_runtime.errors import ConfigError
from moedge_runtime.inference.check import RequestChecker, RequestProblem, context_of
from moedge_runtime.inference.decoder import Cancelled, Decoder, DecoderInput, InlineDecoder, PagedDecoder, ShouldStop
from moedge_runtime.inference.dequantize import FloatArray
from moedge_runtime.inference.embedding import EmbeddingTable
from moedge_runtime.inference.expert_core.bank import MAX_THREADS, MAX_TOKENS, NativeExperts
from moedge_runtime.inference.expert_core.memory import rest_of_model
from moedge_runtime.inference.experts import ExpertBank, NumpyExperts
from moedge_runtime.inference.generation import Generated, Generation, OnText, TokenChooser
from moedge_runtime.inference.image_processor import ImageProcessor, ImageProcessorSettings, ProcessedImage
from moedge_runtime.inference.onnx_session import providers_for, thread_count
from moedge_runtime.inference.positions import image_tokens, mrope_positions
from moedge_runtime.inference.prompt import Prompt
from moedge_runtime.inference.request import DEFAULT_NUMPY_BYTES, Answer, AskRequest, EngineOptions, Timing
from moedge_runtime.inference.sampling import Sampling
from moedge_runtime.inference.thinking import ThinkingTracker
from moedge_runtime.inference.vision import VisionEncoder, VisionFeatures


class Engine:
    """A loaded model. One question at a time; another thread that asks waits for its turn.

    Attributes:
        bundle: What it was opened from. Its files are not hashed here: see `moedge_runtime.bundle.verify_bundle`.
        options: How it runs.
        experts: Where a paged decoder has its experts; None for an inline bundle.
    """

    def __init__(
        self, bundle: Bundle, options: EngineOptions, decoder: Decoder, experts: ExpertBank | None = None
    ) -> None:
        """Join a decoder with everything else of `bundle`; use `open` unless the decoder is your own.

        Args:
            bundle: What the decoder belongs to.
            options: Taken as they are.
            decoder: Closed with the engine.
            experts: The decoder's, for `Answer.experts`; the decoder closes them.
        """
        self.bundle = bundle
        self.options = options
        self.experts = experts
        self._model = bundle.manifest.model
        self._decoder = decoder
        self._checker = RequestChecker(bundle, decoder.cache.capacity, options.max_pixels)
        settings = ImageProcessorSettings.from_config(bundle.json("preprocessor_config.json"))
        self._image_processor = ImageProcessor(settings, options.max_pixels)
        self._vision = VisionEncoder(bundle, options.provider, options.threads)
        self._embedding = EmbeddingTable(bundle)
        self._lock = threading.Lock()
        self._cached: list[int] = []  # tokens of the text prefix that the KV cache holds

    @classmethod
    def open(cls, bundle: str | Path | Bundle, options: EngineOptions | None = None) -> Engine:
        """Load a bundle, paged or inline.

        Raises:
            BundleError: It cannot be used.
            ConfigError: An option is out of range.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        options = options or EngineOptions()
        options = replace(options, max_context=context_of(opened, options.max_context))
        providers_for(options.provider)
        experts = _open_experts(opened, options, thread_count(options.threads))
        opening: Decoder | ExpertBank | None = experts
        try:
            opening = decoder = _open_decoder(opened, options, experts)
            return cls(opened, options, decoder, experts)
        except BaseException:
            if opening is not None:
                opening.close()
            raise

    def close(self) -> None:
        """Release sessions, files and memory."""
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
            return self._ask(request, on_text, should_stop, on_reasoning)

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
        clock = _Clock()
        before = self.experts.statistics() if self.experts is not None else None
        images = [self._image_processor(image) for image in request.images]
        counts = [image_tokens(image.grid_thw, self._model.vision.spatial_merge_size) for image in images]
        prompt = self._checker.prompts.build(request, counts)
        self._checker.check_lengths(request, prompt)
        generation = self._generation(request, prompt, on_text, on_reasoning)
        clock.lap("preprocess")
        features = self._features(images)
        clock.lap("vision")
        positions = mrope_positions(
            prompt.tokens,
            self._model.tokens.image,
            [image.grid_thw for image in images],
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
            return self._vision.encode(images)
        taps, hidden_size = len(self._model.vision.deepstack_visual_indexes), self._model.text.hidden_size
        return VisionFeatures(
            np.zeros((0, hidden_size), np.float32),
            np.zeros((taps, 0, hidden_size), np.float32),
        )

    def _reused(self, prompt: Prompt) -> int:
        """Tokens of the prompt that the KV cache holds already; at least one token is left to compute."""
        if not self.options.reuse_prefix:
            return 0
        longest = min(len(self._cached), prompt.text_prefix, len(prompt.tokens) - 1)
        for index in range(longest):
            if self._cached[index] != prompt.tokens[index]:
                return index
        return longest

    def _prefill(
        self,
        prompt: Prompt,
        positions: npt.NDArray[np.int64],
        features: VisionFeatures,
        reused: int,
        should_stop: ShouldStop | None,
    ) -> FloatArray:
        self._cached = prompt.tokens[:reused]
        self._decoder.cache.truncate(reused)
        new = prompt.tokens[reused:]
        hidden = self._embedding.rows(new)
        places = np.flatnonzero(np.asarray(new) == self._model.tokens.image)
        hidden[places] = features.image
        logits = self._decoder.forward(
            DecoderInput(hidden, positions[:, reused:], places, features.deepstack), should_stop
        )
        self._cached = prompt.tokens[: prompt.text_prefix]
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


def _open_experts(bundle: Bundle, options: EngineOptions, threads: int) -> ExpertBank | None:
    """The expert bank of a paged bundle; None for an inline one."""
    if bundle.manifest.form == "inline":
        if options.expert_budget_bytes is not None:
            raise ConfigError(
                f"Bundle '{bundle.path}' is inline: its experts are part of its model, which is in memory as a whole. "
                f"Leave out the memory for experts, or export the bundle with --experts paged."
            )
        return None
    if options.experts == "numpy":
        return NumpyExperts(bundle, options.expert_budget_bytes or DEFAULT_NUMPY_BYTES)
    if options.experts != "core":
        return options.experts(bundle)
    max_context = context_of(bundle, options.max_context)
    return NativeExperts(
        bundle,
        options.expert_budget_bytes,
        threads=min(threads, MAX_THREADS),
        readers=options.expert_readers,
        max_tokens=min(max_context, MAX_TOKENS),
        rest_bytes=rest_of_model(bundle.manifest, max_context),
    )


def _open_decoder(bundle: Bundle, options: EngineOptions, experts: ExpertBank | None) -> Decoder:
    max_context = context_of(bundle, options.max_context)
    if experts is None:
        return InlineDecoder(bundle, max_context, options.provider, options.threads)
    return PagedDecoder(bundle, experts, max_context, options.provider, options.threads)


class _Clock:
    """Wall-clock time of the stages of one answer."""

    def __init__(self) -> None:
        self._start = self._last = perf_counter()
        self._laps_ms: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now = perf_counter()
        self._laps_ms[stage] = 1e3 * (now - self._last)
        self._last = now

    def timing(self, generated_tokens: int) -> Timing:
        laps = self._laps_ms
        decode_s = laps["decode"] / 1e3
        return Timing(
            preprocess_ms=laps["preprocess"],
            vision_ms=laps["vision"],
            prefill_ms=laps["prefill"],
            time_to_first_token_ms=laps["preprocess"] + laps["vision"] + laps["prefill"],
            decode_ms=laps["decode"],
            decode_tokens_per_s=(generated_tokens - 1) / decode_s if generated_tokens > 1 and decode_s > 0 else None,
            total_ms=1e3 * (self._last - self._start),
        )
