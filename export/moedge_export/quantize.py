"""Quantizes weight rows in blocks, with the scale of every block chosen to minimise the squared weight error.

The scale of plain round-to-nearest follows from a block's largest weight alone. Here a few scales around it are tried;
for the integers that each of them gives, the best scale is the least-squares one, and the best pair wins. It is the
search of llama.cpp's `make_qx_quants` (ggml-quants.c, 2024), with the scale rounded to float16 before the integers
are final. A block is never worse than round-to-nearest, because that is the last candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from moedge_runtime.bundle import Precision

CHUNK_BLOCK_WEIGHTS = 1 << 16
"""Weights searched at once. Three float32 buffers of this size stay in a 1 MiB second-level cache."""

WHOLE_COLUMNS = 64
"""torch adds up columns beyond a multiple of four vectors in another order: zeros fill them up, so that no bit depends
on how a matrix lies in memory or is cut into chunks."""

SYMMETRIC_LEVELS = {4: (7.0, 7.6, 8.0, 8.4, 9.0), 8: (127.3, 127.7, 128.0, 128.4, 129.0)}
"""Integer (negative side) that a block's largest weight is mapped to, by bits. On Gaussian weights in blocks of 32
these five reach 8.10 % relative error at 4 bits; forty candidates of both signs 8.08 %, round-to-nearest 9.69 %."""

ASYMMETRIC_RANGES = {4: (1.03, 0.97, 0.92, 0.87, 0.80), 8: (1.002, 1.0, 0.998, 0.996, 0.993)}
"""Part of a block's range that the integers span, by bits. Gaussian, 4 bits: 7.70 %; round-to-nearest 8.07 %."""

TINY = 1e-30


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


@dataclass(frozen=True)
class _Chunk:
    """Result for n blocks: packed uint8 [n, bytes of a block], scale float16 [n], zero point uint8 [n]."""

    packed: torch.Tensor
    scale: torch.Tensor
    zero_point: torch.Tensor
    errors: ErrorSums


def quantize(weights: torch.Tensor, precision: Precision) -> Quantized:
    """Quantize [rows, inputs] of any float type along the inputs; thread-safe.

    Args:
        weights: Finite values; a block with an infinite one gives an error sum that is not finite. A matrix that lies
            in memory with its inputs outermost (`stored.T`) gives the same, and mostly without a copy.
        precision: Of 4 or 8 bits.
    """
    rows, inputs = weights.shape
    size = precision.block_size
    blocks = -(-inputs // size)
    packed = torch.empty((rows, blocks, size * precision.bits // 8), dtype=torch.uint8)
    scale = torch.empty((rows, blocks), dtype=torch.float16)
    zero_point = torch.empty((rows, blocks), dtype=torch.uint8)
    errors = ErrorSums()
    if weights.stride() == (1, rows) and inputs == blocks * size:
        for block in range(blocks):
            chunk = _quantized(weights.T[block * size : (block + 1) * size], precision)
            packed[:, block], scale[:, block], zero_point[:, block] = chunk.packed, chunk.scale, chunk.zero_point
            errors += chunk.errors
    else:
        padded = torch.nn.functional.pad(weights, (0, -inputs % size)) if inputs % size else weights
        by_block = padded.reshape(-1, size)
        step = max(1, CHUNK_BLOCK_WEIGHTS // size)
        for start in range(0, len(by_block), step):
            place = slice(start, start + step)
            chunk = _quantized(by_block[place].T, precision)
            packed.view(len(by_block), -1)[place] = chunk.packed
            scale.view(-1)[place], zero_point.view(-1)[place] = chunk.scale, chunk.zero_point
            errors += chunk.errors
    return Quantized(
        weight=packed.reshape(rows, -1).numpy(),
        scale=scale.numpy(),
        zero_point=None if precision.symmetric else pack(zero_point.numpy(), precision.bits),
        weights=rows * inputs,
        errors=errors,
    )


def _quantized(columns: torch.Tensor, precision: Precision) -> _Chunk:
    """Quantize blocks that lie in the columns of [block_size, n]."""
    count = columns.shape[1]
    whole = torch.nn.functional.pad(columns.float(), (0, -count % WHOLE_COLUMNS)).contiguous()
    chunk = (_symmetric if precision.symmetric else _asymmetric)(whole, precision.bits)
    return _Chunk(chunk.packed[:count], chunk.scale[:count], chunk.zero_point[:count], chunk.errors)


def _pack_columns(integers: torch.Tensor, bits: int) -> torch.Tensor:
    """uint8 [n, block_size × bits / 8] of unsigned integers that lie in the columns of float32 [block_size, n].

    Values are joined to sixteen bits first, exactly in float32, because transposing words is faster than bytes.
    """
    per_word = 16 // bits
    words = integers[per_word - 1 :: per_word]
    for place in reversed(range(per_word - 1)):
        words = torch.add(integers[place::per_word], words, alpha=2**bits)
    return words.to(torch.int32).to(torch.int16).T.contiguous().view(torch.uint8)


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


def _symmetric(weights: torch.Tensor, bits: int) -> _Chunk:
    """Quantize blocks that lie in the columns of float32 [block_size, n]; the integers reach from -2^(b-1)."""
    half = 2.0 ** (bits - 1)
    bounds = (-half, half - 1)
    highest, lowest = weights.amax(0), weights.amin(0)
    largest = torch.where(highest > -lowest, highest, lowest)
    away = torch.where(largest == 0, 0.0, -1.0 / largest)
    candidates = [(away * level, bounds) for level in SYMMETRIC_LEVELS[bits]]
    scale, _ = _search(weights, candidates)
    settled = _settle(weights, (scale, bounds), ((largest.abs() / (half - 1)).half(), bounds))
    integers = _round_into(torch.empty_like(weights), weights, _inverse(settled.scale), bounds)
    zero_point = torch.full(weights.shape[1:], int(half), dtype=torch.uint8)
    return _Chunk(_pack_columns(integers.add_(half), bits), settled.scale, zero_point, settled.errors)


def _asymmetric(weights: torch.Tensor, bits: int) -> _Chunk:
    """Quantize blocks that lie in the columns of float32 [block_size, n] with a zero point each."""
    top = 2.0**bits - 1
    highest, lowest = weights.amax(0).clamp_min_(0), weights.amin(0).clamp_max_(0)
    step = ((highest - lowest) / top).clamp_min_(TINY)
    middle = (highest + lowest) / 2
    candidates, zeros = [], []
    for factor in ASYMMETRIC_RANGES[bits]:
        zeros.append((top / 2 - middle / (step * factor)).round_().clamp_(0, top))
        candidates.append((1 / (step * factor), (-zeros[-1], top - zeros[-1])))
    scale, choice = _search(weights, candidates)
    zero = torch.stack(zeros).gather(0, choice[None])[0]
    plain = step.half()
    plain_zero = (-lowest * _inverse(plain)).round_().clamp_(0, top)
    settled = _settle(weights, (scale, (-zero, top - zero)), (plain, (-plain_zero, top - plain_zero)))
    zero = torch.where(settled.is_plain, plain_zero, zero)
    integers = _round_into(torch.empty_like(weights), weights, _inverse(settled.scale), (-zero, top - zero))
    return _Chunk(_pack_columns(integers.add_(zero), bits), settled.scale, zero.to(torch.uint8), settled.errors)


Bounds = tuple[float, float] | tuple[torch.Tensor, torch.Tensor]
"""Lowest and highest integer before the zero point is added, for all blocks or for each."""


def _search(
    weights: torch.Tensor, candidates: Sequence[tuple[torch.Tensor, Bounds]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Least-squares scale [n] of the best candidate (inverse scale [n] and bounds), and which candidate that is.

    With integers q the best scale is Σwq/Σq², and it leaves the error Σw² − (Σwq)²/Σq²: the largest last term wins.
    """
    best = torch.full_like(candidates[0][0], -1.0)
    scale = torch.zeros_like(best)
    choice = torch.zeros(best.shape, dtype=torch.int64)
    integers, product = torch.empty_like(weights), torch.empty_like(weights)
    for index, (inverse, bounds) in enumerate(candidates):
        _round_into(integers, weights, inverse, bounds)
        dot = torch.mul(integers, weights, out=product).sum(0)
        square = torch.mul(integers, integers, out=product).sum(0).clamp_min_(TINY)
        fitted = dot / square
        gain = dot * fitted
        better = gain > best
        best = torch.where(better, gain, best)
        scale = torch.where(better, fitted, scale)
        choice = torch.where(better, index, choice)
    return scale, choice


@dataclass(frozen=True)
class _Settled:
    scale: torch.Tensor
    is_plain: torch.Tensor
    errors: ErrorSums


def _settle(
    weights: torch.Tensor,
    found: tuple[torch.Tensor, Bounds],
    plain: tuple[torch.Tensor, Bounds],
) -> _Settled:
    """Round the found scales [n] to float16, and take round-to-nearest's for blocks where these leave less error."""
    scale, bounds = found
    integers, product = torch.empty_like(weights), torch.empty_like(weights)

    def error_of(candidate: torch.Tensor, limits: Bounds) -> torch.Tensor:
        _round_into(integers, weights, _inverse(candidate), limits)
        return torch.mul(integers, candidate.float(), out=product).sub_(weights).square_().sum(0)

    error, plain_error = error_of(scale.half(), bounds), error_of(*plain)
    is_plain = plain_error < error
    weight = torch.mul(weights, weights, out=product).sum(dtype=torch.float64)
    sums = ErrorSums(
        weight.item(),
        torch.minimum(error, plain_error).sum(dtype=torch.float64).item(),
        plain_error.sum(dtype=torch.float64).item(),
    )
    return _Settled(torch.where(is_plain, plain[0], scale.half()), is_plain, sums)


def _inverse(scale: torch.Tensor) -> torch.Tensor:
    exact = scale.float()
    return torch.where(exact == 0, 0.0, 1.0 / exact)


def _round_into(integers: torch.Tensor, weights: torch.Tensor, inverse: torch.Tensor, bounds: Bounds) -> torch.Tensor:
    torch.mul(weights, inverse, out=integers).round_()
    return torch.clamp(integers, *bounds, out=integers)
