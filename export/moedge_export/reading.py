"""Counts what is read of a checkpoint, for the progress that a user sees, and says how much there is to read."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable

import torch

from moedge_export.checkpoint import Checkpoint, WeightSource
from moedge_export.estimate import part_of
from moedge_export.safetensors_reader import DTYPES
from moedge_export.tensors import EMBEDDING, HEAD, expected_tensors


class CountedWeights:
    """A `WeightSource` that reports the bytes of every read; `report` is never called by two threads at once."""

    def __init__(self, weights: WeightSource, report: Callable[[int], object]) -> None:
        self._weights = weights
        self._report = report
        self._lock = threading.Lock()

    def shape(self, name: str) -> tuple[int, ...] | None:
        """See `WeightSource.shape`."""
        return self._weights.shape(name)

    def dtype(self, name: str) -> str:
        """See `WeightSource.dtype`."""
        return self._weights.dtype(name)

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """See `WeightSource.rows`."""
        rows = self._weights.rows(name, start, stop)
        with self._lock:
            self._report(rows.nbytes)
        return rows

    def fingerprint(self) -> str:
        """See `WeightSource.fingerprint`."""
        return self._weights.fingerprint()


def input_bytes(checkpoint: Checkpoint) -> dict[str, int]:
    """Bytes to read, by piece of a paged bundle (`pieces.py`); a tied embedding is read twice."""
    sizes: Counter[str] = Counter()
    for name in [*expected_tensors(checkpoint.architecture), HEAD]:
        stored = {EMBEDDING: checkpoint.embedding_name, HEAD: checkpoint.head_name}.get(name, name)
        shape, part = checkpoint.weights.shape(stored), part_of(name)
        assert shape is not None
        layer = name.split(".layers.")[1].partition(".")[0] if part in ("attention", "experts") else ""
        sizes[f"{part}/{layer}".rstrip("/")] += math.prod(shape) * DTYPES[checkpoint.weights.dtype(stored)].itemsize
    return dict(sizes)
