import threading

from hypothesis import given
from hypothesis import strategies as st
from moedge_runtime.camera.pacing import Pacer, Thinner


def test_without_a_rate_every_frame_is_kept() -> None:
    assert all(Thinner(None).keeps(time) for time in (0.0, 0.0, 0.1))


@given(rate=st.sampled_from([5, 10, 25, 30]), fps=st.sampled_from([0.5, 1, 2, 5]), seconds=st.integers(1, 60))
def test_a_thinner_never_gives_more_than_its_rate(rate: int, fps: float, seconds: int) -> None:
    thinner = Thinner(fps)
    kept = sum(thinner.keeps(index / rate) for index in range(rate * seconds))
    assert kept == -(-seconds * fps // 1)


def test_a_frame_that_is_long_overdue_is_left_out_in_real_time() -> None:
    pacer = Pacer(realtime=True, closed=threading.Event())
    assert pacer.due(100.0)
    assert not pacer.due(99.0)
    assert pacer.due(100.001)


def test_nothing_is_due_after_close() -> None:
    closed = threading.Event()
    closed.set()
    assert not Pacer(realtime=False, closed=closed).due(0.0)
