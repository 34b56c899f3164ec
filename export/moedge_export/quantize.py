"""Quantizes weight rows in blocks, with the scale of every block chosen to minimise the squared weight error.

The scale of plain round-to-nearest follows from a block's largest weight alone. Here a few scales around it are tried;
for the integers that each of them gives, the best scale is the least-squares one, and the best pair wins. It is the
search of llama.cpp's `make_qx_quants` (ggml-quants.c, 2024), with the scale rounded to float16 before the integers
are final. A block is never worse than round-to-nearest, because that is the last candidate. The search itself is
native code: export/core.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from moedge_runtime.bundle import Precision

from moedge_export.quantize_library import BFLOAT16, FLOAT16, FLOAT32, Matrix, Sums, load_library

FLOAT_TYPES = {torch.float32: FLOAT32, torch.float16: FLOAT16, torch.bfloat16: BFLOAT16}


@dataclass(frozen=True)
class ErrorSums:
    """Sums of squares over some weights: of the weights, of their error, and of plain round-to-nearest's error."""

    weight: float = 0.0
    error: float = 0.0
    error_absmax: float = 0.0

    def __add__(self, other: ErrorSums) -> ErrorSums:
        return ErrorSums(self.weight + other.weight, self.error + other.error, self.error_absmax + other.error_absmax)


@dataclass(frozen=True)
class Quantized:
    """Rows of weights in the bundle's format; a last block that is not full is padded with zeros.

    Attributes:
        weight: uint8 [rows, blocks × block_size × bits / 8].
        scale: float16 [rows, blocks].
        zero_point: uint8 [rows, ⌈blocks × bits / 8⌉]; None if symmetric.
        weights: Number of weights, without padding.
        errors: What was lost.
    """

    weight: npt.NDArray[np.uint8]
    scale: npt.NDArray[np.float16]
    zero_point: npt.NDArray[np.uint8] | None
    weights: int
    errors: ErrorSums

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return self.weight.nbytes + self.scale.nbytes + (0 if self.zero_point is None else self.zero_point.nbytes)


def quantize(weights: torch.Tensor, precision: Precision, isa: str | None = None) -> Quantized:
    """Quantize [rows, inputs] of any float type along the inputs; thread-safe.

    Args:
        weights: A weight that is infinite, not a number or too large for a float16 scale gives error sums that are not
            finite. A matrix that lies in memory with its inputs outermost (`stored.T`) gives the same, without a copy.
        precision: Of 4 or 8 bits.
        isa: One of `quantize_library.INSTRUCTION_SETS` that this processor has; None for the fastest. All give the
            same bits.
    """
    if weights.dtype not in FLOAT_TYPES:
        weights = weights.float()
    if 1 not in weights.stride():
        weights = weights.contiguous()
    rows, inputs = weights.shape
    blocks = -(-inputs // precision.block_size)
    weight = np.empty((rows, blocks * precision.block_size * precision.bits // 8), np.uint8)
    scale = np.empty((rows, blocks), np.float16)
    zero_point = None if precision.symmetric else np.empty((rows, blocks), np.uint8)
    matrix = Matrix(
        type=FLOAT_TYPES[weights.dtype],
        bits=precision.bits,
        block_size=precision.block_size,
        symmetric=precision.symmetric,
        rows=rows,
        inputs=inputs,
        row_stride=weights.stride(0),
        input_stride=weights.stride(1),
        weights=weights.data_ptr(),
        weight=weight.ctypes.data,
        scale=scale.ctypes.data,
        zero_point=None if zero_point is None else zero_point.ctypes.data,
        isa=isa.encode() if isa else None,
    )
    sums = Sums()
    refused = load_library().moedge_quantize(ctypes.byref(matrix), ctypes.byref(sums))
    assert not refused, f"the quantizing kernel takes neither {precision} nor the instruction set {isa}"
    return Quantized(
        weight=weight,
        scale=scale,
        zero_point=None if zero_point is None else pack(zero_point, precision.bits),
        weights=rows * inputs,
        errors=ErrorSums(sums.weight, sums.error, sums.error_absmax),
    )


def pack(values: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Pack unsigned integers along the last axis: two a byte for 4 bits, the first in the low nibble."""
    if bits == 8:
        return values
    if values.shape[-1] % 2:
        values = np.concatenate([values, np.zeros_like(values[..., :1])], axis=-1)
    low_first: npt.NDArray[np.uint16] = np.ascontiguousarray(values).view("<u2")
    return (low_first | (low_first >> 4)).astype(np.uint8)


def unpack(packed: npt.NDArray[np.uint8], bits: int, count: int) -> npt.NDArray[np.uint8]:
    """The first `count` unsigned integers along the last axis of what `pack` made."""
    if bits == 8:
        return packed[..., :count]
    pairs = np.stack([packed & 15, packed >> 4], axis=-1)
    return pairs.reshape(*packed.shape[:-1], -1)[..., :count]


def dequantize(
    weight: npt.NDArray[np.uint8],
    scale: npt.NDArray[np.float16],
    zero_point: npt.NDArray[np.uint8] | None,
    precision: Precision,
    inputs: int,
) -> npt.NDArray[np.float32]:
    """float32 [rows, inputs] that the arrays of a `Quantized` stand for: (q - zero point) × scale."""
    blocks = scale.shape[-1]
    values = unpack(weight, precision.bits, blocks * precision.block_size).astype(np.float32)
    values = values.reshape(*scale.shape, precision.block_size)
    if zero_point is None:
        values -= 2.0 ** (precision.bits - 1)
    else:
        values -= unpack(zero_point, precision.bits, blocks)[..., None]
    values *= scale[..., None].astype(np.float32)
    return values.reshape(*scale.shape[:-1], -1)[..., :inputs]
