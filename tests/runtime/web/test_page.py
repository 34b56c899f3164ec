"""Who gets in, and what comes from outside; over real sockets."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moedge_runtime.web.http import MAX_BODY_BYTES, SECURITY_HEADERS
from moedge_runtime.web.sessions import MAX_FAILURES
from runtime.web.conftest import TOKEN, FakeHost
from runtime.web.raw import exchange, send

PROTECTED = [
    ("GET", "/api/status"),
    ("GET", "/api/answers"),
    ("GET", "/api/cameras/gate/picture"),
    ("GET", "/api/asked/one"),
    ("POST", "/api/ask"),
    ("POST", "/api/cameras/gate/masks"),
    ("POST", "/api/cameras/gate/zones"),
    ("POST", "/api/cameras/gate/masks/remove"),
    ("POST", "/api/cameras/gate/enabled"),
    ("POST", "/api/logout"),
]


def log_in(port: int) -> str:
    answer = send(port, "POST", "/api/login", {"token": TOKEN})
    assert answer.status == 200
    return answer.headers["set-cookie"].partition(";")[0]


@pytest.mark.parametrize(("method", "path"), PROTECTED)
def test_nothing_is_shown_or_done_without_a_session(port: int, host: FakeHost, method: str, path: str) -> None:
    for cookie in ("", "moedge_session=", f"moedge_session={TOKEN}", "moedge_session=" + "x" * 43, '"'):
        answer = send(port, method, path, {} if method == "POST" else None, Cookie=cookie)
        assert (answer.status, answer.json()["error"]["key"]) == (401, "web.login")
    assert host.done == []


def test_the_token_opens_a_session_that_scripts_and_other_sites_cannot_use_and_log_out_ends_it(port: int) -> None:
    answer = send(port, "POST", "/api/login", {"token": TOKEN})
    cookie = answer.headers["set-cookie"]
    assert TOKEN not in cookie
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/" in cookie
    session = cookie.partition(";")[0]
    assert send(port, "GET", "/api/status", Cookie=session).json() == {"device": "fake"}
    picture = send(port, "GET", "/api/cameras/gate/picture", Cookie=session)
    assert (picture.status, picture.headers["content-type"]) == (200, "image/jpeg")
    assert send(port, "POST", "/api/logout", {}, Cookie=session).status == 200
    assert send(port, "GET", "/api/status", Cookie=session).status == 401


def test_wrong_tokens_are_refused_and_then_none_is_looked_at_for_a_while(port: int) -> None:
    for wrong in ["", TOKEN[:-1], TOKEN + "x", "ü" * 20, "\x00", "\ud800"][:MAX_FAILURES]:
        assert send(port, "POST", "/api/login", {"token": wrong}).status == 401
    answer = send(port, "POST", "/api/login", {"token": TOKEN})
    assert (answer.status, answer.json()["error"]["key"]) == (429, "web.too_many_logins")
    assert 0 < int(answer.headers["retry-after"]) <= 61


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"token": 1}', b"\xff", b'{"a":' * 3000, b"null"])
def test_a_login_that_is_none_is_a_bad_request(port: int, body: bytes) -> None:
    assert send(port, "POST", "/api/login", body, Content_Type="application/json").status == 400


def test_what_another_site_makes_a_browser_send_does_nothing(port: int, host: FakeHost) -> None:
    cookie = log_in(port)
    mask = {"polygon": [[0, 0], [1, 0], [1, 1]]}
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://127.0.0.1:{port}.evil.example"},
        {"Origin": "http://[oops"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ):
        for path in (
            "/api/ask",
            "/api/cameras/gate/masks",
            "/api/cameras/gate/masks/remove",
            "/api/login",
            "/api/logout",
        ):
            assert send(port, "POST", path, mask, Cookie=cookie, **headers).status == 403
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        assert send(port, "POST", "/api/ask", b'{"question": "?"}', Cookie=cookie, Content_Type=kind).status == 415
    assert host.done == []
    own = {"Origin": f"http://127.0.0.1:{port}", "Sec_Fetch_Site": "same-origin"}
    assert send(port, "POST", "/api/cameras/gate/masks", mask, Cookie=cookie, **own).status == 202
    assert send(port, "POST", "/api/cameras/gate/masks/remove", mask, Cookie=cookie, **own).status == 202
    assert host.done == [("masks", "gate", mask), ("remove", "gate", mask)]


@pytest.mark.parametrize(
    "name", ["evil.example", "127.0.0.1.evil.example", "", "board.evil.example", "a b", "localhost:x"]
)
def test_a_name_that_was_made_to_point_here_is_refused(port: int, name: str) -> None:
    answer = exchange(port, f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
    assert answer.startswith((b"HTTP/1.1 421", b"HTTP/1.1 400"))
    assert b"<html" not in answer


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost:80", "board", "BOARD.local", "[::1]:8740", "192.168.1.7"])
def test_addresses_and_the_own_names_are_known(port: int, name: str) -> None:
    assert exchange(port, f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode()).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "path",
    [
        "/../app.js",
        "/..%2fapp.js",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/static/../../page.py",
        "//etc/passwd",
        "/app.js/",
        "/app.js%00.html",
        "/page.py",
        "/..\\..\\page.py",
        "/api/cameras/../picture",
        "/%ff",
    ],
)
def test_no_path_leads_out_of_the_pages_files(port: int, path: str) -> None:
    answer = send(port, "GET", path, Cookie=log_in(port))
    assert answer.status in (400, 404)
    assert b"root:" not in answer.body and b"import" not in answer.body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_methods_that_a_path_does_not_have_are_refused(port: int, method: str) -> None:
    cookie = log_in(port)
    for path in ("/", "/app.js", "/api/status", "/api/cameras/gate/picture"):
        answer = send(port, method, path, {}, Cookie=cookie)
        assert answer.status == 405
        assert "GET" in answer.headers["allow"]


def test_every_response_forbids_foreign_and_inline_content(port: int) -> None:
    for answer in (send(port, "GET", "/"), send(port, "GET", "/nothing"), send(port, "GET", "/api/status")):
        for name, value in SECURITY_HEADERS.items():
            assert answer.headers[name.lower()] == value
        assert "server" not in answer.headers
    page = send(port, "GET", "/").body.decode() + send(port, "GET", "/app.js").body.decode()
    assert "unsafe" not in SECURITY_HEADERS["Content-Security-Policy"]
    assert "https://" not in page and "innerHTML" not in page and "style=" not in page and "onclick" not in page


def test_bodies_and_headers_have_a_size(port: int) -> None:
    cookie = log_in(port)
    assert send(port, "POST", "/api/ask", {"question": "?" * MAX_BODY_BYTES}, Cookie=cookie).status == 413
    answer = exchange(port, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 40_000 + b"\r\n\r\n")
    # What was not read makes the connection end with a reset, which may overtake the answer.
    assert answer == b"" or answer.startswith(b"HTTP/1.0 431")
    assert send(port, "GET", "/").status == 200


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=400),
        st.builds(
            lambda method, path, header, body: (
                method + b" " + path + b" HTTP/1.1\r\nHost: localhost\r\n" + header + body
            ),
            st.sampled_from([b"GET", b"POST", b"HEAD", b"\xff"]),
            st.one_of(st.binary(max_size=60), st.sampled_from([b"/", b"/api/login", b"/api/ask", b"*", b"http://a/"])),
            st.sampled_from(
                [
                    b"\r\n",
                    b"Content-Length: 3\r\nContent-Type: application/json\r\n\r\n",
                    b"Content-Length: -1\r\n\r\n",
                    b"Content-Length: 99999999999\r\n\r\n",
                    b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
                    b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n",
                    b"Transfer-Encoding: xchunked\r\n\r\n",
                    b"Cookie: moedge_session=\xff;;=\r\n\r\n",
                    b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n",
                ]
            ),
            st.binary(max_size=100),
        ),
    )
)
def test_no_bytes_break_the_server(port: int, data: bytes) -> None:
    answer = exchange(port, data)
    assert not answer.startswith(b"HTTP/1.1 500") and b"Traceback" not in answer
    assert send(port, "GET", "/").status == 200
