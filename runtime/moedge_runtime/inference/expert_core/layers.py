"""The dense layers of boards: the native core behind the port `Layers`."""

from __future__ import annotations

import ctypes
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from moedge_runtime.bundle import Bundle
from moedge_runtime.inference.dense_sizes import DOWN, GATE_UP, LAYERS_AHEAD, OUTPUT, QKV, DenseShape
from moedge_runtime.inference.dequantize import FloatArray
from moedge_runtime.inference.expert_core.bank import MAX_THREADS, NativeExperts
from moedge_runtime.inference.expert_core.failure import dense_failure
from moedge_runtime.inference.expert_core.library import (
    ABI,
    CoreError,
    DenseCall,
    DenseOptions,
    DenseWeights,
    MatrixView,
    Status,
    load_library,
)
from moedge_runtime.inference.expert_core.weights import GraphWeights
from moedge_runtime.inference.kv_cache import KvCache
from moedge_runtime.inference.layer_call import PIECE_TOKENS, LayerBuffers, LayerCall
from moedge_runtime.inference.onnx_session import thread_count

_INPUT_NORM, _POST_NORM = "input_layernorm.weight", "post_attention_layernorm.weight"
_QUERY_NORM, _KEY_NORM = "self_attn/q_norm.weight", "self_attn/k_norm.weight"
_ROUTER = "mlp/gate"
_NEXT_NORM, _NEXT_ROUTER = "next_router/norm.weight", "next_router/gate"
_HEAD_NORM, _HEAD = "norm.weight", "lm_head"
"""Names of weights in the graphs, as `moedge_export.decoder` gives them."""


class NativeLayers:
    """Everything of a decoder but its experts, computed by the native core (runtime/core).

    The result depends neither on threads and instruction set nor, token by token, on what is computed with it. One call
    at a time; another thread that calls waits for its turn.

    Args:
        bundle: A paged one whose manifest has a table of weights.
        slots: Places of the KV caches that calls come with, in the processor's memory.
        experts: Whose threads are used, if they are native ones; close the layers first.
        threads: Threads that compute, if they are not those of `experts`; None for one a core.
        isa: Likewise the instruction set, one of `library.INSTRUCTION_SETS`; None for the processor's best.

    Raises:
        BundleError: A weight is missing, of another shape, or cannot be read.
        ConfigError: The library cannot be used, an option is out of range, or the memory is too small.
    """

    def __init__(
        self,
        bundle: Bundle,
        slots: int,
        experts: NativeExperts | None = None,
        *,
        threads: int | None = None,
        isa: str | None = None,
    ) -> None:
        manifest = bundle.manifest
        text, precision, head = manifest.model.text, manifest.quantization.attention, manifest.quantization.head
        assert manifest.weights, "the bundle has no table of weights"
        self.text, self.slots = text, slots
        self.bundle_path = bundle.path
        self._library = load_library()
        shape = DenseShape.of(manifest)
        self._has_experts = np.isin(np.arange(text.num_hidden_layers), text.moe_layers).astype(np.uint8)
        threads = min(thread_count(threads), MAX_THREADS)
        options = DenseOptions(
            abi=ABI,
            layers=text.num_hidden_layers,
            hidden_size=text.hidden_size,
            heads=text.num_attention_heads,
            kv_heads=text.num_key_value_heads,
            head_dim=text.head_dim,
            experts=text.num_experts,
            intermediate_size=shape.intermediate_size,
            vocabulary=text.vocab_size,
            bits=precision.bits,
            block_size=precision.block_size,
            symmetric=precision.symmetric,
            head_bits=head.bits,
            head_block_size=head.block_size,
            head_symmetric=head.symmetric,
            biased=shape.biased,
            max_tokens=min(PIECE_TOKENS, slots),
            slots=slots,
            threads=threads,
            epsilon=text.rms_norm_eps,
            has_experts=self._has_experts.ctypes.data,
            isa=None if isa is None else isa.encode(),
        )
        self._calling = threading.Lock()
        dense, error = ctypes.c_void_p(), CoreError()
        status = self._library.moedge_dense_open(
            ctypes.byref(options), None if experts is None else experts.handle, ctypes.byref(dense), ctypes.byref(error)
        )
        if status != Status.OK:
            raise self._failure(error)
        self._dense: int | None = dense.value
        # Not at the end of the process: a thread may still be inside the core then.
        self._free = weakref.finalize(self, self._library.moedge_dense_close, dense.value)
        self._free.atexit = False
        try:
            self._load(bundle, threads)
        except BaseException:
            self.close()
            raise

    @property
    def moe_layers(self) -> frozenset[int]:
        """Decoder layers with experts."""
        return frozenset(self.text.moe_layers)

    def bytes(self) -> tuple[int, int]:
        """Bytes of the weights and of the buffers."""
        weights, buffers = ctypes.c_uint64(), ctypes.c_uint64()
        with self._calling:
            self._library.moedge_dense_bytes(self._opened(), ctypes.byref(weights), ctypes.byref(buffers))
        return weights.value, buffers.value

    def call(self, buffers: LayerBuffers, cache: KvCache) -> NativeCall:
        """See `Layers.call`."""
        return NativeCall(self, buffers, cache)

    def logits(self, hidden: FloatArray) -> FloatArray:
        """See `Layers.logits`."""
        inputs = np.ascontiguousarray(hidden, np.float32)
        assert inputs.shape == (self.text.hidden_size,)
        result = np.empty(self.text.vocab_size, np.float32)
        error = CoreError()
        with self._calling:
            status = self._library.moedge_dense_head(
                self._opened(), inputs.ctypes.data, result.ctypes.data, ctypes.byref(error)
            )
        if status != Status.OK:
            raise self._failure(error)
        return result

    def run(self, call: DenseCall) -> None:
        """One call of a layer; other Python threads run meanwhile.

        Raises:
            BundleError: An activation is not finite.
        """
        error = CoreError()
        with self._calling:
            status = self._library.moedge_dense_layer(self._opened(), ctypes.byref(call), ctypes.byref(error))
        if status != Status.OK:
            raise self._failure(error, f" in layer {call.layer}")

    def close(self) -> None:
        """See `Layers.close`; waits for a call. May be called again."""
        with self._calling:
            self._dense = None
            self._free()

    def _opened(self) -> int:
        if self._dense is None:
            raise RuntimeError("the layers are closed")
        return self._dense

    def _load(self, bundle: Bundle, threads: int) -> None:
        """Read all weights and bring them into the core's layout, as many layers at once as threads compute."""
        graphs = bundle.manifest.graphs
        assert graphs.head is not None

        def load(layer: int) -> None:
            weights = _Weights(bundle, graphs.layers[layer])
            view, error = weights.layer(self, layer), CoreError()
            status = self._library.moedge_dense_load_layer(
                self._opened(), layer, ctypes.byref(view), ctypes.byref(error)
            )
            if status != Status.OK:
                raise self._failure(error)

        def load_head(graph: str) -> None:
            weights, error = _Weights(bundle, graph), CoreError()
            norm, matrix = weights.head(self)
            status = self._library.moedge_dense_load_head(
                self._opened(), norm, ctypes.byref(matrix), ctypes.byref(error)
            )
            if status != Status.OK:
                raise self._failure(error)

        with ThreadPoolExecutor(threads) as pool:
            head = pool.submit(load_head, graphs.head)  # the largest first
            for _ in pool.map(load, range(self.text.num_hidden_layers)):
                pass
            head.result()

    def _failure(self, error: CoreError, where: str = "") -> Exception:
        return dense_failure(error, self.bundle_path, "dense layers", where)


class NativeCall(LayerCall):
    """Layers in the native core."""

    def __init__(self, layers: NativeLayers, buffers: LayerBuffers, cache: KvCache) -> None:
        super().__init__(layers.text, buffers, cache, ahead=LAYERS_AHEAD)
        assert cache.offset + cache.capacity == layers.slots
        self._layers = layers
        self._memory = [
            tuple(array.ctypes.data for array in cache.memory(layer)) for layer in range(layers.text.num_hidden_layers)
        ]
        self._pieces = [(begin, self._piece(begin, end)) for begin, end in self._bounds]

    def foresees(self, layer: int) -> int:
        """See `LayerCall.foresees`."""
        ahead = 0
        while ahead < LAYERS_AHEAD and {layer + ahead, layer + ahead + 1} <= self._moe_layers:
            ahead += 1
        return ahead

    def _set_past(self, tokens: int) -> None:
        for begin, piece in self._pieces:
            piece.past = tokens + begin

    def _run(self, layer: int) -> None:
        keys, values = self._memory[layer]
        for _, piece in self._pieces:
            piece.layer, piece.keys, piece.values = layer, keys, values
            self._layers.run(piece)

    def _piece(self, begin: int, end: int) -> DenseCall:
        buffers = self.buffers
        last = end == buffers.moe_input.shape[0]
        return DenseCall(
            tokens=end - begin,
            hidden=buffers.hidden[0, begin:].ctypes.data,
            cos=self._cos[begin:].ctypes.data,
            sin=self._sin[begin:].ctypes.data,
            residual=buffers.residual[0, begin:].ctypes.data,
            moe_input=buffers.moe_input[begin:].ctypes.data,
            router_logits=buffers.router_logits[begin:].ctypes.data,
            next_router_logits=self.next_router_logits.ctypes.data if last else None,
        )


class _Weights(GraphWeights):
    """The weights of a layer or of the head."""

    def layer(self, layers: NativeLayers, layer: int) -> DenseWeights:
        text, precision = layers.text, self._bundle.manifest.quantization.attention
        hidden, mixed = text.hidden_size, text.num_attention_heads * text.head_dim
        projected = mixed + 2 * text.num_key_value_heads * text.head_dim
        biased = DenseShape.of(self._bundle.manifest).biased
        view = DenseWeights(
            input_norm=self.vector(_INPUT_NORM, hidden),
            query_norm=self.vector(_QUERY_NORM, text.head_dim),
            key_norm=self.vector(_KEY_NORM, text.head_dim),
            post_norm=self.vector(_POST_NORM, hidden),
            qkv=self.matrix(QKV, projected, hidden, precision, biased),
            output=self.matrix(OUTPUT, hidden, mixed, precision, biased),
        )
        if layer not in layers.moe_layers:
            size = DenseShape.of(self._bundle.manifest).intermediate_size
            view.gate_up = self.matrix(GATE_UP, 2 * size, hidden, precision)
            view.down = self.matrix(DOWN, hidden, size, precision)
            return view
        view.router = MatrixView(weight=self.array(f"{_ROUTER}.weight", "float32", [text.num_experts, hidden]))
        if layer + 1 in layers.moe_layers:
            view.next_norm = self.vector(_NEXT_NORM, hidden)
            view.next_router = self.matrix(_NEXT_ROUTER, text.num_experts, hidden, precision)
        return view

    def head(self, layers: NativeLayers) -> tuple[int, MatrixView]:
        text = layers.text
        norm = self.vector(_HEAD_NORM, text.hidden_size)
        return norm, self.matrix(_HEAD, text.vocab_size, text.hidden_size, self._bundle.manifest.quantization.head)
