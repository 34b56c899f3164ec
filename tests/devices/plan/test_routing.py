"""The assumptions about routing, beside what they are to follow and what was measured under them."""

from __future__ import annotations

import pytest
from moedge_devices.plan.calibration import Routing
from moedge_devices.plan.models import known_models, planned_manifest
from moedge_devices.plan.prediction import resident_experts
from moedge_devices.plan.routing import missed_by_token, missed_in_prefill, needed_experts, tokens_that_need

ROUTINGS: tuple[Routing, ...] = ("skewed", "uniform")


def test_skewed_routing_follows_the_public_trace() -> None:
    """26 experts of 128 cover 80 % of a layer's picks and 36 cover 90 %; 220 tokens need 105."""
    assert 1 - missed_by_token(128, 8, 26, "skewed") / 8 == pytest.approx(0.80, abs=0.03)
    assert 1 - missed_by_token(128, 8, 36, "skewed") / 8 == pytest.approx(0.90, abs=0.05)
    assert needed_experts(128, 8, 220, "skewed") == pytest.approx(105, rel=0.04)


@pytest.mark.parametrize(("routing", "prefill_gb", "token_gb"), [("skewed", 8.6, 0.107), ("uniform", 11.0, 0.70)])
def test_missed_bytes_are_those_of_the_paging_benchmark(routing: Routing, prefill_gb: float, token_gb: float) -> None:
    """docs/performance.md, "Paging": 5 GiB for experts, a prefill of 220 tokens, measured with a ring that held sixteen
    more. What a skewed token missed there, 0.116 GB, is 1.08 times the ideal: calibration.yaml has that."""
    manifest = planned_manifest(known_models()["qwen3-vl-30b-a3b"], "int4")
    assert manifest.experts is not None
    layer_bytes = 48 * manifest.experts.record_bytes
    resident = resident_experts(manifest, 5 << 30) + 16 / 48
    assert missed_in_prefill(128, 8, 220, resident, routing) * layer_bytes == pytest.approx(prefill_gb * 1e9, rel=0.02)
    assert missed_by_token(128, 8, resident, routing) * layer_bytes == pytest.approx(token_gb * 1e9, rel=0.02)


@pytest.mark.parametrize("routing", ROUTINGS)
def test_more_memory_never_misses_more_and_all_experts_miss_nothing(routing: Routing) -> None:
    prefills = [missed_in_prefill(128, 8, 220, resident, routing) for resident in range(129)]
    tokens = [missed_by_token(128, 8, resident, routing) for resident in range(129)]
    assert prefills == sorted(prefills, reverse=True)
    assert tokens == sorted(tokens, reverse=True)
    assert tokens[0] == pytest.approx(8)
    assert prefills[-1] == pytest.approx(0, abs=1e-9)
    assert tokens[-1] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("routing", ROUTINGS)
def test_one_token_needs_as_many_experts_as_it_is_routed_to(routing: Routing) -> None:
    assert needed_experts(128, 8, 1, routing) == pytest.approx(8)
    assert needed_experts(16, 4, 100_000, routing) == pytest.approx(16, abs=0.01)


def test_without_room_beyond_the_ring_nothing_stays() -> None:
    manifest = planned_manifest(known_models()["qwen3-vl-30b-a3b"], "int4")
    assert resident_experts(manifest, 64 << 20) == 0
    assert resident_experts(manifest, 40 << 30) == 128


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("needed", [8.0, 8.5, 60.0, 127.0])
def test_tokens_that_need_so_many_experts_are_found(routing: Routing, needed: float) -> None:
    tokens = tokens_that_need(128, 8, needed, routing)
    assert needed_experts(128, 8, tokens, routing) == pytest.approx(needed, rel=1e-6)


def test_tokens_that_need_every_expert_are_very_many() -> None:
    assert needed_experts(128, 8, tokens_that_need(128, 8, 128.0, "skewed"), "skewed") > 127.5
