"""Files of synthetic expert records at the shape of Qwen3-VL-30B-A3B, as bundles that hold nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import google_crc32c
import numpy as np
import numpy.typing as npt
from moedge_runtime.bundle import (
    Bundle,
    EmbeddingInfo,
    ExpertLayout,
    ExpertsInfo,
    Graphs,
    Manifest,
    ModelInfo,
    Precision,
    Quantization,
    SourceInfo,
    TextInfo,
    TokenInfo,
    VisionInfo,
)

HIDDEN, WIDTH, EXPERTS, TOP_K = 2048, 768, 128, 8
LAYERS = 48
"""Of the whole model."""
SCALE = {4: 0.02, 8: 0.0012}
"""Largest scale of a block by bits: weights of a standard deviation near 0.05, as a trained layer of this width has."""

POOL_BYTES = 64 << 20
"""Random bytes that the weights of all records are cut from."""

CHECKSUMS = "crc32c.json"


def write_records(directory: Path, layers: int, precision: Precision, seed: int = 0) -> Bundle:
    """Write experts.bin with random integers and scales, or take the one that an earlier call has written."""
    layout = ExpertLayout(HIDDEN, WIDTH, precision)
    checksums = directory / CHECKSUMS
    if not checksums.exists():
        directory.mkdir(parents=True, exist_ok=True)
        content = _write(directory / "experts.bin", layers, layout, np.random.default_rng(seed))
        checksums.write_text(json.dumps(content), encoding="utf-8")
    crc32c = json.loads(checksums.read_text(encoding="utf-8"))
    info = ExpertsInfo(
        file="experts.bin", record_bytes=layout.record_bytes, sections=layout.section_infos(), crc32c=crc32c
    )
    return Bundle(directory, _manifest(layers, precision, info))


def stack_records(directory: Path) -> Bundle:
    """All layers of the model, 16.3 GB; see `write_records`."""
    return write_records(directory / "stack-int4-32", LAYERS, Precision(bits=4))


def _write(path: Path, layers: int, layout: ExpertLayout, rng: np.random.Generator) -> list[list[int]]:
    pool = rng.integers(0, 256, POOL_BYTES, dtype=np.uint8)
    record = np.zeros(layout.record_bytes, np.uint8)
    checksums: list[list[int]] = []
    with path.open("wb") as file:
        for _ in range(layers):
            checksums.append([])
            for _ in range(EXPERTS):
                for section in layout.sections:
                    part = record[section.offset : section.offset + section.nbytes]
                    part[:] = _content(section.name, section.nbytes, layout.precision, pool, rng)
                file.write(record.data)
                checksums[-1].append(google_crc32c.value(record.tobytes()))
        file.flush()
        os.fsync(file.fileno())  # else the system would write while the measurements read
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return checksums


def _content(
    name: str, nbytes: int, precision: Precision, pool: npt.NDArray[np.uint8], rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    if name.endswith("scale"):
        scale = rng.uniform(0.5, 1, nbytes // 2) * SCALE[precision.bits]
        return scale.astype(np.float16).view(np.uint8)
    start = int(rng.integers(0, len(pool) - nbytes))
    return pool[start : start + nbytes]


def _manifest(layers: int, precision: Precision, experts: ExpertsInfo) -> Manifest:
    text = TextInfo(
        hidden_size=HIDDEN,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=4,
        head_dim=128,
        vocab_size=151936,
        num_experts=EXPERTS,
        num_experts_per_tok=TOP_K,
        moe_intermediate_size=WIDTH,
        moe_layers=list(range(layers)),
        rms_norm_eps=1e-6,
        rope_theta=5e6,
        mrope_section=(24, 20, 20),
        max_position_embeddings=262144,
        tie_word_embeddings=False,
    )
    vision = VisionInfo(
        depth=27,
        hidden_size=1152,
        num_heads=16,
        patch_size=16,
        temporal_patch_size=2,
        spatial_merge_size=2,
        in_channels=3,
        out_hidden_size=HIDDEN,
        num_position_embeddings=2304,
        deepstack_visual_indexes=[],
    )
    model = ModelInfo(
        architecture="Qwen3VLMoeForConditionalGeneration",
        source=SourceInfo(name="synthetic", created_by="benchmarks"),
        text=text,
        vision=vision,
        tokens=TokenInfo(image=0, video=1, vision_start=2, vision_end=3, end_of_text=[4]),
    )
    plain = Precision(bits=32)
    return Manifest(
        form="paged",
        model=model,
        quantization=Quantization(experts=precision, attention=plain, head=plain, embedding=plain, vision=plain),
        graphs=Graphs(vision="none", layers=["none"] * layers, head="none"),
        embedding=EmbeddingInfo(file="none", row_bytes=1),
        experts=experts,
        files=[],
    )
