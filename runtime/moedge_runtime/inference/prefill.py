"""Brings prompts into KV caches: one, or several in one pass over the experts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from moedge_runtime.bundle import Bundle
from moedge_runtime.inference.check import RequestChecker
from moedge_runtime.inference.decoder import Cancelled, Decoder, DecoderInput, ShouldStop
from moedge_runtime.inference.dequantize import FloatArray
from moedge_runtime.inference.embedding import EmbeddingTable
from moedge_runtime.inference.experts import ExpertBank, ExpertStatistics
from moedge_runtime.inference.image_processor import ProcessedImage
from moedge_runtime.inference.kv_cache import KvCache
from moedge_runtime.inference.memory_budget import room_for_pictures
from moedge_runtime.inference.memory_plan import MemoryPlan
from moedge_runtime.inference.positions import image_tokens, mrope_positions
from moedge_runtime.inference.prefix_store import PrefixStore
from moedge_runtime.inference.prompt import Prompt
from moedge_runtime.inference.request import AskRequest
from moedge_runtime.inference.sharing import SharingGain
from moedge_runtime.inference.stopwatch import Stopwatch
from moedge_runtime.inference.vision import VisionEncoder, VisionFeatures


@dataclass(frozen=True, eq=False)
class Prefilled:
    """A prompt in its KV cache.

    Attributes:
        prompt: Its tokens.
        cache: Where it is.
        next_position: Of the first token of the answer.
        image_tokens: Tokens of its images.
        cached_tokens: Tokens that were not computed.
        prompts: That went through the pass together.
        logits: float32 [vocab_size] after it; None if the pass was cancelled.
        experts: This prompt's part of what the pass did; None for an inline bundle.
    """

    prompt: Prompt
    cache: KvCache
    next_position: int
    image_tokens: int
    cached_tokens: int
    prompts: int
    logits: FloatArray | None
    experts: ExpertStatistics | None


@dataclass(frozen=True)
class _Ready:
    """A prompt that can go through the decoder; encoding its pictures took `pictures_s`."""

    prompt: Prompt
    cache: KvCache
    next_position: int
    cached_tokens: int
    tokens: DecoderInput
    pictures_s: float


class Prefiller:
    """Computes prompts with one decoder.

    A prompt that is alone is put at the beginning of the KV cache. Of those that share a pass the first is, and each
    other one takes as many places from the end as it and its answer may need, so that they divide the context and
    nothing is allocated for them. What is there stays until it is `taken`, or until a prompt that comes in between
    needs its places.

    Args:
        bundle: What the others belong to.
        checker: The model's.
        decoder: Where prompts go.
        vision: The vision tower.
        experts: The decoder's; None for an inline bundle.
        plan: How memory is divided; likewise.
        reuse_prefix: As in EngineOptions.

    Attributes:
        embedding: Rows of the tokens.
        gain: What was learned about sharing.
    """

    def __init__(
        self,
        bundle: Bundle,
        checker: RequestChecker,
        decoder: Decoder,
        vision: VisionEncoder,
        *,
        experts: ExpertBank | None,
        plan: MemoryPlan | None,
        reuse_prefix: bool,
    ) -> None:
        self._model = bundle.manifest.model
        self._checker, self._decoder, self._vision, self._experts = checker, decoder, vision, experts
        self.embedding = EmbeddingTable(bundle)
        self._plan, self._reuse_prefix = plan, reuse_prefix
        self._prefixes = PrefixStore(decoder.cache)
        self._there: list[Prefilled] = []
        self.gain = SharingGain()

    def alone(self, request: AskRequest, clock: Stopwatch, should_stop: ShouldStop | None) -> Prefilled:
        """Compute the prompt of `request`; what is in its way has to be computed again.

        Raises:
            RequestError: It cannot be answered.
            BundleError: An expert cannot be read.
        """
        images, prompt = self.read(request)
        needed = _places(prompt, request)
        self._there = [other for other in self._there if other.cache.offset >= needed]
        clock.lap("preprocess")
        try:
            ready = self._ready(prompt, images, self._decoder.cache, should_stop)
            clock.lap("vision")
        except Cancelled:
            clock.lap("vision")
            clock.lap("prefill")
            return self._cancelled(prompt)
        [prefilled] = self._forward([ready], [clock], should_stop)
        return prefilled

    def together(
        self,
        requests: Sequence[AskRequest],
        clocks: Sequence[Stopwatch],
        should_stop: ShouldStop | None,
        enough: Callable[[], bool] | None = None,
    ) -> list[Prefilled | None]:
        """Compute the prompts that fit into the KV cache together, with their answers, in one pass.

        Returns:
            None for each that is to go alone: the first that does not fit or of which there are `enough` before it,
            those after it, and one that fails. If the pass fails, that is each of them, since the cause may be one
            prompt's.
        """
        self._there = []
        begin, end, held_bytes = 0, self._decoder.cache.capacity, 0
        group: list[tuple[int, _Ready]] = []
        for index, (request, clock) in enumerate(zip(requests, clocks, strict=True)):
            if (should_stop is not None and should_stop()) or (group and enough is not None and enough()):
                break
            clock.lap("wait")
            try:
                images, prompt = self.read(request)
                clock.lap("preprocess")
                needed = _places(prompt, request)
                if needed > end - begin:
                    break
                cache = self._decoder.cache.behind(end - needed) if group else self._decoder.cache
                ready = self._ready(prompt, images, cache, should_stop, held_bytes)
                clock.lap("vision")
            except Exception:  # it fails again where it goes alone, and is told there
                continue
            begin, end = (begin, end - needed) if group else (needed, end)
            held_bytes += ready.tokens.hidden.nbytes + ready.tokens.deepstack.nbytes
            group.append((index, ready))
        results: list[Prefilled | None] = [None] * len(requests)
        if not group:
            return results
        for index, _ in group:
            clocks[index].lap("wait")
        try:
            passed = self._forward([ready for _, ready in group], [clocks[index] for index, _ in group], should_stop)
        except Exception:
            return results
        for (index, _), prefilled in zip(group, passed, strict=True):
            results[index] = prefilled
        self._there = passed
        return results

    def taken(self, prefilled: Prefilled) -> bool:
        """Whether `prefilled` is still in its cache; it is to be answered now."""
        there = prefilled in self._there
        self._there = [other for other in self._there if other is not prefilled]
        return there

    def read(self, request: AskRequest) -> tuple[list[ProcessedImage], Prompt]:
        """Pictures and prompt of `request`, checked.

        Raises:
            RequestError: It cannot be answered.
        """
        images = [self._checker.image_processor(image) for image in request.images]
        merge_size = self._model.vision.spatial_merge_size
        prompt = self._checker.prompts.build(request, [image_tokens(image.grid_thw, merge_size) for image in images])
        self._checker.check_lengths(request, prompt)
        if request.json_schema is not None:
            self._checker.schemas.compile(request.json_schema)
        return images, prompt

    def _cancelled(self, prompt: Prompt) -> Prefilled:
        """Of a prompt whose pictures were not encoded to their end."""
        now = None if self._experts is None else self._experts.statistics()
        return Prefilled(
            prompt,
            self._decoder.cache,
            next_position=0,
            image_tokens=prompt.tokens.count(self._model.tokens.image),
            cached_tokens=0,
            prompts=1,
            logits=None,
            experts=None if now is None else now - now,
        )

    def _ready(
        self,
        prompt: Prompt,
        images: list[ProcessedImage],
        cache: KvCache,
        should_stop: ShouldStop | None,
        held_bytes: int = 0,
    ) -> _Ready:
        """Encode the pictures, whose patches are let go: they take more memory than the picture."""
        begin_s = perf_counter()
        grids = [image.grid_thw for image in images]
        features = self._features(images, should_stop, held_bytes)
        images.clear()
        pictures_s = perf_counter() - begin_s
        positions = mrope_positions(
            prompt.tokens, self._model.tokens.image, grids, self._model.vision.spatial_merge_size
        )
        # At least one token is left to compute.
        reusable = min(prompt.text_prefix, len(prompt.tokens) - 1) if self._reuse_prefix else 0
        reused = self._prefixes.begin(cache, prompt.tokens[:reusable])
        new = prompt.tokens[reused:]
        hidden = self.embedding.rows(new)
        places = np.flatnonzero(np.asarray(new) == self._model.tokens.image)
        hidden[places] = features.image
        tokens = DecoderInput(cache, hidden, positions[:, reused:], places, features.deepstack)
        return _Ready(prompt, cache, int(positions.max()) + 1, reused, tokens, pictures_s)

    def _features(
        self, images: list[ProcessedImage], should_stop: ShouldStop | None, held_bytes: int
    ) -> VisionFeatures:
        if not images:
            return no_features(self._model.vision.deepstack_visual_indexes, self._model.text.hidden_size)
        with room_for_pictures(self._plan, self._experts, images, held_bytes):
            if self._experts is not None:
                self._experts.preload()  # the flash is idle while pictures are encoded
            return self._vision.encode(images, should_stop)

    def _forward(
        self, group: Sequence[_Ready], clocks: Sequence[Stopwatch], should_stop: ShouldStop | None
    ) -> list[Prefilled]:
        before = None if self._experts is None else self._experts.statistics()
        begin_s = perf_counter()
        logits: Sequence[FloatArray | None]
        try:
            logits = self._decoder.forward([ready.tokens for ready in group], should_stop)
        except Cancelled:
            logits = [None] * len(group)
        seconds = perf_counter() - begin_s
        for clock in clocks:
            clock.lap("prefill")
        used = None if self._experts is None or before is None else self._experts.statistics() - before
        if used is not None:
            pictures_s = sum(ready.pictures_s for ready in group)
            self.gain.note(len(group), pictures_s, seconds, used.flash_wait_ms / 1e3, used.read_bytes)
        results = []
        for index, (ready, after) in enumerate(zip(group, logits, strict=True)):
            if self._reuse_prefix and after is not None:
                self._prefixes.keep(ready.cache, ready.prompt.tokens[: ready.prompt.text_prefix])
            results.append(
                Prefilled(
                    ready.prompt,
                    ready.cache,
                    ready.next_position,
                    image_tokens=ready.prompt.tokens.count(self._model.tokens.image),
                    cached_tokens=ready.cached_tokens,
                    prompts=len(group),
                    logits=after,
                    experts=None if used is None else used.part(index, len(group)),
                )
            )
        return results


def _places(prompt: Prompt, request: AskRequest) -> int:
    """Places in the KV cache of a prompt and its answer."""
    return len(prompt.tokens) + request.max_new_tokens


def no_features(taps: Sequence[int], hidden_size: int) -> VisionFeatures:
    """What the vision tower says of no picture."""
    return VisionFeatures(np.zeros((0, hidden_size), np.float32), np.zeros((len(taps), 0, hidden_size), np.float32))
