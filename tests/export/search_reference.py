"""The search of export/core with torch and with sums in double precision: what the native one is compared with.

Candidates and integers are the native ones, bit for bit; results differ only where two scales leave nearly the same
error, or where a scale is nearly halfway between two of float16.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from moedge_runtime.bundle import Precision

SYMMETRIC_LEVELS = {4: (7.0, 7.6, 8.0, 8.4, 9.0), 8: (127.3, 127.7, 128.0, 128.4, 129.0)}
ASYMMETRIC_RANGES = {4: (1.03, 0.97, 0.92, 0.87, 0.80), 8: (1.002, 1.0, 0.998, 0.996, 0.993)}
TINY = 1e-30


@dataclass(frozen=True)
class Blocks:
    """integers [n, block_size] and zero_point [n] as stored, scale float16 [n]."""

    integers: torch.Tensor
    scale: torch.Tensor
    zero_point: torch.Tensor


def search(blocks: torch.Tensor, precision: Precision) -> Blocks:
    """The best scale of each of the blocks float32 [n, block_size]."""
    top = 2.0**precision.bits - 1
    found, plain = (_symmetric if precision.symmetric else _asymmetric)(blocks, precision.bits)
    best_gain = torch.full(blocks.shape[:1], -1.0, dtype=torch.float64)
    scale, zero = torch.zeros(blocks.shape[:1]), found[0][1]
    for inverse, candidate_zero in found:
        integers = _integers(blocks, inverse, candidate_zero, top).double()
        dot, square = (integers * blocks.double()).sum(1), integers.square().sum(1).clamp_min(TINY)
        gain = dot * (dot / square)
        better = gain > best_gain
        best_gain = torch.where(better, gain, best_gain)
        scale, zero = torch.where(better, (dot / square).float(), scale), torch.where(better, candidate_zero, zero)
    is_plain = _error(blocks, *plain, top) < _error(blocks, scale.half(), zero, top)
    scale, zero = torch.where(is_plain, plain[0], scale.half()), torch.where(is_plain, plain[1], zero)
    return Blocks(_integers(blocks, _inverse(scale), zero, top) + zero[:, None], scale, zero)


Candidate = tuple[torch.Tensor, torch.Tensor]
"""An inverse scale (of round-to-nearest the scale in float16) and a zero point for each block."""


def _symmetric(blocks: torch.Tensor, bits: int) -> tuple[list[Candidate], Candidate]:
    half = 2.0 ** (bits - 1)
    highest, lowest = blocks.amax(1), blocks.amin(1)
    largest = torch.where(highest > -lowest, highest, lowest)
    zero = torch.full_like(largest, half)
    found = [(-_inverse(largest) * level, zero) for level in SYMMETRIC_LEVELS[bits]]
    return found, ((largest.abs() / (half - 1)).half(), zero)


def _asymmetric(blocks: torch.Tensor, bits: int) -> tuple[list[Candidate], Candidate]:
    top = 2.0**bits - 1
    highest, lowest = blocks.amax(1).clamp_min(0), blocks.amin(1).clamp_max(0)
    step, middle = ((highest - lowest) / top).clamp_min(TINY), (highest + lowest) / 2
    found = []
    for factor in ASYMMETRIC_RANGES[bits]:
        found.append((1 / (step * factor), (top / 2 - middle / (step * factor)).round().clamp(0, top)))
    plain = step.half()
    return found, (plain, (-lowest * _inverse(plain)).round().clamp(0, top))


def _inverse(scale: torch.Tensor) -> torch.Tensor:
    exact = scale.float()
    return torch.where(exact == 0, 0.0, 1.0 / exact)


def _integers(blocks: torch.Tensor, inverse: torch.Tensor, zero: torch.Tensor, top: float) -> torch.Tensor:
    rounded = (blocks * inverse[:, None]).round()
    return torch.minimum(torch.maximum(rounded, -zero[:, None]), top - zero[:, None])


def _error(blocks: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, top: float) -> torch.Tensor:
    values = _integers(blocks, _inverse(scale), zero, top).double() * scale.double()[:, None]
    return (values - blocks.double()).square().sum(1)
