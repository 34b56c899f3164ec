"""Requests that change a running daemon: configuration, reload, log level, snapshots; with real brokers."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from moedge_runtime.bundle import Bundle
from moedge_runtime.config import ModelConfig, load_config
from moedge_runtime.daemon.service import Daemon
from moedge_runtime.errors import BundleError
from moedge_runtime.mqtt.address import BrokerAddress
from moedge_runtime.mqtt.listening import free_port
from moedge_runtime.mqtt.spool import Spool
from PIL import Image
from runtime.bundle.sample import write_sample
from runtime.daemon.fakes import FakeAnswerer, write_config
from runtime.mqtt.home_assistant_rules import problems
from runtime.mqtt.listener import DEADLINE_S, Listener
from runtime.mqtt.test_client import wait_until

LIVE = {"panel": {"source": "file:panel.mp4", "loop": True, "realtime": True}}
NUMBER = {"name": "number", "camera": "panel", "question": "Which frame?", "interval": "100ms"}


COUNTER = itertools.count()


class Models:
    """Opens fake models and counts them; `refuse` names bundles that fail."""

    def __init__(self) -> None:
        self.opened: list[FakeAnswerer] = []
        self.refuse: set[str] = set()

    def __call__(self, bundle: Bundle, config: ModelConfig) -> FakeAnswerer:
        assert all(answerer.closed for answerer in self.opened), "never two models in memory"
        if bundle.path.name in self.refuse:
            raise BundleError("This fake does not load.", key="bundle.fake")
        self.opened.append(FakeAnswerer())
        return self.opened[-1]


@contextmanager
def running(path: Path) -> Iterator[Models]:
    models = Models()
    daemon = Daemon(load_config(path), models)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(daemon.run()))
    level = logging.getLogger().level
    thread.start()
    try:
        yield models
    finally:
        for answerer in models.opened:
            answerer.gate.set()
        daemon.request_stop()
        thread.join(DEADLINE_S)
        logging.getLogger().setLevel(level)
    assert codes == [0]
    assert models.opened[-1].closed


@pytest.fixture
def path(place: Path, bundle: Path, broker: BrokerAddress) -> Path:
    return write_config(place, bundle, broker.port, cameras=LIVE, watches=[NUMBER])


def ask(listener: Listener, verb: str, **keys: Any) -> dict[str, Any]:
    """The response to a request."""
    transaction = f"{verb}-{next(COUNTER)}"
    listener.publish(f"t/d/request/{verb}", json.dumps({"transaction": transaction, **keys}))
    response: dict[str, Any] = listener.json(f"t/d/response/{verb}", f'"{transaction}"')
    return response


def changed(path: Path, **sections: Any) -> str:
    """The configuration at `path` as text with some sections replaced."""
    return yaml.safe_dump(yaml.safe_load(path.read_text()) | sections, sort_keys=False)


def test_a_new_configuration_is_written_and_runs_and_the_model_stays(
    path: Path, broker: BrokerAddress, request: pytest.FixtureRequest
) -> None:
    path.chmod(0o640)
    text = changed(path, watches=[{**NUMBER, "name": "other", "question": "Another question?"}])
    with Listener(broker, "t/#") as listener, running(path) as models:
        listener.message("t/d/panel/answer", '"watch":"number"')
        response = ask(listener, "config", config=text)
        assert (response["status"], response["data"]) == ("ok", {"changed": True, "model_loaded": False})
        assert path.read_text() == text
        assert path.stat().st_mode & 0o777 == 0o640
        assert list(path.parent.glob(".*.new")) == []
        assert listener.json("t/d/panel/answer", '"watch":"other"')["question"] == "Another question?"
        assert ask(listener, "config")["data"]["watches"][0]["name"] == "other"
        assert len(models.opened) == 1
        assert b'{"state":"stopped"}' not in listener.on("t/d/status"), "it stays online"
        assert b'{"state":"offline"}' not in listener.on("t/d/status")


def test_the_model_is_told_which_cameras_there_are_and_of_which_it_is_asked(path: Path, broker: BrokerAddress) -> None:
    renamed = changed(path, cameras={"door": LIVE["panel"]}, watches=[{**NUMBER, "camera": "door"}])
    with Listener(broker, "t/#") as listener, running(path) as models:
        listener.message("t/d/panel/answer")
        assert (models.opened[0].cameras, models.opened[0].asked_of) == ({"panel"}, {"panel"})
        assert ask(listener, "config", config=renamed)["data"] == {"changed": True, "model_loaded": False}
        listener.message("t/d/door/answer")
        assert models.opened[0].cameras == {"door"}
        models.opened[0].asked_of.clear()
        assert ask(listener, "ask", question="Which frame?")["status"] == "ok"
        assert models.opened[0].asked_of == {"door"}


def test_a_wrong_configuration_changes_nothing_and_all_that_is_wrong_is_told(path: Path, broker: BrokerAddress) -> None:
    before = path.read_text()
    wrong = changed(path, watches=[{**NUMBER, "camera": "panle", "intervall": 1}])
    with Listener(broker, "t/#") as listener, running(path) as models:
        listener.message("t/d/panel/answer")
        error = ask(listener, "config", config=wrong)["error"]
        assert error["key"] == "config.invalid"
        assert "has 2 errors:\n" in error["message"]
        assert "watches[0].camera: there is no camera 'panle'; known are: panel" in error["message"]
        assert "watches[0].intervall: unknown key. Did you mean 'interval'?" in error["message"]
        error = ask(listener, "config", config="version: [")["error"]
        assert error["key"] == "config.invalid_yaml"
        refused = changed(path, watches=[{**NUMBER, "question": "REFUSED by the model"}])
        assert "This fake refuses the question." in ask(listener, "config", config=refused)["error"]["message"]
        assert path.read_text() == before
        path.write_text(wrong)
        assert ask(listener, "reload")["error"]["key"] == "config.invalid"
        listener.clear()
        listener.message("t/d/panel/answer", '"watch":"number"')
        assert len(models.opened) == 1


def test_a_file_changed_on_the_board_is_taken_over_by_reload(path: Path, broker: BrokerAddress) -> None:
    with Listener(broker, "t/#") as listener, running(path):
        listener.message("t/d/panel/answer")
        assert ask(listener, "reload")["data"] == {"changed": False, "model_loaded": False}
        path.write_text("# a comment\n" + path.read_text())
        assert ask(listener, "reload")["data"] == {"changed": False, "model_loaded": False}, "comments change nothing"
        path.write_text(changed(path, log={"level": "warning"}))
        response = ask(listener, "reload")
        assert response["data"] == {"changed": True, "model_loaded": False}
        assert logging.getLogger().level == logging.WARNING


def test_another_model_is_loaded_in_the_place_of_the_old_one_and_a_bad_one_gives_the_old_one_back(
    path: Path, bundle: Path, broker: BrokerAddress, tmp_path_factory: pytest.TempPathFactory
) -> None:
    others = tmp_path_factory.mktemp("others")
    bad, good = write_sample(others / "bad"), write_sample(others / "good")
    before = path.read_text()
    with Listener(broker, "t/#") as listener, running(path) as models:
        listener.message("t/d/panel/answer")
        models.refuse.add("bad")
        error = ask(listener, "config", config=changed(path, model={"bundle": str(bad)}))["error"]
        assert (error["key"], path.read_text()) == ("bundle.fake", before)
        listener.clear()
        assert listener.json("t/d/panel/answer")["model"]["bundle"] == "sample"
        assert [answerer.closed for answerer in models.opened] == [True, False], "the old one again"
        error = ask(listener, "config", config=changed(path, model={"bundle": str(others / "none")}))["error"]
        assert error["key"].startswith("bundle") and len(models.opened) == 2, "not there: nothing was touched"
        response = ask(listener, "config", config=changed(path, model={"bundle": str(good)}))
        assert response["data"] == {"changed": True, "model_loaded": True}
        listener.message("t/d/panel/answer", '"bundle":"good"')
        assert listener.json("t/d/info", '"bundle":"good"')["model"]["bundle"] == "good"


def test_commands_cannot_be_set_over_mqtt_but_stay_if_they_are_there(path: Path, broker: BrokerAddress) -> None:
    command = {"source": "exec:true"}
    before = path.read_text()
    with Listener(broker, "t/#") as listener, running(path):
        listener.message("t/d/panel/answer")
        error = ask(listener, "config", config=changed(path, cameras={**LIVE, "evil": command}))["error"]
        assert (error["key"], path.read_text()) == ("config.command_not_allowed", before)
    path.write_text(changed(path, cameras={**LIVE, "known": {**command, "enabled": False}}))
    with Listener(broker, "t/#") as listener, running(path):
        listener.message("t/d/panel/answer")
        text = changed(path, log={"level": "error"})
        assert ask(listener, "config", config=text)["data"]["changed"] is True


def test_a_device_that_is_not_to_be_changed_is_not(path: Path, broker: BrokerAddress) -> None:
    mqtt = {**yaml.safe_load(path.read_text())["mqtt"], "remote_config": False}
    path.write_text(changed(path, mqtt=mqtt))
    with Listener(broker, "t/#") as listener, running(path):
        listener.message("t/d/status", "online")
        response = ask(listener, "config", config=changed(path, log={"level": "error"}))
        assert response["error"]["key"] == "request.config_not_allowed"
        assert ask(listener, "config")["status"] == "ok", "it may be read"


def test_a_file_that_cannot_be_replaced_is_an_error_and_the_old_one_runs(
    path: Path, broker: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_text()
    text = changed(path, log={"level": "error"})
    with Listener(broker, "t/#") as listener, running(path):
        listener.message("t/d/panel/answer")
        path.with_name(f".{path.name}.new").mkdir()
        error = ask(listener, "config", config=text)["error"]
        assert error["key"] == "config.not_writable" and "cannot be replaced (Is a directory)" in error["message"]
        path.with_name(f".{path.name}.new").rmdir()

        def refuse(self: Path, target: Path) -> Path:
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(Path, "replace", refuse)
        error = ask(listener, "config", config=text)["error"]
        monkeypatch.undo()
        assert error["key"] == "config.not_writable"
        assert path.read_text() == before
        assert ask(listener, "config")["data"]["log"]["level"] == "info"


def test_the_answer_under_way_is_finished_before_a_reload(path: Path, broker: BrokerAddress) -> None:
    gate = {**NUMBER, "question": "GATE", "interval": 3600}
    path.write_text(changed(path, watches=[gate]))
    text = changed(path, watches=[{**NUMBER, "name": "after"}])
    with Listener(broker, "t/#") as listener, running(path) as models:
        listener.message("t/d/status", "online")
        assert models.opened[0].held.wait(DEADLINE_S)
        listener.publish("t/d/request/ask", '{"question": "waiting", "transaction": "w"}')
        listener.publish("t/d/request/config", json.dumps({"config": text, "transaction": "c"}))
        assert listener.json("t/d/response/ask", '"w"')["error"]["key"] == "request.stopping"
        assert listener.on("t/d/panel/answer") == []
        models.opened[0].gate.set()
        assert listener.json("t/d/response/config", '"c"')["status"] == "ok"
        listener.message("t/d/panel/answer", '"watch":"after"')
        first = json.loads(listener.on("t/d/panel/answer")[0])
        assert (first["watch"], first["status"]) == ("number", "ok")


def test_what_a_reload_takes_away_is_removed_from_the_broker(path: Path, broker: BrokerAddress) -> None:
    mqtt = {**yaml.safe_load(path.read_text())["mqtt"], "home_assistant": {"prefix": "t/ha"}, "snapshots": True}
    cameras = {**LIVE, "gate": LIVE["panel"]}
    path.write_text(
        changed(path, mqtt=mqtt, cameras=cameras, watches=[NUMBER, {**NUMBER, "name": "g", "camera": "gate"}])
    )
    discovery = "t/ha/device/moedge_d/config"
    with Listener(broker, "t/#") as listener, running(path):
        listener.message("t/d/gate/watch/g")
        listener.message("t/d/gate/snapshot")
        text = changed(path, cameras=LIVE, watches=[NUMBER])
        assert ask(listener, "config", config=text)["status"] == "ok"
        listener.wait(lambda messages: b"" in listener.on("t/d/gate/watch/g"), "the removal")
        removal = listener.wait(
            lambda messages: next(
                (
                    m
                    for m in map(json.loads, listener.on(discovery))
                    if m["components"].get("watch_g") == {"platform": "sensor"}
                ),
                None,
            ),
            "the component's removal",
        )
        assert problems(discovery, removal) == []
        removed = max(index for index, message in enumerate(listener.messages) if message.topic == discovery)
        emptied = min(index for index, message in enumerate(listener.messages) if not message.payload)
        assert removed < emptied, "nothing is emptied while Home Assistant still reads it"
        listener.clear()
        ask(listener, "health")
    with Listener(broker, "t/#") as late:
        late.message("t/d/panel/watch/number")
        announced = late.json(discovery)
        assert problems(discovery, announced) == []
        assert not [topic for topic in (m.topic for m in late.messages) if topic.startswith("t/d/gate/")]
        assert "watch_g" not in announced["components"]


def test_states_that_are_not_told_any_more_are_removed_from_the_broker(path: Path, broker: BrokerAddress) -> None:
    mqtt = {**yaml.safe_load(path.read_text())["mqtt"], "home_assistant": {"prefix": "t/ha"}}
    schema = {"type": "object", "properties": {"frame": {"type": "integer"}}}
    alarming = {**NUMBER, "json_schema": schema, "alert": {"field": "frame", "above": 9}}
    moving = {"panel": {**LIVE["panel"], "motion": True}}
    gone = ("t/d/panel/motion", "t/d/panel/alert/number", "t/d/panel/watch/number", "t/ha/device/moedge_d/config")
    path.write_text(changed(path, mqtt=mqtt, cameras=moving, watches=[alarming]))
    with Listener(broker, "t/#") as listener, running(path):
        for topic in gone:
            listener.message(topic)
        text = changed(path, mqtt={**mqtt, "home_assistant": False}, cameras=LIVE, watches=[NUMBER])
        assert ask(listener, "config", config=text)["status"] == "ok"
        for topic in gone:
            listener.wait(lambda messages, topic=topic: b"" in listener.on(topic), f"the end of {topic}")
    with Listener(broker, "t/#") as late:
        late.message("t/d/panel/answer/last")
        assert not {message.topic for message in late.messages} & set(gone)


def test_home_assistant_hears_everything_again_when_it_has_started(path: Path, broker: BrokerAddress) -> None:
    mqtt = {**yaml.safe_load(path.read_text())["mqtt"], "home_assistant": {"prefix": "t/ha"}}
    path.write_text(changed(path, mqtt=mqtt, watches=[]))
    with Listener(broker, "t/#") as listener, running(path):
        listener.message("t/d/panel/status", "online")
        order = [message.topic for message in listener.messages]
        assert order[:3] == ["t/d/status", "t/ha/device/moedge_d/config", "t/d/info"]
        listener.clear()
        listener.publish("t/ha/status", b"online", retain=True)
        listener.message("t/ha/device/moedge_d/config")
        listener.message("t/d/info")
        listener.message("t/d/panel/status")
        listener.publish("t/ha/status", b"", retain=True)


def test_the_bounds_of_a_spool_can_be_changed_and_its_answers_stay(
    place: Path, bundle: Path, broker: BrokerAddress
) -> None:
    mqtt = {"url": str(broker), "base_topic": "t", "spool": {"directory": "spool", "max_size": "2M"}}
    path = write_config(place, bundle, broker.port, mqtt=mqtt, cameras=LIVE, watches=[NUMBER])
    with Listener(broker, "t/#") as listener, running(path):
        listener.message("t/d/panel/answer")
        mqtt["spool"] = {"directory": "spool", "max_size": "4M"}
        assert ask(listener, "config", config=changed(path, mqtt=mqtt))["data"]["changed"] is True
        with _taken(place / "other"):
            mqtt["spool"] = {"directory": "other"}
            error = ask(listener, "config", config=changed(path, mqtt=mqtt))["error"]
            assert error["key"] == "spool.locked"
        assert ask(listener, "health")["data"]["mqtt"]["spool"]["error"] is None


@contextmanager
def _taken(directory: Path) -> Iterator[None]:
    """A spool that another one uses."""
    spool = Spool(directory, max_bytes=1 << 20, max_age_s=60)
    spool.append([("t", b"x")])
    yield
    spool.close()


def test_info_says_that_a_key_which_is_read_at_start_wants_a_restart(path: Path, broker: BrokerAddress) -> None:
    with Listener(broker, "t/#") as listener, running(path):
        listener.message("t/d/panel/answer")
        assert ask(listener, "info")["data"]["restart_required"] is False
        assert ask(listener, "config", config=changed(path, log={"format": "json"}))["status"] == "ok"
        assert ask(listener, "info")["data"]["restart_required"] is True


def test_an_old_frame_is_none_where_a_fresh_one_is_wanted(path: Path, broker: BrokerAddress) -> None:
    with Listener(broker, "t/#") as listener, running(path):
        listener.message("t/d/panel/answer")
        for verb, keys in (("ask", {"question": "Which frame?"}), ("snapshot", {})):
            assert ask(listener, verb, freshness=3600, **keys)["status"] == "ok"
            error = ask(listener, verb, freshness=1e-9, **keys)["error"]
            assert error["key"] == "camera.frame_old" and "s old; freshness=1e-09 s" in error["message"]
            assert ask(listener, verb, freshness=0, **keys)["error"]["key"] == "request.invalid"


def test_the_log_level_is_set_and_told(path: Path, broker: BrokerAddress) -> None:
    with Listener(broker, "t/#") as listener, running(path):
        listener.message("t/d/status", "online")
        assert ask(listener, "log_level", level="error")["data"] == {"level": "error"}
        assert logging.getLogger().level == logging.ERROR
        assert ask(listener, "log_level")["data"] == {"level": "error"}
        assert ask(listener, "log_level", level="loud")["error"]["key"] == "request.invalid"


def test_a_picture_is_published_on_request_and_its_response_names_it(path: Path, broker: BrokerAddress) -> None:
    path.write_text(changed(path, watches=[]))
    with Listener(broker, "t/#") as listener, running(path):
        listener.message("t/d/panel/status", "online")
        data = ask(listener, "snapshot", camera="panel")["data"]
        message = listener.message("t/d/panel/snapshot")
        assert hashlib.sha256(message.payload).hexdigest() == data["snapshot"]["sha256"]
        assert dict(message.properties.UserProperty)["id"] == data["id"]
        assert message.properties.ContentType == "image/jpeg"
        picture = Image.open(io.BytesIO(message.payload))
        assert (picture.format, *picture.size) == ("JPEG", data["snapshot"]["width"], data["snapshot"]["height"])
        assert ask(listener, "snapshot", camera="attic")["error"]["key"] == "request.camera_unknown"


def test_every_answer_has_its_picture_before_it(path: Path, broker: BrokerAddress) -> None:
    mqtt = {**yaml.safe_load(path.read_text())["mqtt"], "snapshots": {"publish": True, "max_size": "4k"}}
    path.write_text(changed(path, mqtt=mqtt))
    with Listener(broker, "t/d/panel/#") as listener, running(path):
        listener.wait(lambda messages: len(listener.on("t/d/panel/answer")) >= 5, "five answers")
    pictures = {}
    for message in listener.messages:
        if message.topic == "t/d/panel/snapshot":
            assert len(message.payload) <= 4096
            pictures[dict(message.properties.UserProperty)["id"]] = hashlib.sha256(message.payload).hexdigest()
        elif message.topic == "t/d/panel/answer":
            answer = json.loads(message.payload)
            assert pictures[answer["id"]] == answer["snapshot"]["sha256"]


def test_the_embedded_broker_moves_with_its_configuration_and_comes_back_if_it_cannot(
    place: Path, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("iotcore")
    port, other = free_port(), free_port()
    mqtt = {"base_topic": "t", "embedded": {"port": port}}
    path = write_config(place, bundle, port, mqtt=mqtt, cameras=LIVE, watches=[NUMBER])
    caplog.set_level(logging.INFO)
    with running(path) as models:
        wait_until(lambda: "Connected to broker" in caplog.text, "the first connection")
        with Listener(BrokerAddress("127.0.0.1", port), "t/#") as listener:
            listener.message("t/d/panel/answer")
            text = changed(path, mqtt={"base_topic": "t", "embedded": {"host": "192.0.2.1", "port": other}})
            listener.publish("t/d/request/config", json.dumps({"config": text}))
            wait_until(lambda: "The configuration stays as it is. The embedded broker cannot" in caplog.text, "refusal")
        wait_until(lambda: caplog.text.count("Connected to broker") >= 2, "the old broker again")
        with Listener(BrokerAddress("127.0.0.1", port), "t/#") as listener:
            listener.message("t/d/panel/answer")
            assert ask(listener, "config")["data"]["mqtt"]["embedded"]["port"] == port
            text = changed(path, mqtt={"base_topic": "t", "embedded": {"port": other}})
            listener.publish("t/d/request/config", json.dumps({"config": text}))
            wait_until(lambda: path.read_text() == text, "the new configuration")
        wait_until(lambda: f"Connected to broker mqtt://127.0.0.1:{other}" in caplog.text, "the new broker")
        with Listener(BrokerAddress("127.0.0.1", other), "t/#") as listener:
            listener.message("t/d/panel/answer")
        assert len(models.opened) == 1


def test_a_link_that_points_elsewhere_is_another_model_although_the_file_is_the_same(
    path: Path,
    bundle: Path,
    broker: BrokerAddress,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, state = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("run")
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(state))
    versions = [write_sample(store / "versions" / name) for name in ("1", "2", "bad")]
    link = store / "sample"
    link.symlink_to(versions[0])

    def point_to(version: Path) -> None:
        (store / "new").symlink_to(version)
        (store / "new").replace(link)

    path.write_text(changed(path, model={"bundle": str(link)}))
    with Listener(broker, "t/#") as listener, running(path) as models:
        model = listener.json("t/d/panel/answer")["model"]
        assert (model["bundle"], model["version"]) == ("sample", "1")
        point_to(versions[1])
        assert ask(listener, "reload")["data"] == {"changed": True, "model_loaded": True}
        listener.message("t/d/panel/answer", '"version":"2"')
        info = listener.json("t/d/info", '"version":"2"')
        assert (info["model"]["bundle"], info["model"]["version"]) == ("sample", "2")
        assert ask(listener, "reload")["data"] == {"changed": False, "model_loaded": False}
        wait_until(lambda: json.loads((state / "model.json").read_text())["answers"] > 0, "answers in model.json")
        said = json.loads((state / "model.json").read_text())
        assert (said["configured"], said["bundle"]) == (str(link), str(versions[1]))
        point_to(versions[2])
        models.refuse.add("bad")
        assert ask(listener, "reload")["error"]["key"] == "bundle.fake"
        listener.clear()
        assert listener.json("t/d/panel/answer")["model"]["version"] == "2", "the old one again"
        assert json.loads((state / "model.json").read_text())["bundle"] == str(versions[1])
        link.unlink()
        assert ask(listener, "reload")["error"]["key"] == "bundle.not_found"
        listener.clear()
        listener.message("t/d/panel/answer", '"version":"2"')
        link.symlink_to(versions[1])
