"""A bundle with true bookkeeping and made-up content, for tests of the container itself."""

from __future__ import annotations

from pathlib import Path

import google_crc32c
import numpy as np
from moedge_runtime.bundle import (
    BundleWriter,
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

FP32 = Precision(bits=32)
INT4 = Precision(bits=4, block_size=32, symmetric=True)
INT8 = Precision(bits=8, block_size=32, symmetric=True)

TEXT = TextInfo(
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    vocab_size=97,
    num_experts=3,
    num_experts_per_tok=2,
    moe_intermediate_size=32,
    moe_layers=[0, 1],
    rms_norm_eps=1e-6,
    rope_theta=10000.0,
    mrope_section=(4, 2, 2),
    max_position_embeddings=512,
    tie_word_embeddings=False,
)
VISION = VisionInfo(
    depth=2,
    hidden_size=32,
    num_heads=2,
    patch_size=16,
    temporal_patch_size=2,
    spatial_merge_size=2,
    in_channels=3,
    out_hidden_size=64,
    num_position_embeddings=64,
    deepstack_visual_indexes=[0],
)
MODEL = ModelInfo(
    architecture="Qwen3VLMoeForConditionalGeneration",
    source=SourceInfo(name="sample", created_by="moedge test"),
    text=TEXT,
    vision=VISION,
    tokens=TokenInfo(image=90, video=91, vision_start=92, vision_end=93, end_of_text=[94]),
)
QUANTIZATION = Quantization(experts=INT4, attention=INT4, head=INT8, embedding=INT8, vision=FP32)


def write_sample(destination: Path, *, overwrite: bool = False) -> Path:
    """Write a paged bundle whose graphs are placeholders and whose experts are noise, with correct checksums."""
    layout = ExpertLayout(TEXT.hidden_size, TEXT.moe_intermediate_size, INT4)
    rng = np.random.default_rng(0)
    with BundleWriter(destination, overwrite=overwrite) as writer:
        (writer.path / "layers").mkdir()
        for name in ("vision.onnx", "layers/00.onnx", "layers/01.onnx", "head.onnx", "embedding.bin"):
            (writer.path / name).write_bytes(name.encode())
        checksums: list[list[int]] = []
        with (writer.path / "experts.bin").open("wb") as file:
            for _ in TEXT.moe_layers:
                records = [rng.bytes(layout.record_bytes) for _ in range(TEXT.num_experts)]
                file.writelines(records)
                checksums.append([google_crc32c.value(record) for record in records])
        writer.finish(
            Manifest(
                form="paged",
                model=MODEL,
                quantization=QUANTIZATION,
                graphs=Graphs(vision="vision.onnx", layers=["layers/00.onnx", "layers/01.onnx"], head="head.onnx"),
                embedding=EmbeddingInfo(file="embedding.bin", row_bytes=68),
                experts=ExpertsInfo(
                    file="experts.bin",
                    record_bytes=layout.record_bytes,
                    sections=layout.section_infos(),
                    crc32c=checksums,
                ),
                files=writer.file_entries(),
            )
        )
    return destination
