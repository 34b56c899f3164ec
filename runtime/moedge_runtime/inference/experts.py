"""The port through which a decoder reaches its experts, and the numpy reference behind it."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

import google_crc32c
import numpy as np
import numpy.typing as npt

from moedge_runtime.bundle import Bundle
from moedge_runtime.errors import BundleError
from moedge_runtime.inference.dequantize import FloatArray, dequantize


class ExpertBank(Protocol):
    """Computes the experts of one layer. Where their weights are is its own affair and never changes the result."""

    def compute(self, layer: int, moe_input: FloatArray, router_logits: FloatArray) -> FloatArray:
        """Weighted sum of each token's experts.

        Args:
            layer: Index of the decoder layer, one of the manifest's `moe_layers`.
            moe_input: float32 [tokens, hidden_size], normed.
            router_logits: float32 [tokens, num_experts].

        Returns:
            float32 [tokens, hidden_size].

        Raises:
            BundleError: A record cannot be read or is damaged.
        """
        ...

    def close(self) -> None:
        """Release files and memory; `compute` must not be called afterwards."""
        ...


def route(router_logits: FloatArray, top_k: int) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Experts of each token and their weights: softmax over all, the `top_k` largest, renormalised to sum 1.

    Source: transformers 5.23, Qwen3VLMoeTextTopKRouter. Of equal logits the lower expert wins.

    Returns:
        int64 [tokens, top_k], descending by weight, and float32 [tokens, top_k].
    """
    shifted = np.exp(router_logits - router_logits.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    chosen = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
    weights = np.take_along_axis(probabilities, chosen, axis=1)
    return chosen, weights / weights.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class ExpertWeights:
    """One expert in float32: fc1 [2I, H] with gate and up rows interleaved, fc2 [H, I]."""

    fc1: FloatArray
    fc2: FloatArray

    @property
    def nbytes(self) -> int:
        """Memory of both arrays."""
        return self.fc1.nbytes + self.fc2.nbytes

    def __call__(self, x: FloatArray) -> FloatArray:
        """`fc2 · (silu(gate) * up)` for x float32 [tokens, H]."""
        both = x @ self.fc1.T
        gate, up = both[:, 0::2], both[:, 1::2]
        with np.errstate(over="ignore"):  # exp(-gate) may be infinite: the quotient is then 0, as it should be
            activated = gate / (1 + np.exp(-gate)) * up
        return np.asarray(activated @ self.fc2.T, np.float32)


class NumpyExperts:
    """Plain reference: reads, checks and dequantizes each expert that a call needs, once, and adds in expert order.

    It keeps the most recently used experts, as float32, within `cache_bytes`. A record of a damaged file is an error
    every time it is read.
    """

    def __init__(self, bundle: Bundle, cache_bytes: int = 0) -> None:
        info = bundle.manifest.experts
        assert info is not None, "only a paged bundle has experts.bin"
        text = bundle.manifest.model.text
        self._info = info
        self._layout = bundle.expert_layout
        self._top_k = text.num_experts_per_tok
        self._position = {layer: position for position, layer in enumerate(text.moe_layers)}
        self._path = bundle.file(info.file)
        self._file = os.open(self._path, os.O_RDONLY)
        self._cache: OrderedDict[tuple[int, int], ExpertWeights] = OrderedDict()
        self._cache_bytes = cache_bytes
        self.cached_bytes = 0
        self.records_read = 0

    def compute(self, layer: int, moe_input: FloatArray, router_logits: FloatArray) -> FloatArray:
        """See `ExpertBank.compute`."""
        chosen, weights = route(router_logits, self._top_k)
        result = np.zeros_like(moe_input)
        for expert in np.unique(chosen).tolist():
            tokens, picks = np.nonzero(chosen == expert)
            output = self._weights(layer, expert)(moe_input[tokens])
            result[tokens] += output * weights[tokens, picks, None]
        return result

    def close(self) -> None:
        """See `ExpertBank.close`."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._cache.clear()

    def _weights(self, layer: int, expert: int) -> ExpertWeights:
        key = (layer, expert)
        found = self._cache.pop(key, None)
        if found is None:
            found = self._decode(self._read(layer, expert))
            if found.nbytes > self._cache_bytes:
                return found
            self.cached_bytes += found.nbytes
        self._cache[key] = found
        while self.cached_bytes > self._cache_bytes:
            self.cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return found

    def _read(self, layer: int, expert: int) -> npt.NDArray[np.uint8]:
        position = self._position[layer]
        nbytes = self._info.record_bytes
        offset = (position * len(self._info.crc32c[position]) + expert) * nbytes
        problem = None
        try:
            record = os.pread(self._file, nbytes, offset)
        except OSError as error:
            raise self._damaged(layer, expert, offset, f"reading failed ({error.strerror})") from error
        self.records_read += 1
        if len(record) != nbytes:
            problem = f"the file ends after {len(record):,} of {nbytes:,} bytes"
        else:
            wanted, got = self._info.crc32c[position][expert], google_crc32c.value(record)
            if got != wanted:
                problem = f"its CRC-32C is {got:08x}, the manifest says {wanted:08x}"
        if problem is not None:
            raise self._damaged(layer, expert, offset, problem)
        return np.frombuffer(record, np.uint8)

    def _damaged(self, layer: int, expert: int, offset: int, problem: str) -> BundleError:
        return BundleError(
            f"Expert {expert} of layer {layer} at byte {offset:,} of '{self._path}' cannot be used: {problem}. "
            f"Copy the bundle again; if it happens again, replace the disk.",
            key="bundle.expert_damaged",
        )

    def _decode(self, record: npt.NDArray[np.uint8]) -> ExpertWeights:
        arrays = self._layout.view(record)
        matrices = [
            dequantize(
                arrays[f"{name}.weight"],
                arrays.get(f"{name}.scale"),
                arrays.get(f"{name}.zero_point"),
                self._layout.precision,
                inputs,
            )
            for name, inputs in (("fc1", self._layout.hidden_size), ("fc2", self._layout.intermediate_size))
        ]
        return ExpertWeights(*matrices)
