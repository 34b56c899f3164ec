"""The daemon as a process: signals, kill -9, a broker that dies, what it imports."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from moedge_runtime.mqtt.address import BrokerAddress
from moedge_runtime.mqtt.listening import free_port
from runtime.camera.videos import write_video
from runtime.daemon.fakes import write_config
from runtime.mqtt.brokers import Mosquitto
from runtime.mqtt.listener import Listener

DEADLINE_S = 30.0
SCRIPT = Path(__file__).with_name("fake_daemon.py")
HEAVY = {"torch", "transformers", "optimum", "onnx", "onnx_ir", "safetensors"}


class Daemon(subprocess.Popen[str]):
    """The fake daemon in a session of its own. Its log is read all the time: a full pipe would stop it."""

    def __init__(self, config: Path, *options: str) -> None:
        super().__init__(
            [sys.executable, str(SCRIPT), str(config), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._log: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read_log, daemon=True).start()

    def wait_for_log(self, text: str) -> str:
        """Wait until a line of the log holds `text`; the line."""
        deadline = time.monotonic() + DEADLINE_S
        while text not in (line := self._log.get(timeout=deadline - time.monotonic())):
            pass
        return line

    def _read_log(self) -> None:
        assert self.stderr is not None
        for line in self.stderr:
            self._log.put(line)


@contextmanager
def process(config: Path, *options: str) -> Iterator[Daemon]:
    with Daemon(config, *options) as daemon:
        try:
            yield daemon
        finally:
            daemon.kill()


@pytest.fixture
def place_config(place: Path, bundle: Path, broker: BrokerAddress) -> Path:
    return write_config(
        place, bundle, broker.port, cameras={"panel": {"source": "file:panel.mp4", "loop": True, "realtime": True}}
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_says_stopped_and_exits_with_0(
    place_config: Path, broker: BrokerAddress, number: signal.Signals
) -> None:
    with Listener(broker, "t/#") as listener, process(place_config) as daemon:
        listener.message("t/d/panel/answer")
        daemon.send_signal(number)
        assert daemon.wait(DEADLINE_S) == 0
        listener.message("t/d/status", "stopped")
        listener.publish("t/end", b"")
        listener.message("t/end")
        assert b'{"state":"offline"}' not in listener.on("t/d/status"), "a clean end publishes no will"
        assert listener.messages[-2].topic == "t/d/status", "nothing is said after stopped"


def test_kill_9_makes_the_broker_publish_the_will(place_config: Path, broker: BrokerAddress) -> None:
    with Listener(broker, "t/#") as listener, process(place_config) as daemon:
        listener.message("t/d/panel/answer")
        daemon.kill()
        listener.message("t/d/status", "offline")
    with Listener(broker, "t/#") as late:
        assert late.json("t/d/status") == {"state": "offline"}


def test_a_second_signal_ends_at_once(place: Path, bundle: Path, broker: BrokerAddress) -> None:
    watches = [{"name": "deaf", "camera": "panel", "question": "DEAF to everything", "interval": 1}]
    config = write_config(place, bundle, broker.port, watches=watches)
    with Listener(broker, "t/#") as listener, process(config, "--patient") as daemon:
        listener.message("t/d/status", "online")
        daemon.wait_for_log("Nothing is heard from now on.")
        daemon.send_signal(signal.SIGTERM)
        daemon.wait_for_log("SIGTERM: stopping. Once more to end at once.")
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(DEADLINE_S) == 130
        listener.message("t/d/status", "offline")


def test_a_broker_that_is_killed_and_restarted_gets_everything_again(place: Path, bundle: Path) -> None:
    broker = Mosquitto(place)
    address = broker.start()
    watches = [{"name": "number", "camera": "panel", "question": "Which frame?", "interval": "100ms"}]
    cameras = {"panel": {"source": "file:panel.mp4", "loop": True, "realtime": True}}
    config = write_config(place, bundle, address.port, cameras=cameras, watches=watches)
    with process(config) as daemon:
        with Listener(address, "t/#") as listener:
            listener.message("t/d/panel/answer")
            broker.kill()
        broker.start()
        with Listener(address, "t/#") as listener:
            listener.message("t/d/status", "online")
            assert listener.json("t/d/info")["device"] == "d"
            assert listener.json("t/d/panel/status")["state"] == "online"
            listener.wait(lambda messages: len(listener_answers(messages)) > 5, "answers after the restart")
            identifiers = listener_answers(listener.messages)
            assert list(dict.fromkeys(identifiers)) == sorted(identifiers), "in order"
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(DEADLINE_S) == 0
    broker.stop()


def listener_answers(messages: list[Any]) -> list[str]:
    return [json.loads(item.payload)["id"] for item in messages if item.topic == "t/d/panel/answer"]


def test_a_daemon_that_starts_before_its_broker_finds_it(place: Path, bundle: Path) -> None:
    broker = Mosquitto(place)
    config = write_config(place, bundle, broker.address.port)
    with process(config, "--exit-when-done") as daemon:
        daemon.wait_for_log("cannot be reached: Connection refused.")
        address = broker.start()
        with Listener(address, "t/#") as listener:
            listener.message("t/d/status", "stopped")
            assert json.loads(listener.on("t/d/panel/answer/last")[-1])["frame"]["index"] == 30
            heard = listener_answers(listener.messages)
            assert len(heard) <= 4 and heard == sorted(heard), "who comes late has missed the first ones"
        assert daemon.wait(DEADLINE_S) == 0, "all answers were delivered"
    broker.stop()


def test_a_daemon_that_cannot_deliver_its_answers_says_so_and_exits_with_1(place: Path, bundle: Path) -> None:
    with process(write_config(place, bundle, free_port())) as daemon:
        daemon.wait_for_log("panel/number: fake answer: frame 30")
        daemon.send_signal(signal.SIGTERM)
        daemon.wait_for_log(
            "Answers, events or responses that no broker has acknowledged are lost: 8. Check the broker."
        )
        assert daemon.wait(DEADLINE_S) == 1


def test_a_file_camera_waits_for_a_broker_that_is_away_and_no_answer_is_dropped(place: Path, bundle: Path) -> None:
    write_video(place / "panel.mp4", frames=1200, fps=60)
    broker = Mosquitto(place)
    watches = [{"name": "number", "camera": "panel", "question": "Which frame?", "interval": "every_frame"}]
    config = write_config(place, bundle, broker.address.port, watches=watches)
    with process(config, "--exit-when-done") as daemon:
        for _ in range(250):  # each has an event, too
            daemon.wait_for_log("panel/number: fake answer")
        address = broker.start()
        assert daemon.wait(2 * DEADLINE_S) == 0
    with Listener(address, "t/d/health") as late:
        health = late.json("t/d/health")
    assert health["watches"]["number"] == {"due": 1200, "answered": 1200, "late": 0, "failed": 0, "dropped": 0}
    assert (health["mqtt"]["dropped"], health["mqtt"]["queued"]) == (0, 0)
    broker.stop()


def test_the_embedded_broker_carries_a_whole_run_and_outlives_a_signal_to_the_group(place: Path, bundle: Path) -> None:
    pytest.importorskip("iotcore")
    port = free_port()
    config = write_config(
        place,
        bundle,
        port,
        mqtt={"embedded": {"port": port}, "base_topic": "t"},
        cameras={"panel": {"source": "file:panel.mp4", "loop": True, "realtime": True}},
    )
    with process(config) as daemon:
        daemon.wait_for_log("Connected to broker")
        with Listener(BrokerAddress("127.0.0.1", port), "t/#") as listener:
            listener.message("t/d/panel/answer")
            os.killpg(daemon.pid, signal.SIGTERM)
            listener.message("t/d/status", "stopped")
        assert daemon.wait(DEADLINE_S) == 0


def test_an_embedded_broker_that_dies_is_started_again_and_told_everything(place: Path, bundle: Path) -> None:
    pytest.importorskip("iotcore")
    port = free_port()
    config = write_config(
        place,
        bundle,
        port,
        mqtt={"embedded": {"port": port}, "base_topic": "t"},
        cameras={"panel": {"source": "file:panel.mp4", "loop": True, "realtime": True}},
    )
    with process(config) as daemon:
        line = daemon.wait_for_log("The embedded broker listens on")
        daemon.wait_for_log("Connected to broker")
        os.kill(int(line.partition("(process ")[2].partition(")")[0]), signal.SIGKILL)
        daemon.wait_for_log("The embedded broker ended with code -9. Starting it again.")
        daemon.wait_for_log("Connected to broker")
        with Listener(BrokerAddress("127.0.0.1", port), "t/#") as listener:
            listener.message("t/d/status", "online")
            assert listener.json("t/d/info")["device"] == "d"
            listener.message("t/d/panel/answer")
            daemon.send_signal(signal.SIGTERM)
            listener.message("t/d/status", "stopped")
        assert daemon.wait(DEADLINE_S) == 0


def test_a_run_loads_nothing_that_belongs_to_export(place: Path, bundle: Path, broker: BrokerAddress) -> None:
    with process(write_config(place, bundle, broker.port), "--exit-when-done") as daemon:
        output, errors = daemon.communicate(timeout=30)
    assert daemon.returncode == 0, errors
    modules = set(output.partition("modules:")[2].split())
    assert {"moedge_runtime", "av", "paho"} <= modules
    assert not HEAVY & modules
