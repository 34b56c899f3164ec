import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from moedge_runtime.inference.positions import RotaryTable, image_tokens, mrope_positions

IMAGE = 999


def mixes():
    """Texts and images in many orders: (tokens, grids)."""
    rng = np.random.default_rng(0)
    for count in range(5):
        for _ in range(12):
            tokens: list[int] = rng.integers(0, 900, rng.integers(1, 9)).tolist()
            grids = []
            for _ in range(count):
                grid = (1, int(rng.integers(1, 9)) * 2, int(rng.integers(1, 9)) * 2)
                grids.append(grid)
                tokens += [IMAGE] * image_tokens(grid, 2)
                tokens += rng.integers(0, 900, rng.integers(1, 6)).tolist()
            yield tokens, grids


def transformers_positions(tokens, grids):
    import torch
    from transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe import Qwen3VLMoeModel

    model = SimpleNamespace(config=SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2)))
    model.get_vision_position_ids = lambda *a, **k: Qwen3VLMoeModel.get_vision_position_ids(model, *a, **k)
    ids = torch.tensor([tokens])
    positions, delta = Qwen3VLMoeModel.get_rope_index(
        model,
        ids,
        mm_token_type_ids=(ids == IMAGE).int(),
        image_grid_thw=torch.tensor(grids) if grids else None,
    )
    return positions[:, 0].numpy(), int(delta)


def test_positions_equal_transformers_for_60_mixes_of_text_and_images():
    for tokens, grids in mixes():
        wanted, delta = transformers_positions(tokens, grids)
        got = mrope_positions(tokens, IMAGE, grids, 2)
        np.testing.assert_array_equal(got, wanted)
        assert got.max() + 1 == len(tokens) + delta  # where decoding goes on


def test_text_before_the_first_image_has_its_index_as_position():
    tokens = [1, 2, 3, *[IMAGE] * 6, 4]
    np.testing.assert_array_equal(mrope_positions(tokens, IMAGE, [(1, 4, 6)], 2)[:, :3], [[0, 1, 2]] * 3)


@pytest.mark.parametrize("head_dim, theta, section", [(128, 5e6, (24, 20, 20)), (32, 1e4, (6, 5, 5))])
def test_cosines_and_sines_equal_transformers(head_dim, theta, section):
    import torch
    from transformers import Qwen3VLMoeTextConfig
    from transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe import Qwen3VLMoeTextRotaryEmbedding

    config = Qwen3VLMoeTextConfig(
        head_dim=head_dim,
        rope_parameters={"rope_type": "default", "rope_theta": theta, "mrope_section": list(section)},
    )
    rng = np.random.default_rng(0)
    positions = rng.integers(0, 4096, (3, 50))
    reference = Qwen3VLMoeTextRotaryEmbedding(config)(torch.zeros(1), torch.from_numpy(positions)[:, None])
    got = RotaryTable(head_dim, theta, section).cos_sin(positions)
    for mine, theirs in zip(got, reference, strict=True):
        first, second = np.split(theirs[0].numpy(), 2, axis=-1)
        np.testing.assert_array_equal(first, second)
        assert mine.dtype == np.float32
        np.testing.assert_allclose(mine, first, atol=5e-4)


def test_every_axis_moves_some_frequency_of_its_own():
    table = RotaryTable(128, 5e6, (24, 20, 20))
    changed = []
    for axis in range(3):
        positions = np.zeros((3, 1), np.int64)
        positions[axis] = 100
        changed.append(set(np.flatnonzero(table.cos_sin(positions)[1][0])))
    assert all(not (a & b) for a, b in itertools.combinations(changed, 2))
    assert [len(frequencies) for frequencies in changed] == [24, 20, 20]
