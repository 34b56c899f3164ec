from hypothesis import given
from hypothesis import strategies as st
from moedge_runtime.mqtt.backoff import Backoff
from moedge_runtime.mqtt.message import Message
from moedge_runtime.mqtt.outbox import Outbox


def answer(number: int) -> Message:
    return Message("answer", str(number).encode())


def state(topic: str, value: str) -> Message:
    return Message(topic, value.encode(), retain=True)


def drained(outbox: Outbox) -> list[str]:
    result = []
    while (entry := outbox.next()) is not None:
        result.append(f"{entry.message.topic}={entry.message.payload.decode()}")
    return result


def test_a_new_connection_gets_the_newest_states_first_and_then_what_waited_in_order() -> None:
    outbox = Outbox()
    outbox.add(state("info", "i"))
    outbox.add(state("camera", "offline"))
    outbox.add(answer(1))
    outbox.add(state("camera", "online"))
    outbox.add(answer(2))
    outbox.restart()
    assert drained(outbox) == ["info=i", "camera=online", "answer=1", "answer=2"]


def test_what_was_sent_without_acknowledgement_is_sent_again_before_the_rest() -> None:
    outbox = Outbox()
    for number in range(4):
        outbox.add(answer(number))
    for number in range(2):
        entry = outbox.next()
        assert entry is not None
        outbox.sent(number + 100, entry)
    assert outbox.delivered(100) is not None
    assert outbox.delivered(100) is None, "an acknowledgement counts once"
    outbox.restart()
    assert drained(outbox) == ["answer=1", "answer=2", "answer=3"]


def test_beyond_the_limit_the_oldest_answer_is_dropped_and_no_state() -> None:
    outbox = Outbox(limit=3)
    outbox.add(state("info", "i"))
    for number in range(5):
        outbox.add(answer(number))
    assert outbox.dropped == 2
    assert len(outbox) == 3
    outbox.restart()
    assert drained(outbox) == ["info=i", "answer=2", "answer=3", "answer=4"]


@given(st.lists(st.sampled_from(["answer", "state", "send", "acknowledge", "reconnect"]), max_size=60))
def test_no_answer_is_lost_and_the_count_is_right(actions: list[str]) -> None:
    outbox, added, delivered, number, open_numbers = Outbox(), 0, 0, 0, []
    for action in actions:
        if action == "answer":
            outbox.add(answer(added))
            added += 1
        elif action == "state":
            outbox.add(state("s", str(added)))
        elif action == "send" and (entry := outbox.next()) is not None:
            number += 1
            outbox.sent(number, entry)
            open_numbers.append(number)
        elif action == "acknowledge" and open_numbers:
            entry = outbox.delivered(open_numbers.pop(0))
            delivered += entry is not None and not entry.message.retain
        elif action == "reconnect":
            outbox.restart()
            open_numbers.clear()
        assert len(outbox) == added - delivered


def test_delays_double_up_to_the_cap_and_begin_again_after_success() -> None:
    backoff = Backoff(1.0, 5.0)
    for expected in (1, 2, 4, 5, 5):
        assert 0.8 * expected <= backoff.next_s() <= expected
    backoff.reset()
    assert backoff.next_s() <= 1.0
