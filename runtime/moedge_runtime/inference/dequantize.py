"""Turns stored integers of a bundle back into float32 weights."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moedge_runtime.bundle import Precision

FloatArray = npt.NDArray[np.float32]


def unpack(packed: npt.NDArray[np.uint8], bits: int, count: int) -> npt.NDArray[np.uint8]:
    """Integers of each row, one a byte.

    Args:
        packed: uint8 [rows, ceil(count * bits / 8)]; four-bit values lie two a byte, the first in the low nibble.
        bits: 4 or 8.
        count: Integers in a row.

    Returns:
        uint8 [rows, count].
    """
    if bits == 8:
        return packed[:, :count]
    pairs = np.stack((packed & 0x0F, packed >> 4), axis=-1)
    return pairs.reshape(packed.shape[0], 2 * packed.shape[1])[:, :count]


def dequantize(
    weight: npt.NDArray[np.generic],
    scale: npt.NDArray[np.generic] | None,
    zero_point: npt.NDArray[np.generic] | None,
    precision: Precision,
    inputs: int,
) -> FloatArray:
    """Weights of some rows: `(q - zero_point) * scale` block by block (docs/bundle-format.md, "Quantized weights").

    Args:
        weight: float32 [rows, inputs] at 32 bits, else packed uint8 [rows, inputs * bits / 8].
        scale: float16 [rows, blocks]; None at 32 bits.
        zero_point: Packed uint8 [rows, ceil(blocks * bits / 8)] if the precision is not symmetric.
        precision: How the rows are stored.
        inputs: Length of a row.

    Returns:
        float32 [rows, inputs].
    """
    if precision.bits == 32:
        return np.asarray(weight, np.float32)
    assert scale is not None
    rows, blocks = scale.shape
    values = unpack(weight.view(np.uint8), precision.bits, inputs).astype(np.float32)
    if precision.symmetric:
        values -= np.float32(1 << (precision.bits - 1))
    else:
        assert zero_point is not None
        zeros = unpack(zero_point.view(np.uint8), precision.bits, blocks).astype(np.float32)
        values -= np.repeat(zeros, precision.block_size, axis=1)[:, :inputs]
    values *= np.repeat(scale.astype(np.float32), precision.block_size, axis=1)[:, :inputs]
    return values.reshape(rows, inputs)
