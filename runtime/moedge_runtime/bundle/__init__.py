"""The bundle: one directory that holds a quantized model and everything a board needs to run it.

The format is described in docs/bundle-format.md. Export writes it through `BundleWriter`, the runtime reads it through
`Bundle`; neither needs anything heavier than numpy.
"""

from moedge_runtime.bundle.experts import ExpertLayout, Section
from moedge_runtime.bundle.manifest import (
    DENSE_BLOCK_SIZES_INT8,
    FORMAT_VERSION,
    BlockSize,
    EmbeddingInfo,
    ExpertsInfo,
    FileEntry,
    Graphs,
    Manifest,
    ModelInfo,
    Precision,
    Quantization,
    SourceInfo,
    TextInfo,
    TokenInfo,
    VisionInfo,
    VisionTowerInfo,
    WeightPlace,
)
from moedge_runtime.bundle.reader import Bundle
from moedge_runtime.bundle.verify import verify_bundle
from moedge_runtime.bundle.writer import BundleWriter

__all__ = [
    "DENSE_BLOCK_SIZES_INT8",
    "FORMAT_VERSION",
    "BlockSize",
    "Bundle",
    "BundleWriter",
    "EmbeddingInfo",
    "ExpertLayout",
    "ExpertsInfo",
    "FileEntry",
    "Graphs",
    "Manifest",
    "ModelInfo",
    "Precision",
    "Quantization",
    "Section",
    "SourceInfo",
    "TextInfo",
    "TokenInfo",
    "VisionInfo",
    "VisionTowerInfo",
    "WeightPlace",
    "verify_bundle",
]
