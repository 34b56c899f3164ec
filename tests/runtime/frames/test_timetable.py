from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moedge_runtime.frames.timetable import Timetable, parse_window

BERLIN = ZoneInfo("Europe/Berlin")
MONDAY = datetime(2026, 11, 23, tzinfo=BERLIN)


def table(*windows: str, **keys: object) -> Timetable:
    return Timetable(tuple(parse_window(text) for text in windows), BERLIN, **keys)  # type: ignore[arg-type]


def is_open(timetable: Timetable, day: int, time: str) -> bool:
    hour, minute = map(int, time.split(":"))
    return timetable.is_open((MONDAY + timedelta(days=day)).replace(hour=hour, minute=minute), True)


@pytest.mark.parametrize(
    ("window", "day", "time", "expected"),
    [
        ("mon-fri 07:00-18:00", 0, "07:00", True),
        ("mon-fri 07:00-18:00", 0, "06:59", False),
        ("mon-fri 07:00-18:00", 4, "17:59", True),
        ("mon-fri 07:00-18:00", 4, "18:00", False),
        ("mon-fri 07:00-18:00", 5, "12:00", False),
        ("MON-FRI 07:00-18:00", 2, "12:00", True),
        ("sat,sun 00:00-24:00", 6, "23:59", True),
        ("sat,sun 00:00-24:00", 0, "00:00", False),
        ("fri-mon 10:00-11:00", 6, "10:30", True),
        ("fri-mon 10:00-11:00", 1, "10:30", False),
        ("06:30-24:00", 3, "06:30", True),
        ("fri 22:00-02:00", 4, "23:00", True),
        ("fri 22:00-02:00", 5, "01:59", True),
        ("fri 22:00-02:00", 5, "02:00", False),
        ("fri 22:00-02:00", 4, "01:00", False),
        ("sun 22:00-02:00", 0, "01:00", True),
    ],
)
def test_a_window_belongs_to_the_day_on_which_it_begins(window: str, day: int, time: str, expected: bool) -> None:
    assert is_open(table(window), day, time) is expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("07:00", "write days and times such as"),
        ("monday 07:00-08:00", "write days and times such as"),
        ("mon 7:00-8:00", "write days and times such as"),
        ("moo 07:00-08:00", "'moo' is no day"),
        ("mon 07:60-08:00", "times go from 00:00 to 24:00"),
        ("mon 24:00-08:00", "times go from 00:00 to 24:00"),
        ("mon 07:00-24:01", "times go from 00:00 to 24:00"),
        ("mon 07:00-07:00", "write 00:00-24:00 for the whole day"),
        (7, "write days and times such as"),
    ],
)
def test_what_is_no_window_is_refused(text: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_window(text)


def test_an_hour_that_summer_time_leaves_out_opens_nothing() -> None:
    """On 2026-03-29 Berlin goes from 02:00 to 03:00."""
    timetable = table("02:15-02:45")
    start = datetime(2026, 3, 28, 23, tzinfo=timezone.utc)
    assert not any(timetable.is_open(start + timedelta(minutes=minute), True) for minute in range(240))
    across = table("01:30-03:30")
    minutes = sum(across.is_open(start + timedelta(minutes=minute), True) for minute in range(240))
    assert minutes == 60, "two hours on the clock are one"


def test_an_hour_that_comes_twice_opens_twice() -> None:
    """On 2026-10-25 Berlin goes from 03:00 to 02:00."""
    start = datetime(2026, 10, 24, 22, tzinfo=timezone.utc)
    timetable = table("sun 02:15-02:45")
    assert sum(timetable.is_open(start + timedelta(minutes=minute), True) for minute in range(360)) == 60


@given(
    st.integers(0, 60 * 24 * 366),
    st.integers(0, 1439),
    st.integers(1, 1440),
    st.sets(st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]), min_size=1),
)
def test_a_window_and_what_it_leaves_of_the_week_are_never_open_together(
    minute: int, begin: int, end: int, days: set[str]
) -> None:
    if begin == end:
        return
    moment = datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(minutes=minute)
    window = parse_window(f"{','.join(days)} {begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}")
    local = moment.astimezone(BERLIN)
    at = local.hour * 60 + local.minute
    names = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    today, yesterday = names[local.weekday()] in days, names[local.weekday() - 1] in days
    over_midnight = (today and at >= begin) or (yesterday and at < end)
    expected = (today and begin <= at < end) if begin < end else over_midnight
    assert Timetable((window,), BERLIN).is_open(moment, True) is expected


@pytest.mark.parametrize(
    ("unsynced", "synced", "expected"),
    [
        ("open", False, True),
        ("closed", False, False),
        ("trust", False, False),
        ("open", True, False),
        ("open", None, False),
        ("closed", True, False),
    ],
)
def test_a_clock_that_is_not_set(unsynced: str, synced: bool | None, expected: bool) -> None:
    timetable = table("mon 07:00-08:00", unsynced=unsynced)
    assert timetable.is_open(datetime(1970, 1, 1, tzinfo=timezone.utc), synced) is expected


def test_no_windows_are_always() -> None:
    assert Timetable(unsynced="closed").is_open(datetime(1970, 1, 1, tzinfo=timezone.utc), False)


def test_without_a_zone_it_is_the_board_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        timetable = Timetable((parse_window("09:00-10:00"),))
        assert timetable.is_open(datetime(2026, 11, 23, 0, 30, tzinfo=timezone.utc), True)
        assert not timetable.is_open(datetime(2026, 11, 23, 9, 30, tzinfo=timezone.utc), True)
    finally:
        monkeypatch.undo()
        time.tzset()
