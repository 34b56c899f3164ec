"""The spool on a real disk: order, bounds, damage, full and read-only file systems, clocks that jump, start-up."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moedge_runtime.errors import StorageError
from moedge_runtime.mqtt.spool import Spool
from moedge_runtime.mqtt.spool_clock import Moment, age_s
from moedge_runtime.mqtt.spool_record import HEAD_BYTES, Damage, Record, decode_records, encode_record

TOPIC = "moedge/panel-01/panel/answer"
BOOT = b"b" * 16
NOW = Moment(1_000_000, 1_000_000, BOOT, True)


def spool_in(directory: Path, *, max_bytes: int = 1 << 26, max_age_s: float = 3600.0, **options: object) -> Spool:
    return Spool(directory, max_bytes=max_bytes, max_age_s=max_age_s, **options)  # type: ignore[arg-type]


def fill(spool: Spool, numbers: range, size: int = 100) -> None:
    for start in range(numbers.start, numbers.stop, 100):
        spool.append([(TOPIC, b"%d" % number + b"." * size) for number in range(start, min(start + 100, numbers.stop))])


def drained(spool: Spool) -> list[int]:
    """Numbers of all messages, each delivered as soon as it was read."""
    numbers = []
    while (record := spool.read()) is not None:
        assert record.topic == TOPIC
        numbers.append(int(record.payload.partition(b".")[0]))
        spool.delivered(record.sequence)
    return numbers


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.seg"))


def test_messages_come_back_in_order_in_another_process_life_and_the_disk_is_empty_afterwards(tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    first = spool_in(directory)
    assert not directory.exists(), "nothing is written before there is something to keep"
    fill(first, range(300))
    first.close()
    second = spool_in(directory)
    assert second.messages == 300
    fill(second, range(300, 500))
    assert drained(second) == list(range(500))
    assert (second.messages, second.size_bytes, segments(directory)) == (0, 0, []), "it shrinks after use"
    second.close()
    third = spool_in(directory)
    assert third.read() is None
    fill(third, range(500, 501))
    assert drained(third) == [500]
    third.close()


def test_what_was_read_but_not_acknowledged_comes_again_and_what_was_acknowledged_does_not(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    fill(spool, range(10))
    records = [spool.read() for _ in range(5)]
    for record in (records[0], records[1], records[3]):
        assert record is not None
        spool.delivered(record.sequence)
    spool.rewind()
    assert drained(spool) == [2, 3, 4, 5, 6, 7, 8, 9], "acknowledged out of order may come twice"
    spool.close()


def test_a_restart_goes_on_behind_the_last_acknowledged_message(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    fill(spool, range(10))
    for _ in range(4):
        record = spool.read()
        assert record is not None
        spool.delivered(record.sequence)
    spool.close()
    assert drained(spool_in(tmp_path)) == [4, 5, 6, 7, 8, 9]


def test_the_bound_in_bytes_holds_and_the_oldest_go_first_and_are_counted(tmp_path: Path) -> None:
    bound = 1 << 20
    spool = spool_in(tmp_path, max_bytes=bound)
    for start in range(0, 4000, 50):
        fill(spool, range(start, start + 50), size=1000)
        assert sum(path.stat().st_size for path in segments(tmp_path)) <= bound
    kept = drained(spool)
    assert kept == list(range(4000 - len(kept), 4000)), "the newest are there, without a gap"
    assert spool.counters.dropped == 4000 - len(kept)
    assert len(kept) * 1040 > bound * 0.85, "little more is dropped than has to be"
    spool.close()


def test_what_is_dropped_while_it_is_read_does_not_come(tmp_path: Path) -> None:
    spool = spool_in(tmp_path, max_bytes=1 << 18)
    fill(spool, range(200), size=1000)
    under_way = spool.read()
    assert under_way is not None
    fill(spool, range(200, 600), size=1000)
    spool.delivered(under_way.sequence)
    kept = drained(spool)
    assert kept == list(range(600 - len(kept), 600))
    assert spool.counters.damaged == 0
    spool.close()


def test_what_is_too_old_is_not_delivered_and_counted(tmp_path: Path) -> None:
    now = [NOW]
    spool = spool_in(tmp_path, max_age_s=60, now=lambda: now[0])
    fill(spool, range(3))
    now[0] = Moment(NOW.wall_ms, NOW.boot_ms + 50_000, BOOT, True)
    fill(spool, range(3, 5))
    now[0] = Moment(NOW.wall_ms, NOW.boot_ms + 70_000, BOOT, True)
    assert drained(spool) == [3, 4]
    assert spool.counters.expired == 3
    fill(spool, range(5, 6))
    now[0] = Moment(NOW.wall_ms, NOW.boot_ms + 200_000, BOOT, True)
    spool.expire()
    assert (spool.messages, segments(tmp_path), spool.counters.expired) == (0, [], 4)
    spool.close()


@pytest.mark.parametrize(
    ("at", "now", "age"),
    [
        (Moment(0, 5_000, BOOT, False), Moment(10**12, 65_000, BOOT, True), 60.0),
        (Moment(10**12, 0, b"x" * 16, True), Moment(10**12 + 60_000, 5, BOOT, True), 60.0),
        (Moment(5_000, 0, b"x" * 16, False), Moment(10**12, 5, BOOT, True), None),
        (Moment(10**12, 0, b"x" * 16, True), Moment(5_000, 5, BOOT, False), None),
        (Moment(10**12, 0, b"x" * 16, None), Moment(5_000, 5, BOOT, None), 0.0),
    ],
    ids=["same start, clock set meanwhile", "other start", "written in 1970", "read in 1970", "clock set back"],
)
def test_the_age_does_not_depend_on_a_clock_that_jumps(at: Moment, now: Moment, age: float | None) -> None:
    assert age_s(at, now) == age


@pytest.mark.parametrize("place", ["length", "payload", "head", "magic"])
def test_one_damaged_record_is_reported_and_the_rest_is_served(
    tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    spool = spool_in(tmp_path)
    fill(spool, range(20))
    spool.close()
    path = segments(tmp_path)[0]
    content = bytearray(path.read_bytes())
    size = (len(content) - HEAD_BYTES) // 20
    offset = {"length": HEAD_BYTES + 5 * size + 12, "payload": HEAD_BYTES + 6 * size - 9, "head": 9, "magic": 4}[place]
    if place == "magic":
        offset = HEAD_BYTES + 5 * size
    content[offset] ^= 0xFF
    path.write_bytes(content)
    again = spool_in(tmp_path)
    served = drained(again)
    lost = [] if place == "head" else [5]
    assert served == [number for number in range(20) if number not in lost]
    assert again.counters.damaged == len(lost)
    assert any("are damaged. The rest is delivered." in record.message for record in caplog.records) is bool(lost)
    assert segments(tmp_path) == []


def test_a_last_record_that_was_cut_off_is_left_out_and_new_ones_follow(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    fill(spool, range(3))
    spool.close()
    with segments(tmp_path)[0].open("r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) - 7)
    again = spool_in(tmp_path)
    fill(again, range(3, 5))
    assert drained(again) == [0, 1, 3, 4]
    again.close()


def test_a_segment_that_cannot_be_read_is_reported_and_the_others_are_served(tmp_path: Path) -> None:
    spool = spool_in(tmp_path, max_bytes=1 << 20)
    fill(spool, range(400), size=1000)
    spool.close()
    first = segments(tmp_path)[0]
    first.write_bytes(b"\0" * first.stat().st_size)
    again = spool_in(tmp_path, max_bytes=1 << 20)
    served = drained(again)
    assert served == list(range(served[0], 400))
    assert again.counters.damaged == served[0] > 0


@given(st.lists(st.binary(max_size=60), max_size=6), st.data())
def test_no_bytes_whatever_break_the_reader_and_whole_records_are_found(
    payloads: list[bytes], data: st.DataObject
) -> None:
    content = bytearray()
    ends = [0]
    for number, payload in enumerate(payloads):
        content += encode_record(number, "t", payload, NOW)
        ends.append(len(content))
    position = data.draw(st.integers(0, len(content)))
    content[position:position] = data.draw(st.binary(max_size=50))
    found = [item for item, _ in decode_records(bytes(content), BOOT, 0)]
    intact = [number for number in range(len(payloads)) if not ends[number] < position < ends[number + 1]]
    records = [item for item in found if isinstance(item, Record)]
    assert [record.sequence for record in records if record.sequence in intact] == intact
    assert sum(item.size for item in found if isinstance(item, Damage)) <= len(content)


@contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    directory.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(directory)], check=False)
    if made.returncode != 0:
        pytest.skip("this user may not mount file systems")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def test_a_full_disk_is_an_error_that_names_it_keeps_what_there_is_and_ends_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        spool = spool_in(disk / "spool")
        fill(spool, range(10), size=1000)
        (disk / "ballast").write_bytes(b"x" * (256 * 1024 - 40 * 1024))
        with pytest.raises(StorageError, match=r"spool '.*' *: No space left on device\. Make room, or set") as caught:
            for start in range(10, 100, 10):
                fill(spool, range(start, start + 10), size=1000)
        assert caught.value.key == "spool.not_writable"
        kept = spool.messages
        assert kept % 10 == 0, "of a write that failed nothing counts"
        (disk / "ballast").unlink()
        fill(spool, range(kept, 60), size=1000)
        assert drained(spool) == list(range(60))
        assert spool.counters.damaged == 0
        spool.close()


def test_a_read_only_disk_is_an_error_and_what_is_there_is_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        before = spool_in(disk / "spool")
        fill(before, range(10))
        before.close()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        spool = spool_in(disk / "spool")
        with pytest.raises(StorageError, match="Read-only file system"):
            fill(spool, range(10, 20))
        assert drained(spool) == list(range(10))
        spool.close()
    assert any(
        "cannot be removed: Read-only file system. Its messages will come again." in r.message for r in caplog.records
    )


def test_two_processes_may_not_share_a_spool(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    fill(spool, range(1))
    with pytest.raises(StorageError, match="is used by another process") as caught:
        spool_in(tmp_path)
    assert caught.value.key == "spool.locked"
    spool.close()
    assert drained(spool_in(tmp_path)) == [0]


def test_a_hundred_thousand_messages_are_there_within_five_seconds_of_the_start(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    spool = spool_in(tmp_path, max_bytes=1 << 30)
    for start in range(0, 100_000, 2000):
        spool.append([(TOPIC, b"%d" % number + b"." * 400) for number in range(start, start + 2000)])
    spool.close()
    began_s = time.monotonic()
    again = spool_in(tmp_path, max_bytes=1 << 30)
    record = again.read()
    took_s = time.monotonic() - began_s
    record_property("start_s", took_s)
    assert again.messages == 100_000
    assert record is not None and record.payload.startswith(b"0.")
    assert took_s < 5
    again.close()


def test_few_bytes_are_written_and_they_are_counted(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    payload = b"x" * 1500
    for _ in range(100):
        spool.append([(TOPIC, payload)])
    on_disk = sum(path.stat().st_size for path in segments(tmp_path))
    assert spool.written_bytes == on_disk
    assert on_disk < 100 * (len(payload) + len(TOPIC)) * 1.03
    assert spool.syncs == 101, "one a write, and one for the segment's name"
    drained_bytes = spool.written_bytes
    while (record := spool.read()) is not None:
        spool.delivered(record.sequence)
    assert spool.written_bytes - drained_bytes <= 16 * 100, "what is delivered is noted in 16 bytes"
    spool.close()
