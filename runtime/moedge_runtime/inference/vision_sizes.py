"""What the native core's vision tower takes in memory, from a bundle's manifest alone.

Source of the layout: runtime/core/src/vision_layout.cpp and vision.cpp; a test compares the sums.
"""

from __future__ import annotations

from moedge_runtime.bundle import Manifest
from moedge_runtime.inference.dense_sizes import (
    QUERIES_OF_TASK,
    SECTION_BYTES,
    Places,
    attention_values,
    row_bytes,
    up,
)

PLACES_IN_TURN = 2
"""VisionShape::block_places and merger_places: so many blocks and mergers are in memory if they are not resident."""

READ_ALIGNMENT = 64
"""Of weights that were read and have no layout yet."""

WEIGHTS_OF_BLOCK = 20
"""Two of each norm, up to four of each product; no part has more."""

CORNERS = 4
"""Vision::kCorners: learned positions that one of a patch is made of."""


def patch_values(manifest: Manifest) -> int:
    """Values of a patch's pixels."""
    tower = manifest.model.vision
    return tower.in_channels * tower.temporal_patch_size * tower.patch_size**2


def vision_weight_bytes(manifest: Manifest, intermediate_size: int, *, resident: bool = True) -> int:
    """Bytes of the weights: of all, or of as many as are in memory while they come for each picture."""
    tower, precision = manifest.model.vision, manifest.quantization.vision
    hidden, merged = tower.hidden_size, tower.hidden_size * tower.spatial_merge_size**2
    mergers = 1 + len(tower.deepstack_visual_indexes)
    places = Places()

    def norm(count: int) -> None:
        places.vector(count)
        places.vector(count)

    def linear(rows: int, inputs: int) -> None:
        places.vector(rows)
        places.matrix(rows, inputs, precision)

    linear(hidden, patch_values(manifest))
    places.vector(tower.num_position_embeddings * hidden)
    for _ in range(tower.depth if resident else min(PLACES_IN_TURN, tower.depth)):
        norm(hidden)
        linear(3 * hidden, hidden)
        linear(hidden, hidden)
        norm(hidden)
        linear(intermediate_size, hidden)
        linear(hidden, intermediate_size)
    for index in range(mergers if resident else min(PLACES_IN_TURN, mergers)):
        norm(hidden if resident and index == mergers - 1 else merged)
        linear(merged, merged)
        linear(tower.out_hidden_size, merged)
    return places.end


def vision_read_bytes(manifest: Manifest, intermediate_size: int) -> int:
    """Bytes that the largest part's weights are read into, as the graph has them, before they get their layout."""
    tower, precision = manifest.model.vision, manifest.quantization.vision
    hidden, merged = tower.hidden_size, tower.hidden_size * tower.spatial_merge_size**2

    def linear(rows: int, inputs: int) -> int:
        blocks = -(-inputs // precision.block_size)
        weights = 4 * inputs if precision.bits == 32 else blocks * (precision.block_size * precision.bits // 8 + 5)
        return rows * (weights + 4)

    return READ_ALIGNMENT * WEIGHTS_OF_BLOCK + max(
        linear(hidden, patch_values(manifest)) + 4 * tower.num_position_embeddings * hidden,
        linear(4 * hidden + intermediate_size, hidden) + linear(hidden, intermediate_size) + 16 * hidden,
        linear(merged + tower.out_hidden_size, merged) + 8 * merged,
    )


def vision_buffer_bytes(manifest: Manifest, threads: int) -> int:
    """Bytes of what the threads compute in."""
    tower = manifest.model.vision
    merged = tower.hidden_size * tower.spatial_merge_size**2
    scratch = merged + attention_values(tower.hidden_size // tower.num_heads, QUERIES_OF_TASK)
    return threads * up(4 * scratch, SECTION_BYTES)


def vision_memory_bytes(manifest: Manifest, intermediate_size: int, patches: int) -> int:
    """Bytes of the memory that a picture goes through the tower in."""
    hidden = manifest.model.vision.hidden_size
    rows = patches * _row_bytes(manifest, intermediate_size)
    floats = 4 * patches * max(3 * hidden, intermediate_size)
    return up(rows, SECTION_BYTES) + up(floats, SECTION_BYTES)


def vision_patch_bytes(manifest: Manifest, intermediate_size: int) -> int:
    """Bytes for each patch of a picture while it is encoded, without its pixels."""
    tower = manifest.model.vision
    hidden = tower.hidden_size
    features = (1 + len(tower.deepstack_visual_indexes)) * tower.out_hidden_size
    values = hidden + max(3 * hidden, intermediate_size) + hidden // tower.num_heads + 2 * CORNERS
    return _row_bytes(manifest, intermediate_size) + 4 * (values + -(-features // tower.spatial_merge_size**2))


def _row_bytes(manifest: Manifest, intermediate_size: int) -> int:
    tower, precision = manifest.model.vision, manifest.quantization.vision
    merge = tower.spatial_merge_size**2
    inputs = (patch_values(manifest), tower.hidden_size, intermediate_size)
    return max(
        *(row_bytes(each, precision) for each in inputs), row_bytes(tower.hidden_size * merge, precision) // merge + 1
    )
