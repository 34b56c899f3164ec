"""The graph builder streams weights to disk and keeps small ones inside the ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from moedge_export.graph import INLINE_WEIGHTS_BYTES, GraphBuilder


@pytest.mark.parametrize("rows", [4, INLINE_WEIGHTS_BYTES // 256 + 1])
def test_weights_past_one_mebibyte_stay_beside_the_graph(rows: int, tmp_path: Path) -> None:
    graph = GraphBuilder(tmp_path / "sum.onnx")
    x = graph.input("x", np.float32, ["n", 64])
    name, slot = graph.reserve("weight", np.float32, (rows, 64))
    for start in range(0, rows, 1000):
        part = np.arange(start, min(start + 1000, rows), dtype=np.float32)
        slot.write(start, np.repeat(part[:, None], 64, axis=1))
    graph.output("y", graph.op("Gemm", x, name, transB=1), np.float32, ["n", rows])
    graph.save()
    assert (tmp_path / "sum.onnx.data").exists() == (rows > 4)
    output = onnxruntime.InferenceSession(tmp_path / "sum.onnx").run(None, {"x": np.ones((1, 64), np.float32)})[0]
    np.testing.assert_array_equal(output[0], 64 * np.arange(rows, dtype=np.float32))


def test_names_carry_their_scope_and_equal_constants_are_stored_once(tmp_path: Path) -> None:
    graph = GraphBuilder(tmp_path / "x.onnx")
    with graph.scope("layers.0"), graph.scope("mlp"):
        assert graph.weight("up.weight", np.ones(3, np.float32)) == "layers.0/mlp/up.weight"
    assert graph.constant([1, 2]) == graph.constant([1, 2]) != graph.constant([[1, 2]])
