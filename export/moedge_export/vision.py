"""The vision tower as one graph: patches of a picture in, features for image tokens and DeepStack out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from moedge_export.architecture import Architecture
from moedge_export.graph import MICROSOFT, GraphBuilder
from moedge_export.part import PartBuilder
from moedge_export.tensors import VISION
from moedge_export.vision_positions import PatchGrid, interpolated_positions, rotary_angles

NORM_EPSILON = 1e-6
"""Fixed in the code of Qwen3VLMoeVisionBlock and Qwen3VLMoeVisionPatchMerger (transformers 5.23)."""


def build_vision(part: PartBuilder) -> None:
    """Fill the part's graph with vision.onnx as docs/bundle-format.md describes it.

    Follows Qwen3VLMoeVisionModel (transformers 5.23). With t > 1 in grid_thw every frame attends to itself alone, as
    transformers does it.

    Args:
        part: Of the part `vision`, with an empty graph.
    """
    graph, architecture = part.graph, part.checkpoint.architecture
    vision, text = architecture.vision, architecture.text
    pixels = graph.input("pixel_values", np.float32, ["patches", architecture.patch_values])
    grid = PatchGrid(graph, graph.input("grid_thw", np.int64, [3]), vision.spatial_merge_size)

    def dense(name: str, x: str) -> str:
        return part.linear(name, x, f"{VISION}.{name}", bias=True)

    def layer_norm(name: str, x: str) -> str:
        weight, bias = (part.weight(f"{name}.{kind}", f"{VISION}.{name}.{kind}") for kind in ("weight", "bias"))
        return graph.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=NORM_EPSILON)

    merged_size = vision.hidden_size * vision.spatial_merge_size**2

    def merger(name: str, x: str, *, norm_after_merge: bool) -> str:
        blocks = graph.constant([-1, merged_size])
        if norm_after_merge:
            x = layer_norm(f"{name}.norm", graph.op("Reshape", x, blocks))
        else:
            x = graph.op("Reshape", layer_norm(f"{name}.norm", x), blocks)
        return dense(f"{name}.linear_fc2", graph.op("Gelu", dense(f"{name}.linear_fc1", x)))

    hidden = dense("patch_embed.proj", pixels)
    table = part.weight("pos_embed.weight", f"{VISION}.pos_embed.weight")
    side = architecture.position_grid_side
    hidden = graph.op("Add", hidden, interpolated_positions(graph, grid, table, side))
    angles = rotary_angles(graph, grid, _frequencies(architecture))
    tower = _Tower(graph, grid, graph.op("Cos", angles), graph.op("Sin", angles), vision.num_heads)
    deepstack = []
    for block in range(vision.depth):
        name = f"blocks.{block}"
        mixed = tower.attention(dense(f"{name}.attn.qkv", layer_norm(f"{name}.norm1", hidden)))
        hidden = graph.op("Add", hidden, dense(f"{name}.attn.proj", mixed))
        x = dense(f"{name}.mlp.linear_fc1", layer_norm(f"{name}.norm2", hidden))
        x = graph.op("Gelu", x, approximate=architecture.vision_gelu)
        hidden = graph.op("Add", hidden, dense(f"{name}.mlp.linear_fc2", x))
        if block in vision.deepstack_visual_indexes:
            index = architecture.deepstack_mergers[vision.deepstack_visual_indexes.index(block)]
            features = merger(f"deepstack_merger_list.{index}", hidden, norm_after_merge=True)
            deepstack.append(graph.op("Unsqueeze", features, graph.constant([0])))
    features = merger("merger", hidden, norm_after_merge=False)
    if not deepstack:
        none = graph.op("Slice", graph.op("Unsqueeze", features, graph.constant([0])), *map(graph.constant, ([0], [0])))
        deepstack.append(none)
    graph.output("image_features", features, np.float32, ["image_tokens", text.hidden_size])
    stacked = graph.op("Concat", *deepstack, axis=0)
    taps = len(vision.deepstack_visual_indexes)
    graph.output("deepstack_features", stacked, np.float32, [taps, "image_tokens", text.hidden_size])


@dataclass(frozen=True)
class _Tower:
    """What all blocks share."""

    graph: GraphBuilder
    grid: PatchGrid
    cos: str
    sin: str
    heads: int

    def attention(self, qkv: str) -> str:
        """Attention output [P, C] from query, key and value side by side, [P, 3C]."""
        query, key, value = self.graph.ops("Split", qkv, outputs=3, axis=-1, num_outputs=3)
        frames = [
            self.graph.op("Reshape", each, self.grid.frame_shape)
            for each in (self._rotated(query), self._rotated(key), value)
        ]
        mixed = self.graph.op("MultiHeadAttention", *frames, domain=MICROSOFT, num_heads=self.heads)
        return self.graph.op("Reshape", mixed, self.grid.patch_shape)

    def _rotated(self, value: str) -> str:
        sequence = self.graph.op("Unsqueeze", value, self.graph.constant([0]))
        first_row = self.graph.constant([0])
        return self.graph.op(
            "RotaryEmbedding", sequence, first_row, self.cos, self.sin, domain=MICROSOFT, num_heads=self.heads
        )


def _frequencies(architecture: Architecture) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    # Qwen3VLMoeVisionRotaryEmbedding.compute_axial_rope_parameters, in float32 as there.
    vision = architecture.vision
    axis_size = vision.hidden_size // vision.num_heads // 2
    exponents = torch.arange(0, axis_size, 2, dtype=torch.float) / axis_size
    frequencies: np.ndarray[tuple[int], np.dtype[np.float32]] = (
        1.0 / (architecture.vision_rope_theta**exponents)
    ).numpy()
    return frequencies
