"""Turns the experts of a checkpoint into records: the same numbers for experts.bin and for the inline model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import google_crc32c
import numpy as np
import numpy.typing as npt
import torch
from moedge_runtime.bundle import ExpertLayout, ExpertsInfo

from moedge_export.checkpoint import Checkpoint
from moedge_export.quantizer import Quantizer
from moedge_export.tensors import expert_tensors

EXPERTS_NAME = "experts.bin"

Arrays = dict[str, npt.NDArray[np.generic]]


def expert_layout(checkpoint: Checkpoint, quantizer: Quantizer) -> ExpertLayout:
    """Shapes of an expert's arrays, in its record and row-major."""
    text = checkpoint.architecture.text
    return ExpertLayout(text.hidden_size, text.moe_intermediate_size, quantizer.precision)


def encode_expert(checkpoint: Checkpoint, quantizer: Quantizer, layer: int, expert: int) -> Arrays:
    """Row-major arrays of one expert by name, rows of gate and up interleaved (docs/bundle-format.md)."""
    gate_up, down = checkpoint.expert(layer, expert)
    tensors = expert_tensors(checkpoint.architecture, layer)
    arrays: Arrays = {}
    for (name, matrix), tensor in zip({"fc1": interleave(gate_up), "fc2": down}.items(), tensors, strict=True):
        if quantizer.precision.bits == 32:
            arrays[f"{name}.weight"] = matrix.numpy()
            continue
        result = quantizer.quantize(f"{tensor}[{expert}]", matrix)
        arrays |= {f"{name}.weight": result.weight, f"{name}.scale": result.scale}
        if result.zero_point is not None:
            arrays[f"{name}.zero_point"] = result.zero_point
    return arrays


def interleave(gate_up: torch.Tensor) -> torch.Tensor:
    """Rows gate 0, up 0, gate 1, … of rows that come gates first, [2I, H]."""
    return torch.stack(gate_up.chunk(2), dim=1).reshape(gate_up.shape)


def write_experts(
    directory: Path, checkpoint: Checkpoint, quantizer: Quantizer, after_expert: Callable[[], None]
) -> ExpertsInfo:
    """Write experts.bin, one record at a time.

    Args:
        directory: The bundle.
        checkpoint: Where the weights come from.
        quantizer: Of the part `experts`.
        after_expert: Called after each record.
    """
    text = checkpoint.architecture.text
    layout = expert_layout(checkpoint, quantizer)
    record = np.zeros(layout.record_bytes, np.uint8)
    checksums: list[list[int]] = []
    with (directory / EXPERTS_NAME).open("wb") as file:
        for layer in text.moe_layers:
            checksums.append([])
            for expert in range(text.num_experts):
                layout.pack(encode_expert(checkpoint, quantizer, layer, expert), record)
                file.write(record.data)
                checksums[-1].append(google_crc32c.value(record.tobytes()))
                after_expert()
    return ExpertsInfo(
        file=EXPERTS_NAME, record_bytes=layout.record_bytes, sections=layout.section_infos(), crc32c=checksums
    )
