"""A daemon with a fake model that announces itself, and one camera that shows what a test wants."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from home_assistant.instance import HomeAssistant, State
from moedge_runtime.mqtt.address import BrokerAddress
from moedge_runtime.mqtt.home_assistant import discovery_topic
from moedge_runtime.mqtt.topics import Topics
from PIL import Image
from runtime.camera.http_camera import HttpCamera
from runtime.camera.videos import brightness
from runtime.daemon.fakes import write_config
from runtime.daemon.test_process import DEADLINE_S, Daemon
from runtime.daemon.test_protection import FAKE_PI, VOLTAGE_ALARM
from runtime.daemon.test_protection import write as write_board
from runtime.daemon.update_units import Systemd, make_store
from runtime.mqtt.listener import Listener

BASE = "t"
SCHEMA = {
    "type": "object",
    "properties": {"frame": {"type": "integer"}},
    "required": ["frame"],
    "additionalProperties": False,
}
ZONES = {"door": "0,0,1,0,1,0.5,0,0.5"}


def picture(number: int) -> bytes:
    """As bright as its number, with a white square whose place tells it, too: motion is what is not light alone."""
    file = io.BytesIO()
    image = Image.new("RGB", (64, 48), (brightness(number),) * 3)
    image.paste("white", (number, 0, number + 16, 16))
    image.save(file, "JPEG", quality=95)
    return file.getvalue()


class Device:
    """What the daemon says, and what Home Assistant makes of it.

    Attributes:
        name: Of the device.
        topics: Its topic tree.
        shows: Number of the picture that its camera gives from now on.
        store: Of its model, sample@1.
        systemd: What starts updates.
    """

    def __init__(self, name: str, home: HomeAssistant, broker: BrokerAddress, directory: Path, bundle: Path) -> None:
        self.name, self.topics = name, Topics(BASE, name)
        self.shows = 5
        self.store, self.systemd = directory / "store", Systemd(directory)
        self._home, self._broker, self._directory = home, broker, directory
        self._bundle = make_store(self.store, bundle)
        self._announced = discovery_topic("homeassistant", name)
        self._camera = HttpCamera(lambda handler: handler.reply(200, picture(self.shows), Content_Type="image/jpeg"))
        self._board = write_board(directory / "board", FAKE_PI)

    @contextmanager
    def running(self, camera: str) -> Iterator[None]:
        """With a camera of that name; the device is taken away from Home Assistant at the end."""
        with self._camera, Listener(self._broker, f"{BASE}/{self.name}/#", self._announced) as self.listener:
            self.write(self.sections(camera))
            self.systemd.listen("moedge-update")
            self.start()
            try:
                yield
            finally:
                self.kill()
                self.systemd.close()
                if self._home.states(self.name):
                    self.listener.publish(self._announced, b"", retain=True)

    def sections(self, camera: str) -> dict[str, Any]:
        """Its configuration: a camera that runs, and one that does not."""
        source = {"source": self._camera.url, "fps": 10, "frozen_after": "never"}
        counted = {"question": "Which frame?", "json_schema": SCHEMA, "state": "frame", "unit": "frames"}
        watches: list[dict[str, Any]] = [
            {"name": "scene", "question": "Which frame?"},
            {"name": "number", **counted, "alert": {"field": "frame", "above": 20}},
            {"name": "failing", "question": "FAIL always"},
            {"name": "uncounted", **counted, "question": "FAIL always"},
        ]
        return {
            "device": self.name,
            "mqtt": {
                "url": f"mqtt://127.0.0.1:{self._broker.port}",
                "base_topic": BASE,
                "home_assistant": True,
                "snapshots": True,
                "spool": {"directory": "spool"},
            },
            "cameras": {camera: {**source, "motion": True, "zones": ZONES}, "closed": {**source, "enabled": False}},
            "watches": [{**watch, "camera": camera, "interval": "100ms"} for watch in watches],
            "health": {"interval": 1},
        }

    def write(self, sections: dict[str, Any]) -> None:
        self._config = write_config(self._directory, self._bundle, self._broker.port, **sections)

    def reload(self, sections: dict[str, Any]) -> None:
        self.write(sections)
        self.listener.publish(self.topics.request("reload"), b"{}")

    def start(self) -> None:
        self._process = Daemon(self._config, f"--board={self._board}", f"--sockets={self._directory}")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(DEADLINE_S)

    def weaken_power(self) -> None:
        """As a supply that cannot give enough."""
        write_board(self._board, {VOLTAGE_ALARM: "1"})

    def components(self) -> dict[str, Any]:
        """What it has announced last, by key, but for what that removes."""
        components: dict[str, Any] = self.said(self._announced)["components"]
        return {key: one for key, one in components.items() if "name" in one}

    def said(self, topic: str) -> Any:
        """The newest payload on a topic."""
        self.listener.message(topic)
        return json.loads(self.listener.on(topic)[-1])

    def states(self) -> dict[str, State]:
        """What Home Assistant has of it, by the key in the announcement, or by platform and name if that has none."""
        keys = {(one["platform"], one["name"]): key for key, one in self.components().items()}
        return {keys.get(entity, str(entity)): state for entity, state in self._home.states(self.name).items()}

    def state(self, key: str) -> str | None:
        """Of one entity; None if there is none."""
        return self.states().get(key, {}).get("state")

    def wait_for(self, key: str, state: str) -> None:
        """Wait for an entity's state."""
        self._home.wait(lambda: self.state(key) == state, f"{key} to be {state}", lambda: f"it is {self.state(key)}")
