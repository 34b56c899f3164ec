"""Models that can be planned before they are exported: a manifest with computed sizes and without checksums."""

from __future__ import annotations

import difflib
from functools import cache
from typing import Annotated, Any, Literal

from moedge_runtime import __version__
from moedge_runtime.bundle import (
    DENSE_BLOCK_SIZES_INT8,
    EmbeddingInfo,
    ExpertLayout,
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
)
from moedge_runtime.errors import ConfigError
from moedge_runtime.inference.dense_sizes import DenseShape
from pydantic import BaseModel, BeforeValidator, ConfigDict

from moedge_devices.data_files import data_path
from moedge_devices.typed_yaml import load_typed

EXPERTS_FILE = "experts.bin"
NO_CHECKSUM = "0" * 64
"""Stands where a file that does not exist has no SHA-256; such a manifest never leaves memory."""

PRECISIONS = {"int4": Precision(bits=4), "int8": Precision(bits=8), "fp32": Precision(bits=32)}
"""Of the experts, by the name that `moedge export --precision` gives it."""

GRAPH_SCALE_BYTES, ROW_SCALE_BYTES = 4, 2
"""Of a block: float32 in graphs, float16 in embedding.bin (docs/bundle-format.md)."""


def _layers_in_full(value: Any) -> Any:
    """`moe_layers: 48` stands for all of 48 layers."""
    if isinstance(value, dict) and isinstance(value.get("moe_layers"), int):
        return value | {"moe_layers": list(range(value["moe_layers"]))}
    return value


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Counts(_Frozen):
    """Values of a checkpoint by part, without experts."""

    attention: int
    head: int
    embedding: int
    vision: int


class ModelShape(_Frozen):
    """A model's numbers, from its config.json."""

    version: Literal[1]
    name: str
    source: str
    """Where config.json is published."""
    max_pixels: int
    """The largest area of a picture that its image processor allows."""
    text: Annotated[TextInfo, BeforeValidator(_layers_in_full)]
    intermediate_size: int = 0
    """Of the layers without experts, if there are any."""
    attention_bias: bool = False
    """Whether the attention's products have a bias."""
    vision: VisionInfo
    vision_tower: VisionTowerInfo
    weights: Counts
    """What is quantized."""
    float32: Counts
    """What is not: norms, biases, routers, learned positions."""

    @property
    def dense(self) -> DenseShape:
        """Of its layers, as the native core holds them."""
        all_have_experts = len(self.text.moe_layers) == self.text.num_hidden_layers
        return DenseShape(0 if all_have_experts else self.intermediate_size, self.attention_bias)


@cache
def known_models() -> dict[str, ModelShape]:
    """The models of devices/models by name."""
    shapes = [load_typed(path, ModelShape, "Model") for path in sorted(data_path("models").glob("*.yaml"))]
    return {shape.name: shape for shape in shapes}


def find_model(name: str) -> tuple[ModelShape, str]:
    """Shape and precision of, for example, `qwen3-vl-30b-a3b@int4`; without @ it is int4.

    Raises:
        ConfigError: There is no such model or precision.
    """
    model, _, precision = name.partition("@")
    precision = precision or "int4"
    models = known_models()
    if model not in models:
        close = difflib.get_close_matches(model, models, n=1)
        hint = f"Did you mean '{close[0]}'? " if close else ""
        raise ConfigError(
            f"'{name}' is neither a bundle nor a model that moedge knows. {hint}Give the directory that `moedge "
            f"export` wrote, or one of {', '.join(models)}, with @{', @'.join(PRECISIONS)} behind it.",
            key="plan.model_unknown",
        )
    if precision not in PRECISIONS:
        raise ConfigError(
            f"'{name}' asks for the precision '{precision}'; there are {', '.join(PRECISIONS)}.",
            key="plan.precision_unknown",
        )
    return models[model], precision


def planned_manifest(shape: ModelShape, precision: str) -> Manifest:
    """The manifest that a paged export of `shape` with --precision `precision` would have, but for its checksums.

    Parts other than the experts have 8 bits unless all is fp32, as `moedge export` does by itself.
    """
    experts = PRECISIONS[precision]
    if experts.bits == 32:
        quantization = Quantization(**dict.fromkeys(Quantization.model_fields, experts))
    else:
        dense = {part: Precision(bits=8, block_size=size) for part, size in DENSE_BLOCK_SIZES_INT8.items()}
        quantization = Quantization(experts=experts, embedding=Precision(bits=8), **dense)
    layers = [f"layers/{index:02}.onnx" for index in range(shape.text.num_hidden_layers)]
    attention_bytes = _graph_bytes(shape, "attention", quantization) + _guess_bytes(shape.text, quantization.attention)
    embedding_bytes = _stored(shape.weights.embedding, quantization.embedding, ROW_SCALE_BYTES)
    manifest = Manifest(
        form="paged",
        model=ModelInfo(
            architecture="Qwen3VLMoeForConditionalGeneration",
            source=SourceInfo(name=shape.name, created_by=f"moedge {__version__}, a plan"),
            text=shape.text,
            vision=shape.vision,
            tokens=TokenInfo(image=0, video=0, vision_start=0, vision_end=0, end_of_text=[0]),
        ),
        quantization=quantization,
        graphs=Graphs(vision="vision.onnx", layers=layers, head="head.onnx"),
        embedding=EmbeddingInfo(file="embedding.bin", row_bytes=embedding_bytes // shape.text.vocab_size),
        experts=ExpertsInfo(file=EXPERTS_FILE, record_bytes=1, sections=[], crc32c=[]),
        files=[
            *(_entry(layer, attention_bytes // len(layers)) for layer in layers),
            _entry("head.onnx", _graph_bytes(shape, "head", quantization)),
            _entry("vision.onnx", _graph_bytes(shape, "vision", quantization)),
            _entry("embedding.bin", embedding_bytes),
            _entry(EXPERTS_FILE, 0),
        ],
    )
    return with_expert_precision(manifest, experts)


def with_expert_precision(manifest: Manifest, precision: Precision) -> Manifest:
    """`manifest` as it would be with other bits for the experts; without their checksums."""
    text, info = manifest.model.text, manifest.experts
    assert info is not None, "an inline bundle has no records"
    layout = ExpertLayout(text.hidden_size, text.moe_intermediate_size, precision)
    nbytes = len(text.moe_layers) * text.num_experts * layout.record_bytes
    return manifest.model_copy(
        update={
            "quantization": manifest.quantization.model_copy(update={"experts": precision}),
            "experts": ExpertsInfo(
                file=info.file, record_bytes=layout.record_bytes, sections=layout.section_infos(), crc32c=[]
            ),
            "files": [_entry(info.file, nbytes) if entry.path == info.file else entry for entry in manifest.files],
        }
    )


def _entry(path: str, nbytes: int) -> FileEntry:
    return FileEntry(path=path, nbytes=nbytes, sha256=NO_CHECKSUM)


def _graph_bytes(shape: ModelShape, part: str, quantization: Quantization) -> int:
    weights: int = getattr(shape.weights, part)
    return _stored(weights, getattr(quantization, part), GRAPH_SCALE_BYTES) + 4 * int(getattr(shape.float32, part))


def _guess_bytes(text: TextInfo, precision: Precision) -> int:
    """Of the routers that the layers before theirs hold once more, each with its norm, to guess with."""
    guesses = sum(layer - 1 in range(text.num_hidden_layers) for layer in text.moe_layers)
    router = _stored(text.hidden_size * text.num_experts, precision, GRAPH_SCALE_BYTES)
    return guesses * (router + 4 * text.hidden_size)


def _stored(weights: int, precision: Precision, scale_bytes: int) -> int:
    if precision.bits == 32:
        return 4 * weights
    return weights * precision.bits // 8 + weights // precision.block_size * scale_bytes
