"""Adds the weights of one part of the model to a graph, in the part's precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moedge_export.checkpoint import Checkpoint
from moedge_export.graph import MICROSOFT, Array, GraphBuilder
from moedge_export.matrix import Matrix, checkpoint_matrix
from moedge_export.quantize import Quantized
from moedge_export.quantizer import Quantizer


@dataclass(frozen=True)
class PartBuilder:
    """A graph in the making, where its weights come from and how they are stored."""

    graph: GraphBuilder
    checkpoint: Checkpoint
    quantizer: Quantizer

    def weight(self, name: str, tensor: str) -> str:
        """Add the checkpoint's tensor `tensor` as it is, in float32, as the weight `name` of the current scope."""
        return self.graph.weight(name, self.checkpoint.tensor(tensor).numpy())

    def rms_norm(self, name: str, x: str, tensor: str) -> str:
        """Add the decoder's RMS norm over the last axis of `x`."""
        weight = self.weight(f"{name}.weight", tensor)
        epsilon = self.checkpoint.architecture.text.rms_norm_eps
        return self.graph.op("SimplifiedLayerNormalization", x, weight, axis=-1, epsilon=epsilon)

    def linear(self, name: str, x: str, *modules: str, bias: bool = False) -> str:
        """Add x · Wᵀ + b for `x` [S, inputs], as Gemm in float32 and as com.microsoft.MatMulNBits if quantized.

        Args:
            name: Of the layer within the graph's scope.
            x: Value to multiply.
            modules: The layer's name in the checkpoint; several become one product, their outputs side by side.
            bias: Whether it has one.
        """
        matrix = checkpoint_matrix(self.checkpoint, *(f"{module}.weight" for module in modules))
        biases = ""
        if bias:
            values = np.concatenate([self.checkpoint.tensor(f"{module}.bias").numpy() for module in modules])
            biases = self.graph.weight(f"{name}.bias", values)
        return self.product(name, x, matrix, biases)

    def product(self, name: str, x: str, matrix: Matrix, bias: str = "") -> str:
        """Add x · matrixᵀ + bias; the matrix is read and written a few rows at a time."""
        precision = self.quantizer.precision
        if precision.bits == 32:
            weight, slot = self.graph.reserve(f"{name}.weight", np.float32, (matrix.rows, matrix.inputs))
            for start, stop in matrix.chunks():
                slot.write(start, matrix.read(start, stop).float().numpy())
            return self.graph.op("Gemm", x, weight, *([bias] if bias else []), transB=1)
        product = self.graph.op(
            "MatMulNBits",
            x,
            *self._quantized_weights(name, matrix),
            domain=MICROSOFT,
            K=matrix.inputs,
            N=matrix.rows,
            bits=precision.bits,
            block_size=precision.block_size,
            accuracy_level=self.quantizer.accuracy_level,
        )
        return self.graph.op("Add", product, bias) if bias else product

    def _quantized_weights(self, name: str, matrix: Matrix) -> list[str]:
        # MatMulNBits wants [N, blocks, bytes of a block], and scales in the activations' type: float16 is widened.
        precision = self.quantizer.precision
        blocks = -(-matrix.inputs // precision.block_size)
        block_bytes = precision.block_size * precision.bits // 8
        shapes: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
            "weight": (np.uint8, (matrix.rows, blocks, block_bytes)),
            "scale": (np.float32, (matrix.rows, blocks)),
        }
        if not precision.symmetric:
            shapes["zero_point"] = (np.uint8, (matrix.rows, -(-blocks * precision.bits // 8)))
        reserved = {kind: self.graph.reserve(f"{name}.{kind}", *shape) for kind, shape in shapes.items()}

        def quantized(chunk: tuple[int, int]) -> Quantized:
            return self.quantizer.quantize(matrix.name, matrix.read(*chunk))

        for (start, _), result in self.quantizer.in_order(quantized, matrix.chunks()):
            self.quantizer.count(result)
            arrays: dict[str, Array | None] = {
                "weight": result.weight.reshape(-1, blocks, block_bytes),
                "scale": result.scale.astype(np.float32),
                "zero_point": result.zero_point,
            }
            for kind, (_, slot) in reserved.items():
                array = arrays[kind]
                assert array is not None
                slot.write(start, array)
        return [value for value, _ in reserved.values()]
