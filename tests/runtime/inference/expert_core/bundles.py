"""Paged bundles of any shape with random experts, and inputs for them; no graphs."""

from __future__ import annotations

from pathlib import Path

import google_crc32c
import numpy as np
from moedge_runtime.bundle import Bundle, ExpertLayout, ExpertsInfo, Precision
from runtime.bundle.sample import TEXT, write_sample

FP32 = Precision(bits=32)
INT4 = Precision(bits=4, block_size=32, symmetric=True)
PRECISIONS = [
    FP32,
    *(
        Precision(bits=bits, block_size=block_size, symmetric=symmetric)
        for bits in (4, 8)
        for block_size in (32, 64, 128)
        for symmetric in (True, False)
    ),
]


def name_of(precision: Precision) -> str:
    """Id of a test."""
    return "fp32" if precision.bits == 32 else f"int{precision.bits}-{precision.block_size}-{precision.symmetric}"


def write_bundle(
    destination: Path,
    precision: Precision,
    hidden_size: int = 64,
    intermediate_size: int = 32,
    *,
    experts: int = 12,
    top_k: int = 3,
) -> Bundle:
    """A bundle whose decoder layers 0, 2 and 3 of 4 have experts. Padding is random too: nothing may depend on it."""
    manifest = Bundle.open(write_sample(destination)).manifest
    text = TEXT.model_copy(
        update={
            "hidden_size": hidden_size,
            "moe_intermediate_size": intermediate_size,
            "num_experts": experts,
            "num_experts_per_tok": top_k,
            "num_hidden_layers": 4,
            "moe_layers": [0, 2, 3],
        }
    )
    layout = ExpertLayout(hidden_size, intermediate_size, precision)
    rng = np.random.default_rng(0)
    records = [[_record(layout, precision, rng) for _ in range(text.num_experts)] for _ in text.moe_layers]
    (destination / "experts.bin").write_bytes(b"".join(record for layer in records for record in layer))
    info = ExpertsInfo(
        file="experts.bin",
        record_bytes=layout.record_bytes,
        sections=layout.section_infos(),
        crc32c=[[google_crc32c.value(record) for record in layer] for layer in records],
    )
    return Bundle(
        destination,
        manifest.model_copy(
            update={
                "model": manifest.model.model_copy(update={"text": text}),
                "quantization": manifest.quantization.model_copy(update={"experts": precision}),
                "experts": info,
            }
        ),
    )


def _record(layout: ExpertLayout, precision: Precision, rng: np.random.Generator) -> bytes:
    record = rng.integers(0, 256, layout.record_bytes, np.uint8)
    for name, array in layout.view(record).items():
        if precision.bits == 32:
            array[:] = rng.normal(0, 0.2, array.shape)
        elif name.endswith(".scale"):
            array[:] = rng.uniform(0.2, 0.4, array.shape) / (1 << precision.bits)
    return record.tobytes()


def inputs(bundle: Bundle, tokens: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """moe_input and router_logits of some tokens."""
    text = bundle.manifest.model.text
    rng = np.random.default_rng([seed, tokens])
    x = rng.normal(0, 1, (tokens, text.hidden_size)).astype(np.float32)
    return x, rng.normal(0, 2, (tokens, text.num_experts)).astype(np.float32)
