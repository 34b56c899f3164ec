"""What is announced to Home Assistant, by the rules of its documentation."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from typing import Any

import jinja2
import pytest
from moedge_runtime.mqtt.home_assistant import (
    CAMERA_STATES,
    MAX_STATE_CHARACTERS,
    announcement,
    discovery_topic,
    watch_state,
)
from moedge_runtime.mqtt.payloads import (
    AlertPayload,
    BoardHealth,
    CameraStatus,
    ErrorInfo,
    HomeAssistantDevice,
    MotionPayload,
    UpdateState,
)
from moedge_runtime.mqtt.topics import Topics
from runtime.mqtt.examples import ANSWER, CAPTURED, EXAMPLES, FAILED
from runtime.mqtt.home_assistant_rules import problems, update_problems

TOPICS = Topics("moedge", "panel-01")
TOPIC = discovery_topic("homeassistant", "panel-01")
ON_TOPIC = {
    TOPICS.status: "status_online",
    TOPICS.info: "info",
    TOPICS.health: "health",
    TOPICS.camera_status("panel"): "camera_status_online",
    TOPICS.watch("panel", "level"): "watch_state",
    TOPICS.alert("panel", "level"): "alert",
    TOPICS.motion("panel"): "motion",
    TOPICS.update_state: "update_state",
}


def announced(
    cameras: dict[str, list[str]], before: HomeAssistantDevice | None = None, units: dict[str, str] | None = None
) -> HomeAssistantDevice:
    """Every watch has an alert, and every camera looks for motion."""
    alerts = [watch for watches in cameras.values() for watch in watches]
    return announcement(
        TOPICS,
        version="1.0",
        model="m",
        cameras=cameras,
        alerts=alerts,
        motion=list(cameras),
        units=units,
        updates=True,
        can_update=True,
        before=before,
    )


def is_number(value: Any) -> bool:
    """As in Home Assistant's helpers/template.py."""
    try:
        return math.isfinite(float(value))
    except (ValueError, TypeError):
        return False


def rendered(template: str, payload: bytes) -> str:
    environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined)
    environment.filters["is_number"] = is_number
    return environment.from_string(template).render(value_json=json.loads(payload))


@pytest.mark.parametrize("cameras", [{"panel": ["level"]}, {}, {"a": [], "b-2": ["x", "y"], "c_3": ["z"]}])
def test_the_announcement_keeps_the_rules(cameras: dict[str, list[str]]) -> None:
    assert problems(TOPIC, json.loads(announced(cameras).encode())) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda payload: payload["device"].pop("identifiers"),
        lambda payload: payload["components"]["uptime"].pop("unique_id"),
        lambda payload: payload["components"]["uptime"].update(unit_of_measurement="km"),
        lambda payload: payload["components"]["uptime"].update(retain=True),
        lambda payload: payload["components"]["memory"].update(unique_id="moedge_panel-01_uptime"),
        lambda payload: payload["components"]["snapshot_panel"].pop("image_topic"),
        lambda payload: payload["components"]["snapshot_panel"].update(image_topic="a/+/b"),
        lambda payload: payload["components"]["watch_level"].update(value_template="{{ value_json."),
        lambda payload: payload["components"]["camera_panel"].pop("options"),
        lambda payload: payload["components"].update({"a b": payload["components"]["uptime"]}),
        lambda payload: payload["components"]["enabled_panel"].pop("command_topic"),
        lambda payload: payload["components"]["enabled_panel"].update(device_class="motion"),
        lambda payload: payload["components"]["model"].pop("payload_install"),
        lambda payload: payload["components"]["model"].pop("command_topic"),
        lambda payload: payload["components"]["update"].update(entity_category="config"),
        lambda payload: payload.update(surprise=1),
    ],
)
def test_the_rules_find_what_is_wrong(spoil: Callable[[dict[str, Any]], object]) -> None:
    payload = copy.deepcopy(json.loads(announced({"panel": ["level"]}).encode()))
    spoil(payload)
    assert problems(TOPIC, payload)


def test_every_template_gives_what_its_entity_expects_of_the_golden_payloads() -> None:
    components = announced({"panel": ["level"]}).components
    assert json.loads(rendered(components["model"]["value_template"], EXAMPLES["update_state"].encode())) == {
        "installed_version": "2026.11",
        "latest_version": "2026.12",
        "in_progress": False,
        "release_summary": "qwen3-vl-30b-int4@2026.12 waits: none of its windows is open. `--now` updates anyway.",
    }
    states = {
        key: rendered(one["value_template"], EXAMPLES[ON_TOPIC[one["state_topic"]]].encode())
        for key, one in components.items()
        if "value_template" in one and key != "model"
    }
    assert states == {
        "uptime": "300.0",
        "memory": "6442450944",
        "queued": "0",
        "dropped": "0",
        "temperature": "None",
        "power": "None",
        "clock": "OFF",
        "spool": "OFF",
        "update": "0.1.0",
        "camera_panel": "online",
        "watch_level": '{"reading":"42.5","red":false}',
        "alert_level": "ON",
        "motion_panel": "ON",
    }
    attributes = rendered(components["watch_level"]["json_attributes_template"], EXAMPLES["watch_state"].encode())
    assert json.loads(attributes)["captured_at"] == "2026-11-23T08:15:30.250Z"


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        (UpdateState(), {"in_progress": False, "release_summary": ""}),
        (
            UpdateState(installed_version="1", in_progress=True, status="updating", text='"2" is to <answer>.'),
            {"installed_version": "1", "in_progress": True, "release_summary": '"2" is to <answer>.'},
        ),
        (
            UpdateState(latest_version="2", text="old", error=ErrorInfo(key="update.failed", message="é" * 300)),
            {"latest_version": "2", "in_progress": False, "release_summary": "é" * 255},
        ),
    ],
)
def test_what_is_not_known_of_an_update_is_left_out(state: UpdateState, shown: dict[str, Any]) -> None:
    said = json.loads(rendered(announced({}).components["model"]["value_template"], state.encode()))
    assert said == shown
    assert update_problems(said) == []


@pytest.mark.parametrize("spoil", [{"latest_version": None}, {"status": "waiting"}, {"in_progress": "no"}])
def test_the_rules_know_what_a_state_of_an_update_may_hold(spoil: dict[str, Any]) -> None:
    assert update_problems({"installed_version": "1", **spoil})


@pytest.mark.parametrize(("updates", "can_update"), [(False, False), (True, False), (True, True)])
def test_a_model_that_is_updated_has_an_entity_and_a_button_where_that_does_something(
    updates: bool, can_update: bool
) -> None:
    announced = announcement(TOPICS, version="1", model="m", cameras={}, updates=updates, can_update=can_update)
    assert problems(TOPIC, json.loads(announced.encode())) == []
    assert ("model" in announced.components) is updates
    assert ("payload_install" in announced.components.get("model", {})) is can_update
    assert "command_topic" not in announced.components["update"], "moedge itself comes with a package"


@pytest.mark.parametrize(("state", "shown"), [("on", "ON"), ("off", "OFF"), ("unknown", "None")])
def test_alerts_and_motion_are_on_off_or_unknown(state: Any, shown: str) -> None:
    components = announced({"panel": ["level"]}).components
    alert = AlertPayload(state=state, since=CAPTURED, clock_synced=True).encode()
    motion = MotionPayload(state=state, zones=[], at=CAPTURED, clock_synced=True).encode()
    assert rendered(components["alert_level"]["value_template"], alert) == shown
    assert rendered(components["motion_panel"]["value_template"], motion) == shown


@pytest.mark.parametrize(
    ("board", "temperature", "power"),
    [({"temperature_c": 61.5, "under_voltage": True}, "61.5", "ON"), ({"under_voltage": False}, "None", "OFF")],
)
def test_a_board_without_a_sensor_has_no_state(board: dict[str, Any], temperature: str, power: str) -> None:
    components, health = announced({}).components, EXAMPLES["health"].model_copy(update={"board": BoardHealth(**board)})
    assert rendered(components["temperature"]["value_template"], health.encode()) == temperature
    assert rendered(components["power"]["value_template"], health.encode()) == power


def test_only_watches_with_an_alert_and_cameras_with_motion_have_a_sensor_of_them() -> None:
    components = announcement(TOPICS, version="1.0", model="m", cameras={"panel": ["level", "lamps"]}).components
    assert not [key for key in components if key.startswith(("alert_", "motion_"))]


@pytest.mark.parametrize("state", CAMERA_STATES)
def test_a_camera_without_pictures_makes_its_entities_unavailable(state: Any) -> None:
    image = announced({"panel": []}).components["snapshot_panel"]
    assert image["availability_mode"] == "all"
    of_camera = next(one for one in image["availability"] if one["topic"] == TOPICS.camera_status("panel"))
    available = rendered(of_camera["value_template"], CameraStatus(state=state).encode())
    assert available == ("online" if state in ("online", "frozen", "black") else "offline")


@pytest.mark.parametrize("state", ["online", "stopped", "offline"])
def test_a_device_that_stopped_is_unavailable(state: str) -> None:
    (of_device,) = announced({}).availability
    expected = "online" if state == "online" else "offline"
    assert rendered(of_device["value_template"], EXAMPLES[f"status_{state}"].encode()) == expected


@pytest.mark.parametrize(
    ("update", "state"),
    [
        ({"text": "short", "data": None}, "short"),
        ({"text": "two\n lines\t", "data": None}, "two lines"),
        ({"text": "ü" * 300, "data": None}, "ü" * 254 + "…"),
        ({"text": "42", "data": 42}, "42"),
        ({"text": '"yes"', "data": "yes"}, "yes"),
    ],
)
def test_a_state_is_short_and_the_long_text_is_in_the_attributes(update: dict[str, Any], state: str) -> None:
    answer = ANSWER.model_copy(update=update)
    short = watch_state(answer)
    assert short.state == state
    assert len(short.state) <= MAX_STATE_CHARACTERS
    assert short.answer.text == update["text"]


@pytest.mark.parametrize(
    ("field", "state"),
    [
        ("reading", "42.5"),
        ("lamps.red", "True"),
        ("lamps", '{"red": true}'),
        ("nothing", "None"),
        ("reading.x", "None"),
    ],
)
def test_a_state_may_be_one_field_of_the_answer(field: str, state: str) -> None:
    answer = ANSWER.model_copy(update={"data": {"reading": 42.5, "lamps": {"red": True}}})
    assert watch_state(answer, field).state == state
    assert watch_state(FAILED, field).state == "error: request.too_long"
    assert watch_state(answer.model_copy(update={"data": None}), field).state == "None", "it was cut"


def test_the_state_of_a_failed_answer_is_its_error() -> None:
    assert watch_state(FAILED.model_copy(update={"error": ErrorInfo(key="a.b", message="No.")})).state == "error: a.b"


def test_zones_have_switches_whose_names_never_meet() -> None:
    zones = {"a_b": ["c"], "a": ["b_c"]}
    device = announcement(TOPICS, version="1.0", model="m", cameras={"a_b": [], "a": []}, zones=zones)
    assert problems(TOPIC, json.loads(device.encode())) == []
    topics = {key: one["command_topic"] for key, one in device.components.items() if key.startswith("zone_")}
    assert topics == {
        "zone_3_a_b_c": "moedge/panel-01/a_b/zone/c/set",
        "zone_1_a_b_c": "moedge/panel-01/a/zone/b_c/set",
    }


def test_entities_of_a_camera_and_of_a_watch_that_is_called_as_it_have_different_names() -> None:
    names = [(one["platform"], one["name"]) for one in announced({"panel": ["panel"]}).components.values()]
    assert len(set(names)) == len(names)


def test_everything_that_can_be_switched_has_a_switch_that_is_there_while_the_camera_is_not() -> None:
    components = announced({"panel": ["level"], "gate": []}).components
    switches = {key: one for key, one in components.items() if one["platform"] == "switch"}
    assert {key: (one["command_topic"], one["state_topic"]) for key, one in switches.items()} == {
        "enabled_panel": ("moedge/panel-01/panel/enabled/set", "moedge/panel-01/panel/enabled/state"),
        "detection_panel": ("moedge/panel-01/panel/motion/set", "moedge/panel-01/panel/motion/state"),
        "asking_level": ("moedge/panel-01/panel/watch/level/set", "moedge/panel-01/panel/watch/level/state"),
        "enabled_gate": ("moedge/panel-01/gate/enabled/set", "moedge/panel-01/gate/enabled/state"),
        "detection_gate": ("moedge/panel-01/gate/motion/set", "moedge/panel-01/gate/motion/state"),
    }
    assert not [key for key, one in switches.items() if one.keys() & {"availability", "retain", "optimistic"}]
    still = announcement(TOPICS, version="1.0", model="m", cameras={"panel": []}).components
    assert [key for key, one in still.items() if one["platform"] == "switch"] == ["enabled_panel"], "without motion"


@pytest.mark.parametrize(
    ("update", "state"),
    [
        ({"data": {"reading": 42.5}}, "42.5"),
        ({"data": {"reading": "01734.285"}}, "01734.285"),
        ({"data": {"reading": None}}, "None"),
        ({"data": None, "text": '{"reading": 4', "finish_reason": "length"}, "None"),
        ({"data": None, "text": None, "error": ErrorInfo(key="a.b", message="No.")}, "None"),
    ],
)
def test_a_watch_with_a_unit_has_numbers_only(update: dict[str, Any], state: str) -> None:
    announcing = announced({"panel": ["level", "lamps"]}, units={"level": "m³"})
    assert problems(TOPIC, json.loads(announcing.encode())) == []
    sensor = announcing.components["watch_level"]
    assert (sensor["unit_of_measurement"], sensor["state_class"]) == ("m³", "measurement")
    answer = watch_state(ANSWER.model_copy(update=update), "reading")
    assert rendered(sensor["value_template"], answer.encode()) == state
    assert not announcing.components["watch_lamps"].keys() & {"unit_of_measurement", "state_class"}


def test_what_is_gone_is_named_once_more_by_its_platform_alone() -> None:
    before = announced({"panel": ["level"], "gate": ["open"]})
    removal = announced({"panel": []}, before)
    assert problems(TOPIC, json.loads(removal.encode())) == []
    gone = {key: one for key, one in removal.components.items() if set(one) == {"platform"}}
    assert gone == {
        "asking_level": {"platform": "switch"},
        "watch_level": {"platform": "sensor"},
        "alert_level": {"platform": "binary_sensor"},
        "asking_open": {"platform": "switch"},
        "enabled_gate": {"platform": "switch"},
        "detection_gate": {"platform": "switch"},
        "watch_open": {"platform": "sensor"},
        "alert_open": {"platform": "binary_sensor"},
        "motion_gate": {"platform": "binary_sensor"},
        "camera_gate": {"platform": "sensor"},
        "snapshot_gate": {"platform": "image"},
        "take_gate": {"platform": "button"},
    }
