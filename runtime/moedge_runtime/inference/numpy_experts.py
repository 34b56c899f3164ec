"""The numpy reference behind the port `ExpertBank`: slow, with float activations, and the oracle of the tests."""

from __future__ import annotations

import os
from collections import Counter, OrderedDict
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns

import google_crc32c
import numpy as np
import numpy.typing as npt

from moedge_runtime.bundle import Bundle
from moedge_runtime.errors import BundleError
from moedge_runtime.inference.dequantize import FloatArray, dequantize
from moedge_runtime.inference.experts import ExpertStatistics, damaged_expert, not_finite, unusable_experts


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
        self._file = _open_experts(self._path, sum(map(len, info.crc32c)) * info.record_bytes)
        self._cache: OrderedDict[tuple[int, int], ExpertWeights] = OrderedDict()
        self._cache_bytes = cache_bytes
        self._counts: Counter[str] = Counter()
        self.cached_bytes = 0
        self.records_read = 0

    def compute(
        self,
        layer: int,
        moe_input: FloatArray,
        router_logits: FloatArray,
        next_router_logits: FloatArray | None = None,
    ) -> FloatArray:
        """See `ExpertBank.compute`; reads nothing ahead."""
        start_ns, waited_ns = perf_counter_ns(), self._counts["flash_wait_ns"]
        if not np.isfinite(router_logits).all():
            raise not_finite(self._path, layer, "a router logit is not finite")
        chosen, weights = route(router_logits, self._top_k)
        result = np.zeros_like(moe_input)
        for expert in np.unique(chosen).tolist():
            tokens, picks = np.nonzero(chosen == expert)
            output = self._weights(layer, expert)(moe_input[tokens])
            result[tokens] += output * weights[tokens, picks, None]
        waited_ns = self._counts["flash_wait_ns"] - waited_ns
        self._counts.update(calls=1, tokens=len(moe_input), compute_ns=perf_counter_ns() - start_ns - waited_ns)
        return result

    def preload(self) -> None:
        """Nothing: it reads an expert when a call needs it."""

    def set_budget(self, budget_bytes: int) -> None:
        """See `ExpertBank.set_budget`; no budget is too small."""
        self._cache_bytes = budget_bytes
        self._evict()

    def statistics(self) -> ExpertStatistics:
        """See `ExpertBank.statistics`; `hits` and `used_bytes` are of the float32 arrays that it keeps."""
        counts = self._counts
        return ExpertStatistics(
            calls=counts["calls"],
            tokens=counts["tokens"],
            hits=counts["hits"],
            misses=counts["misses"],
            reads=self.records_read,
            read_bytes=self.records_read * self._info.record_bytes,
            failed_reads=counts["failed_reads"],
            evictions=counts["evictions"],
            queue_depth_sum=self.records_read,
            flash_wait_ms=counts["flash_wait_ns"] / 1e6,
            compute_ms=counts["compute_ns"] / 1e6,
            budget_bytes=self._cache_bytes,
            used_bytes=self.cached_bytes,
            resident=len(self._cache),
        )

    def close(self) -> None:
        """See `ExpertBank.close`."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._cache.clear()

    def _weights(self, layer: int, expert: int) -> ExpertWeights:
        key = (layer, expert)
        found = self._cache.pop(key, None)
        self._counts["misses" if found is None else "hits"] += 1
        if found is None:
            found = self._decode(self._read(layer, expert))
            if found.nbytes > self._cache_bytes:
                return found
            self.cached_bytes += found.nbytes
        self._cache[key] = found
        self._evict()
        return found

    def _evict(self) -> None:
        while self.cached_bytes > self._cache_bytes:
            self.cached_bytes -= self._cache.popitem(last=False)[1].nbytes
            self._counts["evictions"] += 1

    def _read(self, layer: int, expert: int) -> npt.NDArray[np.uint8]:
        position = self._position[layer]
        nbytes = self._info.record_bytes
        offset = (position * len(self._info.crc32c[position]) + expert) * nbytes
        problem, start_ns = None, perf_counter_ns()
        try:
            record = os.pread(self._file, nbytes, offset)
        except OSError as error:
            raise self._damaged(layer, expert, offset, f"reading failed ({error.strerror})") from error
        self._counts["flash_wait_ns"] += perf_counter_ns() - start_ns
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
        self._counts["failed_reads"] += 1
        return damaged_expert(self._path, layer, expert, offset, problem)

    def _decode(self, record: npt.NDArray[np.uint8]) -> ExpertWeights:
        arrays = self._layout.unpack(record)
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


def _open_experts(path: Path, nbytes: int) -> int:
    """A file descriptor of experts.bin."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise unusable_experts(path, f"it cannot be opened ({error.strerror})") from error
    size = os.fstat(file).st_size
    if size != nbytes:
        os.close(file)
        raise unusable_experts(path, f"it has {size:,} bytes, its records take {nbytes:,}")
    return file
