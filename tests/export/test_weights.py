"""The table of weights in the manifest says where they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from export.conftest import Exporter
from moedge_export import graph as graph_module
from onnx import numpy_helper


@pytest.mark.parametrize("inline_bytes", [0, 1 << 20])
@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_every_weight_of_layers_head_and_vision_is_where_the_table_says(
    precision: str, inline_bytes: int, checkpoint: tuple[Path, Any], export: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_module, "INLINE_WEIGHTS_BYTES", inline_bytes)
    bundle = export(checkpoint[0], precision=precision)
    graphs = bundle.manifest.graphs
    assert set(bundle.manifest.weights) == {*graphs.layers, graphs.head, graphs.vision}
    for graph, places in bundle.manifest.weights.items():
        proto = onnx.load(bundle.file(graph))
        tensors = {
            each.name: numpy_helper.to_array(each)
            for each in proto.graph.initializer
            if not each.name.startswith("constant/")
        }
        assert {place.name for place in places} == set(tensors)
        for place in places:
            beside = bundle.path / f"{graph}.data"  # all weights together decide, those of float32 are too many
            assert place.file == (beside.relative_to(bundle.path).as_posix() if beside.exists() else graph)
            assert inline_bytes == 0 or graph == graphs.vision or not beside.exists()
            wanted = tensors[place.name]
            assert (place.dtype, place.shape) == (str(wanted.dtype), list(wanted.shape))
            got = np.fromfile(bundle.file(place.file), place.dtype, wanted.size, offset=place.offset)
            np.testing.assert_array_equal(got.reshape(wanted.shape), wanted)


def test_an_inline_bundle_has_no_table(checkpoint: tuple[Path, Any], export: Exporter) -> None:
    assert export(checkpoint[0], precision="fp32", form="inline").manifest.weights == {}
