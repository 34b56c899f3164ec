"""What the user may choose about an export, and the precision of every part that follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from moedge_runtime.bundle import DENSE_BLOCK_SIZES_INT8, BlockSize, Precision, Quantization
from moedge_runtime.errors import ConfigError

from moedge_export.architecture import Architecture

PrecisionName = Literal["fp32", "int8", "int4"]
Form = Literal["paged", "inline"]
Activations = Literal["int8", "fp32"]
Part = Literal["attention", "head", "embedding", "vision"]

PRECISIONS: tuple[PrecisionName, ...] = ("fp32", "int8", "int4")
PARTS: tuple[Part, ...] = ("attention", "head", "embedding", "vision")
BLOCK_SIZES = (32, 64, 128)

DEFAULT_PARTS: dict[PrecisionName, dict[Part, PrecisionName]] = {
    "fp32": dict.fromkeys(PARTS, "fp32"),
    "int8": dict.fromkeys(PARTS, "int8"),
    # The other parts are 7 % of the weights of Qwen3-VL-30B-A3B and touch every token; 8 bits there cost 1 GB of 18. On
    # the demo's trained model, attention at 4 bits tripled the largest logit difference (7 to 24 % of the range,
    # 2026-11-24); int8 activations made none beyond noise.
    "int4": dict.fromkeys(PARTS, "int8"),
}

ACCURACY_LEVELS: dict[Activations, int] = {"fp32": 0, "int8": 4}
"""`accuracy_level` of com.microsoft.MatMulNBits and QMoE: 0 computes in float32, 4 quantizes activations to int8."""


@dataclass(frozen=True)
class ExportOptions:
    """Everything that shapes the bundle.

    Attributes:
        precision: Of the experts, and by `DEFAULT_PARTS` of every part that `parts` does not name.
        block_size: Weights that share a scale, in experts and embedding.
        dense_block_size: Likewise in attention, head and vision; None for `DENSE_BLOCK_SIZES_INT8` at 8 bits and for
            `block_size` at 4.
        activations: How ONNX Runtime multiplies quantized weights.
        overwrite: Replace a bundle that is there.
        restart: Delete what an interrupted export has left instead of going on with it.
        reuse: A finished bundle; parts of it that would come out the same are taken over.
    """

    precision: PrecisionName = "int4"
    form: Form = "paged"
    block_size: BlockSize = 32
    dense_block_size: BlockSize | None = None
    symmetric: bool = True
    activations: Activations = "int8"
    parts: dict[Part, PrecisionName] = field(default_factory=dict)
    revision: str | None = None
    overwrite: bool = False
    restart: bool = False
    reuse: Path | None = None

    @property
    def accuracy_level(self) -> int:
        """The `accuracy_level` attribute of quantized operators."""
        return ACCURACY_LEVELS[self.activations]

    def quantization(self) -> Quantization:
        """Precision of every part."""
        parts = DEFAULT_PARTS[self.precision] | self.parts
        return Quantization(
            experts=self._precision(self.precision, self.block_size),
            attention=self._dense_precision("attention", parts["attention"]),
            head=self._dense_precision("head", parts["head"]),
            embedding=self._precision(parts["embedding"], self.block_size),
            vision=self._dense_precision("vision", parts["vision"]),
        )

    def _dense_precision(self, part: Part, name: PrecisionName) -> Precision:
        default = DENSE_BLOCK_SIZES_INT8[part] if name == "int8" else self.block_size
        return self._precision(name, self.dense_block_size or default)

    def _precision(self, name: PrecisionName, block_size: BlockSize) -> Precision:
        if name == "fp32":
            return Precision(bits=32)
        return Precision(bits=8 if name == "int8" else 4, block_size=block_size, symmetric=self.symmetric)


def check_blocks(quantization: Quantization, architecture: Architecture) -> None:
    """Check that rows which are stored without padding are whole blocks.

    Raises:
        ConfigError: A size is no multiple of the block size; names one that works if there is one.
    """
    text = architecture.text
    sizes = []
    if quantization.experts.bits != 32:
        sizes += [("hidden_size", text.hidden_size), ("moe_intermediate_size", text.moe_intermediate_size)]
    if quantization.embedding.bits != 32:
        sizes.append(("hidden_size", text.hidden_size))
    block = quantization.experts.block_size if quantization.experts.bits != 32 else quantization.embedding.block_size
    wrong = next(((name, size) for name, size in sizes if size % block), None)
    if wrong is None:
        return
    fitting = [size for size in BLOCK_SIZES if all(value % size == 0 for _, value in sizes)]
    advice = f"Pass --block-size {fitting[-1]}." if fitting else "Export with --precision fp32."
    raise ConfigError(
        f"{wrong[0]} {wrong[1]} is no multiple of the block size {block}. {advice}", key="config.block_size"
    )
