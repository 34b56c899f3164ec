"""Chooses the next token: the largest logit, or a random one as transformers' logits processors define it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moedge_runtime.errors import RequestError
from moedge_runtime.inference.dequantize import FloatArray


@dataclass(frozen=True)
class Sampling:
    """How to draw a token. The neutral value of each field switches it off.

    Attributes:
        temperature: Divides the logits; above 0.
        top_k: Only the k largest logits stay; 0 is off.
        top_p: Only the smallest set of tokens with this much probability stays; 1 is off.
        min_p: Only tokens with this share of the largest probability stay; 0 is off.
        repetition_penalty: Makes tokens that stand in the prompt or answer already less likely; 1 is off.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            RequestError: A value is out of range.
        """
        wrong = [
            f"{name}={getattr(self, name)} must be {rule}"
            for name, rule, valid in (
                ("temperature", "above 0 (for greedy decoding do not sample)", self.temperature > 0),
                ("top_k", "0 (off) or more", self.top_k >= 0),
                ("top_p", "above 0 and at most 1", 0 < self.top_p <= 1),
                ("min_p", "from 0 to 1", 0 <= self.min_p <= 1),
                ("repetition_penalty", "above 0", self.repetition_penalty > 0),
            )
            if not valid
        ]
        if wrong:
            raise RequestError(f"Sampling is not possible: {'; '.join(wrong)}.", key="request.sampling_invalid")

    @classmethod
    def from_generation_config(cls, config: dict[str, Any], **changes: float | int | None) -> Sampling:
        """What the checkpoint's generation_config.json recommends, with the `changes` that are not None."""
        values = {key: config[key] for key in cls.__dataclass_fields__ if config.get(key) is not None}
        values.update((key, value) for key, value in changes.items() if value is not None)
        return cls(**values)


def greedy(logits: FloatArray) -> int:
    """The token with the largest logit, of equal ones the first.

    Args:
        logits: float32 [vocab_size].
    """
    return int(np.argmax(logits))


def draw(logits: FloatArray, previous: Sequence[int], sampling: Sampling, random: np.random.Generator) -> int:
    """A random token.

    Args:
        logits: float32 [vocab_size]; tokens that are forbidden have -inf.
        previous: All tokens of prompt and answer so far, for the repetition penalty.
        sampling: How to draw.
        random: Where the one random number comes from.
    """
    probabilities = _softmax(processed_logits(logits, previous, sampling)).astype(np.float64)
    cumulative = np.cumsum(probabilities)
    return int(np.searchsorted(cumulative, random.random() * cumulative[-1], side="right"))


def processed_logits(logits: FloatArray, previous: Sequence[int], sampling: Sampling) -> FloatArray:
    """Logits of the distribution that is drawn from; tokens that are cut off have -inf.

    The order is that of transformers 5.23 (generation/utils.py, `_get_logits_processor`): repetition penalty,
    temperature, top-k, top-p, min-p; each as its class in generation/logits_process.py.
    """
    logits = logits.astype(np.float32, copy=True)
    if sampling.repetition_penalty != 1.0 and len(previous) > 0:
        seen = np.unique(np.asarray(previous, np.int64))
        scores = logits[seen]
        penalty = np.float32(sampling.repetition_penalty)
        logits[seen] = np.where(scores < 0, scores * penalty, scores / penalty)
    if sampling.temperature != 1.0:
        logits /= np.float32(sampling.temperature)
    if sampling.top_k:
        k = min(sampling.top_k, logits.size)
        logits[logits < np.partition(logits, -k)[-k]] = -np.inf
    if sampling.top_p < 1.0:
        ascending = np.argsort(logits, kind="stable")
        cumulative = np.cumsum(_softmax(logits[ascending]), dtype=np.float32)
        removed = cumulative <= np.float32(1 - sampling.top_p)
        removed[-1] = False
        logits[ascending[removed]] = -np.inf
    if sampling.min_p > 0.0:
        probabilities = _softmax(logits)
        logits[probabilities < np.float32(sampling.min_p) * probabilities.max()] = -np.inf
    return logits


def _softmax(logits: FloatArray) -> FloatArray:
    shifted = np.exp(logits - logits.max())
    return np.asarray(shifted / shifted.sum(), np.float32)
