"""Weights of any size that are made as they are read, so that a checkpoint of 62 GB needs no disk.

The residual stream is dominated by the token (or image patch), so routing depends on it; 32 constant channels add a
fixed popularity of experts for each layer, whose strength is `skew`: 0 is uniform routing, 1.7 follows the public trace
of Qwen3-30B-A3B (26 of 128 experts cover 80 % of a layer's picks, 36 cover 90 %).
"""

from __future__ import annotations

import math
import re
import zlib

import torch
from moedge_export.architecture import Architecture
from moedge_export.tensors import EMBEDDING, HEAD, expected_tensors

EXPERTS = ".mlp.experts."

CONSTANT_CHANNELS = 32
CONSTANT_VALUE = 1.0
EMBEDDING_STD = 0.6
ROUTER_STD = 0.05
POOL_VALUES = (1 << 22) + 1031
"""Random values that all tensors are cut from; not a multiple of any row length, so that rows differ."""


class SyntheticWeights:
    """Serves every tensor of an architecture as the published checkpoint has it, the same for the same seed.

    Experts are stored with inputs before outputs, [experts, inputs, outputs], as on the Hugging Face Hub.

    Implements `moedge_export.checkpoint.WeightSource`. Thread-safe: nothing changes after construction.
    """

    def __init__(self, architecture: Architecture, skew: float = 1.7, seed: int = 0) -> None:
        self._shapes = dict(expected_tensors(architecture))
        self._shapes[HEAD] = self._shapes[EMBEDDING]
        self._residual_branches = math.sqrt(2 * architecture.text.num_hidden_layers)
        self._skew = skew
        self._seed = seed
        generator = torch.Generator().manual_seed(seed)
        self._pool = torch.randn(POOL_VALUES, generator=generator).to(torch.bfloat16)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors in bfloat16."""
        return sum(2 * math.prod(shape) for shape in self._shapes.values())

    @property
    def names(self) -> list[str]:
        """Names of all tensors."""
        return list(self._shapes)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """See `WeightSource.shape`."""
        shape = self._shapes.get(name)
        return (shape[0], shape[2], shape[1]) if shape is not None and EXPERTS in name else shape

    def dtype(self, name: str) -> str:
        """See `WeightSource.dtype`: all are bfloat16, as published."""
        return "BF16"

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """See `WeightSource.rows`."""
        shape = self._shapes[name]
        if len(shape) == 1:
            return self._vector(name, shape[0])[start:stop]
        values = self._random(name, start, stop, math.prod(shape[1:])).reshape(stop - start, *shape[1:])
        values = values * self._scale(name, shape)
        if name == EMBEDDING:
            values[:, :CONSTANT_CHANNELS] = CONSTANT_VALUE
        elif name.endswith(".mlp.gate.weight"):
            popularity = self._popularity(name, shape[0])[start:stop]
            values[:, :CONSTANT_CHANNELS] = popularity[:, None].to(values.dtype)
        elif _is_merger_output(name):
            values[: max(0, CONSTANT_CHANNELS - start)] = 0  # the bias alone makes the constant channels
        elif EXPERTS in name:
            # torch transposes matrices five times faster than stacks of them.
            stored = values.new_empty(stop - start, shape[2], shape[1])
            for matrix, place in zip(values, stored, strict=True):
                place.copy_(matrix.T)
            values = stored
        return values

    def fingerprint(self) -> str:
        """See `WeightSource.fingerprint`."""
        return f"synthetic weights, seed {self._seed}, skew {self._skew}"

    def _random(self, name: str, start: int, stop: int, row: int) -> torch.Tensor:
        count = (stop - start) * row
        first = (self._hash(name) + start * row) % len(self._pool)
        pieces = []
        while count:
            piece = self._pool[first : first + count]
            pieces.append(piece)
            count, first = count - len(piece), 0
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _hash(self, name: str) -> int:
        return zlib.crc32(f"{self._seed}/{name}".encode())

    def _scale(self, name: str, shape: tuple[int, ...]) -> float:
        if name == EMBEDDING:
            return EMBEDDING_STD
        if name.endswith(".mlp.gate.weight"):
            return ROUTER_STD
        if name.endswith(".pos_embed.weight"):
            return 0.02
        inputs = shape[-1] if EXPERTS in name else math.prod(shape[1:])
        scale = 1 / math.sqrt(inputs)
        # What a branch adds to the residual stream stays small beside the token itself.
        return scale * (0.3 / self._residual_branches if re.search(r"o_proj|down_proj", name) else 1.0)

    def _vector(self, name: str, size: int) -> torch.Tensor:
        if name.endswith("weight"):
            return torch.ones(size, dtype=torch.bfloat16)  # norms
        bias = torch.zeros(size, dtype=torch.bfloat16)
        if _is_merger_output(name):
            bias[:CONSTANT_CHANNELS] = CONSTANT_VALUE
        return bias

    def _popularity(self, name: str, experts: int) -> torch.Tensor:
        # The public trace's popularity falls with the logarithm of the rank.
        # Which expert has which rank is the layer's own.
        ranks = -torch.log(torch.arange(1, experts + 1, dtype=torch.float32))
        ranks = (ranks - ranks.mean()) / ranks.std(correction=0)
        order = torch.randperm(experts, generator=torch.Generator().manual_seed(self._hash(name)))
        # After the norm the constant channels are CONSTANT_VALUE / RMS of a row.
        rms = math.sqrt(EMBEDDING_STD**2 + CONSTANT_CHANNELS / 2048 * CONSTANT_VALUE**2)
        return self._skew * ranks[order] / CONSTANT_CHANNELS * rms / CONSTANT_VALUE


def _is_merger_output(name: str) -> bool:
    return ".visual.merger.linear_fc2." in name
