import threading
from datetime import datetime, timezone

import numpy as np
from moedge_runtime.camera import Frame, LatestFrame


def frame(index: int) -> Frame:
    return Frame(np.zeros((1, 1, 3), np.uint8), datetime.now(timezone.utc), 0.0, index, float(index))


def test_the_newest_frame_wins_and_the_others_are_counted() -> None:
    slot = LatestFrame()
    for index in range(5):
        slot.put(frame(index))
    taken = slot.take(0)
    assert taken is not None
    assert taken.index == 4
    assert slot.dropped == 4
    assert slot.take(0) is None, "a frame is taken once"


def test_peeking_does_not_take() -> None:
    slot = LatestFrame()
    assert slot.peek() is None
    slot.put(frame(1))
    assert slot.peek() is slot.peek() is slot.take(0)
    assert slot.peek() is not None, "the newest frame stays for requests"


def test_a_waiting_consumer_gets_the_next_frame() -> None:
    slot = LatestFrame()
    taken: list[Frame | None] = []
    thread = threading.Thread(target=lambda: taken.append(slot.take(10)))
    thread.start()
    slot.put(frame(7))
    thread.join(10)
    assert [item.index for item in taken if item] == [7]


def test_close_ends_the_wait_but_gives_the_last_frame() -> None:
    slot = LatestFrame()
    slot.put(frame(1))
    slot.close()
    assert slot.take() is not None
    assert slot.take() is None
