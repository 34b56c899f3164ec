"""Which experts tokens choose: an assumption, since no trace of Qwen3-VL on camera frames is public. Pure.

`skewed` follows a public trace of Qwen3-30B-A3B on text: logits are an expert's popularity, Zipf's over the ranks with
a standard deviation of `SKEW`, and the token's own part with one of `TOKEN_STD`. 25 of 128 experts then cover 80 % of a
layer's picks and 220 tokens need 108 of them; the trace has 26 and 105. `uniform` is the worst case: none is popular.
The same model of routing drives benchmarks/expert_core and benchmarks/full_size.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from moedge_devices.plan.calibration import Routing

SKEW = 1.7
TOKEN_STD = 2.26
SAMPLED_TOKENS = 4000

MOST_TOKENS, BISECTIONS = 1e6, 40
"""Of the search in `tokens_that_need`."""

Floats = npt.NDArray[np.float64]


@cache
def _frequencies(experts: int, top_k: int, routing: Routing) -> tuple[float, ...]:
    """Probability that a token chooses each expert of a layer, the most popular first; together `top_k`."""
    if routing == "uniform":
        return (top_k / experts,) * experts
    ranks = -np.log(np.arange(1, experts + 1))
    spread = float(ranks.std())
    popularity = SKEW * (ranks - ranks.mean()) / spread if spread else ranks
    random = np.random.default_rng(0)
    logits = TOKEN_STD * random.standard_normal((SAMPLED_TOKENS, experts)) + popularity
    picks = np.argpartition(logits, experts - top_k, axis=1)[:, experts - top_k :]
    counts = np.bincount(picks.ravel(), minlength=experts) / SAMPLED_TOKENS
    return tuple(sorted(counts.tolist(), reverse=True))


def needed_experts(experts: int, top_k: int, tokens: float, routing: Routing) -> float:
    """Experts of a layer that `tokens` need together."""
    return float(_union(experts, top_k, tokens, routing).sum())


def tokens_that_need(experts: int, top_k: int, needed: float, routing: Routing) -> float:
    """How many independent tokens need as many experts of a layer together as `needed`, of top_k to nearly all.

    The tokens of a picture resemble each other: a prefill of hundreds may choose no more than dozens would that do not.
    """
    fewest, most = 1.0, 2.0
    while needed_experts(experts, top_k, most, routing) < needed and most < MOST_TOKENS:
        most *= 2
    for _ in range(BISECTIONS):
        middle = (fewest + most) / 2
        if needed_experts(experts, top_k, middle, routing) < needed:
            fewest = middle
        else:
            most = middle
    return most


def missed_in_prefill(experts: int, top_k: int, tokens: float, resident: float, routing: Routing) -> float:
    """Experts of a layer that a prefill needs and that are not among the `resident` ones, the most popular."""
    return float(((1 - _resident(experts, resident, routing)) * _union(experts, top_k, tokens, routing)).sum())


def missed_by_token(experts: int, top_k: int, resident: float, routing: Routing) -> float:
    """Experts of a layer that one decoded token needs and that are not among the `resident` ones."""
    chosen = np.array(_frequencies(experts, top_k, routing))
    return float(((1 - _resident(experts, resident, routing)) * chosen).sum())


def _union(experts: int, top_k: int, tokens: float, routing: Routing) -> Floats:
    """Probability of each expert to be chosen by at least one of `tokens`."""
    union: Floats = 1 - (1 - np.array(_frequencies(experts, top_k, routing))) ** tokens
    return union


def _resident(experts: int, resident: float, routing: Routing) -> Floats:
    """Probability of each expert to be in memory: the most popular first, or any if none is popular."""
    if routing == "uniform":
        return np.full(experts, min(1.0, resident / experts))
    held: Floats = np.clip(resident - np.arange(experts), 0.0, 1.0)
    return held
