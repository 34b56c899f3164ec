"""A page with a host that says it is a fake, on a real server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from moedge_runtime.errors import RequestError
from moedge_runtime.mqtt.listening import free_port
from moedge_runtime.web.hosts import Hosts
from moedge_runtime.web.page import Page
from moedge_runtime.web.server import HttpServer
from moedge_runtime.web.sessions import Sessions

TOKEN = "a-token-for-these-tests"


class FakeHost:
    """Remembers what it was told to do."""

    def __init__(self) -> None:
        self.done: list[tuple[Any, ...]] = []

    def status(self) -> dict[str, Any]:
        return {"device": "fake"}

    def answers(self) -> list[dict[str, Any]]:
        return []

    def picture(self, camera: str) -> bytes:
        if camera != "gate":
            raise RequestError(f"There is no camera '{camera}'.", key="request.camera_unknown")
        return b"\xff\xd8 no real picture"

    def ask(self, request: bytes) -> str:
        self.done.append(("ask", request))
        return "one"

    def asked(self, identifier: str) -> dict[str, Any]:
        return {"state": "waiting"}

    def add_polygon(self, camera: str, kind: str, body: Mapping[str, Any]) -> str:
        self.done.append((kind, camera, dict(body)))
        return "two"

    def remove_mask(self, camera: str, body: Mapping[str, Any]) -> str:
        self.done.append(("remove", camera, dict(body)))
        return "three"

    def enable(self, camera: str, body: Mapping[str, Any]) -> str:
        self.done.append(("enable", camera, dict(body)))
        return "four"


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def port(host: FakeHost) -> Iterator[int]:
    port = free_port()
    server = HttpServer("The page", "127.0.0.1", port, Page(host, Sessions(TOKEN)), Hosts(machine="board"))
    server.start()
    assert server.wait_until_listening(10)
    yield port
    server.stop()
