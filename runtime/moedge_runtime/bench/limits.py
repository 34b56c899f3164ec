"""How fast an answer could be at most, from the bandwidths of memory and flash and the bytes that it needs. Pure.

A prefill takes at least the longer of its missing bytes at the flash's bandwidth and the time to compute it with
everything in memory; a decoded token at least the longer of its missing bytes at the flash's bandwidth and all its
weights at the memory's.
"""

from __future__ import annotations

from dataclasses import dataclass

from moedge_runtime.bundle import Manifest
from moedge_runtime.inference.dense_sizes import DenseShape, dense_weight_bytes

WINDOWS = ((1, 10), (11, 30), (31, 60))
"""Decoded tokens, first and last of each window: the first ones find other experts in memory than later ones."""


@dataclass(frozen=True)
class Bandwidths:
    """Bytes a second: `memory` read by all threads together, `flash` in records of the bundle, past the page cache."""

    memory: float
    flash: float


def prefill_limit_s(missed_bytes: float, compute_s: float, bandwidths: Bandwidths) -> float:
    """Least time of a prefill.

    Args:
        missed_bytes: Bytes of experts that it needs and that were not in memory.
        compute_s: Time of the same computation with all experts in memory.
        bandwidths: As measured in the same run.
    """
    return max(missed_bytes / bandwidths.flash, compute_s)


def decode_limit_s(missed_bytes: float, tokens: int, token_bytes: int, bandwidths: Bandwidths) -> float:
    """Least time of `tokens` decoded one by one.

    Args:
        missed_bytes: Of all of them together, as for `prefill_limit_s`.
        tokens: How many.
        token_bytes: See `token_bytes`.
        bandwidths: As measured in the same run.
    """
    return max(missed_bytes / bandwidths.flash, tokens * token_bytes / bandwidths.memory)


def token_bytes(manifest: Manifest) -> int:
    """Bytes of weights that one decoded token of a paged bundle reads: layers, head and the experts it is routed to.

    Layers as the native core holds them where it can compute them, else as their graphs do, with larger scales.
    """
    graphs, text, experts = manifest.graphs, manifest.model.text, manifest.experts
    assert experts is not None, "an inline bundle has no records"
    routed = len(text.moe_layers) * text.num_experts_per_tok * experts.record_bytes
    if manifest.weights:
        return routed + sum(dense_weight_bytes(manifest, DenseShape.of(manifest)))
    dense = {*graphs.layers, graphs.head}  # large weights lie beside a graph, in a file of its name and .data
    return routed + sum(entry.nbytes for entry in manifest.files if entry.path.removesuffix(".data") in dense)


def windows(tokens: int) -> list[tuple[int, int]]:
    """The windows, first and last token counted from 1, that `tokens` decoded tokens reach; the last one may be cut."""
    return [(first, min(last, tokens)) for first, last in WINDOWS if first <= tokens]
