"""Who may use the page: a token is exchanged for a session in a cookie, and wrong tokens cost time. Thread-safe."""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie

COOKIE = "moedge_session"
MAX_SESSIONS = 16
"""The one that was not used for the longest time ends when there is one more."""

SESSION_S = 12 * 3600.0
"""A session ends so long after its last request."""

MAX_FAILURES = 5
MAX_FAILURES_OF_ALL = 50
FAILURE_S = 60.0
"""So many wrong tokens from one address, or from all of them, within this time; then no token is looked at."""

_MAX_ADDRESSES = 256


class Sessions:
    """Sessions and failed logins.

    Args:
        token: What opens the page.
        clock: Seconds that only grow.
    """

    def __init__(self, token: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._token, self._clock = token.encode(), clock
        self._lock = threading.Lock()
        self._used_s: OrderedDict[str, float] = OrderedDict()
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._all_failures: deque[float] = deque()

    def wait_s(self, remote: str) -> float:
        """Seconds until a token from `remote` is looked at again; 0 for now."""
        now_s = self._clock()
        with self._lock:
            waits = [
                failures[0] + FAILURE_S - now_s
                for failures, most in (
                    (self._failures.get(remote), MAX_FAILURES),
                    (self._all_failures, MAX_FAILURES_OF_ALL),
                )
                if failures is not None and _recent(failures, now_s) >= most
            ]
        return max(waits, default=0.0)

    def begin(self, token: str, remote: str) -> str | None:
        """A new session if `token` is the right one. Takes the same time for every wrong one of a length."""
        right = hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self._token)
        now_s = self._clock()
        with self._lock:
            if not right:
                self._all_failures.append(now_s)
                self._failures.setdefault(remote, deque()).append(now_s)
                self._failures.move_to_end(remote)
                while len(self._failures) > _MAX_ADDRESSES:
                    self._failures.popitem(last=False)
                return None
            session = secrets.token_urlsafe(32)
            self._used_s[session] = now_s
            while len(self._used_s) > MAX_SESSIONS:
                self._used_s.popitem(last=False)
            return session

    def valid(self, cookies: str) -> bool:
        """Whether `cookies`, a Cookie header, has a session that goes on."""
        session = session_of(cookies)
        if session is None:
            return False
        now_s = self._clock()
        with self._lock:
            used_s = self._used_s.pop(session, None)
            if used_s is None or now_s - used_s > SESSION_S:
                return False
            self._used_s[session] = now_s
        return True

    def end(self, cookies: str) -> None:
        """End the session of `cookies`, if there is one."""
        with self._lock:
            self._used_s.pop(session_of(cookies) or "", None)


def session_of(cookies: str) -> str | None:
    """The session in a Cookie header; None if there is none."""
    try:
        morsel = SimpleCookie(cookies).get(COOKIE)
    except CookieError:
        return None
    return morsel.value if morsel is not None else None


def cookie_of(session: str, *, lasts_s: float = SESSION_S) -> str:
    """The Set-Cookie header for a session. No script can read it, and no other site's request carries it."""
    return f"{COOKIE}={session}; Path=/; Max-Age={lasts_s:.0f}; HttpOnly; SameSite=Strict"


def _recent(failures: deque[float], now_s: float) -> int:
    while failures and now_s - failures[0] > FAILURE_S:
        failures.popleft()
    return len(failures)
