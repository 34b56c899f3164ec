"""Packets are their own numbers; the decoder gives a picture for each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moedge_runtime.camera import decode_plan
from moedge_runtime.camera.decode_plan import DecodePlan


def play(
    plan: DecodePlan[int],
    *,
    seconds: float,
    rate: int = 25,
    keys_s: float,
    first: int = 0,
    delay_s: Callable[[float], float] = lambda at_s: 0.0,
    waited_s: float = 0.04,
) -> tuple[list[int], list[int]]:
    """Numbers of the packets that were decoded, and of those whose picture was given."""
    decoded: list[int] = []
    given_numbers: list[int] = []
    for number in range(first, first + round(seconds * rate)):
        at_s = number / rate
        now_s = 100.0 + at_s + delay_s(at_s)
        todo = plan.add(
            number,
            key=number % round(keys_s * rate) == 0,
            size_bytes=10,
            pts_s=at_s,
            waited_s=waited_s,
            now_s=now_s,
        )
        decoded += todo.packets
        if todo.give and todo.packets:
            plan.gave(now_s)
            given_numbers.append(number)
    return decoded, given_numbers


def test_only_key_frames_are_decoded_if_they_come_often_enough() -> None:
    decoded, given_numbers = play(DecodePlan(1.0), seconds=20, keys_s=1.0)
    assert decoded == given_numbers == list(range(0, 500, 25))


def test_only_every_second_key_frame_is_decoded_if_half_as_many_frames_are_wanted() -> None:
    decoded, given_numbers = play(DecodePlan(0.5), seconds=20, keys_s=1.0)
    assert decoded == given_numbers == list(range(0, 500, 50))


@pytest.mark.parametrize("jitter_s", [0.02, 0.1])
def test_key_frames_that_come_a_little_early_or_late_are_still_the_ones(jitter_s: float) -> None:
    delays = [0.0, jitter_s, 0.0, -jitter_s / 2, jitter_s]
    decoded, _ = play(DecodePlan(1.0), seconds=20, keys_s=1.0, delay_s=lambda at_s: delays[int(at_s) % 5])
    keys = [number for number in decoded if number % 25 == 0]
    assert len(keys) >= 19
    assert len(decoded) - len(keys) <= 3


def test_with_rare_key_frames_the_rate_is_kept_by_decoding_up_to_the_due_frame_and_no_further() -> None:
    decoded, given_numbers = play(DecodePlan(1.0), seconds=20, keys_s=4.0)
    assert given_numbers == list(range(0, 500, 25))
    assert decoded == [number for number in range(500) if number % 100 <= 75]


def test_every_frame_means_every_frame() -> None:
    decoded, given_numbers = play(DecodePlan(None), seconds=4, keys_s=2.0)
    assert decoded == given_numbers == list(range(100))


@given(
    fps=st.sampled_from([0.2, 1.0, 3.0, 7.0]), keys_s=st.sampled_from([0.4, 1.0, 2.0, 6.0]), first=st.integers(0, 149)
)
def test_a_decoder_gets_each_group_from_its_key_frame_on_without_a_gap(fps: float, keys_s: float, first: int) -> None:
    decoded, given_numbers = play(DecodePlan(fps), seconds=30, keys_s=keys_s, first=first)
    group = round(keys_s * 25)
    for before, number in zip([None, *decoded], decoded, strict=False):
        assert number % group == 0 or before == number - 1
    assert len(given_numbers) <= 30 * fps + 2
    assert len(given_numbers) >= 30 * min(fps, 1 / keys_s) / 2 - 2


def test_nothing_before_the_first_key_frame_is_decoded_after_a_join_in_the_middle() -> None:
    decoded, given_numbers = play(DecodePlan(1.0), seconds=4, keys_s=2.0, first=30)
    assert decoded[0] == given_numbers[0] == 50


def test_a_decoder_that_holds_pictures_back_gets_more_until_one_comes() -> None:
    plan: DecodePlan[int] = DecodePlan(1.0)
    play(plan, seconds=3, keys_s=1.0)

    def decoded(number: int) -> list[int]:
        todo = plan.add(number, key=number == 75, size_bytes=1, pts_s=None, waited_s=0.04, now_s=100.0 + number / 25)
        return list(todo.packets)

    assert [decoded(number) for number in range(75, 79)] == [[75], [76], [77], [78]]
    plan.gave(100.0 + 78 / 25)
    assert decoded(79) == []


def test_after_a_damaged_packet_everything_waits_for_the_next_key_frame() -> None:
    plan: DecodePlan[int] = DecodePlan(None)
    play(plan, seconds=0.2, keys_s=1.0)
    plan.lost()
    decoded, _ = play(plan, seconds=2, keys_s=1.0, first=5)
    assert decoded[0] == 25


def test_packets_that_nobody_wants_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_plan, "MAX_WAITING_BYTES", 200)
    plan: DecodePlan[int] = DecodePlan(0.01)
    decoded, given_numbers = play(plan, seconds=8, keys_s=10.0)
    assert given_numbers == [0]
    assert decoded == list(range(len(decoded)))
    assert len(decoded) > 150


def test_what_is_there_at_the_start_does_not_lag() -> None:
    decoded, _ = play(DecodePlan(None), seconds=1, keys_s=1.0, waited_s=0.0)
    assert decoded == list(range(25))


def test_a_reader_that_lags_first_catches_up() -> None:
    plan: DecodePlan[int] = DecodePlan(5.0)
    play(plan, seconds=2, keys_s=1.0)
    decoded, _ = play(plan, seconds=2, keys_s=1.0, first=50, delay_s=lambda at_s: 3.0, waited_s=0.0)
    assert decoded == []
    decoded, _ = play(plan, seconds=2, keys_s=1.0, first=100)
    assert decoded[0] == 100


@pytest.mark.parametrize("delay_s", [lambda at_s: at_s * 0.3, lambda at_s: 3600.0 * (at_s > 5)])
def test_a_camera_that_is_slower_than_its_own_clock_or_sets_it_does_not_lag(
    delay_s: Callable[[float], float],
) -> None:
    _, given_numbers = play(DecodePlan(1.0), seconds=20, keys_s=1.0, delay_s=delay_s)
    assert len(given_numbers) >= 19
