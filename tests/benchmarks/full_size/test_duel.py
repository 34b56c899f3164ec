import pytest
from full_size.duel import Duel
from full_size.systems import TextFrame
from moedge_runtime.bench.frame import FrameMeasurement, Share
from moedge_runtime.bench.limits import Bandwidths

SPEEDS = Bandwidths(memory=10e9, flash=1e9)


def ours(prefill_s: float, token_s: float, missed: float = 0) -> TextFrame:
    prefill, token = Share(prefill_s, prefill_s / 4, 0, missed), Share(token_s, 0, 0, missed / 10)
    detail = FrameMeasurement(220, 0, 0, 0, prefill, [token, token], [], 60.0)
    return TextFrame(220, prefill_s, 0, [token_s] * 2, [0] * 2, detail)


def theirs(prefill_s: float, token_s: float) -> TextFrame:
    return TextFrame(220, prefill_s, 0, [token_s] * 2, [0] * 2)


def test_ratios_are_of_frames_of_the_same_round() -> None:
    duel = Duel("peer", 8 << 30, [ours(2, 0.1), ours(4, 0.2)], [theirs(20, 3), theirs(20, 8)], [SPEEDS] * 2)
    assert duel.prefill_ratios() == [10, 5]
    assert duel.decode_ratios() == pytest.approx([30, 40])


def test_a_prefill_is_held_against_one_with_everything_in_memory_if_that_is_known() -> None:
    duel = Duel(None, 8 << 30, [ours(2, 0.1)], [], [SPEEDS])
    assert duel.prefill_over_limit(None) == pytest.approx([2 / 1.5])
    assert duel.prefill_over_limit(1.0) == [2.0]


def test_a_decoded_token_is_held_against_memory_or_against_what_it_missed() -> None:
    assert Duel(None, 1, [ours(2, 0.2)], [], [SPEEDS]).decode_over_limit(1_000_000_000) == pytest.approx([2.0])
    missing = Duel(None, 1, [ours(2, 0.4, missed=2e9)], [], [SPEEDS])
    assert missing.decode_over_limit(1_000_000_000) == pytest.approx([2.0])
