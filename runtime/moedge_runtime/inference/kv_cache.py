"""Keys and values of all tokens so far: fixed buffers that the attention of each layer extends in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort

from moedge_runtime.bundle import TextInfo
from moedge_runtime.inference.dequantize import FloatArray


class KvCache:
    """One key and one value buffer [1, KV heads, capacity, head_dim] for every layer, float32, allocated once.

    A graph gets the same buffer as `past_*` and `present_*`, so nothing is copied. What lies at or after `length` is
    rubbish; keeping a prefix is setting `length`.

    Attributes:
        capacity: Tokens that fit.
        length: Tokens that are valid.
        keys, values: `onnxruntime.OrtValue` by layer.
    """

    def __init__(self, text: TextInfo, capacity: int, device: str = "cpu") -> None:
        self.capacity = capacity
        self.length = 0
        shape = [1, text.num_key_value_heads, capacity, text.head_dim]
        # The attention operator may multiply masked-out slots by 0, so that they must not hold NaN.
        arrays = [np.zeros(shape, np.float32) for _ in range(2 * text.num_hidden_layers)]
        buffers: list[Any] = [ort.OrtValue.ortvalue_from_numpy(array, device) for array in arrays]
        self.keys, self.values = buffers[::2], buffers[1::2]
        self._arrays = [array[0] for array in arrays] if device == "cpu" else None  # the very memory of the buffers

    def truncate(self, length: int) -> None:
        """Keep the first `length` tokens only."""
        assert 0 <= length <= self.length
        self.length = length

    def copy(self, length: int) -> list[FloatArray]:
        """Keys and values of the first `length` tokens, of each layer float32 [KV heads, length, head_dim] twice.

        Empty where the buffers are not in the processor's memory.
        """
        return [array[:, :length].copy() for array in self._arrays or ()]

    def restore(self, copied: list[FloatArray]) -> None:
        """Hold what `copy` returned, or the first tokens of it, and nothing else."""
        assert self._arrays is not None
        for array, saved in zip(self._arrays, copied, strict=True):
            array[:, : saved.shape[1]] = saved
        self.length = copied[0].shape[1]

    def memory(self, layer: int) -> tuple[FloatArray, FloatArray]:
        """Keys and values of a layer, float32 [KV heads, capacity, head_dim]: the buffers themselves, on the cpu."""
        assert self._arrays is not None, "the buffers are not in the processor's memory"
        return self._arrays[2 * layer], self._arrays[2 * layer + 1]

    def bind(self, binding: Any, layer: int, suffix: str = "") -> None:
        """Bind a layer's buffers to the inputs `past_key`, `past_value` and outputs `present_key`, `present_value`.

        Args:
            binding: `onnxruntime.IOBinding`.
            layer: Index of the decoder layer.
            suffix: What follows these names in the graph, e.g. `.3`.
        """
        for name, buffer in (("key", self.keys[layer]), ("value", self.values[layer])):
            binding.bind_ortvalue_input(f"past_{name}{suffix}", buffer)
            binding.bind_ortvalue_output(f"present_{name}{suffix}", buffer)
