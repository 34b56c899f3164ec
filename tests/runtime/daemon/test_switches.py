"""Cameras, motion and watches that are switched over MQTT; with real brokers."""

from __future__ import annotations

import json
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from moedge_runtime.config import Config, load_config
from moedge_runtime.daemon import switches as switches_module
from moedge_runtime.daemon.service import Daemon
from moedge_runtime.daemon.switches import Switches
from moedge_runtime.daemon.system import STATE_DIRECTORY
from moedge_runtime.errors import RequestError
from moedge_runtime.mqtt.address import BrokerAddress
from runtime.daemon.fakes import FakeAnswerer, config_for, write_config
from runtime.daemon.pages import wait_until
from runtime.daemon.test_process import process
from runtime.mqtt.brokers import Mosquitto
from runtime.mqtt.listener import DEADLINE_S, Listener

LIVE: dict[str, Any] = {"source": "file:panel.mp4", "loop": True, "realtime": True}
CAMERAS = {"panel": LIVE, "gate": {**LIVE, "motion": True}}
WATCHES = [
    {"name": name, "camera": camera, "question": "Which frame?", "interval": "100ms"}
    for name, camera in (("number", "panel"), ("other", "panel"), ("moving", "gate"))
]


def settings(place: Path, bundle: Path, port: int = 1883, **changes: Any) -> Config:
    return config_for(place, bundle, port, **({"cameras": CAMERAS, "watches": WATCHES} | changes))


def heard_nothing(outcome: object) -> None:
    """Nobody waits for the outcome."""


def switch(switches: Switches, camera: str, feature: str, on: bool) -> list[Any]:
    """Ask and carry out; the outcome."""
    outcomes: list[Any] = []
    switches.request(camera, feature, on, outcomes.append)
    switches.carry_out(lambda *arguments: None)
    return outcomes


def kept(path: Path) -> Any:
    return json.loads(path.read_text())["switches"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "switches.json"


def test_the_configuration_says_how_a_switch_begins(place: Path, bundle: Path, path: Path) -> None:
    zones = {"dial": "0,0,1,0,1,1"}
    cameras = {"panel": {**LIVE, "zones": zones}, "gate": {**CAMERAS["gate"], "enabled": False}}
    watches = [{**WATCHES[0], "enabled": False}, *WATCHES[1:]]
    switches = Switches(path, lambda: None)
    switches.configure(settings(place, bundle, cameras=cameras, watches=watches))
    assert switches.states() == {
        ("panel", "enabled"): True,
        ("gate", "enabled"): False,
        ("gate", "motion"): True,
        ("panel", "zone/dial"): True,
        ("panel", "watch/number"): False,
        ("panel", "watch/other"): True,
        ("gate", "watch/moving"): True,
    }
    assert not path.exists(), "nothing was chosen"


def test_a_choice_lasts_and_is_written_only_when_it_changes(
    place: Path, bundle: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []
    write = switches_module.write_durably
    monkeypatch.setattr(
        switches_module, "write_durably", lambda path, content: (written.append(content), write(path, content))
    )
    config, applied = settings(place, bundle), []
    switches = Switches(path, lambda: None)
    switches.configure(config)
    assert switch(switches, "panel", "enabled", False) == [{"state": "OFF"}]
    assert switch(switches, "panel", "enabled", False) == [{"state": "OFF"}]
    switches.request("gate", "motion", False, heard_nothing)
    switches.request("panel", "watch/other", False, heard_nothing)
    switches.carry_out(lambda *arguments: applied.append(arguments))
    assert applied == [("gate", "motion", False), ("panel", "watch/other", False)]
    assert len(written) == 2
    again = Switches(path, lambda: None)
    again.configure(config)
    assert again.states() == switches.states()
    assert not again.is_on("panel") and not again.is_on("gate", "motion")
    assert len(written) == 2, "what is read is not written again"


def test_what_the_configuration_says_is_no_choice(place: Path, bundle: Path, path: Path) -> None:
    switches = Switches(path, lambda: None)
    switches.configure(settings(place, bundle))
    switch(switches, "panel", "enabled", False)
    switch(switches, "panel", "enabled", True)
    assert kept(path) == {}
    switches.configure(settings(place, bundle, cameras={**CAMERAS, "panel": {**LIVE, "enabled": False}}))
    assert not switches.is_on("panel")


def test_a_choice_goes_with_its_camera_and_its_watch(place: Path, bundle: Path, path: Path) -> None:
    switches = Switches(path, lambda: None)
    switches.configure(settings(place, bundle))
    for camera, feature in (("panel", "watch/number"), ("gate", "enabled"), ("panel", "enabled")):
        switch(switches, camera, feature, False)
    assert kept(path) == {"gate": {"enabled": False}, "panel": {"enabled": False, "watch/number": False}}
    switches.configure(settings(place, bundle, cameras={"panel": LIVE}, watches=WATCHES[1:2]))
    assert kept(path) == {"panel": {"enabled": False}}
    switches.configure(settings(place, bundle))
    assert switches.is_on("gate") and switches.is_on("panel", "watch/number"), "as new ones"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b'{"version":2,"switches":{}}',
        b'{"version":1}',
        b'{"version":1,"switches":[]}',
        b'{"version":1,"switches":{"panel":false}}',
        b'{"version":1,"switches":{"panel":{"enabled":"off"}}}',
    ],
)
def test_a_damaged_file_is_reported_and_ignored(
    place: Path, bundle: Path, path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(content)
    switches = Switches(path, lambda: None)
    switches.configure(settings(place, bundle))
    assert all(switches.states().values())
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith(f"'{path}' cannot be read (")
    assert record.getMessage().endswith("): every switch is as the configuration says.")
    switch(switches, "panel", "enabled", False)
    assert kept(path) == {"panel": {"enabled": False}}, "and replaced by the next choice"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (Path("/nonexistent/switches.json"), "cannot be written (No such file or directory)"),
        (None, "There is no STATE_DIRECTORY"),
    ],
)
def test_a_choice_that_cannot_be_kept_counts_until_the_end(
    place: Path, bundle: Path, path: Path | None, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    switches = Switches(path, lambda: None)
    switches.configure(settings(place, bundle))
    assert switch(switches, "panel", "enabled", False) == [{"state": "OFF"}]
    assert not switches.is_on("panel")
    assert text in caplog.text


@pytest.mark.parametrize(
    ("switch", "key", "text"),
    [
        (("door", "enabled"), "request.camera_unknown", "There is no camera 'door'; known are: panel, gate."),
        (
            ("panel", "motion"),
            "request.feature_unknown",
            "Camera 'panel' has no switch 'motion'; known are: enabled, watch/number, watch/other.",
        ),
        (
            ("gate", "watch/number"),
            "request.feature_unknown",
            "Camera 'gate' has no switch 'watch/number'; known are: enabled, motion, watch/moving.",
        ),
    ],
)
def test_what_cannot_be_switched_is_told(
    place: Path, bundle: Path, switch: tuple[str, str], key: str, text: str
) -> None:
    switches = Switches(None, lambda: None)
    switches.configure(settings(place, bundle))
    with pytest.raises(RequestError) as caught:
        switches.request(*switch, False, heard_nothing)
    assert (caught.value.key, str(caught.value)) == (key, text)


def test_of_several_requests_for_a_switch_the_last_one_counts_and_all_are_told(place: Path, bundle: Path) -> None:
    switches, outcomes, applied = Switches(None, lambda: None), list[Any](), []
    switches.configure(settings(place, bundle))
    for on in (False, True, False):
        switches.request("panel", "enabled", on, outcomes.append)
    switches.carry_out(lambda *arguments: applied.append(arguments))
    assert applied == [("panel", "enabled", False)]
    assert [getattr(outcome, "key", outcome) for outcome in outcomes] == ["request.replaced"] * 2 + [{"state": "OFF"}]


@contextmanager
def running(config: Config) -> Iterator[FakeAnswerer]:
    answerer = FakeAnswerer()
    daemon = Daemon(config, lambda bundle, config: answerer)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(daemon.run()))
    thread.start()
    try:
        yield answerer
    finally:
        daemon.request_stop()
        thread.join(DEADLINE_S)
    assert codes == [0]


def asked_health(listener: Listener) -> Any:
    """The counters now."""
    before = len(listener.on("t/d/response/health"))
    listener.publish("t/d/request/health", b"")
    listener.wait(lambda _: len(listener.on("t/d/response/health")) > before, "the health")
    return json.loads(listener.on("t/d/response/health")[-1])["data"]


def count(listener: Listener, topic: str) -> int:
    return len(listener.on(topic))


def more_answers(listener: Listener, camera: str) -> None:
    """Wait for an answer of `camera` that was not there."""
    before = count(listener, f"t/d/{camera}/answer")
    listener.wait(lambda _: count(listener, f"t/d/{camera}/answer") > before, f"another answer of {camera}")


def test_a_camera_is_paused_and_goes_on_and_the_other_one_does_not_notice(
    place: Path, bundle: Path, broker: BrokerAddress
) -> None:
    with Listener(broker, "t/#") as listener, running(settings(place, bundle, broker.port)):
        for topic in ("panel/enabled", "gate/enabled", "gate/motion", "panel/watch/number", "gate/watch/moving"):
            assert listener.message(f"t/d/{topic}/state").payload == b"ON"
        listener.message("t/d/panel/answer")
        listener.publish("t/d/panel/enabled/set", b"OFF")
        listener.message("t/d/panel/enabled/state", "OFF")
        listener.message("t/d/panel/status", "disabled")
        assert listener.json("t/d/response/set") == {
            "status": "ok",
            "data": {"state": "OFF"},
            "error": None,
            "transaction": None,
        }
        more_answers(listener, "gate")
        paused = asked_health(listener)["cameras"]["panel"]
        more_answers(listener, "gate")
        still = asked_health(listener)["cameras"]["panel"]
        assert still["state"] == "disabled" and still["frames"] == paused["frames"]
        assert still["frames"] == still["skipped"] + still["answered"] + still["dropped"] + still["waiting"]
        assert not set(still["reasons"]) - {"interval", "replaced"}, "nothing went wrong"
        listener.publish("t/d/request/ask", json.dumps({"camera": "panel", "question": "?", "transaction": 1}))
        assert listener.json("t/d/response/ask")["error"] == {
            "key": "request.camera_unknown",
            "message": "There is no camera 'panel' that runs; known are: gate.",
        }
        listener.clear()
        listener.publish("t/d/panel/enabled/set", b"ON")
        listener.message("t/d/panel/enabled/state", "ON")
        listener.message("t/d/panel/status", "online")
        more_answers(listener, "panel")
        after = asked_health(listener)["cameras"]["panel"]
        assert after["frames"] > still["frames"], "counting goes on"
        assert after["frames"] == after["skipped"] + after["answered"] + after["dropped"] + after["waiting"]
    with Listener(broker, "t/#") as late:
        assert late.message("t/d/panel/enabled/state").retain


def test_a_camera_that_the_configuration_leaves_out_can_be_switched_on(
    place: Path, bundle: Path, broker: BrokerAddress
) -> None:
    cameras = {"panel": {**LIVE, "enabled": False}}
    with (
        Listener(broker, "t/#") as listener,
        running(settings(place, bundle, broker.port, cameras=cameras, watches=WATCHES[:1])),
    ):
        listener.message("t/d/panel/enabled/state", "OFF")
        listener.publish("t/d/panel/enabled/set", b"ON")
        listener.message("t/d/panel/status", "online")
        listener.message("t/d/panel/answer")


def test_a_watch_and_motion_are_switched(place: Path, bundle: Path, broker: BrokerAddress) -> None:
    watches = [{**WATCHES[0], "enabled": False}, *WATCHES[1:]]
    cameras = {**CAMERAS, "gate": {**LIVE, "motion": {"area": 1}}}  # the clip's brightness changes as a whole
    with (
        Listener(broker, "t/#") as listener,
        running(settings(place, bundle, broker.port, cameras=cameras, watches=watches)),
    ):
        listener.message("t/d/panel/watch/number/state", "OFF")
        listener.message("t/d/panel/answer", '"watch":"other"')
        listener.message("t/d/gate/motion", '"off"')
        assert not any(b'"watch":"number"' in payload for payload in listener.on("t/d/panel/answer"))
        listener.publish("t/d/panel/watch/other/set", b"OFF")
        listener.message("t/d/panel/watch/other/state", "OFF")
        wait_until(lambda: asked_health(listener)["cameras"]["panel"]["reasons"].get("disabled", 0) > 0)
        listener.publish("t/d/panel/watch/number/set", b"ON")
        listener.message("t/d/panel/answer", '"watch":"number"')
        listener.clear()
        listener.publish("t/d/gate/motion/set", b"OFF")
        listener.message("t/d/gate/motion/state", "OFF")
        listener.message("t/d/gate/motion", '"unknown"')
        event = listener.wait(
            lambda _: [e for e in map(json.loads, listener.on("t/d/gate/event")) if e["trigger"] == "interval"],
            "a question without motion",
        )
        assert event[0]["watch"] == "moving"


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (("panel/enabled", b"off"), ("request.invalid", "The payload is b'off', and a switch takes ON or OFF")),
        (("panel/enabled", b""), ("request.invalid", "The payload is b'', and a switch takes")),
        (("panel/enabled", b"\xff" * 99), ("request.invalid", "and a switch takes ON or OFF")),
        (("door/enabled", b"ON"), ("request.camera_unknown", "There is no camera 'door'; known are: panel, gate.")),
        (("panel/detect", b"ON"), ("request.feature_unknown", "Camera 'panel' has no switch 'detect'; known are:")),
        (("panel/watch/moving", b"ON"), ("request.feature_unknown", "Camera 'panel' has no switch 'watch/moving'")),
    ],
)
def test_what_is_no_switch_is_answered_as_other_requests_are(
    place: Path, bundle: Path, broker: BrokerAddress, message: tuple[str, bytes], error: tuple[str, str]
) -> None:
    (topic, payload), (key, text) = message, error
    with Listener(broker, "t/#", "mine") as listener, running(settings(place, bundle, broker.port)):
        listener.message("t/d/status", "online")
        listener.message("t/d/panel/enabled/state")
        listener.publish(f"t/d/{topic}/set", payload)
        response = listener.json("t/d/response/set")
        assert (response["status"], response["error"]["key"]) == ("error", key)
        assert text in response["error"]["message"]
        listener.publish(f"t/d/{topic}/set", payload, response_topic="mine", correlation=b"7")
        assert listener.json("mine")["error"]["key"] == key


def test_a_stored_switch_is_ignored(place: Path, bundle: Path, broker: BrokerAddress) -> None:
    with Listener(broker, "t/#") as listener:
        listener.publish("t/d/panel/enabled/set", b"OFF", retain=True)
        with running(settings(place, bundle, broker.port)):
            listener.message("t/d/panel/enabled/state")
            listener.publish("t/d/gate/enabled/set", b"OFF")
            listener.message("t/d/gate/enabled/state", "OFF")
            assert listener.on("t/d/panel/enabled/state") == [b"ON"]


def test_a_switch_that_is_being_stored_is_ignored_with_a_warning(
    place: Path, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Mosquitto(place)
    address = broker.start()
    with Listener(address, "t/#") as listener, running(settings(place, bundle, address.port)):
        listener.message("t/d/panel/enabled/state")
        listener.publish("t/d/panel/enabled/set", b"OFF", retain=True)
        listener.publish("t/d/gate/enabled/set", b"OFF")
        listener.message("t/d/gate/enabled/state", "OFF")
        assert listener.on("t/d/panel/enabled/state") == [b"ON"]
    broker.stop()
    assert "Ignored the retained request on 't/d/panel/enabled/set'" in caplog.text


def test_a_reload_keeps_what_was_switched_and_forgets_what_is_gone(
    place: Path, bundle: Path, broker: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = place / "state"
    state.mkdir()
    monkeypatch.setenv(STATE_DIRECTORY, str(state))
    path = write_config(place, bundle, broker.port, cameras=CAMERAS, watches=WATCHES)
    with Listener(broker, "t/#") as listener, running(load_config(path)):
        listener.message("t/d/panel/answer")
        for topic in ("panel/enabled", "gate/enabled", "panel/watch/other"):
            listener.publish(f"t/d/{topic}/set", b"OFF")
            listener.message(f"t/d/{topic}/state", "OFF")
        listener.clear()
        sections = {"cameras": {"panel": LIVE}, "watches": WATCHES[:1]}
        text = yaml.safe_dump(yaml.safe_load(path.read_text()) | sections)
        listener.publish("t/d/request/config", json.dumps({"config": text}))
        assert listener.json("t/d/response/config")["status"] == "ok"
        listener.message("t/d/panel/enabled/state", "OFF")
        assert listener.on("t/d/panel/status") == [b'{"state":"disabled","reason":null}']
        for topic in ("gate/enabled", "gate/motion", "gate/watch/moving", "panel/watch/other"):
            listener.wait(lambda _, topic=topic: b"" in listener.on(f"t/d/{topic}/state"), f"{topic} to go")
    assert kept(state / "switches.json") == {"panel": {"enabled": False}}


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_camera_that_was_paused_over_mqtt_is_paused_after_a_restart(
    place: Path, bundle: Path, end: signal.Signals
) -> None:
    broker = Mosquitto(place)
    address = broker.start()
    state = place / "state"
    state.mkdir()
    config = write_config(place, bundle, address.port, cameras=CAMERAS, watches=WATCHES)
    environment = {STATE_DIRECTORY: str(state)}
    with Listener(address, "t/#") as listener:
        with process(config, environment=environment) as daemon:
            listener.message("t/d/panel/answer")
            listener.publish("t/d/panel/enabled/set", b"OFF")
            listener.message("t/d/panel/enabled/state", "OFF")
            daemon.send_signal(end)
            daemon.wait(DEADLINE_S)
        broker.kill()  # without its store: what it has afterwards is of the second daemon
    broker.start()
    with Listener(address, "t/#") as listener, process(config, environment=environment):
        listener.message("t/d/panel/enabled/state", "OFF")
        listener.message("t/d/panel/status", "disabled")
        listener.message("t/d/gate/answer")
        assert asked_health(listener)["cameras"]["panel"]["frames"] == 0
        assert listener.on("t/d/panel/answer") == []
        listener.publish("t/d/panel/enabled/set", b"ON")
        listener.message("t/d/panel/answer")
    broker.stop()


def test_a_switch_works_after_the_broker_was_away(place: Path, bundle: Path) -> None:
    broker = Mosquitto(place)
    address = broker.start()
    with running(settings(place, bundle, address.port)):
        with Listener(address, "t/#") as listener:
            listener.message("t/d/panel/enabled/state")
            broker.kill()
        broker.start()
        with Listener(address, "t/#") as listener:
            listener.message("t/d/panel/enabled/state", "ON")
            listener.publish("t/d/panel/enabled/set", b"OFF")
            listener.message("t/d/panel/enabled/state", "OFF")
    broker.stop()
