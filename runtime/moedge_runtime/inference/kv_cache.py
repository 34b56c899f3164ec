"""Keys and values of all tokens so far: fixed buffers that the attention of each layer extends in place."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
import onnxruntime as ort

from moedge_runtime.bundle import TextInfo
from moedge_runtime.inference.dequantize import FloatArray


class KvCache:
    """One key and one value buffer [1, KV heads, slots, head_dim] for every layer, float32, allocated once.

    A graph gets the same buffer as `past_*` and `present_*`, so nothing is copied. What lies at or after `length` is
    rubbish; keeping a prefix is setting `length`. One sequence rarely fills the cache, so others can have the places
    behind it: see `behind`.

    Attributes:
        capacity: Tokens that fit.
        length: Tokens that are valid.
        offset: Place of the first token in the buffers.
        keys, values: `onnxruntime.OrtValue` by layer.
    """

    def __init__(self, text: TextInfo, capacity: int, device: str = "cpu") -> None:
        self._shape = (text.num_key_value_heads, capacity, text.head_dim)
        size, head = 2 * text.num_hidden_layers * int(np.prod(self._shape)), capacity * text.head_dim
        # A buffer `behind` the first one ends as much later, in places of others that it leaves alone; for that of the
        # last layer there is one head more, which nobody touches, so that it takes no memory. The attention operator
        # may multiply masked-out slots by 0, so that they must not hold NaN.
        self._memory = np.zeros(size + head, np.float32)
        self._device = device
        self._view(0)
        if not self.in_memory:
            self._memory = np.empty(0, np.float32)  # the buffers are copies

    def behind(self, offset: int) -> KvCache:
        """The places from `offset` on as an empty cache in the same memory; this one must not come so far.

        Args:
            offset: Below `capacity`; counts from this cache's first place.
        """
        assert self.in_memory and 0 <= offset < self.capacity
        other = copy(self)
        other._view(self.offset + offset)
        return other

    def _view(self, offset: int) -> None:
        heads, slots, head_dim = self._shape
        self.offset, self.capacity, self.length = offset, slots - offset, 0
        size = heads * slots * head_dim
        begins = range(offset * head_dim, self._memory.size - slots * head_dim, size)
        arrays = [self._memory[begin : begin + size].reshape(1, *self._shape) for begin in begins]
        buffers: list[Any] = [ort.OrtValue.ortvalue_from_numpy(array, self._device) for array in arrays]
        self.keys, self.values = buffers[::2], buffers[1::2]
        self._arrays = [array[0, :, : self.capacity] for array in arrays] if self.in_memory else None

    @property
    def in_memory(self) -> bool:
        """Whether the buffers are in the processor's memory."""
        return self._device == "cpu"

    def truncate(self, length: int) -> None:
        """Keep the first `length` tokens only."""
        assert 0 <= length <= self.length
        self.length = length

    def copy(self, length: int) -> list[FloatArray]:
        """Keys and values of the first `length` tokens, of each layer float32 [KV heads, length, head_dim] twice.

        Empty unless the buffers are `in_memory`.
        """
        return [array[:, :length].copy() for array in self._arrays or ()]

    def restore(self, copied: list[FloatArray]) -> None:
        """Hold what `copy` returned, or the first tokens of it, and nothing else."""
        assert self._arrays is not None
        for array, saved in zip(self._arrays, copied, strict=True):
            array[:, : saved.shape[1]] = saved
        self.length = copied[0].shape[1]

    def memory(self, layer: int) -> tuple[FloatArray, FloatArray]:
        """Keys and values of a layer, float32 [KV heads, capacity, head_dim]: the buffers themselves, if `in_memory`.

        Heads lie as far apart as if the cache began at the first place.
        """
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
