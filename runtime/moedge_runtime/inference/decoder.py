"""The decoder: layer graphs with experts apart, or one model with everything inside, behind one port."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from moedge_runtime.bundle import Bundle, TextInfo
from moedge_runtime.inference.dequantize import FloatArray
from moedge_runtime.inference.experts import ExpertBank
from moedge_runtime.inference.kv_cache import KvCache
from moedge_runtime.inference.layer_call import LayerCall
from moedge_runtime.inference.layers import Layers
from moedge_runtime.inference.onnx_session import kv_device, open_session
from moedge_runtime.inference.positions import RotaryTable

ShouldStop = Callable[[], bool]


class Cancelled(Exception):
    """The caller's `should_stop` said so in the middle of a prefill; the KV cache keeps what it had before."""


@dataclass(frozen=True)
class DecoderInput:
    """S tokens that follow those in the KV cache.

    Attributes:
        hidden: float32 [S, hidden_size]: embeddings, image features at image tokens.
        positions: int64 [3, S] of MRoPE.
        image_tokens: int64 [N]: which of the S are image tokens.
        deepstack: float32 [taps, N, hidden_size], for these tokens.
    """

    hidden: FloatArray
    positions: npt.NDArray[np.int64]
    image_tokens: npt.NDArray[np.int64]
    deepstack: FloatArray


class Decoder(Protocol):
    """Runs tokens through the decoder; the same for a prompt and for one decoded token."""

    cache: KvCache

    def forward(self, tokens: DecoderInput, should_stop: ShouldStop | None = None) -> FloatArray:
        """Append `tokens` to the KV cache.

        Args:
            tokens: At least one; they must fit into the cache.
            should_stop: Asked between layers where the implementation can stop there.

        Returns:
            float32 [vocab_size]: logits after the last token.

        Raises:
            Cancelled: `should_stop` returned True.
            BundleError: An expert cannot be read.
        """
        ...

    def close(self) -> None:
        """Release sessions, files and memory."""
        ...


class PagedDecoder:
    """Layer after layer: attention and router in `Layers`, experts in an `ExpertBank`, DeepStack in between.

    Args:
        text: The decoder's numbers.
        experts: Closed with the decoder, as the layers are.
        layers: They extend `cache`.
        cache: Keys and values.
    """

    def __init__(self, text: TextInfo, experts: ExpertBank, layers: Layers, cache: KvCache) -> None:
        self.cache = cache
        self._experts = experts
        self._layers = layers
        self._count = text.num_hidden_layers
        self._rotary = RotaryTable(text.head_dim, text.rope_theta, text.mrope_section)
        self._one_token: LayerCall | None = layers.call(1)

    def forward(self, tokens: DecoderInput, should_stop: ShouldStop | None = None) -> FloatArray:
        """See `Decoder.forward`; asks `should_stop` before every layer."""
        count = tokens.hidden.shape[0]
        assert self._one_token is not None, "the decoder is closed"
        runner = self._one_token if count == 1 else self._layers.call(count)
        runner.begin(*self._rotary.cos_sin(tokens.positions), self.cache.length)
        hidden = runner.hidden
        hidden[0] = tokens.hidden
        for layer in range(self._count):
            if should_stop is not None and should_stop():
                raise Cancelled
            if runner.run(layer):
                ahead = runner.foresees(layer)
                guess = runner.next_router_logits[:ahead] if ahead else None
                experts = self._experts.compute(layer, runner.moe_input, runner.router_logits, guess)
                np.add(runner.residual[0], experts, out=hidden[0])
            else:
                hidden[...] = runner.residual
            if layer < tokens.deepstack.shape[0] and tokens.image_tokens.size:
                hidden[0, tokens.image_tokens] += tokens.deepstack[layer]
        self.cache.length += count
        return self._layers.logits(hidden[0, -1])

    def close(self) -> None:
        """See `Decoder.close`."""
        self._one_token = None  # its buffers belong to the layers
        self._layers.close()
        self._experts.close()


class InlineDecoder:
    """The whole decoder as one graph with its experts inside: for machines with the memory, and as the reference."""

    def __init__(self, bundle: Bundle, max_context: int, provider: str = "cpu", threads: int | None = None) -> None:
        graphs, model = bundle.manifest.graphs, bundle.manifest.model
        assert graphs.model is not None
        self.cache = KvCache(model.text, max_context, kv_device(provider))
        self._taps = len(model.vision.deepstack_visual_indexes)
        self._session: Any = open_session(bundle.file(graphs.model), provider, threads)
        self._logits = np.empty((1, 1, model.text.vocab_size), np.float32)
        self._binding: Any = self._session.io_binding()
        self._binding.bind_ortvalue_output("logits", ort.OrtValue.ortvalue_from_numpy(self._logits))
        for layer in range(model.text.num_hidden_layers):
            self.cache.bind(self._binding, layer, f".{layer}")

    def forward(self, tokens: DecoderInput, should_stop: ShouldStop | None = None) -> FloatArray:
        """See `Decoder.forward`; asks `should_stop` once, before it starts."""
        if should_stop is not None and should_stop():
            raise Cancelled
        count, hidden_size = tokens.hidden.shape
        total = self.cache.length + count
        deepstack = np.zeros((self._taps, count, hidden_size), np.float32)
        deepstack[:, tokens.image_tokens] = tokens.deepstack
        inputs = {
            "inputs_embeds": np.ascontiguousarray(tokens.hidden[None]),
            "deepstack": deepstack,
            "position_ids": np.ascontiguousarray(tokens.positions),
            "attention_mask": np.ones((1, total), np.int64),
            "logits_positions": np.array([count - 1], np.int64),
        }  # named until the run is over: before onnxruntime 1.30 a binding does not keep its arrays alive
        for name, array in inputs.items():
            self._binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
        self._session.run_with_iobinding(self._binding)
        self.cache.length = total
        return np.array(self._logits[0, 0])

    def close(self) -> None:
        """See `Decoder.close`."""
        self._binding = self._session = None
