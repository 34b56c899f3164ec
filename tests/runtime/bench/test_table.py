import pytest
from moedge_runtime.bench.frame import FrameMeasurement, Share
from moedge_runtime.bench.limits import Bandwidths
from moedge_runtime.bench.rounds import FRAMES, Round
from moedge_runtime.bench.table import figures, frame_figures, text_table

SPEEDS = Bandwidths(memory=10e9, flash=1e9)
TOKEN_BYTES = 1_000_000_000  # 0.1 s at SPEEDS


def frame(prefill_s: float = 3.0, wait_s: float = 1.0, missed: float = 2.5e9, tokens: int = 12) -> FrameMeasurement:
    decode = [Share(0.2 if index < 10 else 0.4, 0.0, 1000 * (index + 1), 0.0) for index in range(tokens)]
    return FrameMeasurement(226, 220, 0.1, 0.5, Share(prefill_s, wait_s, 3_000_000_000, missed), decode, [7], 60.0)


def test_the_time_to_the_first_token_is_the_sum_of_its_parts() -> None:
    part = frame_figures("cold frame", [(frame(), SPEEDS)], TOKEN_BYTES)
    parts = part.preprocess_s + part.vision_s + part.prefill_compute_s + part.flash_wait_s
    assert part.first_token_s == pytest.approx(parts) == pytest.approx(3.6)


def test_a_prefill_is_compared_with_the_flash_or_with_its_own_computing() -> None:
    assert frame_figures("x", [(frame(), SPEEDS)], TOKEN_BYTES).prefill_limit_s == 2.5
    assert frame_figures("x", [(frame(missed=0), SPEEDS)], TOKEN_BYTES).prefill_limit_s == 2.0


def test_a_prefill_measured_with_everything_in_memory_takes_the_place_of_its_own_computing() -> None:
    assert frame_figures("x", [(frame(missed=0), SPEEDS)], TOKEN_BYTES, resident_s=1.5).prefill_limit_s == 1.5


def test_windows_are_of_one_token_and_use_its_own_tokens_only() -> None:
    early, late = frame_figures("x", [(frame(), SPEEDS)], TOKEN_BYTES).decode
    assert (early.first, early.last, late.first, late.last) == (1, 10, 11, 12)
    assert (early.seconds, late.seconds) == (pytest.approx(0.2), pytest.approx(0.4))
    assert (early.read_bytes, late.read_bytes) == (5500, 11500)
    assert early.limit_s == pytest.approx(0.1)


def test_a_round_that_ended_early_does_not_shorten_the_windows_of_the_others() -> None:
    decode = frame_figures("x", [(frame(tokens=12), SPEEDS), (frame(tokens=4), SPEEDS)], TOKEN_BYTES).decode
    assert [(window.first, window.last) for window in decode] == [(1, 10), (11, 12)]
    assert decode[0].seconds == pytest.approx(0.2)


def test_figures_are_medians_of_the_rounds() -> None:
    rounds = [
        Round(load, [frame(prefill_s) for _ in FRAMES], SPEEDS, "memory")
        for load, prefill_s in ((5, 3), (6, 9), (9, 4))
    ]
    result = figures("b", rounds, TOKEN_BYTES, about="here", pause_s=0, peak_bytes=1 << 30, group_peak_bytes=None)
    assert result.load_s == 6
    assert result.frames[0].prefill_compute_s == 3.0


def test_the_table_shows_a_limit_beside_every_figure_that_has_one_and_a_dash_for_what_is_not_counted() -> None:
    uncounted = Share(0.2, 0.0, None, 0.0)
    unknown = FrameMeasurement(226, 220, 0.1, 0.5, Share(3.0, 1.0, None, 2.5e9), [uncounted] * 2, [], 60.0)
    rounds = [Round(5, [unknown] * 3, SPEEDS, "memory 8.00 GiB")]
    measured = figures(
        "b", rounds, TOKEN_BYTES, about="a board, today", pause_s=2.5, peak_bytes=1 << 30, group_peak_bytes=2 << 30
    )
    table = text_table(measured)
    lines = {line[:38].strip(): line[38:].split() for line in table.splitlines()}
    assert "2.50 s (1.20×)" in table
    assert "100.0 ms (2.00×)" in table
    assert lines["read up to the first token"] == ["–"] * 3
    assert "of its control group 2,048 MiB" in table
    assert lines["prefill, tokens a second"] == ["75.3"] * 3
    assert lines["tokens a second"] == ["5"] * 3
    assert "median of 1, 2.5 s idle before each frame\nmemory 8.00 GiB\na board, today\n" in table
