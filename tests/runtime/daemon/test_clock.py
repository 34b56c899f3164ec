"""The clock's state and identifiers."""

from __future__ import annotations

import gc

import pytest
from moedge_runtime.daemon.clock import Ulids, clock_synced


def test_asking_whether_the_clock_is_set_leaves_no_garbage() -> None:
    assert clock_synced() in (True, False, None)
    gc.collect()
    for _ in range(50):
        clock_synced()
    assert gc.collect() < 50, "less than one object for each question"


def test_identifiers_are_unique_and_sorted_even_if_the_clock_is_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter([2_000_000_000_000_000_000, 2_000_000_000_000_000_000, 1_000_000_000, 1_000_000_000])
    monkeypatch.setattr("time.time_ns", lambda: next(times))
    ulids = Ulids()
    made = [ulids.next() for _ in range(4)]
    assert made == sorted(set(made))
