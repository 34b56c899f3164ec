"""Runs layer graphs on a fixed number of tokens, through buffers that are bound once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from moedge_runtime.bundle import TextInfo
from moedge_runtime.inference.dequantize import FloatArray
from moedge_runtime.inference.kv_cache import KvCache


class LayerRunner:
    """The inputs and outputs of all layers for calls of S tokens; every layer computes in the same buffers.

    Binding anew takes as long as the rest of a call in Python, so the runner of S = 1 is kept while decoding.

    Attributes:
        residual: float32 [1, S, hidden_size], after attention; of the layer run last, if it has experts.
        moe_input: float32 [S, hidden_size]; likewise.
        router_logits: float32 [S, num_experts]; likewise.
        hidden_out: float32 [1, S, hidden_size], of the layer run last, if it is dense.
    """

    def __init__(self, sessions: Sequence[Any], text: TextInfo, cache: KvCache, tokens: int) -> None:
        self._sessions = sessions
        self._moe_layers = frozenset(text.moe_layers)
        self._cache = cache
        self._bindings: list[Any] = [None] * len(sessions)
        self._inputs = {
            "hidden": np.empty((1, tokens, text.hidden_size), np.float32),
            "cos": np.empty((tokens, text.head_dim // 2), np.float32),
            "sin": np.empty((tokens, text.head_dim // 2), np.float32),
            "seqlens_k": np.empty(1, np.int32),
            "total_sequence_length": np.empty((), np.int32),
        }
        self.residual = np.empty((1, tokens, text.hidden_size), np.float32)
        self.moe_input = np.empty((tokens, text.hidden_size), np.float32)
        self.router_logits = np.empty((tokens, text.num_experts), np.float32)
        self.hidden_out = np.empty((1, tokens, text.hidden_size), np.float32)

    def begin(self, cos: FloatArray, sin: FloatArray, total_tokens: int) -> None:
        """Set what is the same for all layers of a call.

        Args:
            cos: float32 [S, head_dim / 2] of the rotary embedding.
            sin: Likewise.
            total_tokens: Tokens in the KV cache after the call.
        """
        self._inputs["cos"][...] = cos
        self._inputs["sin"][...] = sin
        self._inputs["seqlens_k"][...] = total_tokens - 1
        self._inputs["total_sequence_length"][...] = total_tokens

    def run(self, layer: int, hidden: FloatArray) -> bool:
        """Run one layer on hidden float32 [1, S, hidden_size]; its results are in the attributes.

        Returns:
            Whether the layer has experts.
        """
        self._inputs["hidden"][...] = hidden
        if self._bindings[layer] is None:
            self._bindings[layer] = self._bind(layer)
        self._sessions[layer].run_with_iobinding(self._bindings[layer])
        return layer in self._moe_layers

    def _bind(self, layer: int) -> Any:
        binding = self._sessions[layer].io_binding()
        for name, array in self._inputs.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
        has_experts = layer in self._moe_layers
        for name in ("residual", "moe_input", "router_logits") if has_experts else ("hidden_out",):
            binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(getattr(self, name)))
        self._cache.bind(binding, layer)
        return binding
