"""The native core's vision tower gives the graph's features in float32, and what it could lose would show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export.conftest import Exporter
from export.random_checkpoint import SHAPES, save_random_checkpoint
from moedge_export.reference import ReferenceModel
from moedge_runtime.bundle import Bundle
from moedge_runtime.inference.expert_core.vision import NativeVision
from moedge_runtime.inference.image_processor import ProcessedImage

TOLERANCE = 1e-5
"""Of the root mean square of the features."""

MERGED_GRIDS = ((1, 1, 1), (1, 4, 9), (3, 2, 3), (1, 17, 8))
"""Frames, and image tokens along each side."""


def pictures(bundle: Bundle) -> list[ProcessedImage]:
    vision, random = bundle.manifest.model.vision, np.random.default_rng(1)
    values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    merge = vision.spatial_merge_size
    grids = [(frames, height * merge, width * merge) for frames, height, width in MERGED_GRIDS]
    return [ProcessedImage(random.standard_normal((int(np.prod(grid)), values), np.float32), grid) for grid in grids]


def difference(native: Bundle, reference: Bundle) -> float:
    images = pictures(reference)
    model = ReferenceModel(reference)
    wanted = [model.picture_features(image.pixel_values, image.grid_thw) for image in images]
    got = NativeVision(native, threads=2).encode(images)
    pairs = [(got.image, np.concatenate([features for features, _ in wanted]))]
    if reference.manifest.model.vision.deepstack_visual_indexes:
        pairs.append((got.deepstack, np.concatenate([stack for _, stack in wanted], axis=1)))
    else:
        assert got.deepstack.shape == (0, *got.image.shape)
    return max(float(np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2))) for a, b in pairs)


@pytest.mark.parametrize("shape", SHAPES)
def test_native_vision_has_the_graphs_features(shape: str, tmp_path: Path, export: Exporter) -> None:
    save_random_checkpoint(tmp_path / "checkpoint", SHAPES[shape])
    bundle = export(tmp_path / "checkpoint", precision="fp32")
    assert difference(bundle, bundle) <= TOLERANCE


def renamed(bundle: Bundle, one: str, other: str) -> Bundle:
    names = {one: other, other: one}
    graph = bundle.manifest.graphs.vision
    places = [
        place.model_copy(update={"name": names.get(place.name, place.name)}) for place in bundle.manifest.weights[graph]
    ]
    return Bundle(bundle.path, bundle.manifest.model_copy(update={"weights": {graph: places}}))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("blocks.0.norm1.weight", "blocks.0.norm2.weight"),
        ("blocks.1.attn.proj.bias", "blocks.1.mlp.linear_fc2.bias"),
        ("deepstack_merger_list.0.linear_fc1.bias", "deepstack_merger_list.1.linear_fc1.bias"),
        ("merger.norm.weight", "merger.norm.bias"),
    ],
)
def test_the_parity_check_rejects_exchanged_weights(
    one: str, other: str, checkpoint: tuple[Path, Any], export: Exporter
) -> None:
    bundle = export(checkpoint[0], precision="fp32")
    assert difference(renamed(bundle, one, other), bundle) > 5 * TOLERANCE


@pytest.mark.parametrize("changed", [{"gelu": "none"}, {"rope_theta": 9000.0}, {"deepstack_mergers": [1, 0]}])
def test_the_parity_check_rejects_another_tower(
    changed: dict[str, Any], checkpoint: tuple[Path, Any], export: Exporter
) -> None:
    bundle = export(checkpoint[0], precision="fp32")
    assert bundle.manifest.vision_tower is not None
    tower = bundle.manifest.vision_tower.model_copy(update=changed)
    other = Bundle(bundle.path, bundle.manifest.model_copy(update={"vision_tower": tower}))
    assert difference(other, bundle) > 5 * TOLERANCE
