"""Sessions with a clock of our own."""

from __future__ import annotations

import pytest
from moedge_runtime.web.hosts import Hosts, same_origin
from moedge_runtime.web.sessions import (
    COOKIE,
    FAILURE_S,
    MAX_FAILURES,
    MAX_FAILURES_OF_ALL,
    MAX_SESSIONS,
    SESSION_S,
    Sessions,
)

TOKEN = "a-token-for-these-tests"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_session_ends_when_it_is_not_used() -> None:
    clock = Clock()
    sessions = Sessions(TOKEN, clock)
    cookie = f"{COOKIE}={sessions.begin(TOKEN, 'a')}"
    for _ in range(3):
        clock.now += SESSION_S - 1
        assert sessions.valid(cookie)
    clock.now += SESSION_S + 1
    assert not sessions.valid(cookie)


def test_there_are_never_more_sessions_than_allowed() -> None:
    sessions = Sessions(TOKEN)
    cookies = [f"{COOKIE}={sessions.begin(TOKEN, 'a')}" for _ in range(MAX_SESSIONS + 1)]
    assert [sessions.valid(cookie) for cookie in cookies] == [False] + [True] * MAX_SESSIONS


def test_failures_of_one_address_keep_no_other_out_until_there_are_many() -> None:
    clock = Clock()
    sessions = Sessions(TOKEN, clock)
    for _ in range(MAX_FAILURES):
        assert sessions.wait_s("a") == 0
        assert sessions.begin("wrong", "a") is None
    assert sessions.wait_s("a") == FAILURE_S
    assert sessions.wait_s("b") == 0
    for number in range(MAX_FAILURES_OF_ALL):
        sessions.begin("wrong", str(number))
    assert sessions.wait_s("b") > 0
    clock.now += FAILURE_S + 1
    assert sessions.wait_s("a") == sessions.wait_s("b") == 0


@pytest.mark.parametrize("cookies", ["", "a=b", COOKIE, f"{COOKIE}=", "\x00", f"x={TOKEN}; {COOKIE}={TOKEN}", "=;=;"])
def test_other_cookies_are_no_session(cookies: str) -> None:
    sessions = Sessions(TOKEN)
    sessions.begin(TOKEN, "a")
    assert not sessions.valid(cookies)


def test_only_the_very_same_origin_is_one() -> None:
    assert same_origin("http://board:8740", "board:8740")
    assert same_origin("https://gate.example.com", "gate.example.com")
    for origin in ("null", "", "http://board", "http://board:8741", "file://board:8740", "http://a@board:8740"):
        assert not same_origin(origin, "board:8740")


def test_names_that_are_given_are_known() -> None:
    hosts = Hosts(["Gate.example.com"], machine="board")
    assert hosts.allows("gate.example.com:8740")
    assert not hosts.allows("example.com")
