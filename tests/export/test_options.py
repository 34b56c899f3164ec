"""Options become precisions by part, and sizes that blocks do not divide are refused with a block size that works."""

from __future__ import annotations

from typing import Any

import pytest
from export.conftest import Exporter
from export.random_checkpoint import save_random_checkpoint
from moedge_export.options import ExportOptions
from moedge_runtime.errors import ConfigError


def test_int4_keeps_everything_but_the_experts_at_8_bits() -> None:
    quantization = ExportOptions(precision="int4", block_size=64, symmetric=False).quantization()
    assert (quantization.experts.bits, quantization.experts.block_size, quantization.experts.symmetric) == (
        4,
        64,
        False,
    )
    assert {quantization.attention.bits, quantization.head.bits, quantization.embedding.bits} == {8}


def test_a_part_may_have_its_own_precision() -> None:
    quantization = ExportOptions(precision="int8", parts={"vision": "fp32", "head": "int4"}).quantization()
    assert [quantization.vision.bits, quantization.head.bits, quantization.attention.bits] == [32, 4, 8]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"precision": "int4"}, {"experts": 32, "embedding": 32, "attention": 64, "head": 128, "vision": 128}),
        ({"precision": "int4", "block_size": 64}, {"experts": 64, "embedding": 64, "attention": 64, "vision": 128}),
        ({"precision": "int8", "dense_block_size": 32}, {"experts": 32, "attention": 32, "head": 32, "vision": 32}),
        ({"block_size": 64, "parts": {"attention": "int4"}}, {"attention": 64, "head": 128}),
        ({"dense_block_size": 128, "parts": {"attention": "int4"}}, {"experts": 32, "attention": 128}),
    ],
)
def test_block_sizes_of_what_onnxruntime_multiplies_are_their_own(options: Any, expected: dict[str, int]) -> None:
    quantization = ExportOptions(**options).quantization()
    assert {part: getattr(quantization, part).block_size for part in expected} == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"precision": "int4", "block_size": 64},
            "moe_intermediate_size 32 is no multiple of the block size 64. Pass --block-size 32.",
        ),
        (
            {"precision": "fp32", "block_size": 128, "parts": {"embedding": "int8"}},
            "hidden_size 64 is no multiple of the block size 128. Pass --block-size 64.",
        ),
    ],
)
def test_block_sizes_that_do_not_fit_are_refused(
    options: dict[str, Any], message: str, checkpoint: Any, export: Exporter
) -> None:
    with pytest.raises(ConfigError) as caught:
        export(checkpoint[0], **options)
    assert str(caught.value) == message


def test_a_shape_that_no_block_fits_is_told_so(tmp_path: Any, export: Exporter) -> None:
    save_random_checkpoint(tmp_path / "odd", {"text": {"moe_intermediate_size": 24}})
    with pytest.raises(ConfigError, match=r"is no multiple of the block size 32\. Export with --precision fp32\."):
        export(tmp_path / "odd", precision="int4")
