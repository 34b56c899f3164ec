"""Turns the experts of a checkpoint into records: the same numbers for experts.bin and for the inline model."""

from __future__ import annotations

from dataclasses import dataclass

import google_crc32c
import numpy as np
import numpy.typing as npt
from moedge_runtime.bundle import ExpertLayout

from moedge_export.checkpoint import Checkpoint
from moedge_export.quantize import Quantized
from moedge_export.quantizer import Quantizer
from moedge_export.tensors import expert_tensors

Arrays = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class EncodedExpert:
    """One expert as a bundle stores it.

    Attributes:
        arrays: Row-major, by name, rows of gate and up interleaved (docs/bundle-format.md).
        quantized: What they were made from; nothing at 32 bits.
    """

    arrays: Arrays
    quantized: tuple[Quantized, ...]

    def count(self, quantizer: Quantizer) -> None:
        """Add this expert to the quantizer's tally."""
        for result in self.quantized:
            quantizer.count(result)


@dataclass(frozen=True)
class ExpertRecord:
    """One expert as experts.bin stores it: the record, its CRC-32C, and what it was made from."""

    record: npt.NDArray[np.uint8]
    crc32c: int
    encoded: EncodedExpert


def expert_layout(checkpoint: Checkpoint, quantizer: Quantizer) -> ExpertLayout:
    """Shapes of an expert's arrays, in its record and row-major."""
    text = checkpoint.architecture.text
    return ExpertLayout(text.hidden_size, text.moe_intermediate_size, quantizer.precision)


def encode_expert(checkpoint: Checkpoint, quantizer: Quantizer, layer: int, expert: int) -> EncodedExpert:
    """Read one expert and quantize it; thread-safe."""
    tensors = expert_tensors(checkpoint.architecture, layer)
    arrays: Arrays = {}
    results = []
    for name, matrix, tensor in zip(("fc1", "fc2"), checkpoint.expert(layer, expert), tensors, strict=True):
        if quantizer.precision.bits == 32:
            of_matrix: Arrays = {f"{name}.weight": matrix.float().numpy()}
        else:
            result = quantizer.quantize(f"{tensor}[{expert}]", matrix)
            results.append(result)
            of_matrix = {f"{name}.weight": result.weight, f"{name}.scale": result.scale}
            if result.zero_point is not None:
                of_matrix[f"{name}.zero_point"] = result.zero_point
        arrays |= {key: interleave(array) for key, array in of_matrix.items()} if name == "fc1" else of_matrix
    return EncodedExpert(arrays, tuple(results))


def expert_record(checkpoint: Checkpoint, quantizer: Quantizer, layer: int, expert: int) -> ExpertRecord:
    """Read, quantize and pack one expert; thread-safe."""
    encoded = encode_expert(checkpoint, quantizer, layer, expert)
    layout = expert_layout(checkpoint, quantizer)
    record = np.empty(layout.record_bytes, np.uint8)
    layout.pack(encoded.arrays, record)
    return ExpertRecord(record, google_crc32c.value(record.tobytes()), encoded)


def interleave(gate_up: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Rows gate 0, up 0, gate 1, … of rows that come gates first, [2I, …]."""
    return np.stack(np.split(gate_up, 2), axis=1).reshape(gate_up.shape)
