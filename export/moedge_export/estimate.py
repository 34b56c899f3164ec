"""How large a bundle will be, from the config alone, and whether the disk has room for it."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from moedge_runtime.bundle import ExpertLayout, Precision, Quantization
from moedge_runtime.errors import StorageError

from moedge_export.architecture import Architecture
from moedge_export.graph import WEIGHT_ALIGNMENT_BYTES
from moedge_export.options import Form
from moedge_export.tensors import EMBEDDING, HEAD, VISION, expected_tensors

ASSETS_BYTES = 16_000_000
"""Tokenizer and settings of Qwen3-VL (11.4 MB for tokenizer.json), with room to spare."""

GRAPH_BYTES = 40_000
"""Nodes and names of one layer's graph, 10 to 25 kB measured."""


def bundle_bytes(architecture: Architecture, quantization: Quantization, form: Form) -> int:
    """Upper estimate of a bundle's size."""
    text = architecture.text
    shapes = expected_tensors(architecture)
    shapes[HEAD] = shapes[EMBEDDING]
    weights = sum(_tensor_bytes(name, shape, quantization) for name, shape in shapes.items())
    layout = ExpertLayout(text.hidden_size, text.moe_intermediate_size, quantization.experts)
    record_bytes = layout.record_bytes if form == "paged" else sum(array.nbytes for array in layout.row_major)
    graphs = GRAPH_BYTES * (text.num_hidden_layers + architecture.vision.depth)
    return weights + len(text.moe_layers) * text.num_experts * record_bytes + graphs + ASSETS_BYTES


def check_room(destination: Path, needed_bytes: int) -> None:
    """Refuse to start what cannot be finished.

    Raises:
        StorageError: The disk of `destination` has less than `needed_bytes` free.
    """
    existing = destination
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise StorageError(
            f"The bundle '{destination}' needs up to {needed_bytes / 1e6:,.0f} MB; its disk has {free / 1e6:,.0f} MB "
            f"free. Free space, choose another disk, or export with fewer bits.",
            key="storage.full",
        )


def _tensor_bytes(name: str, shape: tuple[int, ...], quantization: Quantization) -> int:
    if ".mlp.experts." in name:
        return 0
    if len(shape) < 2 or name.endswith((".mlp.gate.weight", ".pos_embed.weight")):
        return math.prod(shape) * 4 + WEIGHT_ALIGNMENT_BYTES
    inputs = math.prod(shape[1:])
    if name == EMBEDDING:
        return shape[0] * _row_bytes(inputs, quantization.embedding, scale_bytes=2)
    precision = quantization.head if name == HEAD else quantization.attention
    if name.startswith(VISION):
        precision = quantization.vision
    return shape[0] * _row_bytes(inputs, precision, scale_bytes=4) + 3 * WEIGHT_ALIGNMENT_BYTES


def _row_bytes(inputs: int, precision: Precision, scale_bytes: int) -> int:
    if precision.bits == 32:
        return 4 * inputs
    blocks = -(-inputs // precision.block_size)
    zero_points = 0 if precision.symmetric else -(-blocks * precision.bits // 8)
    return blocks * (precision.block_size * precision.bits // 8 + scale_bytes) + zero_points
