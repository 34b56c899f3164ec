from __future__ import annotations

from expert_core.conductor import limit_seconds


def test_a_pass_that_misses_much_is_limited_by_the_flash() -> None:
    assert limit_seconds(4_000, [1_000, 1_000], resident_s=3.0) == 4.0


def test_a_pass_that_misses_little_is_limited_by_its_computation() -> None:
    assert limit_seconds(2_000, [1_000, 1_000], resident_s=3.0) == 3.0
    assert limit_seconds(0, [1_000, 1_000], resident_s=3.0) == 3.0


def test_of_two_speeds_of_the_flash_the_mean_of_their_times_counts() -> None:
    assert limit_seconds(4_000, [1_000, 4_000], resident_s=0.0) == 2.5
