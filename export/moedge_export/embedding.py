"""Writes embedding.bin: one row for every token, read on demand on the board."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from moedge_runtime.bundle import EmbeddingInfo

from moedge_export.checkpoint import Checkpoint
from moedge_export.matrix import checkpoint_matrix
from moedge_export.quantizer import Quantizer

EMBEDDING_NAME = "embedding.bin"


def write_embedding(directory: Path, checkpoint: Checkpoint, quantizer: Quantizer) -> EmbeddingInfo:
    """Write embedding.bin into the bundle `directory`, a few rows at a time (docs/bundle-format.md)."""
    matrix = checkpoint_matrix(checkpoint, checkpoint.embedding_name)
    row_bytes = 0
    with (directory / EMBEDDING_NAME).open("wb") as file:
        for _, rows in matrix.chunks():
            if quantizer.precision.bits == 32:
                encoded = rows.numpy().view(np.uint8)
            else:
                result = quantizer.quantize(checkpoint.embedding_name, rows)
                parts = [result.weight, result.scale.view(np.uint8)]
                if result.zero_point is not None:
                    parts.append(result.zero_point)
                encoded = np.concatenate(parts, axis=1)
            row_bytes = encoded.shape[1]
            file.write(np.ascontiguousarray(encoded).data)
    return EmbeddingInfo(file=EMBEDDING_NAME, row_bytes=row_bytes)
