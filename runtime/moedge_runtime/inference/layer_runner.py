"""Runs layer graphs in ONNX Runtime, through buffers that are bound once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from moedge_runtime.bundle import TextInfo
from moedge_runtime.inference.dequantize import FloatArray
from moedge_runtime.inference.kv_cache import KvCache
from moedge_runtime.inference.layer_call import LayerBuffers, LayerCall

NEXT_ROUTER_LOGITS = "next_router_logits"


class LayerRunner(LayerCall):
    """The graphs of layers. Binding anew takes as long as the rest of a call in Python, so that of S = 1 is kept."""

    def __init__(self, sessions: Sequence[Any], text: TextInfo, buffers: LayerBuffers, cache: KvCache) -> None:
        super().__init__(text, buffers, cache, ahead=1)
        self._sessions = sessions
        self._pieces = [self._piece(begin, end) for begin, end in self._bounds]
        self._bindings: list[list[Any] | None] = [None] * len(sessions)
        self._outputs = [[output.name for output in session.get_outputs()] for session in sessions]

    def foresees(self, layer: int) -> int:
        """See `LayerCall.foresees`: 1 where the layer's graph has this output."""
        return int(NEXT_ROUTER_LOGITS in self._outputs[layer])

    def _set_past(self, tokens: int) -> None:
        for piece in self._pieces:
            piece.set_total(tokens + piece.end)

    def _run(self, layer: int) -> None:
        bindings = self._bindings[layer]
        if bindings is None:
            bindings = self._bindings[layer] = [self._bind(layer, piece) for piece in self._pieces]
        for binding in bindings:
            self._sessions[layer].run_with_iobinding(binding)

    def _piece(self, begin: int, end: int) -> _Piece:
        whole, rows = np.s_[:, begin:end], np.s_[begin:end]
        buffers = self.buffers
        inputs = {"hidden": buffers.hidden[whole], "cos": self._cos[rows], "sin": self._sin[rows]}
        outputs = {
            "residual": buffers.residual[whole],
            "hidden_out": buffers.residual[whole],
            "moe_input": buffers.moe_input[rows],
            "router_logits": buffers.router_logits[rows],
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
        self.cache.bind(binding, layer)
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
