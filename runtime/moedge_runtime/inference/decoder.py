"""The decoder: layer graphs with experts apart, or one model with everything inside, behind one port."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from moedge_runtime.bundle import Bundle, TextInfo
from moedge_runtime.inference.dequantize import FloatArray
from moedge_runtime.inference.experts import ExpertBank
from moedge_runtime.inference.kv_cache import KvCache
from moedge_runtime.inference.layer_call import LayerBuffers, LayerCall
from moedge_runtime.inference.layers import Layers
from moedge_runtime.inference.onnx_session import kv_device, open_session
from moedge_runtime.inference.positions import RotaryTable

ShouldStop = Callable[[], bool]


class Cancelled(Exception):
    """The caller's `should_stop` said so in the middle of a picture or a prefill; the KV cache keeps what it had."""


@dataclass(frozen=True)
class DecoderInput:
    """S tokens of a sequence that follow those in its KV cache.

    Attributes:
        cache: Of the sequence; S more tokens fit.
        hidden: float32 [S, hidden_size]: embeddings, image features at image tokens.
        positions: int64 [3, S] of MRoPE.
        image_tokens: int64 [N]: which of the S are image tokens.
        deepstack: float32 [taps, N, hidden_size], for these tokens.
    """

    cache: KvCache
    hidden: FloatArray
    positions: npt.NDArray[np.int64]
    image_tokens: npt.NDArray[np.int64]
    deepstack: FloatArray


class Decoder(Protocol):
    """Runs tokens through the decoder; the same for a prompt and for one decoded token.

    Attributes:
        cache: All of the KV cache.
        shares: Whether several sequences can go through at once.
    """

    cache: KvCache
    shares: bool

    def forward(self, sequences: Sequence[DecoderInput], should_stop: ShouldStop | None = None) -> list[FloatArray]:
        """Append tokens to their KV caches.

        Args:
            sequences: One, or several with at least one token each if the decoder `shares`. Each gets what it would
                get alone, as far as that is so of the tokens in a call of `ExpertBank.compute`.
            should_stop: Asked between layers where the implementation can stop there.

        Returns:
            float32 [vocab_size] of each sequence: logits after its last token.

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

    Several sequences go through a layer one after the other, and through its experts together, so that each expert is
    read once.

    Args:
        text: The decoder's numbers.
        experts: Closed with the decoder, as the layers are.
        layers: Opened for caches of as many places.
        cache: Keys and values.
    """

    def __init__(self, text: TextInfo, experts: ExpertBank, layers: Layers, cache: KvCache) -> None:
        self.cache = cache
        self.shares = cache.in_memory
        self._text = text
        self._experts = experts
        self._layers = layers
        self._rotary = RotaryTable(text.head_dim, text.rope_theta, text.mrope_section)
        self._one_token = {cache: layers.call(LayerBuffers.of(text, 1), cache)}

    def forward(self, sequences: Sequence[DecoderInput], should_stop: ShouldStop | None = None) -> list[FloatArray]:
        """See `Decoder.forward`; asks `should_stop` before every layer."""
        buffers, calls = self._calls(sequences)
        for call, tokens in zip(calls, sequences, strict=True):
            call.begin(*self._rotary.cos_sin(tokens.positions))
            call.buffers.hidden[0] = tokens.hidden
        for layer in range(self._text.num_hidden_layers):
            if should_stop is not None and should_stop():
                raise Cancelled
            has_experts = [call.run(layer) for call in calls]
            if has_experts[0]:
                ahead = calls[-1].foresees(layer)
                guess = calls[-1].next_router_logits[:ahead] if ahead else None
                experts = self._experts.compute(layer, buffers.moe_input, buffers.router_logits, guess)
                np.add(buffers.residual[0], experts, out=buffers.hidden[0])
            else:
                buffers.hidden[...] = buffers.residual
            for call, tokens in zip(calls, sequences, strict=True):
                if layer < tokens.deepstack.shape[0] and tokens.image_tokens.size:
                    call.buffers.hidden[0, tokens.image_tokens] += tokens.deepstack[layer]
        for tokens in sequences:
            tokens.cache.length += tokens.hidden.shape[0]
        return [self._layers.logits(call.buffers.hidden[0, -1]) for call in calls]

    def _calls(self, sequences: Sequence[DecoderInput]) -> tuple[LayerBuffers, list[LayerCall]]:
        """Buffers of all tokens, and the calls of each sequence in them; those of one token are kept."""
        assert self._one_token, "the decoder is closed"
        counts = [tokens.hidden.shape[0] for tokens in sequences]
        if counts == [1]:
            call = self._one_token_in(sequences[0].cache)
            return call.buffers, [call]
        buffers, ends = LayerBuffers.of(self._text, sum(counts)), np.cumsum(counts)
        parts = [buffers.part(end - count, end) for end, count in zip(ends.tolist(), counts, strict=True)]
        return buffers, [self._layers.call(part, each.cache) for part, each in zip(parts, sequences, strict=True)]

    def _one_token_in(self, cache: KvCache) -> LayerCall:
        """The call in `cache`; of the caches behind the first, that of the last one is kept."""
        if cache not in self._one_token:
            call = self._layers.call(LayerBuffers.of(self._text, 1), cache)
            self._one_token = {self.cache: self._one_token[self.cache], cache: call}
        return self._one_token[cache]

    def close(self) -> None:
        """See `Decoder.close`."""
        self._one_token = {}  # their buffers belong to the layers
        self._layers.close()
        self._experts.close()


class InlineDecoder:
    """The whole decoder as one graph with its experts inside: for machines with the memory, and as the reference."""

    shares = False

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

    def forward(self, sequences: Sequence[DecoderInput], should_stop: ShouldStop | None = None) -> list[FloatArray]:
        """See `Decoder.forward`; asks `should_stop` once, before it starts."""
        [tokens] = sequences
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
        return [np.array(self._logits[0, 0])]

    def close(self) -> None:
        """See `Decoder.close`."""
        self._binding = self._session = None
