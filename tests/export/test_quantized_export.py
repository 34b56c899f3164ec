"""Quantized bundles compute with exactly the weights that their scales and integers stand for."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export.conftest import Exporter
from moedge_export.compare import compare_logits, picture_prompt, transformers_logits
from moedge_export.quantize import dequantize, quantize
from moedge_export.reference import ReferenceModel
from moedge_runtime.bundle import Bundle, Precision, Quantization

CHOICES: list[dict[str, Any]] = [
    {"precision": "int4"},
    {"precision": "int4", "symmetric": False},
    {"precision": "int8"},
    {"precision": "int8", "symmetric": False},
    {"precision": "int4", "parts": {"attention": "int4", "vision": "fp32", "head": "int4", "embedding": "int4"}},
    {"precision": "fp32", "parts": {"attention": "int8", "embedding": "int4"}},
]


@pytest.mark.parametrize("options", CHOICES, ids=str)
def test_a_bundle_equals_transformers_with_the_dequantized_weights(
    options: dict[str, Any], checkpoint: tuple[Path, Any], export: Exporter
) -> None:
    bundle = export(checkpoint[0], activations="fp32", **options)
    model = copy.deepcopy(checkpoint[1])
    replace_weights(model, bundle.manifest.quantization)
    prompt = picture_prompt(bundle.manifest.model, seed=1)
    comparison = compare_logits(ReferenceModel(bundle).logits(prompt), transformers_logits(model, prompt))
    assert comparison.relative_difference <= 1e-3


@pytest.mark.parametrize(("precision", "tolerance"), [("int4", 1e-3), ("int8", 0.1)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_inline_and_paged_give_the_same_logits(
    precision: str, tolerance: float, symmetric: bool, checkpoint: tuple[Path, Any], export: Exporter
) -> None:
    options = {"precision": precision, "symmetric": symmetric, "activations": "fp32"}
    paged, inline = (ReferenceModel(export(checkpoint[0], form=form, **options)) for form in ("paged", "inline"))
    prompt = picture_prompt(paged.bundle.manifest.model, seed=1)
    # QMoE with 8 bits quantizes activations, which the numpy experts of the paged reference do not.
    assert compare_logits(inline.logits(prompt), paged.logits(prompt)).relative_difference <= tolerance


@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_both_forms_store_the_same_numbers(precision: str, checkpoint: tuple[Path, Any], export: Exporter) -> None:
    paged, inline = (export(checkpoint[0], precision=precision, form=form) for form in ("paged", "inline"))
    assert paged.manifest.quality == inline.manifest.quality
    experts = paged.manifest.experts
    assert experts is not None
    model = b"".join(inline.file(name).read_bytes() for name in ("model.onnx",))
    record = np.fromfile(paged.file(experts.file), np.uint8, experts.record_bytes)
    for name, array in paged.expert_layout.unpack(record).items():
        assert array.tobytes() in model, name


def test_the_manifest_reports_the_error_of_every_quantized_part(checkpoint: tuple[Path, Any], export: Exporter) -> None:
    quality = export(checkpoint[0], precision="int4", parts={"vision": "fp32"}).manifest.quality
    assert set(quality) == {"experts", "attention", "head", "embedding"}
    assert 0.05 < quality["experts"].relative_error < 0.9 * quality["experts"].relative_error_absmax
    assert quality["attention"].relative_error < 0.006
    assert quality["experts"].weights == 2 * 8 * 3 * 64 * 32


@pytest.mark.parametrize("options", [{"precision": "int4"}, {"precision": "int8", "symmetric": False}], ids=str)
def test_int8_activations_stay_close(options: dict[str, Any], checkpoint: tuple[Path, Any], export: Exporter) -> None:
    exact, fast = (ReferenceModel(export(checkpoint[0], activations=each, **options)) for each in ("fp32", "int8"))
    prompt = picture_prompt(exact.bundle.manifest.model, seed=1)
    difference = np.abs(fast.logits(prompt) - exact.logits(prompt)).mean()
    assert difference < 0.02 * np.ptp(exact.logits(prompt))


def replace_weights(model: Any, quantization: Quantization) -> None:
    """Give a transformers model the weights that a bundle of this quantization holds."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            precision = precision_of(name, quantization)
            if precision is None or precision.bits == 32:
                continue
            rows = parameter.reshape(-1, parameter.shape[-1]) if ".experts." in name else parameter.flatten(1)
            result = quantize(rows.contiguous(), precision)
            values = dequantize(result.weight, result.scale, result.zero_point, precision, rows.shape[1])
            parameter.copy_(torch.from_numpy(values).reshape(parameter.shape))


def precision_of(name: str, quantization: Quantization) -> Precision | None:
    if "norm" in name or name.endswith(("bias", "mlp.gate.weight", "pos_embed.weight")):
        return None
    if ".experts." in name:
        return quantization.experts
    if "embed_tokens" in name:
        return quantization.embedding
    if name.startswith("lm_head"):
        return quantization.head
    return quantization.vision if ".visual." in name else quantization.attention


def test_bundles_open_and_their_checksums_hold(checkpoint: tuple[Path, Any], export: Exporter) -> None:
    import google_crc32c
    from moedge_runtime.bundle import verify_bundle

    bundle = export(checkpoint[0], precision="int4", symmetric=False, block_size=32)
    verify_bundle(Bundle.open(bundle.path))
    experts = bundle.manifest.experts
    assert experts is not None and len(experts.crc32c) == len(bundle.manifest.model.text.moe_layers)
    records = np.fromfile(bundle.file(experts.file), np.uint8).reshape(-1, experts.record_bytes)
    assert [google_crc32c.value(record.tobytes()) for record in records] == [
        crc for layer in experts.crc32c for crc in layer
    ]
