"""Verdicts, their reasons, and what makes them better."""

from __future__ import annotations

import pytest
from devices.plan.samples import GIB, plan
from moedge_devices.plan.board_plan import SLOW_FIRST_TOKEN_S, VERDICTS
from moedge_runtime.errors import ConfigError


def test_a_model_that_does_not_fit_is_refused_with_the_numbers_of_the_memory_plan() -> None:
    refused = plan("orin-nano-8gb", memory_bytes=2 * GIB)
    assert refused.verdict == "refuse"
    assert refused.memory is None and refused.predictions == []
    assert "memory=2,048 MiB is too small for this model. Its parts take, in MiB" in refused.reasons[0]


def test_a_refused_model_is_shown_what_would_make_it_fit() -> None:
    remedies = {remedy.text: remedy.plan for remedy in plan("orin-nano-8gb", memory_bytes=2 * GIB).remedies}
    assert [text for text in remedies if text.startswith("--memory 5.6G")]
    assert all(better.verdict != "refuse" for better in remedies.values())


def test_a_slow_card_is_tight_and_the_faster_storage_of_the_board_is_proposed() -> None:
    tight = plan("orin-nano-8gb", storage="sd")
    assert tight.verdict == "tight"
    assert any(f"more than {SLOW_FIRST_TOKEN_S:.0f} (flash)" in reason for reason in tight.reasons)
    assert [remedy.text for remedy in tight.remedies] == ["--storage nvme (1.36 GB/s)"]
    assert tight.remedies[0].plan.verdict == "fits"


def test_a_budget_below_one_tokens_picks_is_tight() -> None:
    reasons = " ".join(plan("orin-nano-8gb", memory_bytes=7 * GIB // 2).reasons)
    assert "is below one token's picks (0.95 GiB): every token reads most of them again" in reasons
    assert "the vision tower is loaded for each picture" in reasons


def test_fewer_bits_are_proposed_where_they_help_and_not_where_they_are_used_already() -> None:
    tight = plan("raspberry-pi-5-16gb", "qwen3-vl-30b-a3b@fp32", storage="nvme-gen3")
    assert tight.verdict != "fits"
    assert any("--precision int4" in remedy.text for remedy in tight.remedies)
    texts = [remedy.text for remedy in plan("orin-nano-8gb", storage="sd").remedies]
    assert not any("--precision int4" in text for text in texts)


def test_a_smaller_context_is_proposed_where_it_is_what_lacks() -> None:
    tight = plan("orin-nano-8gb", memory_bytes=int(4.3 * GIB))
    assert tight.verdict == "tight"
    assert "--max-context 1024" in [remedy.text for remedy in tight.remedies]


def test_another_board_is_proposed_where_this_one_cannot_be_helped() -> None:
    tight = plan("generic-arm64", storage="nvme", routing="uniform")
    assert tight.verdict == "tight"
    titles = [remedy.text for remedy in tight.remedies]
    assert titles[0] == "a NVIDIA Jetson Orin Nano 8 GB with nvme"
    assert all(remedy.plan.setup.profile.family != "generic" for remedy in tight.remedies)


def test_every_remedy_has_a_better_verdict() -> None:
    for device in ("orin-nano-8gb", "raspberry-pi-5-8gb", "rk3588-16gb"):
        tight = plan(device, storage="sd")
        assert tight.remedies
        for remedy in tight.remedies:
            assert VERDICTS.index(remedy.plan.verdict) < VERDICTS.index(tight.verdict)


def test_what_fits_is_left_alone() -> None:
    fits = plan("agx-orin-64gb")
    assert (fits.verdict, fits.reasons, fits.remedies) == ("fits", [], [])
    assert [prediction.routing for prediction in fits.predictions] == ["skewed", "uniform"]


def test_the_verdict_is_about_the_routing_that_was_asked_for() -> None:
    assert plan("raspberry-pi-5-16gb", storage="nvme").verdict == "fits"
    assert plan("orin-nano-8gb", routing="uniform").predictions[0].routing == "uniform"


def test_memory_is_what_the_board_has_available_less_the_runtimes_reserve() -> None:
    planned = plan("raspberry-pi-5-8gb")
    assert planned.setup.total_bytes == pytest.approx(7.35 * GIB * 0.9, rel=0.001)
    assert planned.memory is not None and planned.memory.total == planned.setup.total_bytes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"storage": "tape"}, r"has no storage 'tape'\. Its profile knows nvme, sd"),
        ({"memory_bytes": 9 * GIB}, r"--memory 9\.00 GiB is more than 'orin-nano-8gb' has, 8 GiB"),
        ({"max_context": 300_000}, r"--max-context 300,000 is not possible: this model has 2 to 262,144"),
    ],
)
def test_what_the_board_or_the_model_does_not_have_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan("orin-nano-8gb", **changes)
