"""A weight matrix that is read from the checkpoint a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from moedge_export.checkpoint import Checkpoint

CHUNK_WEIGHTS = 1 << 22
"""Weights read at once: 16 MiB of float32, small beside the caches of a workstation and large beside call overhead."""


@dataclass(frozen=True)
class Matrix:
    """float32 [rows, inputs], read on demand.

    Attributes:
        name: What it is called in the checkpoint.
        read: Rows `start` to `stop`.
    """

    name: str
    rows: int
    inputs: int
    read: Callable[[int, int], torch.Tensor]

    def chunks(self) -> Iterator[tuple[int, torch.Tensor]]:
        """All rows in order, in pieces of about `CHUNK_WEIGHTS`, each with the index of its first row."""
        step = max(1, CHUNK_WEIGHTS // self.inputs)
        for start in range(0, self.rows, step):
            yield start, self.read(start, min(start + step, self.rows))


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
                parts.append(checkpoint.rows(name, low, high).reshape(high - low, inputs))
            offset += size
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    return Matrix(", ".join(names), sum(sizes), inputs, read)
