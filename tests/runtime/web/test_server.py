"""Clients that are slow, silent or many; and addresses that are taken."""

from __future__ import annotations

import logging
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from moedge_runtime.mqtt.listening import free_port
from moedge_runtime.web import server as server_module
from moedge_runtime.web.hosts import Hosts
from moedge_runtime.web.http import HttpRequest, HttpResponse
from moedge_runtime.web.server import HttpServer
from runtime.web.raw import send

DEADLINE_S = 20.0


def hello(request: HttpRequest) -> HttpResponse:
    if request.path == "/fault":
        raise ZeroDivisionError("this fake has a fault")
    return HttpResponse(b"hello" if request.path != "/large" else b"x" * 4_000_000)


def serving(port: int) -> HttpServer:
    server = HttpServer("The test", "127.0.0.1", port, hello, Hosts())
    server.start()
    assert server.wait_until_listening(DEADLINE_S)
    return server


def test_a_client_that_drips_is_given_up_while_others_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "REQUEST_S", 0.5)
    port = free_port()
    server = serving(port)
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        deadline_s, closed = time.monotonic() + DEADLINE_S, False
        tick = threading.Event()
        while not closed and time.monotonic() < deadline_s:
            assert send(port, "GET", "/").body == b"hello"
            try:
                slow.sendall(b"X")
            except OSError:
                closed = True
            tick.wait(0.05)
    server.stop()
    assert closed


def test_silent_connections_end_and_never_keep_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "IDLE_S", 1)
    port = free_port()
    server = serving(port)
    silent = [socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) for _ in range(60)]
    assert send(port, "GET", "/").body == b"hello"
    for connection in silent:
        connection.close()
    server.stop()


def test_a_client_that_does_not_read_holds_nobody_up() -> None:
    port = free_port()
    server = serving(port)
    readers = [socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) for _ in range(6)]
    for connection in readers:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert send(port, "GET", "/").body == b"hello"
    for connection in readers:
        connection.close()
    server.stop()


def test_a_fault_is_logged_and_told_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    server = serving(port)
    answer = send(port, "GET", "/fault")
    server.stop()
    assert (answer.status, answer.json()["error"]["key"]) == (500, "internal")
    assert b"fake" not in answer.body
    assert "this fake has a fault" in caplog.text


def test_an_address_that_is_taken_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server_module, "RETRY_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with caplog.at_level(logging.ERROR):
            server = HttpServer("The test", "127.0.0.1", port, hello, Hosts())
            server.start()
            assert not server.wait_until_listening(0.4)
    assert server.wait_until_listening(DEADLINE_S)
    assert send(port, "GET", "/").body == b"hello"
    server.stop()
    assert caplog.text.count("cannot listen") == 1


def test_an_address_that_stays_taken_costs_no_threads_and_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "RETRY_S", 0.02)
    tries = threading.Semaphore(0)
    open_socket = HttpServer._open

    def counted(server: HttpServer) -> tuple[Any, dict[int, Any]]:
        tries.release()
        return open_socket(server)

    monkeypatch.setattr(HttpServer, "_open", counted)
    with socket.create_server(("127.0.0.1", 0)) as other:
        server = HttpServer("The test", "127.0.0.1", other.getsockname()[1], hello, Hosts())
        server.start()
        assert tries.acquire(timeout=DEADLINE_S) and tries.acquire(timeout=DEADLINE_S)
        threads, files = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(10):
            assert tries.acquire(timeout=DEADLINE_S)
        assert threading.active_count() <= threads
        assert len(list(Path("/proc/self/fd").iterdir())) <= files + 1, "the one that is being tried"
        server.stop()


def test_it_can_be_stopped_at_once_and_its_port_used_again() -> None:
    port = free_port()
    for _ in range(3):
        server = serving(port)
        assert send(port, "GET", "/").body == b"hello"
        began_s = time.monotonic()
        server.stop()
        assert time.monotonic() - began_s < server_module._STOP_S
