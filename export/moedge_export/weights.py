"""Where the weights of finished graphs lie, for a runtime that computes them without ONNX."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx
from moedge_runtime.bundle import VisionTowerInfo, WeightPlace
from onnx import TensorProto

from moedge_export.architecture import Architecture

_DTYPES = {TensorProto.FLOAT: "float32", TensorProto.UINT8: "uint8"}


def weight_places(folder: Path, graphs: Iterable[str]) -> dict[str, list[WeightPlace]]:
    """The weights of each of `graphs`, ONNX files in `folder`, in the order in which the graph lists them."""
    return {graph: _places(folder, graph) for graph in graphs}


def vision_tower_info(architecture: Architecture) -> VisionTowerInfo:
    """What the manifest says of a vision tower whose weights are in its table."""
    return VisionTowerInfo.model_validate(
        {
            "intermediate_size": architecture.vision_intermediate_size,
            "gelu": architecture.vision_gelu,
            "rope_theta": architecture.vision_rope_theta,
            "deepstack_mergers": architecture.deepstack_mergers,
        }
    )


def _places(folder: Path, graph: str) -> list[WeightPlace]:
    content = (folder / graph).read_bytes()
    places = []
    for tensor in onnx.load_from_string(content).graph.initializer:
        if tensor.data_type not in _DTYPES or tensor.name.startswith("constant/"):
            continue
        if tensor.data_location == TensorProto.EXTERNAL:
            entry = {each.key: each.value for each in tensor.external_data}
            file, offset = (Path(graph).parent / entry["location"]).as_posix(), int(entry["offset"])
        else:
            file, offset = graph, content.index(tensor.raw_data)  # the first place with these very bytes
        places.append(
            WeightPlace.model_validate(
                {
                    "name": tensor.name,
                    "file": file,
                    "offset": offset,
                    "dtype": _DTYPES[tensor.data_type],
                    "shape": list(tensor.dims),
                }
            )
        )
    return places
