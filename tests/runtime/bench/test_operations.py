"""Operations of a frame, counted by hand for one shape."""

from __future__ import annotations

import pytest
from moedge_devices.plan.models import known_models, planned_manifest
from moedge_runtime.bench.operations import (
    dense_token_operations,
    expert_operations,
    head_weights,
    layer_operations,
    layer_weights,
    vision_operations,
    weight_bytes,
)
from moedge_runtime.bundle import Precision

SHAPE = known_models()["qwen3-vl-30b-a3b"]
ATTENTION = 48 * 2048 * 128 * (2 * 32 + 2 * 4)
HEAD = 151936 * 2048


@pytest.mark.parametrize("precision", ["int4", "int8", "fp32"])
def test_weights_follow_from_the_sizes_of_files_in_every_precision(precision: str) -> None:
    manifest = planned_manifest(SHAPE, precision)
    assert layer_weights(manifest) == pytest.approx(ATTENTION, rel=0.07)  # routers are float32, and there once more
    assert head_weights(manifest) == pytest.approx(HEAD, rel=0.001)


def test_a_weight_has_its_bits_and_its_part_of_a_scale() -> None:
    assert weight_bytes(Precision(bits=32)) == 4
    assert weight_bytes(Precision(bits=4, block_size=32)) == 0.625
    assert weight_bytes(Precision(bits=8, block_size=128)) == 1.03125


def test_experts_are_three_matrices_for_each_pick() -> None:
    manifest = planned_manifest(SHAPE, "int4")
    assert expert_operations(manifest, 220) == 220 * 48 * 8 * 3 * 2048 * 768 * 2


def test_layers_grow_with_tokens_and_attention_with_their_square() -> None:
    manifest = planned_manifest(SHAPE, "int4")
    attention = 2 * 220**2 * 32 * 128 * 48
    assert layer_operations(manifest, 220) == pytest.approx(220 * 2 * layer_weights(manifest) + attention)
    assert dense_token_operations(manifest) == pytest.approx(2 * (layer_weights(manifest) + head_weights(manifest)))


def test_the_vision_tower_sees_patches_in_its_blocks_and_merged_ones_in_its_mergers() -> None:
    manifest = planned_manifest(SHAPE, "int4")
    mergers = 4 * 4608 * (4608 + 2048)
    blocks = 27 * (4 * 1152**2 + 2 * 1152 * 4304)
    expected = 2 * (blocks * 880 + mergers * 220) + 4 * 880**2 * 1152 * 27
    assert vision_operations(manifest, 880) == pytest.approx(expected, rel=0.03)
