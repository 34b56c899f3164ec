"""Writes embedding.bin: one row for every token, read on demand on the board."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from moedge_runtime.bundle import EmbeddingInfo

from moedge_export.checkpoint import Checkpoint
from moedge_export.matrix import checkpoint_matrix
from moedge_export.quantize import Quantized
from moedge_export.quantizer import Quantizer

EMBEDDING_NAME = "embedding.bin"


def write_embedding(directory: Path, checkpoint: Checkpoint, quantizer: Quantizer) -> EmbeddingInfo:
    """Write embedding.bin into the bundle `directory`, a few rows at a time (docs/bundle-format.md)."""
    matrix = checkpoint_matrix(checkpoint, checkpoint.embedding_name)
    path = directory / EMBEDDING_NAME
    path.unlink(missing_ok=True)  # never written in place: it may be a link to another bundle's file

    def encoded(chunk: tuple[int, int]) -> tuple[npt.NDArray[np.uint8], Quantized | None]:
        rows = matrix.read(*chunk)
        if quantizer.precision.bits == 32:
            return rows.float().numpy().view(np.uint8), None
        result = quantizer.quantize(checkpoint.embedding_name, rows)
        parts = [result.weight, result.scale.view(np.uint8)]
        if result.zero_point is not None:
            parts.append(result.zero_point)
        return np.concatenate(parts, axis=1), result

    with path.open("wb") as file:
        for _, (rows, result) in quantizer.in_order(encoded, matrix.chunks()):
            if result is not None:
                quantizer.count(result)
            file.write(rows.data)
    return EmbeddingInfo(file=EMBEDDING_NAME, row_bytes=path.stat().st_size // matrix.rows)
