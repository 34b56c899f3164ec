"""The daemon as a process: signals, kill -9, a broker that dies, what it imports."""

from __future__ import annotations

import json
import os
import queue
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from moedge_runtime.mqtt.address import BrokerAddress
from moedge_runtime.mqtt.listening import free_port
from runtime.camera.videos import write_video
from runtime.daemon.fakes import write_config
from runtime.mqtt.brokers import Mosquitto, add_password
from runtime.mqtt.certificates import Authority
from runtime.mqtt.listener import Listener

DEADLINE_S = 30.0
SCRIPT = Path(__file__).with_name("fake_daemon.py")
NO_FRAMES = {"panel": {"source": "file:panel.mp4", "enabled": False}}
HEAVY = {"torch", "transformers", "optimum", "onnx", "onnx_ir", "safetensors"}


class Daemon(subprocess.Popen[str]):
    """The fake daemon in a session of its own. Its log is read all the time: a full pipe would stop it."""

    def __init__(self, config: Path, *options: str, environment: Mapping[str, str] | None = None) -> None:
        super().__init__(
            [sys.executable, str(SCRIPT), str(config), *options],
            env={**os.environ, **(environment or {})},
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
def process(config: Path, *options: str, environment: Mapping[str, str] | None = None) -> Iterator[Daemon]:
    with Daemon(config, *options, environment=environment) as daemon:
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


def test_a_request_restarts_the_daemon_in_the_same_process(place_config: Path, broker: BrokerAddress) -> None:
    with Listener(broker, "t/#") as listener, process(place_config) as daemon:
        first = listener.json("t/d/info")["started_at"]
        listener.publish("t/d/request/restart", b'{"transaction": 1}')
        assert listener.json("t/d/response/restart")["data"] == {"restarting": True}
        listener.message("t/d/status", "stopped")
        listener.wait(lambda messages: listener.on("t/d/status")[-1] == b'{"state":"online"}', "online again")
        listener.clear()
        listener.publish("t/d/request/info", b"{}")
        assert listener.json("t/d/response/info")["data"]["started_at"] > first
        assert daemon.poll() is None, "the same process"
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(DEADLINE_S) == 0


def test_sighup_reads_the_configuration_again(place: Path, bundle: Path, broker: BrokerAddress) -> None:
    config = write_config(place, bundle, broker.port, cameras=NO_FRAMES)
    with Listener(broker, "t/#") as listener, process(config) as daemon:
        listener.message("t/d/status", "online")
        config.write_text(config.read_text() + "health: {interval: 50ms}\n")
        daemon.send_signal(signal.SIGHUP)
        daemon.wait_for_log("was taken over.")
        listener.wait(lambda messages: len(listener.on("t/d/health")) > 5, "health at the new interval")
        config.write_text("nonsense")
        daemon.send_signal(signal.SIGHUP)
        daemon.wait_for_log("The configuration stays as it is.")
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(DEADLINE_S) == 0


def spooling(place: Path, bundle: Path, port: int, **mqtt: Any) -> Path:
    """A daemon that answers ten times a second and keeps what it cannot deliver in `place`/spool."""
    return write_config(
        place,
        bundle,
        port,
        mqtt={"url": f"mqtt://127.0.0.1:{port}", "base_topic": "t", "spool": {"directory": "spool"}, **mqtt},
        cameras={"panel": {"source": "file:panel.mp4", "loop": True, "realtime": True}},
        watches=[{"name": "number", "camera": "panel", "question": "Which frame?", "interval": "100ms"}],
    )


def test_answers_survive_kill_9_without_a_broker_and_come_once_each_with_their_time_and_a_mark(
    place: Path, bundle: Path
) -> None:
    broker = Mosquitto(place)
    config = spooling(place, bundle, broker.address.port)
    with process(config) as daemon:
        for _ in range(20):
            daemon.wait_for_log("panel/number: fake answer")
        daemon.kill()
        daemon.wait(DEADLINE_S)
    killed_at = datetime.now(timezone.utc)
    address = broker.start()
    with Listener(address, "t/d/#") as listener:
        with process(config) as daemon:
            listener.wait(
                lambda messages: any(not json.loads(one)["replayed"] for one in listener.on("t/d/panel/answer")),
                "a fresh answer",
            )
            listener.publish("t/d/request/health", b"{}")
            spool = listener.json("t/d/response/health")["data"]["mqtt"]["spool"]
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(DEADLINE_S) == 0
        said = [json.loads(payload) for payload in listener.on("t/d/panel/answer")]
    broker.stop()
    identifiers = [answer["id"] for answer in said]
    assert identifiers == sorted(set(identifiers)), "in order, each once"
    old = [
        answer for answer in said if datetime.fromisoformat(answer["answered_at"].replace("Z", "+00:00")) < killed_at
    ]
    assert len(old) >= 19, "at most the one being written when the process died is missing"
    assert all(answer["replayed"] for answer in old)
    assert not said[-1]["replayed"]
    assert spool["error"] is None and spool["replayed"] >= len(old) and spool["damaged"] == 0


@pytest.mark.parametrize("point", ["made", "queued", "sent", "acknowledged"])
def test_kill_9_at_any_point_of_an_answer_makes_no_second_one_of_it(place: Path, bundle: Path, point: str) -> None:
    broker = Mosquitto(place)
    address = broker.start()
    config = spooling(place, bundle, address.port)
    with Listener(address, "t/d/panel/answer", "t/d/status") as listener:
        with process(config, f"--die={point}") as daemon:
            assert daemon.wait(DEADLINE_S) == -signal.SIGKILL
        listener.message("t/d/status", "offline")
        before = [json.loads(payload)["id"] for payload in listener.on("t/d/panel/answer")]
        with process(config) as daemon:
            listener.wait(lambda messages: len(listener.on("t/d/panel/answer")) > len(before) + 2, "new answers")
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(DEADLINE_S) == 0
        identifiers = [json.loads(payload)["id"] for payload in listener.on("t/d/panel/answer")]
    broker.stop()
    expected = range(3, 20) if point == "acknowledged" else range(18, 21)
    assert len(before) in expected, "an acknowledged answer has arrived; states are acknowledged too"
    assert identifiers == sorted(set(identifiers)), "in order, each once"


@pytest.mark.parametrize(
    ("point", "written"),
    [("checked", False), ("changed", False), ("written", True)],
)
def test_kill_9_at_any_point_of_a_reload_leaves_one_configuration_whole_and_doubles_no_answer(
    place: Path, bundle: Path, point: str, written: bool
) -> None:
    broker = Mosquitto(place)
    address = broker.start()
    config = spooling(place, bundle, address.port)
    old = config.read_text()
    new = old.replace("Which frame?", "Which frame now?")
    with Listener(address, "t/d/#") as listener:
        with process(config, f"--die={point}") as daemon:
            listener.wait(lambda messages: len(listener.on("t/d/panel/answer")) > 3, "answers")
            listener.publish("t/d/request/config", json.dumps({"config": new}))
            assert daemon.wait(DEADLINE_S) == -signal.SIGKILL
        listener.message("t/d/status", "offline")
        assert config.read_text() == (new if written else old)
        with process(config) as daemon:
            asked = "Which frame now?" if written else "Which frame?"
            before = len(listener.on("t/d/panel/answer"))
            listener.wait(lambda messages: len(listener.on("t/d/panel/answer")) > before + 3, "answers after it")
            assert json.loads(listener.on("t/d/panel/answer")[-1])["question"] == asked
            listener.publish("t/d/request/config", json.dumps({"config": new, "transaction": 2}))
            response = listener.json("t/d/response/config", '"transaction":2')
            assert response["data"] == {"changed": not written, "model_loaded": False}
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(DEADLINE_S) == 0
        identifiers = [json.loads(payload)["id"] for payload in listener.on("t/d/panel/answer")]
    broker.stop()
    assert identifiers == sorted(set(identifiers)), "in order, each once"


def test_kill_9_right_after_an_answer_was_kept_loses_none_of_them(place: Path, bundle: Path) -> None:
    broker = Mosquitto(place)
    config = spooling(place, bundle, broker.address.port)
    with process(config, "--die=kept") as daemon:
        assert daemon.wait(DEADLINE_S) == -signal.SIGKILL
    address = broker.start()
    with Listener(address, "t/d/panel/answer") as listener:
        with process(config) as daemon:
            listener.wait(lambda messages: b'"replayed":false' in b"".join(listener.on("t/d/panel/answer")), "the end")
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(DEADLINE_S) == 0
        said = [json.loads(payload) for payload in listener.on("t/d/panel/answer")]
    broker.stop()
    assert sum(answer["replayed"] for answer in said) >= 20
    assert [answer["id"] for answer in said] == sorted({answer["id"] for answer in said})


def test_a_clean_end_without_a_broker_keeps_the_answers_and_exits_with_0(place: Path, bundle: Path) -> None:
    with process(spooling(place, bundle, free_port())) as daemon:
        daemon.wait_for_log("panel/number: fake answer")
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(2 * DEADLINE_S) == 0
    assert list((place / "spool").glob("*.seg"))


def test_a_second_daemon_on_the_same_spool_is_refused(place: Path, bundle: Path) -> None:
    config = spooling(place, bundle, free_port())
    with process(config) as daemon:
        daemon.wait_for_log("panel/number: fake answer")
        daemon.wait_for_log("panel/number: fake answer")
        with process(config) as second:
            second.wait_for_log("is used by another process")
            assert second.wait(DEADLINE_S) == 1


def test_refused_credentials_that_are_put_right_on_the_broker_let_the_device_in(place: Path, bundle: Path) -> None:
    passwords = add_password(place, "d", "old")
    broker = Mosquitto(place, "allow_anonymous false", f"password_file {passwords}")
    address = broker.start()
    config = spooling(place, bundle, address.port, username="d", password="new")
    with process(config) as daemon:
        daemon.wait_for_log("refused the connection: Not authorized.")
        add_password(place, "d", "new")
        broker.reload()
        daemon.wait_for_log("Connected to broker")
        with Listener(address, "t/#", username="d", password="new") as listener:
            listener.message("t/d/panel/answer")
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(DEADLINE_S) == 0
    broker.stop()


def test_a_board_that_wakes_up_in_1970_connects_over_tls_once_its_clock_is_set(place: Path, bundle: Path) -> None:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("faketime is not installed; run: apt-get install faketime")
    authority = Authority(place)
    certificate, key = authority.issue("server")
    broker = Mosquitto(place, "allow_anonymous true", f"certfile {certificate}", f"keyfile {key}")
    address = broker.start()
    config = spooling(place, bundle, address.port, url=f"mqtts://127.0.0.1:{address.port}", ca="ca.pem")
    clock = place / "clock"
    clock.write_text("@1970-01-01 00:00:10\n")
    faked = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    context = ssl.create_default_context(cafile=str(authority.ca))
    with process(config, environment=faked) as daemon:
        line = daemon.wait_for_log("TLS with broker")
        assert "certificate is not yet valid" in line and "this board's clock (it says 1970-01-01)" in line
        daemon.wait_for_log("panel/number: fake answer")
        daemon.wait_for_log("panel/number: fake answer")
        clock.write_text("+0\n")
        with Listener(BrokerAddress(address.host, address.port), "t/#", context=context) as listener:
            old = listener.json("t/d/panel/answer", '"replayed":true')
            assert old["answered_at"].startswith("1970-01-01")
            listener.message("t/d/panel/answer", '"replayed":false')
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(DEADLINE_S) == 0
    broker.stop()
