"""The port through which a decoder runs its dense layers on a fixed number of tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from moedge_runtime.bundle import TextInfo
from moedge_runtime.inference.dequantize import FloatArray
from moedge_runtime.inference.kv_cache import KvCache

PIECE_TOKENS = 256
"""Most tokens that go through a layer in one call, so that what ONNX Runtime allocates does not grow with the
prompt. The experts of a layer still see all tokens at once. Measured: the numbers are the same bit by bit, and the time
for 1,020 tokens is that of pieces of 128, 512 or 1,020 (docs/memory.md)."""


@dataclass(frozen=True)
class LayerBuffers:
    """What layers read and write of S tokens.

    Attributes:
        hidden: float32 [1, S, hidden_size]: what the next layer reads; the caller fills it.
        residual: float32 [1, S, hidden_size], of the layer run last: before its experts if it has any.
        moe_input: float32 [S, hidden_size], of the layer run last that has experts.
        router_logits: float32 [S, num_experts]; likewise.
    """

    hidden: FloatArray
    residual: FloatArray
    moe_input: FloatArray
    router_logits: FloatArray

    @classmethod
    def of(cls, text: TextInfo, tokens: int) -> LayerBuffers:
        """Buffers for so many tokens."""
        return cls(
            np.empty((1, tokens, text.hidden_size), np.float32),
            np.empty((1, tokens, text.hidden_size), np.float32),
            np.empty((tokens, text.hidden_size), np.float32),
            np.empty((tokens, text.num_experts), np.float32),
        )

    def part(self, begin: int, end: int) -> LayerBuffers:
        """Those of some of the tokens, in the same memory."""
        return LayerBuffers(
            self.hidden[:, begin:end],
            self.residual[:, begin:end],
            self.moe_input[begin:end],
            self.router_logits[begin:end],
        )


class LayerCall(ABC):
    """Runs layers on the S tokens of one sequence, each in the same buffers, in pieces of `PIECE_TOKENS`.

    Attributes:
        cache: Keys and values of the sequence; extended.
        buffers: Of the S tokens.
        next_router_logits: float32 [A, num_experts]: what the routers of the layers after it would say of the last
            token without the experts in between; of the layer run last, as many rows as it `foresees`.

    Args:
        text: The decoder's numbers.
        buffers: See above.
        cache: See above.
        ahead: A, the most layers that a layer foresees.
    """

    def __init__(self, text: TextInfo, buffers: LayerBuffers, cache: KvCache, ahead: int) -> None:
        self.buffers, self.cache = buffers, cache
        tokens = buffers.moe_input.shape[0]
        self.next_router_logits: FloatArray = np.empty((ahead, text.num_experts), np.float32)
        self._cos: FloatArray = np.empty((tokens, text.head_dim // 2), np.float32)
        self._sin: FloatArray = np.empty((tokens, text.head_dim // 2), np.float32)
        self._bounds = [(begin, min(begin + PIECE_TOKENS, tokens)) for begin in range(0, tokens, PIECE_TOKENS)]
        self._moe_layers = frozenset(text.moe_layers)

    def begin(self, cos: FloatArray, sin: FloatArray) -> None:
        """Set what is the same for all layers of a call, whose tokens follow those in the KV cache now.

        Args:
            cos: float32 [S, head_dim / 2] of the rotary embedding.
            sin: Likewise.
        """
        self._cos[...] = cos
        self._sin[...] = sin
        self._set_past(self.cache.length)

    def run(self, layer: int) -> bool:
        """Run one layer on `buffers.hidden`; its results are in the other buffers.

        Returns:
            Whether the layer has experts.

        Raises:
            BundleError: An activation is not finite.
        """
        self._run(layer)
        return layer in self._moe_layers

    @abstractmethod
    def foresees(self, layer: int) -> int:
        """How many rows of `next_router_logits` the layer computes."""

    @abstractmethod
    def _set_past(self, tokens: int) -> None:
        """Tokens in the KV cache before the call."""

    @abstractmethod
    def _run(self, layer: int) -> None:
        """Run all pieces."""
