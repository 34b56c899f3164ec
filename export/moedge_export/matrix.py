"""A weight matrix that is read from the checkpoint a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from moedge_export.checkpoint import Checkpoint

CHUNK_WEIGHTS = 1 << 20
"""Weights read at once, by one thread: large beside call overhead, and enough pieces for all threads."""


@dataclass(frozen=True)
class Matrix:
    """[rows, inputs], read on demand.

    Attributes:
        name: What it is called in the checkpoint.
        read: Rows `start` to `stop`, in the checkpoint's data type; thread-safe.
    """

    name: str
    rows: int
    inputs: int
    read: Callable[[int, int], torch.Tensor]

    def chunks(self) -> Iterator[tuple[int, int]]:
        """First row and the row behind the last of pieces of about `CHUNK_WEIGHTS`, in order."""
        step = max(1, CHUNK_WEIGHTS // self.inputs)
        for start in range(0, self.rows, step):
            yield start, min(start + step, self.rows)


def checkpoint_matrix(checkpoint: Checkpoint, *names: str) -> Matrix:
    """The tensors `names` of a checkpoint below each other; all axes after the first are inputs."""
    sizes = []
    inputs = 0
    for name in names:
        shape = checkpoint.weights.shape(name)
        assert shape is not None
        sizes.append(shape[0])
        inputs = int(torch.Size(shape[1:]).numel())

    def read(start: int, stop: int) -> torch.Tensor:
        parts, offset = [], 0
        for name, size in zip(names, sizes, strict=True):
            low, high = max(start - offset, 0), min(stop - offset, size)
            if low < high:
                parts.append(checkpoint.weights.rows(name, low, high).reshape(high - low, inputs))
            offset += size
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    return Matrix(", ".join(names), sum(sizes), inputs, read)
