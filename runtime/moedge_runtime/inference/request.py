"""A question to the model, its answer, and how an engine is set up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from moedge_runtime.bundle import Bundle
from moedge_runtime.errors import RequestError
from moedge_runtime.inference.experts import ExpertBank, ExpertStatistics
from moedge_runtime.inference.sampling import Sampling
from moedge_runtime.strict_json import check_json, is_text

FinishReason = Literal["stop", "length", "cancelled"]

DEFAULT_MAX_CONTEXT = 4096
"""Tokens of prompt and answer; the KV cache of Qwen3-VL-30B-A3B takes 192 KiB of memory for each."""

DEFAULT_MAX_NEW_TOKENS = 256

DEFAULT_NUMPY_BYTES = 256 << 20
"""Memory in which the numpy reference keeps decoded experts."""


@dataclass(frozen=True)
class EngineOptions:
    """How an engine runs; nothing here changes what it answers, except `max_pixels` and, by rounding, `layers`.

    Attributes:
        max_context: Most tokens of a prompt and its answer; the KV cache is allocated for them at once. None for
            `DEFAULT_MAX_CONTEXT`, or less if the model cannot do that many.
        threads: Threads of ONNX Runtime, and as many of the experts (64 at most), which compute when it does not; None
            for one a core.
        provider: Execution provider: `cpu`, `cuda` or `tensorrt`.
        max_pixels: Upper limit of an image's area after resizing; None for the checkpoint's own, or what the memory
            plan can hold if that is less.
        reuse_prefix: Keep the KV cache of the text before the first image for the next question.
        experts: Expert bank of a paged bundle: `core` is native, `numpy` its slow reference, or what makes another.
        layers: What computes the dense layers and the vision tower of a paged bundle: the native core or ONNX Runtime.
            `auto` is the core where it can: provider `cpu`, a bundle with a table of weights, and experts that are not
            `numpy`. A table without the vision tower's leaves that to ONNX Runtime.
        memory_bytes: Memory for the whole process with a paged bundle, divided by `memory_plan`; None for what the
            machine has available, less the reserve of `expert_core.memory`.
        expert_budget_bytes: Of it for the experts, their core's buffers included; None for what the other parts leave
            (`numpy`: `DEFAULT_NUMPY_BYTES`).
        expert_readers: Experts of a prefill that are read at once, 1 to 64.
        hot_set: File in which the engine keeps how often each expert was chosen, in all and by each camera, so that
            after a start the experts that were needed most are read first; None for a start without knowledge.
        mlock: Back the memory of the experts by pages at once, and never let these be swapped out.
    """

    max_context: int | None = None
    threads: int | None = None
    provider: str = "cpu"
    max_pixels: int | None = None
    reuse_prefix: bool = True
    experts: Literal["core", "numpy"] | Callable[[Bundle], ExpertBank] = "core"
    layers: Literal["auto", "core", "onnxruntime"] = "auto"
    memory_bytes: int | None = None
    expert_budget_bytes: int | None = None
    expert_readers: int = 4
    hot_set: Path | None = None
    mlock: bool = False


@dataclass(frozen=True)
class AskRequest:
    """One question.

    Attributes:
        question: The user's text.
        images: Pictures, uint8 [height, width, 3] in RGB; may be none.
        system: System prompt.
        json_schema: JSON Schema that the answer is made to fit, token by token.
        thinking: Let the model reason first; None for what its chat template does by itself.
        thinking_budget: Most tokens of reasoning; at the limit it is closed and the answer begins.
        max_new_tokens: Most tokens generated, reasoning included.
        sampling: None decodes greedily, so that the same frame always gets the same answer and a changed answer means
            a changed scene; what the checkpoint recommends is in `Sampling.from_generation_config`.
        seed: Of the random numbers, if sampling.
        image_first: Put the images before the question. After it is the default: the text before the first image is
            a prefix that need not be computed again for the next frame.
        ignore_end: Go on after the model has ended its answer, to `max_new_tokens`: for measurements.
        camera: Name of the camera that the images are from: what its answers used most stays in memory meanwhile. None
            for none. Never changes the answer.
    """

    question: str
    images: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    system: str | None = None
    json_schema: dict[str, Any] | None = None
    thinking: bool | None = None
    thinking_budget: int | None = None
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    sampling: Sampling | None = None
    seed: int = 0
    image_first: bool = False
    ignore_end: bool = False
    camera: str | None = None

    def __post_init__(self) -> None:
        """Check what needs no model.

        Raises:
            RequestError: A number is out of range, or a text is none.
        """
        for name, text in (
            ("question", self.question),
            ("system prompt", self.system or ""),
            ("camera", self.camera or ""),
        ):
            if not is_text(text):
                raise RequestError(
                    f"The {name} {ascii(text)[:100]} is not text: it holds bytes that are no UTF-8. "
                    f"Give whole characters.",
                    key="request.not_text",
                )
        if self.json_schema is not None:
            try:
                check_json(self.json_schema)
            except ValueError as error:
                raise RequestError(f"The JSON schema is not valid: {error}.", key="request.schema_invalid") from error
        if self.max_new_tokens < 1:
            raise RequestError(f"max_new_tokens={self.max_new_tokens} is not possible. Set at least 1.")
        if self.thinking_budget is not None and self.thinking_budget < 0:
            raise RequestError(f"thinking_budget={self.thinking_budget} is not possible. Set 0 or more.")


@dataclass(frozen=True)
class Timing:
    """Where the time of an answer went, in milliseconds of wall clock.

    Of questions that share a pass, each has the whole of the pass as its prefill.
    """

    preprocess_ms: float
    vision_ms: float
    prefill_ms: float
    waited_ms: float
    """While the pictures of others that share the pass were encoded and questions before this one answered."""
    time_to_first_token_ms: float
    """From the call to the first token, whether reasoning or answer."""
    decode_ms: float
    decode_tokens_per_s: float | None
    """Tokens after the first, a second of decoding; None if there was only one."""
    total_ms: float


@dataclass(frozen=True)
class Answer:
    """What the model said.

    Attributes:
        text: The answer without reasoning.
        reasoning: What stood between `<think>` and `</think>`; None if the model did not think.
        data: The parsed answer to a request with a JSON schema; None without one or if it was not finished.
        finish_reason: `stop` the model or the schema ended it, `length` max_new_tokens did, `cancelled` the caller did.
        prompt_tokens: Tokens of the prompt, image tokens included.
        image_tokens: Tokens of the images.
        cached_tokens: Tokens of the prompt that were taken from the previous question.
        prefilled_together: Prompts that went through the prefill with this one, itself included.
        answer_tokens: Tokens generated outside the reasoning, the end token included.
        reasoning_tokens: Tokens generated as reasoning, its closing included.
        timing: Where the time went.
        experts: What the expert bank did for this answer, of a shared pass an equal part; None for an inline bundle.
        tokens: All tokens generated, in order; not in `to_json`.
    """

    text: str
    reasoning: str | None
    data: Any
    finish_reason: FinishReason
    prompt_tokens: int
    image_tokens: int
    cached_tokens: int
    prefilled_together: int
    answer_tokens: int
    reasoning_tokens: int
    timing: Timing
    experts: ExpertStatistics | None = None
    tokens: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All fields but the tokens, as JSON types."""
        return {name: value for name, value in asdict(self).items() if name != "tokens"}
