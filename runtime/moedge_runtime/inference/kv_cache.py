"""Keys and values of all tokens so far: fixed buffers that the attention of each layer extends in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort

from moedge_runtime.bundle import TextInfo


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
        self.keys: list[Any] = [_zeros(shape, device) for _ in range(text.num_hidden_layers)]
        self.values: list[Any] = [_zeros(shape, device) for _ in range(text.num_hidden_layers)]

    def truncate(self, length: int) -> None:
        """Keep the first `length` tokens only."""
        assert 0 <= length <= self.length
        self.length = length

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


def _zeros(shape: list[int], device: str) -> Any:
    # The attention operator may multiply masked-out slots by 0, so that they must not hold NaN.
    return ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32), device)
