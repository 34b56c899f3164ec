"""The port through which a decoder computes its dense layers, and the one that does so with ONNX Runtime."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from moedge_runtime.bundle import Bundle
from moedge_runtime.inference.dequantize import FloatArray
from moedge_runtime.inference.kv_cache import KvCache
from moedge_runtime.inference.layer_call import LayerBuffers, LayerCall
from moedge_runtime.inference.layer_runner import LayerRunner
from moedge_runtime.inference.onnx_session import open_sessions


class Layers(Protocol):
    """Everything of a decoder but its experts."""

    def call(self, buffers: LayerBuffers, cache: KvCache) -> LayerCall:
        """Calls for the tokens of a sequence.

        Args:
            buffers: Of these tokens.
            cache: Of the sequence.
        """
        ...

    def logits(self, hidden: FloatArray) -> FloatArray:
        """What the head says of one token; float32 [hidden_size] to [vocab_size]."""
        ...

    def close(self) -> None:
        """Release sessions and memory."""
        ...


class OnnxLayers:
    """The layer graphs and the head in ONNX Runtime; packing their weights takes seconds of each core.

    Raises:
        BundleError: A graph cannot be loaded.
    """

    def __init__(self, bundle: Bundle, provider: str = "cpu", threads: int | None = None) -> None:
        graphs = bundle.manifest.graphs
        assert graphs.head is not None, "an inline bundle has no layers apart"
        self._text = bundle.manifest.model.text
        self._head: Any
        self._layers: list[Any]
        paths = [bundle.file(graph) for graph in (graphs.head, *graphs.layers)]
        self._head, *self._layers = open_sessions(paths, provider, threads)

    def call(self, buffers: LayerBuffers, cache: KvCache) -> LayerRunner:
        """See `Layers.call`."""
        return LayerRunner(self._layers, self._text, buffers, cache)

    def logits(self, hidden: FloatArray) -> FloatArray:
        """See `Layers.logits`."""
        return np.asarray(self._head.run(["logits"], {"hidden": hidden[None, None]})[0][0, 0], np.float32)

    def close(self) -> None:
        """See `Layers.close`."""
        self._layers.clear()
        self._head = None
