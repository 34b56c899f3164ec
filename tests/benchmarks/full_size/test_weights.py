"""Synthetic weights are those of the published model in all but their values, and the same however they are read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from full_size.architecture import model_config, write_files
from full_size.shards import write_shards
from full_size.weights import SyntheticWeights
from moedge_export.architecture import Architecture
from moedge_export.checkpoint import check_tensors, read_config
from moedge_export.safetensors_reader import SafetensorsReader
from moedge_export.tasks import architecture_of

LAYER = "model.language_model.layers.0"
ROUTER, GATE_UP, Q_PROJ = (
    f"{LAYER}.mlp.gate.weight",
    f"{LAYER}.mlp.experts.gate_up_proj",
    f"{LAYER}.self_attn.q_proj.weight",
)


@pytest.fixture(scope="module")
def architecture(tmp_path_factory: pytest.TempPathFactory) -> Architecture:
    """One decoder layer of the true width."""
    folder = tmp_path_factory.mktemp("synthetic")
    (folder / "any.json").write_text("{}")
    write_files(folder / "model", model_config(1, 2), folder / "any.json")
    found: Architecture = architecture_of(read_config(folder / "model"))
    return found


def test_every_tensor_is_there_as_on_the_hub(architecture: Architecture) -> None:
    weights = SyntheticWeights(architecture)
    check_tensors(weights, architecture)
    assert weights.shape(GATE_UP) == (128, 2048, 1536)  # inputs before outputs
    assert weights.rows(GATE_UP, 3, 4).shape == (1, 2048, 1536)
    assert weights.shape("lm_head.weight") == (151936, 2048)
    assert weights.dtype(Q_PROJ) == "BF16" and weights.rows(Q_PROJ, 0, 1).dtype is torch.bfloat16


@pytest.mark.parametrize("name", [GATE_UP, ROUTER, Q_PROJ])
def test_pieces_are_the_same_whoever_reads_them_in_which_size(name: str, architecture: Architecture) -> None:
    whole = SyntheticWeights(architecture, seed=1).rows(name, 4, 8)
    pieces = [SyntheticWeights(architecture, seed=1).rows(name, row, row + 1) for row in (7, 4, 6, 5)]
    assert torch.equal(whole, torch.cat([pieces[1], pieces[3], pieces[2], pieces[0]]))
    assert not torch.equal(whole, SyntheticWeights(architecture, seed=2).rows(name, 4, 8))


@pytest.mark.parametrize(("skew", "fewest", "most"), [(0.0, 70, 128), (1.7, 18, 36)])
def test_routing_follows_the_public_trace_or_is_uniform(
    skew: float, fewest: int, most: int, architecture: Architecture
) -> None:
    """There 26 of 128 experts have 80 % of a layer's picks."""
    weights = SyntheticWeights(architecture, skew)
    hidden = weights.rows("model.language_model.embed_tokens.weight", 0, 4000).float()
    hidden /= hidden.pow(2).mean(-1, keepdim=True).sqrt()
    picks = (hidden @ weights.rows(ROUTER, 0, 128).float().T).topk(8).indices
    counts = torch.bincount(picks.flatten(), minlength=128).sort(descending=True).values
    needed = int((counts.cumsum(0) < 0.8 * counts.sum()).sum()) + 1
    assert fewest <= needed <= most
    assert (picks[:-1] != picks[1:]).any(-1).float().mean() > 0.9  # it depends on the token


def test_shards_hold_the_same_bytes(architecture: Architecture, tmp_path: Path) -> None:
    weights, names = SyntheticWeights(architecture), [ROUTER, Q_PROJ, f"{LAYER}.self_attn.k_proj.weight"]
    assert write_shards(weights, names, tmp_path, shard_bytes=1_000_000) == sum(
        2 * shape[0] * shape[1] for name in names if (shape := weights.shape(name)) is not None
    )
    assert len(list(tmp_path.glob("model-0000?-of-00002.safetensors"))) == 2
    reader = SafetensorsReader(tmp_path)
    for name in names:
        assert torch.equal(reader.rows(name, 100, 104), weights.rows(name, 100, 104))
    reader.close()
