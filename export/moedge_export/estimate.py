"""How large a bundle will be and how much memory its export takes, from the config alone; refuses what cannot fit."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from pathlib import Path

from moedge_runtime.bundle import ExpertLayout, Precision, Quantization
from moedge_runtime.errors import StorageError

from moedge_export.architecture import Architecture
from moedge_export.graph import WEIGHT_ALIGNMENT_BYTES
from moedge_export.matrix import CHUNK_WEIGHTS
from moedge_export.memory import available_memory
from moedge_export.options import Form
from moedge_export.parallel import WAITING_RESULTS
from moedge_export.tensors import EMBEDDING, HEAD, VISION, expected_tensors

ASSETS_BYTES = 16_000_000
"""Tokenizer and settings of Qwen3-VL (11.4 MB for tokenizer.json), with room to spare."""

GRAPH_BYTES = 40_000
"""Nodes and names of one layer's graph, 10 to 25 kB measured."""

LIBRARY_BYTES = 600_000_000
"""Python with torch, transformers and onnx: 330 to 400 MB resident measured, with room to spare."""


def part_bytes(architecture: Architecture, quantization: Quantization, form: Form) -> dict[str, int]:
    """Upper estimate of a bundle's size by part, largest first: those of the quantization, graphs, and assets."""
    text = architecture.text
    sizes: Counter[str] = Counter()
    for name, shape in (expected_tensors(architecture) | {HEAD: (text.vocab_size, text.hidden_size)}).items():
        part = part_of(name)
        if part != "experts":
            sizes[part] += _tensor_bytes(name, shape, getattr(quantization, part))
    layout = ExpertLayout(text.hidden_size, text.moe_intermediate_size, quantization.experts)
    record_bytes = layout.record_bytes if form == "paged" else sum(array.nbytes for array in layout.row_major)
    sizes["experts"] = len(text.moe_layers) * text.num_experts * record_bytes
    sizes["graphs"] = GRAPH_BYTES * (text.num_hidden_layers + architecture.vision.depth)
    sizes["assets"] = ASSETS_BYTES
    return dict(sizes.most_common())


def bundle_bytes(architecture: Architecture, quantization: Quantization, form: Form) -> int:
    """Upper estimate of a bundle's size."""
    return sum(part_bytes(architecture, quantization, form).values())


def part_of(tensor: str) -> str:
    """The part of the quantization that a tensor of the checkpoint belongs to."""
    if tensor == EMBEDDING:
        return "embedding"
    if tensor.startswith(VISION):
        return "vision"
    if ".mlp.experts." in tensor:
        return "experts"
    return "attention" if ".layers." in tensor else "head"


def memory_bytes(architecture: Architecture, quantization: Quantization, threads: int) -> int:
    """Upper estimate of the memory that an export needs, whatever the number of layers and experts."""
    text = architecture.text
    expert_weights = 3 * text.hidden_size * text.moe_intermediate_size
    record_bytes = ExpertLayout(text.hidden_size, text.moe_intermediate_size, quantization.experts).record_bytes
    # What a thread holds at once: weights as they are stored and in float32, arrays before and after packing.
    at_work = max(8 * expert_weights, 16 * CHUNK_WEIGHTS) + 3 * record_bytes
    largest = max(
        4 * math.prod(shape)
        for name, shape in expected_tensors(architecture).items()
        if name.endswith((".mlp.gate.weight", ".pos_embed.weight"))
    )
    return LIBRARY_BYTES + threads * at_work + WAITING_RESULTS * 2 * record_bytes + largest


def free_bytes(destination: Path) -> int:
    """Free bytes on the disk that `destination` is or will be on."""
    existing = destination.absolute()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free


def own_bytes(directory: Path) -> int:
    """Bytes on the disk that only the files below `directory` take up."""
    stats = [path.stat() for path in directory.rglob("*") if path.is_file()]
    return sum(stat.st_blocks * 512 for stat in stats if stat.st_nlink == 1)


def check_room(destination: Path, needed_bytes: int, present_bytes: int = 0) -> None:
    """Refuse to start what cannot be finished.

    Args:
        destination: The bundle.
        needed_bytes: Of the whole bundle.
        present_bytes: What an interrupted export has written of it.

    Raises:
        StorageError: The disk of `destination` has too little room.
    """
    free = free_bytes(destination)
    if free + present_bytes < needed_bytes:
        there = f", of which {present_bytes / 1e6:,.0f} MB are there" if present_bytes else ""
        raise StorageError(
            f"The bundle '{destination}' needs up to {needed_bytes / 1e6:,.0f} MB{there}; its disk has "
            f"{free / 1e6:,.0f} MB free. Free space, choose another disk, or export with fewer bits.",
            key="storage.full",
        )


def check_memory(needed_bytes: int) -> None:
    """Refuse to start what would be killed for its memory.

    Raises:
        StorageError: Less than `needed_bytes` of memory are available.
    """
    available = available_memory()
    if available is not None and available < needed_bytes:
        raise StorageError(
            f"The export needs up to {needed_bytes / 1e6:,.0f} MB of memory; {available / 1e6:,.0f} MB are available "
            f"to this process. Close other programs, or raise the memory limit of its control group.",
            key="storage.memory",
        )


def _tensor_bytes(name: str, shape: tuple[int, ...], precision: Precision) -> int:
    inputs = math.prod(shape[1:])
    if name.endswith(".mlp.gate.weight"):
        # In the layer before it there may be a copy to guess with, in the attention's precision, and its norm.
        guess = shape[0] * _row_bytes(inputs, precision, scale_bytes=4) + 4 * inputs
        return math.prod(shape) * 4 + guess + 5 * WEIGHT_ALIGNMENT_BYTES
    if len(shape) < 2 or name.endswith(".pos_embed.weight"):
        return math.prod(shape) * 4 + WEIGHT_ALIGNMENT_BYTES
    if name == EMBEDDING:
        return shape[0] * _row_bytes(inputs, precision, scale_bytes=2)
    return shape[0] * _row_bytes(inputs, precision, scale_bytes=4) + 3 * WEIGHT_ALIGNMENT_BYTES


def _row_bytes(inputs: int, precision: Precision, scale_bytes: int) -> int:
    if precision.bits == 32:
        return 4 * inputs
    blocks = -(-inputs // precision.block_size)
    zero_points = 0 if precision.symmetric else -(-blocks * precision.bits // 8)
    return blocks * (precision.block_size * precision.bits // 8 + scale_bytes) + zero_points
