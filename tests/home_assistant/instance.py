"""A real Home Assistant: its program `hass` in a process of its own, driven over its HTTP API, as its page does."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from moedge_runtime.mqtt.address import BrokerAddress
from moedge_runtime.mqtt.listening import free_port

START_S = 300.0
"""The first start compiles all of it."""
DEADLINE_S = 60.0
TICK_S = 0.1

CONFIGURATION: dict[str, Any] = {"homeassistant": {}, "logger": {"default": "warning"}}
"""Nothing of default_config: no discovery of the network, no cloud."""

_COMPLAINT = re.compile(r"^\S+ \S+ (?:WARNING|ERROR|CRITICAL) ")
_OF_THE_MACHINE = (
    "[homeassistant.bootstrap]",
    "[homeassistant.components.camera.img_util]",
    "[aiohttp_fast_zlib]",
    "[haffmpeg.",
    " took ",
)
"""Of the way it is started, of libraries that it could use, of time."""
_CLIENT = "http://127.0.0.1/"
_SECTIONS = {"other_settings": {"set_client_cert": False, "set_ca_cert": "off"}}
"""What the broker's form of 2026.11 has beside host and port, and its page fills in by itself."""

State = dict[str, Any]
"""As `/api/states` gives it: entity_id, state, attributes."""


class HomeAssistant:
    """Runs in `directory`; use `start` and `stop`.

    Args:
        program: `hass` of the release.
        directory: For its configuration, its store and its log.
    """

    def __init__(self, program: Path, directory: Path) -> None:
        self._port = free_port()
        http = {"server_host": "127.0.0.1", "server_port": self._port}
        (directory / "configuration.yaml").write_text(yaml.safe_dump({**CONFIGURATION, "http": http}))
        self._command = [program, "--config", directory, "--skip-pip", "--log-no-color"]
        self._log = directory / "output.log"
        self._token: str | None = None
        self._seen = 0

    def start(self, broker: BrokerAddress) -> None:
        """Start it, make its first user, and connect it to the broker, each as its page does."""
        self._run("/api/onboarding")
        user = {"client_id": _CLIENT, "name": "u", "username": "u", "password": "secret", "language": "en"}
        code = self._post("/api/onboarding/users", user)["auth_code"]
        grant = urllib.parse.urlencode({"grant_type": "authorization_code", "code": code, "client_id": _CLIENT})
        self._token = json.loads(self._send("/auth/token", grant.encode()))["access_token"]
        self._until(self._is_running, START_S, "the start")
        flow = self._post("/api/config/config_entries/flow", {"handler": "mqtt"})
        form: dict[str, Any] = {"broker": broker.host, "port": broker.port}
        form |= {name: _SECTIONS[name] for field in flow["data_schema"] if (name := field["name"]) in _SECTIONS}
        done = self._post(f"/api/config/config_entries/flow/{flow['flow_id']}", form)
        assert done["type"] == "create_entry", f"Home Assistant does not take the broker: {done}"

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()

    def restart(self) -> None:
        self.stop()
        self._run("/api/config")
        self._until(self._is_running, START_S, "the start")

    def states(self, device: str) -> dict[tuple[str, str], State]:
        """The enabled entities of a device by platform and name, from its registries and its state machine."""
        entities = set(self.template(f"device_entities(device_id('{device}')) if device_id('{device}') else []"))
        states = [state for state in self._get("/api/states") if state["entity_id"] in entities]
        return {
            (
                state["entity_id"].partition(".")[0],
                state["attributes"]["friendly_name"].removeprefix(f"{device} "),
            ): state
            for state in states
        }

    def template(self, expression: str) -> Any:
        """What an expression of its template language is."""
        return json.loads(self._send("/api/template", _json({"template": f"{{{{ ({expression}) | to_json }}}}"})))

    def call(self, action: str, entity: State) -> None:
        """Perform an action such as `switch.turn_on` on an entity once it is available; before, nothing comes of it."""
        identifier = entity["entity_id"]
        self.wait(lambda: self._get(f"/api/states/{identifier}")["state"] != "unavailable", f"{identifier} to be there")
        self._post(f"/api/services/{action.replace('.', '/')}", {"entity_id": identifier})

    def picture(self, image: State) -> bytes:
        """What an image entity shows."""
        return self._send(image["attributes"]["entity_picture"])

    def wait(self, holds: Callable[[], Any], what: str, why: Callable[[], object] = str) -> Any:
        """The first true value of `holds()`; `why` tells of what there is instead."""
        return self._until(holds, DEADLINE_S, what, why)

    def complaints(self) -> list[str]:
        """Warnings and errors in its log that were not returned before."""
        lines = self._log.read_text().splitlines()
        new, self._seen = lines[self._seen :], len(lines)
        return [line for line in new if _COMPLAINT.match(line) and not any(text in line for text in _OF_THE_MACHINE)]

    def _run(self, path: str) -> None:
        """Start it, and wait until it answers at `path`."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        self._until(lambda: self._answers(path), START_S, f"an answer at {path}")

    def _until(self, holds: Callable[[], Any], seconds: float, what: str, why: Callable[[], object] = str) -> Any:
        deadline_s, tick = time.monotonic() + seconds, threading.Event()
        while not (value := holds()):
            assert self._process.poll() is None, f"Home Assistant has ended:\n{self._tail()}"
            assert time.monotonic() < deadline_s, f"waited {seconds} s for {what}; {why()}\n{self._tail()}"
            tick.wait(TICK_S)
        return value

    def _tail(self) -> str:
        return "\n".join(self._log.read_text().splitlines()[-40:])

    def _answers(self, path: str) -> bool:
        try:
            self._get(path)
        except OSError:
            return False
        return True

    def _is_running(self) -> bool:
        return bool(self._get("/api/config")["state"] == "RUNNING")

    def _get(self, path: str) -> Any:
        return json.loads(self._send(path))

    def _post(self, path: str, body: Any) -> Any:
        return json.loads(self._send(path, _json(body)))

    def _send(self, path: str, body: bytes | None = None) -> bytes:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}{path}", body, headers)
        if body is not None and not path.startswith("/auth/"):
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
                content: bytes = answer.read()
        except urllib.error.HTTPError as error:
            raise ConnectionError(f"Home Assistant answers {path} with {error}: {error.read()[:1000]!r}") from error
        return content


def _json(body: Any) -> bytes:
    return json.dumps(body).encode()
