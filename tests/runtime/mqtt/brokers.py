"""Real brokers for tests: mosquitto from Debian as a process, and the embedded one."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from moedge_runtime.mqtt.address import BrokerAddress
from moedge_runtime.mqtt.broker import EmbeddedBroker
from moedge_runtime.mqtt.listening import free_port, wait_until_listening

START_S = 20.0


class Mosquitto:
    """mosquitto on a free port of this machine; without persistence, so that a restart forgets everything."""

    def __init__(self, directory: Path, *lines: str) -> None:
        binary = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
        if binary is None:
            pytest.skip("mosquitto is not installed; run: apt-get install mosquitto")
        self._binary = binary
        self.address = BrokerAddress("127.0.0.1", free_port())
        self._config = directory / f"mosquitto-{self.address.port}.conf"
        rules = lines or ("allow_anonymous true",)
        self._config.write_text(
            "\n".join(("user root", f"listener {self.address.port} 127.0.0.1", "persistence false", *rules, ""))
        )
        self._log = directory / f"mosquitto-{self.address.port}.log"

    def start(self) -> BrokerAddress:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([self._binary, "-c", str(self._config)], stdout=log, stderr=log)
        listening = wait_until_listening(self._process, self.address.host, self.address.port, START_S)
        assert listening, f"mosquitto did not start: {self._log.read_text()}"
        return self.address

    def log(self) -> str:
        return self._log.read_text()

    def reload(self) -> None:
        """Read passwords and access list again."""
        self._process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid


def add_password(directory: Path, user: str, password: str) -> Path:
    """A password file for mosquitto."""
    if shutil.which("mosquitto_passwd") is None:
        pytest.skip("mosquitto_passwd is not installed; run: apt-get install mosquitto")
    path = directory / "passwords"
    path.touch()
    subprocess.run(["mosquitto_passwd", "-b", str(path), user, password], check=True, capture_output=True)
    return path


def running_mosquitto(directory: Path) -> Iterator[BrokerAddress]:
    broker = Mosquitto(directory)
    try:
        yield broker.start()
    finally:
        broker.stop()


def running_embedded() -> Iterator[BrokerAddress]:
    pytest.importorskip("iotcore", reason="the embedded broker is not installed; run: pip install 'moedge[broker]'")
    broker = EmbeddedBroker("127.0.0.1", 0)
    try:
        yield broker.start()
    finally:
        broker.stop()
