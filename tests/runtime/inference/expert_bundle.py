"""A paged bundle with random experts and embeddings of any precision, and what their numbers mean."""

from __future__ import annotations

from pathlib import Path

import google_crc32c
import numpy as np
from moedge_runtime.bundle import Bundle, ExpertLayout, ExpertsInfo, Manifest, Precision
from runtime.bundle.sample import MODEL, TEXT, write_sample


def write_expert_bundle(destination: Path, precision: Precision) -> tuple[Bundle, np.ndarray, np.ndarray]:
    """Write the bundle; also fc1 [layers, experts, 2I, H] and fc2 [layers, experts, H, I] in float32."""
    manifest = Bundle.open(write_sample(destination)).manifest
    layout = ExpertLayout(TEXT.hidden_size, TEXT.moe_intermediate_size, precision)
    rng = np.random.default_rng(1)
    fc1, fc2, checksums = [], [], []
    with (destination / "experts.bin").open("wb") as file:
        for _ in TEXT.moe_layers:
            checksums.append([])
            for _ in range(TEXT.num_experts):
                record = np.empty(layout.record_bytes, np.uint8)
                arrays = {array.name: np.empty(array.shape, array.dtype) for array in layout.row_major}
                fc1.append(_fill(arrays, "fc1", precision, TEXT.hidden_size, rng))
                fc2.append(_fill(arrays, "fc2", precision, TEXT.moe_intermediate_size, rng))
                layout.pack(arrays, record)
                file.write(record.tobytes())
                checksums[-1].append(google_crc32c.value(record.tobytes()))
    values = manifest.model_dump()
    values["quantization"]["experts"] = precision.model_dump()
    values["experts"] = ExpertsInfo(
        file="experts.bin",
        record_bytes=layout.record_bytes,
        sections=layout.section_infos(),
        crc32c=checksums,
    ).model_dump()
    bundle = Bundle(destination, Manifest.model_validate(values))
    shape = (len(TEXT.moe_layers), TEXT.num_experts)
    return bundle, np.array(fc1).reshape(*shape, *fc1[0].shape), np.array(fc2).reshape(*shape, *fc2[0].shape)


def _fill(
    arrays: dict[str, np.ndarray], name: str, precision: Precision, inputs: int, rng: np.random.Generator
) -> np.ndarray:
    """Random content of one matrix; returns the weights, computed value by value as the format's page says."""
    weight = arrays[f"{name}.weight"]
    rows = weight.shape[0]
    if precision.bits == 32:
        weight[:] = rng.normal(0, 0.2, weight.shape)
        return weight.copy()
    levels = 1 << precision.bits
    block = precision.block_size
    blocks = -(-inputs // block)
    q = rng.integers(0, levels, (rows, inputs))
    scale = (rng.uniform(0.5, 1, (rows, blocks)) * 0.4 / levels).astype(np.float16)
    zero = np.full((rows, blocks), levels // 2)
    if not precision.symmetric:
        zero = rng.integers(0, levels, (rows, blocks))
        arrays[f"{name}.zero_point"][:] = _pack(zero, precision.bits)
    weight[:] = _pack(q, precision.bits)
    arrays[f"{name}.scale"][:] = scale
    result = np.empty((rows, inputs), np.float32)
    for i in range(inputs):
        result[:, i] = (q[:, i] - zero[:, i // block]) * scale[:, i // block].astype(np.float32)
    return result


def _pack(values: np.ndarray, bits: int) -> np.ndarray:
    if bits == 8:
        return values.astype(np.uint8)
    if values.shape[1] % 2:
        values = np.pad(values, ((0, 0), (0, 1)))
    return (values[:, 0::2] | values[:, 1::2] << 4).astype(np.uint8)


__all__ = ["MODEL", "TEXT", "write_expert_bundle"]
