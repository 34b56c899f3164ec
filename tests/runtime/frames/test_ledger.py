import threading

from hypothesis import given
from hypothesis import strategies as st
from moedge_runtime.frames.ledger import FrameCounts, FrameLedger


def adds_up(counts: FrameCounts) -> bool:
    return (
        counts.seen == counts.skipped + counts.answered + counts.dropped + counts.waiting
        and sum(counts.reasons.values()) == counts.skipped + counts.dropped
    )


def test_a_frame_is_answered_if_one_of_its_questions_was() -> None:
    ledger = FrameLedger()
    ticket = ledger.begun(3)
    ledger.ended(ticket, "replaced")
    ledger.ended(ticket, None)
    assert ledger.counts() == FrameCounts(seen=1, waiting=1)
    ledger.ended(ticket, "stale")
    assert ledger.counts() == FrameCounts(seen=1, answered=1)


def test_a_dropped_frame_has_the_first_reason() -> None:
    ledger = FrameLedger()
    ticket = ledger.begun(2)
    ledger.skipped("no_motion")
    ledger.ended(ticket, "replaced")
    ledger.ended(ticket, "failed")
    assert ledger.counts() == FrameCounts(seen=2, skipped=1, dropped=1, reasons={"no_motion": 1, "replaced": 1})


@given(st.lists(st.lists(st.sampled_from([None, "replaced", "stale"]), max_size=3), max_size=30), st.randoms())
def test_the_counts_add_up_at_any_moment(frames: list[list[str | None]], random: object) -> None:
    ledger = FrameLedger()
    endings = []
    for outcomes in frames:
        if not outcomes:
            ledger.skipped("interval")
            continue
        ticket = ledger.begun(len(outcomes))
        endings += [(ticket, outcome) for outcome in outcomes]
    random.shuffle(endings)  # type: ignore[attr-defined]
    for ticket, outcome in endings:
        ledger.ended(ticket, outcome)
        assert adds_up(ledger.counts())
    counts = ledger.counts()
    assert counts.seen == len(frames)
    assert counts.answered == sum(None in outcomes for outcomes in frames)
    assert counts.waiting == 0


def test_the_counts_add_up_while_threads_count() -> None:
    ledger, stop = FrameLedger(), threading.Event()

    def work() -> None:
        while not stop.is_set():
            ledger.skipped("interval")
            ledger.ended(ledger.begun(1), None)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert all(adds_up(ledger.counts()) for _ in range(2000))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert adds_up(ledger.counts()) and ledger.counts().waiting == 0
