"""Quantization: never worse than round-to-nearest, equal to a scalar reference, packed as the bundle says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from export.search_reference import SYMMETRIC_LEVELS, search
from hypothesis import given, settings
from hypothesis import strategies as st
from moedge_export.quantize import dequantize, pack, quantize, unpack
from moedge_export.quantize_library import INSTRUCTION_SETS, load_library
from moedge_runtime.bundle import Precision

PRECISIONS = [
    Precision(bits=bits, block_size=block_size, symmetric=symmetric)
    for bits in (4, 8)
    for block_size in (32, 64, 128)
    for symmetric in (True, False)
]


def weights_of(kind: str, rows: int = 24, inputs: int = 384) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    gaussian = torch.randn(rows, inputs, generator=generator)
    uniform = torch.rand(rows, inputs, generator=generator)
    return {
        "gaussian": gaussian * 0.02,
        "uniform": uniform - 0.5,
        "positive": uniform + 5,
        "outliers": gaussian * torch.where(uniform < 0.01, 30.0, 1.0),
        "tiny": gaussian * 1e-7,
        "many sizes": gaussian * 10 ** torch.linspace(-7, 3, rows)[:, None],
        "bfloat16": (gaussian * 0.02).bfloat16().float(),
        "one in a block": torch.where(torch.arange(inputs) % 32 == 5, gaussian, 0.0),
    }[kind]


@pytest.fixture(params=INSTRUCTION_SETS)
def isa(request: pytest.FixtureRequest) -> str:
    """Each instruction set that this processor has."""
    name = str(request.param)
    if not load_library().moedge_quantize_has_isa(name.encode()):
        pytest.skip(f"this processor has no {name}")
    return name


def restored(result: Any, precision: Precision, inputs: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return dequantize(result.weight, result.scale, result.zero_point, precision, inputs)


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("kind", ["gaussian", "uniform", "positive", "outliers", "tiny", "bfloat16", "one in a block"])
def test_no_block_is_worse_than_round_to_nearest(kind: str, precision: Precision) -> None:
    weights = weights_of(kind)
    result = quantize(weights, precision)
    error = np.square(restored(result, precision, 384) - weights.numpy())
    plain = np.square(round_to_nearest(weights.numpy(), precision) - weights.numpy())
    size = precision.block_size
    blocks, plain_blocks = (each.reshape(-1, size).sum(-1, dtype=np.float64) for each in (error, plain))
    assert (blocks <= plain_blocks * (1 + 1e-5)).all()
    np.testing.assert_allclose(result.errors.error, error.sum(dtype=np.float64), rtol=1e-4)
    np.testing.assert_allclose(result.errors.error_absmax, plain.sum(dtype=np.float64), rtol=1e-3)
    np.testing.assert_allclose(result.errors.weight, np.square(weights.numpy()).sum(dtype=np.float64), rtol=1e-5)


def test_gaussian_weights_lose_a_sixth_less_than_with_round_to_nearest() -> None:
    errors = quantize(weights_of("gaussian", 512, 1024), Precision(bits=4)).errors
    assert (errors.error / errors.error_absmax) ** 0.5 < 0.85


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("kind", ["gaussian", "uniform", "positive", "outliers", "tiny", "many sizes", "bfloat16"])
def test_blocks_equal_those_of_a_search_in_double_precision_but_for_ties(kind: str, precision: Precision) -> None:
    weights, size = weights_of(kind, 512, 1024), precision.block_size
    result, expected = quantize(weights, precision), search(weights.reshape(-1, size), precision)
    wanted = (expected.integers - expected.zero_point[:, None]) * expected.scale.float()[:, None]
    error = block_errors(restored(result, precision, 1024), weights.numpy(), size)
    wanted_error = block_errors(wanted.reshape(512, 1024).numpy(), weights.numpy(), size)
    assert error.sum() <= wanted_error.sum() * (1 + 1e-5)
    # Of two scales that leave the same error, the one that float16 rounds more can lose a few percent.
    assert (error <= wanted_error * (1 + 1e-4)).mean() >= 0.999
    if kind != "outliers":  # with one large weight and else zeros, all candidates tie
        values = unpack(result.weight, precision.bits, 1024).reshape(-1, size)
        assert (values == expected.integers.numpy()).mean() >= 0.9999
        assert (result.scale.reshape(-1) == expected.scale.numpy()).mean() >= 0.999


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_every_instruction_set_gives_the_same_bits(precision: Precision, isa: str) -> None:
    for weights in (weights_of("many sizes", 133, 320), weights_of("tiny", 61, 320).bfloat16().T.contiguous().T):
        result, expected = quantize(weights, precision, isa), quantize(weights, precision, "baseline")
        assert result.errors == expected.errors
        for name in ("weight", "scale", "zero_point"):
            np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))


def test_scales_are_rounded_to_float16_as_ieee_754_says(isa: str) -> None:
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    between = (halves[:-1] + halves[1:]) / 2  # exact in float32
    others = np.array([65520, 131040, 1e-40, 3e38, np.inf], np.float32)
    exact = np.concatenate([halves, between, others])
    near = [np.nextafter(exact, np.float32(side)) for side in (-np.inf, np.inf)]
    values = np.concatenate([exact, *near])
    values = np.concatenate([values, -values, np.array([np.nan], np.float32)])
    assert values.dtype == np.float32
    rounded = np.empty(values.size, np.float16)
    to_half = load_library().moedge_quantize_to_half
    assert to_half(values.ctypes.data, rounded.ctypes.data, values.size, isa.encode()) == 0
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    np.testing.assert_array_equal(rounded[:-1].view(np.uint16), expected[:-1].view(np.uint16))
    assert np.isnan(rounded[-1])


@pytest.mark.parametrize("precision", [Precision(bits=4), Precision(bits=8, symmetric=False)], ids=str)
def test_float16_weights_are_read_exactly(precision: Precision, isa: str) -> None:
    halves = np.concatenate([np.arange(0x7800), np.arange(0x8000, 0xF800)]).astype(np.uint16)
    weights = torch.from_numpy(np.random.default_rng(0).permutation(halves).view(np.float16)).reshape(-1, 128)
    for same in (weights, weights.T.contiguous().T):
        result, expected = quantize(same, precision, isa), quantize(weights.float(), precision, "baseline")
        np.testing.assert_array_equal(result.weight, expected.weight)
        np.testing.assert_array_equal(result.scale, expected.scale)
        assert result.errors == expected.errors


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e8, 1e30])
@pytest.mark.parametrize("precision", PRECISIONS[::3], ids=str)
def test_a_weight_that_cannot_be_stored_makes_the_error_sums_not_finite(value: float, precision: Precision) -> None:
    weights = weights_of("gaussian")
    weights[7, 200] = value
    sums = quantize(weights, precision).errors
    assert not np.isfinite(sums.weight + sums.error)
    weights[7, 200] = 1.0
    assert np.isfinite(quantize(weights, precision).errors.error)


@pytest.mark.parametrize("bits", [4, 8])
def test_symmetric_blocks_equal_a_scalar_search(bits: int) -> None:
    weights = weights_of("outliers", 4, 64)
    precision = Precision(bits=4 if bits == 4 else 8)
    result = quantize(weights, precision)
    half = 2 ** (bits - 1)
    for row in range(4):
        values = unpack(result.weight[row], bits, 64)
        for block in range(2):
            expected, scale = scalar_symmetric(weights[row, 32 * block : 32 * block + 32].tolist(), bits)
            assert result.scale[row, block] == scale
            assert (values[32 * block : 32 * block + 32].astype(int) - half).tolist() == expected


@given(st.lists(st.integers(0, 15), min_size=1, max_size=40))
@settings(max_examples=50, deadline=None)
def test_packing_and_unpacking_gives_the_integers_back(values: list[int]) -> None:
    array = np.array([values, values[::-1]], np.uint8)
    packed = pack(array, 4)
    assert packed.shape == (2, (len(values) + 1) // 2)
    assert packed[0, 0] & 15 == values[0]
    np.testing.assert_array_equal(unpack(packed, 4, len(values)), array)
    np.testing.assert_array_equal(unpack(pack(array, 8), 8, len(values)), array)


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_last_block_that_is_not_full_is_padded_with_zeros(symmetric: bool) -> None:
    precision = Precision(bits=4, block_size=64, symmetric=symmetric)
    weights = weights_of("gaussian", 5, 100)
    result = quantize(weights, precision)
    assert result.weight.shape == (5, 64) and result.scale.shape == (5, 2)
    padded = restored(result, precision, 128)
    assert (padded[:, 100:] == 0).all()
    assert np.abs(padded[:, :100] - weights.numpy()).max() < 0.01


@pytest.mark.parametrize("precision", PRECISIONS[:2], ids=str)
def test_zero_blocks_stay_zero(precision: Precision) -> None:
    result = quantize(torch.zeros(2, 64), precision)
    assert (restored(result, precision, 64) == 0).all() and result.errors.error == 0


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("rows", [300, 320])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_neither_data_type_nor_order_in_memory_changes_anything(
    precision: Precision, dtype: torch.dtype, rows: int
) -> None:
    weights = weights_of("many sizes", rows, 1024).to(dtype)
    plain = quantize(weights.float(), precision)
    for same in (weights, weights.T.contiguous().T):
        result = quantize(same, precision)
        for name in ("weight", "scale", "zero_point"):
            np.testing.assert_array_equal(getattr(result, name), getattr(plain, name))
        assert result.errors == plain.errors
        assert result.weights == rows * 1024


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_a_matrix_may_be_cut_between_any_rows(precision: Precision) -> None:
    weights = weights_of("gaussian", 1000, 260)
    whole = quantize(weights, precision)
    pieces = [quantize(piece, precision) for piece in weights.split([1, 37, 300, 662])]
    for name in ("weight", "scale", "zero_point"):
        if getattr(whole, name) is not None:
            joined = np.concatenate([getattr(piece, name) for piece in pieces])
            np.testing.assert_array_equal(getattr(whole, name), joined)


def block_errors(values: Any, weights: Any, size: int) -> Any:
    """Sum of squared errors of every block, in double precision."""
    return np.square(values.astype(np.float64) - weights).reshape(-1, size).sum(-1)


def round_to_nearest(weights: Any, precision: Precision) -> Any:
    """Dequantized result of the plain method, block by block, with float16 scales."""
    blocks = weights.reshape(-1, precision.block_size)
    if precision.symmetric:
        half = 2 ** (precision.bits - 1)
        scale = (np.abs(blocks).max(-1, keepdims=True) / np.float32(half - 1)).astype(np.float16).astype(np.float32)
        inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
        return (np.clip(np.round(blocks * inverse), -half, half - 1) * scale).reshape(weights.shape)
    top = 2**precision.bits - 1
    low, high = np.minimum(blocks.min(-1, keepdims=True), 0), np.maximum(blocks.max(-1, keepdims=True), 0)
    scale = ((high - low) / np.float32(top)).astype(np.float16).astype(np.float32)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    zero = np.clip(np.round(-low * inverse), 0, top)
    return (np.clip(np.round(blocks * inverse), -zero, top - zero) * scale).reshape(weights.shape)


def scalar_symmetric(block: list[float], bits: int) -> tuple[list[int], np.float16]:
    """The search of `quantize`, one number after the other, in double precision."""
    half = 2 ** (bits - 1)

    def integers(scale: float) -> list[int]:
        return [max(-half, min(half - 1, round(weight / scale))) if scale else 0 for weight in block]

    def error(scale: float) -> float:
        pairs = zip(integers(scale), block, strict=True)
        return sum((integer * scale - weight) ** 2 for integer, weight in pairs)

    largest = max(block) if max(block) > -min(block) else min(block)
    best_gain, best_scale = -1.0, 0.0
    for level in SYMMETRIC_LEVELS[bits]:
        chosen = integers(-largest / level)
        dot = sum(integer * weight for integer, weight in zip(chosen, block, strict=True))
        square = sum(integer**2 for integer in chosen)
        if dot**2 / square > best_gain:
            best_gain, best_scale = dot**2 / square, dot / square
    found, plain = np.float16(best_scale), np.float16(abs(largest) / (half - 1))
    scale = plain if error(float(plain)) < error(float(found)) else found
    return integers(float(scale)), scale
