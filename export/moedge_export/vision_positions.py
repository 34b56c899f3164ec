"""Where each image patch lies: in-graph position-embedding interpolation and two-dimensional rotary angles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from moedge_export.graph import Array, GraphBuilder


@dataclass
class PatchGrid:
    """Row and column of each patch, which come merge block by merge block, frame by frame.

    The same arithmetic as get_vision_interpolation_indices_and_weights and get_vision_position_ids
    (transformers 5.23, vision_utils.py).

    Attributes:
        graph: Gets the nodes.
        grid_thw: Value int64 [3]: frames, height and width in patches.
        merge: Side of a merge block.
    """

    graph: GraphBuilder
    grid_thw: str
    merge: int

    def __post_init__(self) -> None:
        graph, merge = self.graph, self.graph.constant(self.merge)
        block = graph.constant(self.merge**2)
        frames, self.height, self.width = (
            graph.op("Gather", self.grid_thw, graph.constant(axis), axis=0) for axis in range(3)
        )
        frame_patches = graph.op("Mul", self.height, self.width)
        patches = graph.op("Range", graph.constant(0), graph.op("Mul", frames, frame_patches), graph.constant(1))
        within = graph.op("Mod", patches, frame_patches)
        blocks_in_row = graph.op("Div", self.width, merge)
        block_index = graph.op("Div", within, block)
        in_block = graph.op("Mod", within, block)
        self.row = self._place(graph.op("Div", block_index, blocks_in_row), graph.op("Div", in_block, merge))
        self.column = self._place(graph.op("Mod", block_index, blocks_in_row), graph.op("Mod", in_block, merge))
        one = graph.constant([1])
        first, second = (graph.op("Reshape", each, one) for each in (frames, frame_patches))
        self.frame_shape = graph.op("Concat", first, second, graph.constant([-1]), axis=0)
        """Value int64 [3] for Reshape: [frames, patches of a frame, rest]."""
        total = graph.op("Mul", first, second)
        self.patch_shape = graph.op("Concat", total, graph.constant([-1]), axis=0)
        """Value int64 [2] for Reshape: [patches, rest]."""

    def _place(self, block: str, inside: str) -> str:
        return self.graph.op("Add", self.graph.op("Mul", block, self.graph.constant(self.merge)), inside)


def interpolated_positions(graph: GraphBuilder, grid: PatchGrid, table: str, side: int) -> str:
    """Position embeddings [P, C] of all patches, bilinear with aligned corners.

    Args:
        graph: Gets the nodes.
        grid: The picture's patches.
        table: Learned embeddings [≥ side², C], row by row of a square grid.
        side: Side of that grid.
    """
    rows = _taps(graph, grid.row, grid.height, side)
    columns = _taps(graph, grid.column, grid.width, side)
    total = ""
    for row, row_weight in rows:
        start = graph.op("Mul", row, graph.constant(side))
        for column, column_weight in columns:
            corner = graph.op("Gather", table, graph.op("Add", start, column), axis=0)
            weight = graph.op("Unsqueeze", graph.op("Mul", row_weight, column_weight), graph.constant([1]))
            weighted = graph.op("Mul", corner, weight)
            total = weighted if not total else graph.op("Add", total, weighted)
    return total


def rotary_angles(graph: GraphBuilder, grid: PatchGrid, frequencies: Array) -> str:
    """Angles [P, D/2]: the row's for the first half of the frequencies of a head, the column's for the second.

    Args:
        graph: Gets the nodes.
        grid: The picture's patches.
        frequencies: float32 [D/4].
    """
    inverse = graph.constant(frequencies[None], np.float32)
    halves = [
        graph.op("Mul", graph.op("Unsqueeze", _float(graph, place), graph.constant([1])), inverse)
        for place in (grid.row, grid.column)
    ]
    return graph.op("Concat", *halves, axis=1)


def _taps(graph: GraphBuilder, place: str, size: str, side: int) -> list[tuple[str, str]]:
    """The two table indices int64 [P] and their weights [P] along one axis (_interpolation_axis_taps_weights)."""
    steps = graph.op("Max", graph.op("Sub", size, graph.constant(1)), graph.constant(1))
    scaled = graph.op("Mul", _float(graph, place), graph.constant(side - 1, np.float32))
    source = graph.op("Div", scaled, _float(graph, steps))
    floor = graph.op("Floor", source)
    fraction = graph.op("Sub", source, floor)
    low = graph.op("Cast", floor, to=TensorProto.INT64)
    high = graph.op("Min", graph.op("Add", low, graph.constant(1)), graph.constant(side - 1))
    return [(low, graph.op("Sub", graph.constant(1, np.float32), fraction)), (high, fraction)]


def _float(graph: GraphBuilder, value: str) -> str:
    return graph.op("Cast", value, to=TensorProto.FLOAT)
