"""Token embeddings, read row by row from the mapped embedding.bin: the table never has to be resident."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moedge_runtime.bundle import Bundle
from moedge_runtime.inference.dequantize import FloatArray, dequantize


class EmbeddingTable:
    """Rows of embedding.bin as float32."""

    def __init__(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        text = manifest.model.text
        self._precision = manifest.quantization.embedding
        self._hidden_size = text.hidden_size
        self._rows = np.memmap(
            bundle.file(manifest.embedding.file),
            np.uint8,
            mode="r",
            shape=(text.vocab_size, manifest.embedding.row_bytes),
        )

    def rows(self, tokens: Sequence[int]) -> FloatArray:
        """Embeddings of `tokens`.

        Returns:
            float32 [len(tokens), hidden_size].
        """
        raw = np.ascontiguousarray(self._rows[np.asarray(tokens, np.int64)])
        bits, inputs = self._precision.bits, self._hidden_size
        if bits == 32:
            return raw.view(np.float32)
        blocks = -(-inputs // self._precision.block_size)
        weight_bytes, scale_bytes = inputs * bits // 8, 2 * blocks
        weight = raw[:, :weight_bytes]
        scale = np.ascontiguousarray(raw[:, weight_bytes : weight_bytes + scale_bytes]).view(np.float16)
        zero_point = None if self._precision.symmetric else raw[:, weight_bytes + scale_bytes :]
        return dequantize(weight, scale, zero_point, self._precision, inputs)
