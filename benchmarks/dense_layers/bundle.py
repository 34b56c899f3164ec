"""Layer graphs and a head of random weights at the shape of Qwen3-VL-30B-A3B, as a bundle that holds nothing else."""

from __future__ import annotations

import json
from pathlib import Path

from full_size.architecture import model_config
from full_size.weights import SyntheticWeights
from moedge_export.checkpoint import Checkpoint, read_config
from moedge_export.decoder import build_head, build_layer
from moedge_export.graph import GraphBuilder
from moedge_export.options import ACCURACY_LEVELS
from moedge_export.parallel import quantizing_threads
from moedge_export.part import PartBuilder
from moedge_export.quantizer import Quantizer
from moedge_export.tasks import architecture_of
from moedge_export.weights import weight_places
from moedge_runtime.bundle import (
    Bundle,
    EmbeddingInfo,
    ExpertsInfo,
    Graphs,
    Manifest,
    ModelInfo,
    Precision,
    Quantization,
    SourceInfo,
    TokenInfo,
)

HEAD = "head.onnx"


def write_layers(directory: Path, layers: int, bits: int, block_size: int) -> Bundle:
    """Write the graphs, or take those that an earlier call has written."""
    names = [f"layers/{layer:02d}.onnx" for layer in range(layers)]
    precision = Precision.model_validate({"bits": bits, "block_size": block_size})
    (directory / "layers").mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(model_config(layers)), encoding="utf-8")
    architecture = architecture_of(read_config(directory))
    if not (directory / HEAD).exists():
        checkpoint = Checkpoint(directory, "synthetic", None, architecture, SyntheticWeights(architecture))
        with quantizing_threads() as pool:
            for index, name in enumerate([*names, HEAD]):
                quantizer = Quantizer(precision, ACCURACY_LEVELS["int8"], pool)
                graph = GraphBuilder(directory / name)
                part = PartBuilder(graph, checkpoint, quantizer)
                build_head(part) if name == HEAD else build_layer(part, index)
                graph.save()
    none = TokenInfo(image=0, video=1, vision_start=2, vision_end=3, end_of_text=[4])
    manifest = Manifest(
        form="paged",
        model=ModelInfo(
            architecture=architecture.name,
            source=SourceInfo(name="synthetic", created_by="benchmarks"),
            text=architecture.text,
            vision=architecture.vision,
            tokens=none,
        ),
        quantization=Quantization(
            experts=precision, attention=precision, head=precision, embedding=precision, vision=precision
        ),
        graphs=Graphs(vision="none", layers=names, head=HEAD),
        embedding=EmbeddingInfo(file="none", row_bytes=1),
        experts=ExpertsInfo(file="none", record_bytes=1, sections=[], crc32c=[]),
        weights=weight_places(directory, [*names, HEAD]),
        files=[],
    )
    return Bundle(directory, manifest)
