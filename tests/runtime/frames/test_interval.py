from hypothesis import given
from hypothesis import strategies as st
from moedge_runtime.frames.interval import Gap, Interval


@given(
    rate=st.sampled_from([1, 5, 10, 12.5, 15, 24, 25, 29.97, 30, 60]),
    interval=st.sampled_from([0.1, 0.5, 1, 2, 3, 5, 7.3]),
    start=st.sampled_from([0.0, 0.04, 1e5]),
)
def test_a_minute_of_video_has_the_same_number_of_answers_at_any_frame_rate(
    rate: float, interval: float, start: float
) -> None:
    if 1 / rate > interval:
        return
    timer = Interval(interval)
    due = sum(timer.due(start + index / rate) for index in range(round(60 * rate)))
    assert due == len([step for step in range(601) if step * interval < 60 - 1 / rate + 1e-6])


def test_a_minute_at_two_seconds_is_thirty() -> None:
    timer = Interval(2.0)
    assert sum(timer.due(index / 25) for index in range(1500)) == 30


def test_a_gap_in_the_frames_does_not_shift_the_grid() -> None:
    timer = Interval(1.0)
    assert [time for time in (0.0, 0.5, 1.0, 3.4, 3.9, 4.0, 4.5, 5.0) if timer.due(time)] == [0.0, 1.0, 3.4, 4.0, 5.0]


def test_an_interval_of_zero_is_every_frame() -> None:
    timer = Interval(0.0)
    assert all(timer.due(time) for time in (0.0, 0.0, 0.01))


def test_a_gap_is_counted_from_the_last_question() -> None:
    gap = Gap(5.0)
    assert [time for time in (0.0, 3.0, 23.4, 25.0, 28.3, 28.4) if gap.due(time)] == [0.0, 23.4, 28.4]


def test_what_is_left_of_a_gap_outlives_a_reconnect() -> None:
    gap = Gap(5.0)
    assert gap.due(100.0)
    assert not gap.due(102.0)
    gap.reopened()
    assert [time for time in (0.0, 2.9, 3.0) if gap.due(time)] == [3.0]
