"""One answer, cut into vision, prefill and decoded tokens, each with its bytes and its wait for flash."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter

from moedge_runtime.bench.process import read_bytes
from moedge_runtime.inference import AskRequest, Engine, ExpertStatistics
from moedge_runtime.inference.expert_core.vision import parts_of


@dataclass(frozen=True)
class Share:
    """What one part of an answer took.

    Attributes:
        seconds: Of wall clock.
        flash_wait_s: Of these, without anything to compute while a read was outstanding.
        read_bytes: Bytes that disks were made to read, as the kernel counts them; None if it does not.
        missed_bytes: Of these, what was needed: less what was read ahead for nothing.
    """

    seconds: float
    flash_wait_s: float
    read_bytes: int | None
    missed_bytes: float


@dataclass(frozen=True)
class FrameMeasurement:
    """An answer.

    Attributes:
        prefill_tokens: Tokens of the prompt that were computed, those of images included.
        image_tokens: Tokens of images.
        preprocess_s: Pictures to patches.
        vision_s: The vision tower.
        prefill: Its bytes are those from the call to the first token.
        decode: Each token after the first.
        tokens: Of the answer.
        prefill_experts: Different experts of a layer that the prefill chose, on average over the layers.
    """

    prefill_tokens: int
    image_tokens: int
    preprocess_s: float
    vision_s: float
    prefill: Share
    decode: list[Share]
    tokens: list[int]
    prefill_experts: float

    @property
    def first_token_s(self) -> float:
        """From the call to the first token."""
        return self.preprocess_s + self.vision_s + self.prefill.seconds


@dataclass(frozen=True)
class _Moment:
    seconds: float
    read_bytes: int | None
    experts: ExpertStatistics


def measure_frame(engine: Engine, request: AskRequest) -> FrameMeasurement:
    """Answer `request` with an engine of a paged bundle.

    The engine asks before every part of a native vision tower, every layer of a prefill and every decoded token whether
    to stop: each of these is looked at.
    """
    experts, info, plan = engine.experts, engine.bundle.manifest.experts, engine.plan
    assert experts is not None and plan is not None
    assert info is not None, "an inline bundle has no records"
    moments: list[_Moment] = []

    def look() -> bool:
        moments.append(_Moment(perf_counter(), read_bytes(), experts.statistics()))
        return False

    look()
    answer = engine.ask(request, should_stop=look)
    look()
    timing, start = answer.timing, moments[0]
    model = engine.bundle.manifest.model
    before = len(parts_of(model.vision)) if plan.native_vision and request.images else 0
    decoding = moments[1 + before + model.text.num_hidden_layers :]
    prefill = _share(start, decoding[0], info.record_bytes)
    prefilled = decoding[0].experts - start.experts
    return FrameMeasurement(
        prefill_tokens=answer.prompt_tokens - answer.cached_tokens,
        image_tokens=answer.image_tokens,
        preprocess_s=timing.preprocess_ms / 1e3,
        vision_s=timing.vision_ms / 1e3,
        prefill=Share(timing.prefill_ms / 1e3, prefill.flash_wait_s, prefill.read_bytes, prefill.missed_bytes),
        decode=[_share(earlier, later, info.record_bytes) for earlier, later in pairwise(decoding)],
        tokens=list(answer.tokens),
        prefill_experts=(prefilled.hits + prefilled.misses) / len(model.text.moe_layers),
    )


def _share(earlier: _Moment, later: _Moment, record_bytes: int) -> Share:
    done = later.experts - earlier.experts
    read = None
    if earlier.read_bytes is not None and later.read_bytes is not None:
        read = later.read_bytes - earlier.read_bytes
    nbytes = done.reads * record_bytes if read is None else read
    return Share(
        seconds=later.seconds - earlier.seconds,
        flash_wait_s=done.flash_wait_ms / 1e3,
        read_bytes=read,
        missed_bytes=nbytes * _needed(done) / done.reads if done.reads else 0.0,
    )


def _needed(done: ExpertStatistics) -> int:
    """Records that were read for a use."""
    # What was preloaded before this part may be used in it, so that more is used than was preloaded.
    return max(0, done.reads - done.prefetch_unused - max(0, done.preloaded - done.preload_used))
