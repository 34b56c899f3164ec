"""Lines of the log on MQTT: which ones, how many, and what is not in them; with real brokers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from moedge_runtime.config import load_config
from moedge_runtime.daemon.log_topic import BURST_LINES, LINES_PER_S, OWN, LogTopic, redactor
from moedge_runtime.mqtt import client
from moedge_runtime.mqtt.address import BrokerAddress
from moedge_runtime.mqtt.payloads import LogPayload
from runtime.daemon.fakes import write_config
from runtime.daemon.test_reload import LIVE, NUMBER, ask, running
from runtime.mqtt.brokers import Mosquitto
from runtime.mqtt.listener import Listener
from runtime.mqtt.test_client import wait_until

log = logging.getLogger("moedge_runtime.test")


class Line:
    """A line to a broker that may be away."""

    def __init__(self, level: Any = "warning", redact: Callable[[str], str] = str) -> None:
        self.now_s, self.connected = 0.0, True
        self.published: list[LogPayload] = []
        self.topic = LogTopic(level, self._publish, redact, lambda: self.now_s)

    def _publish(self, line: LogPayload) -> bool:
        if self.connected:
            self.published.append(line)
        return self.connected


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    logging.getLogger().addHandler(made.topic)
    yield made
    logging.getLogger().removeHandler(made.topic)


def test_a_line_has_its_level_its_place_and_its_time(line: Line) -> None:
    log.info("less than a warning")
    log.warning("a %s", "warning")
    log.critical("the end")
    assert [(said.level, said.namespace, said.message) for said in line.published] == [
        ("warning", "moedge_runtime.test", "a warning"),
        ("error", "moedge_runtime.test", "the end"),
    ]
    assert line.published[0].at.utcoffset() is not None


def test_without_a_broker_nothing_is_kept_and_all_is_counted(line: Line) -> None:
    line.connected = False
    for letter in "abc":
        log.error("unheard %s", letter)
    line.connected = True
    log.error("heard")
    assert [(said.message, said.dropped) for said in line.published] == [("heard", 3)]


def test_a_flood_is_cut_off_counted_and_ends(line: Line) -> None:
    names = [f"{first}{second}" for first in "abcdef" for second in "abcdef"]
    for name in names:
        log.error("Camera '%s' failed.", name)
    assert len(line.published) == BURST_LINES
    assert line.topic.dropped == len(names) - BURST_LINES
    line.now_s += 2 / LINES_PER_S
    for name in ("x", "y", "z"):
        log.error("Camera '%s' failed.", name)
    assert [said.message for said in line.published[BURST_LINES:]] == ["Camera 'x' failed.", "Camera 'y' failed."]


def test_what_publishing_itself_says_is_never_published(line: Line) -> None:
    assert client.__name__ in OWN
    for name in OWN:
        logging.getLogger(name).error("The broker refused a message.")
    assert line.published == [] and line.topic.dropped == 0


def test_secrets_are_not_in_it(tmp_path: Path, bundle: Path) -> None:
    cameras = {
        "gate": {"source": "rtsp://10.0.0.7/s1", "username": "u", "password": "s3cret-of-gate"},
        "door": {"source": "http://10.0.0.8/snap?user=u&pwd=hidden"},
    }
    mqtt = {"url": "mqtt://broker", "username": "d", "password": "s3cret"}
    watch = {**NUMBER, "camera": "gate"}
    path = write_config(tmp_path, bundle, 1, cameras=cameras, mqtt=mqtt, watches=[watch], web={"token": "t" * 16})
    redact = redactor(load_config(path))
    assert redact(f"s3cret, s3cret-of-gate and {'t' * 16} at http://10.0.0.8/snap?user=u&pwd=hidden: no answer") == (
        "…, … and … at http://10.0.0.8/snap?user=…&pwd=…: no answer"
    )


@pytest.fixture
def path(place: Path, bundle: Path, broker: BrokerAddress) -> Path:
    return write_config(place, bundle, broker.port, cameras=LIVE, watches=[NUMBER])


def test_a_daemon_publishes_its_warnings_and_errors_and_stops_at_its_end(path: Path, broker: BrokerAddress) -> None:
    before = logging.getLogger().handlers[:]
    with Listener(broker, "t/#") as listener:
        with running(path):
            listener.message("t/d/panel/answer")
            log.info("an answer")
            log.warning("something is wrong")
            said = listener.json("t/d/log", "something is wrong")
            assert (said["level"], said["namespace"]) == ("warning", "moedge_runtime.test")
            assert not any(b"an answer" in payload for payload in listener.on("t/d/log"))
            assert not listener.message("t/d/log").retain
            assert ask(listener, "health")["data"]["mqtt"]["log_dropped"] == 0
        assert logging.getLogger().handlers == before


def test_it_can_be_switched_off_and_nothing_of_before_comes_after(path: Path, broker: BrokerAddress) -> None:
    path.write_text(path.read_text().replace("base_topic: t", "base_topic: t\n  log: off"))
    assert load_config(path).mqtt.log is None
    with Listener(broker, "t/#") as listener, running(path):
        listener.message("t/d/panel/answer")
        log.warning("something is wrong")
        ask(listener, "health")
        assert listener.on("t/d/log") == []
        path.write_text(path.read_text().replace("log: off", "log: info"))
        ask(listener, "reload")
        listener.message("t/d/log", "fake answer")
        assert not any(b"something" in payload for payload in listener.on("t/d/log"))


def test_lines_while_the_broker_is_away_are_gone_and_told(
    tmp_path: Path, place: Path, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Mosquitto(tmp_path)
    address = broker.start()
    path = write_config(place, bundle, address.port, cameras=LIVE, watches=[NUMBER])
    with running(path):
        with Listener(address, "t/#") as listener:
            listener.message("t/d/panel/answer")
        broker.kill()
        wait_until(lambda: "Connecting again." in caplog.text, "the client never noticed")
        handler = next(one for one in logging.getLogger().handlers if isinstance(one, LogTopic))
        wait_until(lambda: log.error("unheard") or handler.dropped, "it is kept")  # type: ignore[func-returns-value]
        lost = handler.dropped
        broker.start()
        with Listener(address, "t/#") as listener:
            listener.message("t/d/status", "online")
            assert ask(listener, "health")["data"]["mqtt"]["log_dropped"] >= lost
            log.error("heard")
            assert listener.json("t/d/log", "heard")["message"] == "heard"
            assert listener.message("t/d/log").qos == 0, "the listener asks for 1"
            assert listener.json("t/d/log")["dropped"] >= lost
            assert not any(b"unheard" in payload for payload in listener.on("t/d/log"))
    broker.stop()
