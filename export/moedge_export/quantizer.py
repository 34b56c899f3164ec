"""How one part of the model is quantized, and what that did to its weights so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from moedge_runtime.bundle import Precision
from moedge_runtime.bundle.manifest import PartReport
from moedge_runtime.errors import CheckpointError

from moedge_export.parallel import Item, Result, in_order
from moedge_export.quantize import ErrorSums, Quantized, quantize


@dataclass
class Tally:
    """Sums over quantized weights."""

    weights: int = 0
    nbytes: int = 0
    errors: ErrorSums = field(default_factory=ErrorSums)

    def add(self, other: Tally) -> None:
        """Count what `other` counted."""
        self.weights += other.weights
        self.nbytes += other.nbytes
        self.errors += other.errors

    def report(self) -> PartReport:
        """The part's entry in the manifest, rounded to what is meaningful."""
        total = self.errors.weight or 1.0
        return PartReport(
            weights=self.weights,
            nbytes=self.nbytes,
            relative_error=round(math.sqrt(self.errors.error / total), 6),
            relative_error_absmax=round(math.sqrt(self.errors.error_absmax / total), 6),
        )


@dataclass(frozen=True)
class Quantizer:
    """Quantizes the weights of one part and counts the error.

    Attributes:
        precision: Of the part; with 32 bits there is nothing to quantize.
        accuracy_level: Of MatMulNBits and QMoE: 4 lets ONNX Runtime quantize activations to int8, 0 does not.
        pool: Threads to quantize with.
        tally: What was counted so far.
    """

    precision: Precision
    accuracy_level: int
    pool: ThreadPoolExecutor
    tally: Tally = field(default_factory=Tally)

    def quantize(self, name: str, weights: torch.Tensor) -> Quantized:
        """Quantize [rows, inputs]; thread-safe, and counts nothing.

        Raises:
            CheckpointError: A weight is infinite, not a number or too large for a float16 scale.
        """
        result = quantize(weights, self.precision)
        if not math.isfinite(result.errors.weight + result.errors.error):
            raise CheckpointError(
                f"Tensor '{name}' has weights that are infinite, not numbers, or too large for float16 scales. "
                f"Download the checkpoint again, or export with --precision fp32.",
                key="checkpoint.not_finite",
            )
        return result

    def count(self, result: Quantized) -> None:
        """Add `result` to the tally; call it in a fixed order, because sums of floats depend on it."""
        self.tally.add(Tally(result.weights, result.nbytes, result.errors))

    def in_order(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        """Each item with `work(item)`, computed ahead on the threads, in the order of the items."""
        return in_order(self.pool, work, items)
