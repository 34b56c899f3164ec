"""The contrib operators compute what docs/bundle-format.md says, for every precision that an export may have."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from moedge_export.graph import MICROSOFT, GraphBuilder
from moedge_export.inline import QMOE_INPUTS
from moedge_export.matrix import Matrix
from moedge_export.part import PartBuilder
from moedge_export.quantize import dequantize, quantize
from moedge_export.quantizer import Quantizer
from moedge_runtime.bundle import ExpertLayout, Precision

PRECISIONS = [
    Precision(bits=bits, block_size=block_size, symmetric=symmetric)
    for bits in (4, 8)
    for block_size in (32, 64, 128)
    for symmetric in (True, False)
]


def run(graph: GraphBuilder, feeds: dict[str, Any]) -> Any:
    graph.save()
    return onnxruntime.InferenceSession(graph.path, providers=["CPUExecutionProvider"]).run(None, feeds)[0]


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("inputs", [128, 100])
@pytest.mark.parametrize(("accuracy_level", "tolerance"), [(0, 1e-5), (4, 0.03)])
def test_matmul_n_bits_equals_the_dequantized_product(
    precision: Precision, inputs: int, accuracy_level: int, tolerance: float, tmp_path: Path
) -> None:
    weights, x = torch.randn(24, inputs), np.random.default_rng(0).standard_normal((5, inputs), dtype=np.float32)
    bias = np.arange(24, dtype=np.float32)
    graph = GraphBuilder(tmp_path / "linear.onnx")
    value = graph.input("x", np.float32, ["tokens", inputs])
    with ThreadPoolExecutor(1) as pool:
        part = PartBuilder(graph, None, Quantizer(precision, accuracy_level, pool))  # type: ignore[arg-type]
        matrix = Matrix("layer", 24, inputs, lambda start, stop: weights[start:stop])
        product = part.product("layer", value, matrix, graph.weight("bias", bias))
    graph.output("y", product, np.float32, ["tokens", 24])
    result = quantize(weights, precision)
    expected = x @ dequantize(result.weight, result.scale, result.zero_point, precision, inputs).T + bias
    assert np.abs(run(graph, {"x": x}) - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize(("experts", "chosen"), [(7, 2), (3, 3), (5, 1)])
def test_qmoe_equals_numpy_experts_on_what_records_unpack_to(
    precision: Precision, experts: int, chosen: int, tmp_path: Path
) -> None:
    hidden, inner, generator = 128, 256, np.random.default_rng(0)
    layout = ExpertLayout(hidden, inner, precision)
    names = [array.name for array in layout.row_major]
    records = np.zeros((experts, layout.record_bytes), np.uint8)
    plain: list[dict[str, Any]] = []
    for record in records:
        plain.append({})
        arrays: dict[str, Any] = {}
        for name, rows, inputs in (("fc1", 2 * inner, hidden), ("fc2", hidden, inner)):
            weights = torch.from_numpy(generator.standard_normal((rows, inputs), dtype=np.float32)) / inputs**0.5
            result = quantize(weights, precision)
            arrays |= {f"{name}.weight": result.weight, f"{name}.scale": result.scale}
            if result.zero_point is not None:
                arrays[f"{name}.zero_point"] = result.zero_point
            plain[-1][name] = dequantize(result.weight, result.scale, result.zero_point, precision, inputs)
        layout.pack(arrays, record)
    unpacked = [layout.unpack(record) for record in records]
    graph = GraphBuilder(tmp_path / "moe.onnx")
    x, logits = graph.input("x", np.float32, ["s", hidden]), graph.input("logits", np.float32, ["s", experts])
    operands = [x, logits, *[""] * (max(QMOE_INPUTS[name] for name in names) - 1)]
    for name in names:
        operands[QMOE_INPUTS[name]] = graph.weight(name, np.stack([each[name] for each in unpacked]))
    attributes = {"swiglu_fusion": 1, "activation_alpha": 1.0, "activation_beta": 0.0, "normalize_routing_weights": 1}
    output = graph.op(
        "QMoE", *operands, domain=MICROSOFT, k=chosen, activation_type="swiglu", expert_weight_bits=precision.bits,
        block_size=precision.block_size, **attributes,
    )  # fmt: skip
    graph.output("y", output, np.float32, ["s", hidden])
    values = generator.standard_normal((4, hidden), dtype=np.float32)
    scores = generator.standard_normal((4, experts), dtype=np.float32) * 3
    expected = numpy_experts(values, scores, plain, chosen)
    # With 8 bits ONNX Runtime 1.32 quantizes activations whatever accuracy_level says.
    tolerance = 1e-4 if precision.bits == 4 else 0.05
    got = run(graph, {"x": values, "logits": scores})
    assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()


def numpy_experts(x: Any, logits: Any, experts: list[dict[str, Any]], chosen: int) -> Any:
    """Top-k of the softmax, renormalised; gate rows even, up rows odd; silu(gate) × up."""
    output = np.zeros_like(x)
    for token, scores in enumerate(logits):
        best = np.argsort(-scores)[:chosen]
        weights = np.exp(scores[best] - scores[best].max())
        for expert, weight in zip(best, weights / weights.sum(), strict=True):
            gate_up = experts[expert]["fc1"] @ x[token]
            gate, up = gate_up[0::2], gate_up[1::2]
            output[token] += weight * (experts[expert]["fc2"] @ (gate / (1 + np.exp(-gate)) * up))
    return output
