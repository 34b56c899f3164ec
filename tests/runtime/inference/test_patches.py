import numpy as np
import pytest
from moedge_runtime.inference.patches import PatchPlaces


def test_patches_come_merge_block_by_merge_block_frame_by_frame():
    places = PatchPlaces.of((2, 4, 6), 2)
    assert len(places.rows) == 48
    assert list(zip(places.rows[:6], places.columns[:6], strict=True)) == [
        (0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3),
    ]  # fmt: skip
    assert (places.rows[12], places.columns[12]) == (2, 0)
    np.testing.assert_array_equal(places.rows[:24], places.rows[24:])
    np.testing.assert_array_equal(places.columns[:24], places.columns[24:])


@pytest.mark.parametrize("grid", [(1, 2, 2), (1, 6, 4), (1, 2, 50)])
def test_positions_are_those_of_transformers(grid):
    torch = pytest.importorskip("torch")
    from transformers import vision_utils

    places, side = PatchPlaces.of(grid, 2), 7
    indices, shares = places.corners(side)
    wanted_indices, wanted_shares = vision_utils.get_vision_interpolation_indices_and_weights(
        torch.tensor([grid]), side, align_corners=True, spatial_merge_size=2
    )
    table = np.random.default_rng(0).standard_normal((side * side, 5), np.float32)

    def blended(corners, weights):
        return (table[corners] * weights[..., None]).sum(1)

    np.testing.assert_allclose(
        blended(indices, shares), blended(wanted_indices.numpy(), wanted_shares.numpy()), atol=1e-6
    )
    rows_columns = vision_utils.get_vision_position_ids(torch.tensor([grid]), 2).numpy()
    np.testing.assert_array_equal(np.stack([places.rows, places.columns], axis=1), rows_columns)
