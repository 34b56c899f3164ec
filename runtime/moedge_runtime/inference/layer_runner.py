"""Runs layer graphs on a fixed number of tokens, through buffers that are bound once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from moedge_runtime.bundle import TextInfo
from moedge_runtime.inference.dequantize import FloatArray
from moedge_runtime.inference.kv_cache import KvCache

PIECE_TOKENS = 256
"""Most tokens that go through a layer graph in one call, so that what ONNX Runtime allocates does not grow with the
prompt. The experts of a layer still see all tokens at once. Measured: the numbers are the same bit by bit, and the time
for 1,020 tokens is that of pieces of 128, 512 or 1,020 (docs/memory.md)."""

NEXT_ROUTER_LOGITS = "next_router_logits"


class LayerRunner:
    """The inputs and outputs of all layers for calls of S tokens; every layer computes in the same buffers.

    Binding anew takes as long as the rest of a call in Python, so the runner of S = 1 is kept while decoding.

    Attributes:
        hidden: float32 [1, S, hidden_size]: what the next layer reads; the caller fills it.
        residual: float32 [1, S, hidden_size], of the layer run last: before its experts if it has any.
        moe_input: float32 [S, hidden_size], of the layer run last that has experts.
        router_logits: float32 [S, num_experts]; likewise.
        next_router_logits: float32 [1, num_experts]: what the router of the layer after it would say of the last token
            without the experts in between; of the layer run last that has this output, see `foresees`.
    """

    def __init__(self, sessions: Sequence[Any], text: TextInfo, cache: KvCache, tokens: int) -> None:
        self._sessions = sessions
        self._moe_layers = frozenset(text.moe_layers)
        self._cache = cache
        self.hidden = np.empty((1, tokens, text.hidden_size), np.float32)
        self.residual = np.empty((1, tokens, text.hidden_size), np.float32)
        self.moe_input = np.empty((tokens, text.hidden_size), np.float32)
        self.router_logits = np.empty((tokens, text.num_experts), np.float32)
        self.next_router_logits = np.empty((1, text.num_experts), np.float32)
        self._cos = np.empty((tokens, text.head_dim // 2), np.float32)
        self._sin = np.empty((tokens, text.head_dim // 2), np.float32)
        self._pieces = [
            self._piece(begin, min(begin + PIECE_TOKENS, tokens)) for begin in range(0, tokens, PIECE_TOKENS)
        ]
        self._bindings: list[list[Any] | None] = [None] * len(sessions)
        self._outputs = [[output.name for output in session.get_outputs()] for session in sessions]

    def begin(self, cos: FloatArray, sin: FloatArray, past_tokens: int) -> None:
        """Set what is the same for all layers of a call.

        Args:
            cos: float32 [S, head_dim / 2] of the rotary embedding.
            sin: Likewise.
            past_tokens: Tokens in the KV cache before the call.
        """
        self._cos[...] = cos
        self._sin[...] = sin
        for piece in self._pieces:
            piece.set_total(past_tokens + piece.end)

    def run(self, layer: int) -> bool:
        """Run one layer on `hidden`; its results are in the other attributes.

        Returns:
            Whether the layer has experts.
        """
        bindings = self._bindings[layer]
        if bindings is None:
            bindings = self._bindings[layer] = [self._bind(layer, piece) for piece in self._pieces]
        for binding in bindings:
            self._sessions[layer].run_with_iobinding(binding)
        return layer in self._moe_layers

    def foresees(self, layer: int) -> int:
        """See `LayerCall.foresees`: 1 where the layer's graph has this output."""
        return int(NEXT_ROUTER_LOGITS in self._outputs[layer])

    def _piece(self, begin: int, end: int) -> _Piece:
        whole, rows = np.s_[:, begin:end], np.s_[begin:end]
        inputs = {"hidden": self.hidden[whole], "cos": self._cos[rows], "sin": self._sin[rows]}
        outputs = {
            "residual": self.residual[whole],
            "hidden_out": self.residual[whole],
            "moe_input": self.moe_input[rows],
            "router_logits": self.router_logits[rows],
            NEXT_ROUTER_LOGITS: self.next_router_logits,
        }
        return _Piece(end, inputs, outputs)

    def _bind(self, layer: int, piece: _Piece) -> Any:
        binding = self._sessions[layer].io_binding()
        for name, value in piece.inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name in self._outputs[layer]:
            if name in piece.outputs:  # the KV cache binds its own
                binding.bind_ortvalue_output(name, piece.outputs[name])
        self._cache.bind(binding, layer)
        return binding


class _Piece:
    """Tokens up to `end` that go through a graph in one call, as `onnxruntime.OrtValue` on the runner's buffers."""

    def __init__(self, end: int, inputs: dict[str, FloatArray], outputs: dict[str, FloatArray]) -> None:
        self.end = end
        self._last_index = np.empty(1, np.int32)
        self._total: npt.NDArray[np.int32] = np.empty((), np.int32)
        arrays = {**inputs, "seqlens_k": self._last_index, "total_sequence_length": self._total}
        self.inputs = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
        self.outputs = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in outputs.items()}

    def set_total(self, tokens: int) -> None:
        """Tokens in the KV cache after this piece."""
        self._last_index[...] = tokens - 1
        self._total[...] = tokens
