"""A daemon with page and metrics, and what its tests ask of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from moedge_runtime.bundle import Bundle
from moedge_runtime.config import ModelConfig, load_config
from moedge_runtime.daemon.service import Daemon
from moedge_runtime.mqtt.listening import free_port
from runtime.daemon.fakes import FakeAnswerer, write_config
from runtime.mqtt.listener import DEADLINE_S
from runtime.web.raw import Answer, send

TOKEN = "a-token-for-these-tests"
MASK = [[0.0, 0.0], [0.5, 0.0], [0.5, 0.5], [0.0, 0.5]]
LIVE = {
    "panel": {
        "source": "file:panel.mp4",
        "loop": True,
        "realtime": True,
        "masks": [[list(corner) for corner in MASK]],
        "zones": {"dial": [*MASK]},
    }
}


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for `condition`, with a deadline."""
    deadline_s, tick = time.monotonic() + DEADLINE_S, threading.Event()
    while not condition():
        assert time.monotonic() < deadline_s, "it never came about"
        tick.wait(0.02)


class Site:
    """The page and the metrics of a running daemon."""

    def __init__(self, path: Path, answerer: FakeAnswerer) -> None:
        self.path, self.answerer = path, answerer
        config = yaml.safe_load(path.read_text())
        self.web, self.metrics = config["web"]["port"], config["metrics"]["port"]
        self._cookie = ""

    def log_in(self) -> None:
        answer = send(self.web, "POST", "/api/login", {"token": TOKEN})
        assert answer.status == 200, answer.body
        self._cookie = answer.headers["set-cookie"].partition(";")[0]

    def get(self, path: str) -> Answer:
        return send(self.web, "GET", path, Cookie=self._cookie)

    def post(self, path: str, body: Any) -> Answer:
        return send(self.web, "POST", path, body, Cookie=self._cookie)

    def ended(self, identifier: str) -> Any:
        """What became of a question or a change."""
        last: list[Any] = []

        def done() -> bool:
            last[:] = [self.get(f"/api/asked/{identifier}").json()]
            return bool(last[0].get("state") in ("done", "failed"))

        wait_until(done)
        return last[0]

    def scraped(self) -> dict[str, float]:
        """All samples by name and labels, as they are written."""
        answer = send(self.metrics, "GET", "/metrics")
        assert answer.status == 200
        lines = [line for line in answer.body.decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


@contextmanager
def site(
    place: Path,
    bundle: Path,
    broker_port: int,
    *,
    allow: bool = True,
    code: int = 0,
    loads: threading.Event | None = None,
    **changes: Any,
) -> Iterator[Site]:
    """A daemon on a looped clip with a fake model, its page and its metrics; ends with `code`.

    With `loads` the model is loading until that is set, and nothing is waited for but the page.
    """
    sections = {
        "cameras": LIVE,
        "watches": [{"name": "number", "camera": "panel", "question": "Which frame?", "interval": "300ms"}],
        "metrics": {"port": free_port()},
        "web": {"port": free_port(), "token": TOKEN, "allow_changes": allow},
    }
    path = write_config(place, bundle, broker_port, **(sections | changes))
    answerer = FakeAnswerer()

    def opened(bundle: Bundle, config: ModelConfig) -> FakeAnswerer:
        assert loads is None or loads.wait(DEADLINE_S)
        return answerer

    daemon = Daemon(load_config(path), opened)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(daemon.run()))
    thread.start()
    try:
        running = Site(path, answerer)
        wait_until(lambda: _serves(running) if loads is None else _answers(running))
        yield running
    finally:
        answerer.gate.set()
        daemon.request_stop()
        thread.join(DEADLINE_S)
    assert codes == [code]


def _answers(running: Site) -> bool:
    try:
        return send(running.web, "GET", "/").status == 200
    except OSError:
        return False


def _serves(running: Site) -> bool:
    try:
        has_frame = 'moedge_camera_last_frame_age_seconds{camera="panel"}' in running.scraped()
        return has_frame and _answers(running)
    except OSError:
        return False
