"""Writes weights as sharded safetensors, as the Hugging Face Hub has them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import BinaryIO

import torch
from moedge_export.checkpoint import WeightSource

SHARD_BYTES = 5_000_000_000
"""Size from which on a new shard is begun, as in the published checkpoint."""


def write_shards(weights: WeightSource, names: list[str], directory: Path, shard_bytes: int = SHARD_BYTES) -> int:
    """Write `model-0000x-of-0000y.safetensors` and the index; returns the bytes of all tensors.

    Args:
        weights: bfloat16 tensors.
        names: Of the tensors, in the order in which they are stored.
        directory: Where config.json is.
        shard_bytes: Size from which on a new shard is begun.
    """
    shards: list[list[str]] = [[]]
    filled = total = 0
    for name in names:
        if filled >= shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += _nbytes(weights, name)
        total += _nbytes(weights, name)
    weight_map = {}
    for index, members in enumerate(shards):
        file_name = f"model-{index + 1:05d}-of-{len(shards):05d}.safetensors"
        weight_map |= dict.fromkeys(members, file_name)
        with (directory / file_name).open("wb") as file:
            _write_shard(weights, members, file)
    content = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    return total


def _write_shard(weights: WeightSource, names: list[str], file: BinaryIO) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in names:
        end = offset + _nbytes(weights, name)
        header[name] = {"dtype": "BF16", "shape": list(_shape(weights, name)), "data_offsets": [offset, end]}
        offset = end
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    file.write(len(encoded).to_bytes(8, "little"))
    file.write(encoded)
    for name in names:
        for row in range(_shape(weights, name)[0]) if len(_shape(weights, name)) > 2 else (None,):
            rows = (0, _shape(weights, name)[0]) if row is None else (row, row + 1)
            file.write(weights.rows(name, *rows).contiguous().view(torch.uint8).numpy().data)


def _shape(weights: WeightSource, name: str) -> tuple[int, ...]:
    shape = weights.shape(name)
    assert shape is not None
    return shape


def _nbytes(weights: WeightSource, name: str) -> int:
    return 2 * math.prod(_shape(weights, name))
