"""What Home Assistant is told about a device: one message that announces all of its entities.

Source: home-assistant.io, MQTT integration, "Device discovery payload"; checked by `make test-home-assistant`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from moedge_runtime.mqtt.payloads import AnswerPayload, HomeAssistantDevice, WatchState
from moedge_runtime.mqtt.topics import ENABLED, MOTION, Topics, watch_feature, zone_feature

MAX_STATE_CHARACTERS = 255
"""homeassistant/const.py, MAX_LENGTH_STATE_STATE: a longer state is refused as a whole."""

ONLINE = "online"
CAMERA_STATES = ("connecting", "online", "frozen", "black", "stalled", "offline", "disabled")

_PROJECT_NAME = "moedge"
_QOS = 1
_DEVICE_AVAILABLE = "{{ 'online' if value_json.state == 'online' else 'offline' }}"
_ON_OFF = "{{ 'ON' if value_json.state == 'on' else 'OFF' if value_json.state == 'off' else 'None' }}"
"""Home Assistant takes `None` for a state that is not known."""
_NUMBER = "{{ value_json.state if value_json.state | is_number else 'None' }}"
"""A sensor with a unit refuses any other state, such as an error's."""
_CAMERA_AVAILABLE = "{{ 'online' if value_json.state in ['online', 'frozen', 'black'] else 'offline' }}"


def discovery_topic(prefix: str, device: str) -> str:
    """Where the announcement goes, retained."""
    return f"{prefix}/device/{_identifier(device)}/config"


def birth_topic(prefix: str) -> str:
    """Where Home Assistant says `online` when it has started and wants to hear everything again."""
    return f"{prefix}/status"


def announcement(
    topics: Topics,
    *,
    version: str,
    model: str,
    cameras: Mapping[str, Sequence[str]],
    alerts: Collection[str] = (),
    motion: Collection[str] = (),
    zones: Mapping[str, Collection[str]] | None = None,
    units: Mapping[str, str] | None = None,
    updates: bool = False,
    can_update: bool = False,
    before: HomeAssistantDevice | None = None,
) -> HomeAssistantDevice:
    """The entities of a device.

    Args:
        topics: The device's topic tree.
        version: Of moedge.
        model: Name of the model that answers.
        cameras: Names of the watches by camera.
        alerts: Names of the watches with an alert.
        motion: Names of the cameras that say whether something moves.
        zones: Names of the zones by camera.
        units: By name of a watch, the unit of its states, which are numbers then.
        updates: Whether the model is one that is updated.
        can_update: Whether the request `update` starts that here.
        before: What was announced earlier: components that are gone are named once more without their options, which
            removes them. Publish this once, and then the announcement without it.
    """
    components = _device_components(topics)
    if updates:
        components["model"] = _model(topics, model, can_update=can_update)
    for camera, watches in cameras.items():
        components |= _camera_components(topics, camera, watches, alerts, units or {}, motion=camera in motion)
        components |= _switches(topics, camera, watches, (zones or {}).get(camera, ()), motion=camera in motion)
    for key, component in before.components.items() if before else ():
        components.setdefault(key, {"platform": component["platform"]})
    return HomeAssistantDevice(
        device={
            "identifiers": [_identifier(topics.device)],
            "name": topics.device,
            "manufacturer": _PROJECT_NAME,
            "model": model,
            "sw_version": version,
        },
        origin={"name": _PROJECT_NAME, "sw_version": version},
        availability=[_available(topics)],
        qos=_QOS,
        components=components,
    )


def watch_state(answer: AnswerPayload, field: str | None = None) -> WatchState:
    """An answer with a state that Home Assistant takes; the long text is in the attributes.

    Args:
        answer: The answer.
        field: Key in its data, with dots for keys inside of it, whose value is the state; None for all of the answer.
    """
    text = answer.text or ""
    if answer.error is not None:
        text = f"error: {answer.error.key}"
    elif field is not None:
        text = _text_of(answer.data, field.split("."))
    elif isinstance(answer.data, str | int | float | bool):
        text = str(answer.data)
    text = " ".join(text.split())
    if len(text) > MAX_STATE_CHARACTERS:
        text = text[: MAX_STATE_CHARACTERS - 1] + "…"
    return WatchState(state=text, answer=answer)


def _text_of(data: Any, path: Sequence[str]) -> str:
    """The value at `path`; for Home Assistant `None` is a state that is not known."""
    for key in path:
        data = data.get(key) if isinstance(data, dict) else None
    return json.dumps(data, ensure_ascii=False) if isinstance(data, dict | list) else str(data)


def _identifier(device: str) -> str:
    return f"{_PROJECT_NAME}_{device}"


def _available(topics: Topics) -> dict[str, Any]:
    return {"topic": topics.status, "value_template": _DEVICE_AVAILABLE}


def _component(topics: Topics, platform: str, key: str, name: str, **options: Any) -> dict[str, Any]:
    unique = f"{_identifier(topics.device)}_{key}"
    return {"platform": platform, "unique_id": unique, "name": name, "qos": _QOS, **options}


def _device_components(topics: Topics) -> dict[str, dict[str, Any]]:
    def measured(key: str, name: str, template: str, **options: Any) -> dict[str, Any]:
        options = {"state_topic": topics.health, "value_template": template, "entity_category": "diagnostic", **options}
        return _component(topics, "sensor", key, name, **options)

    def problem(key: str, name: str, value: str) -> dict[str, Any]:
        return _component(
            topics,
            "binary_sensor",
            key,
            name,
            state_topic=topics.health,
            value_template=f"{{{{ {value} }}}}",
            device_class="problem",
            entity_category="diagnostic",
        )

    duration = {"device_class": "duration", "unit_of_measurement": "s"}
    rising = {"state_class": "total_increasing"}
    return {
        "uptime": measured("uptime", "Uptime", "{{ value_json.uptime_s | round }}", **duration),
        "memory": measured(
            "memory",
            "Memory",
            "{{ value_json.rss_bytes }}",
            device_class="data_size",
            unit_of_measurement="B",
            state_class="measurement",
        ),
        "queued": measured("queued", "Answers waiting", "{{ value_json.mqtt.queued }}", state_class="measurement"),
        "dropped": measured("dropped", "Answers dropped", _LOST, **rising),
        "temperature": measured(
            "temperature",
            "Temperature",
            "{{ value_json.board.temperature_c }}",
            device_class="temperature",
            unit_of_measurement="°C",
            state_class="measurement",
        ),
        "power": problem("power", "Power supply", _UNDER_VOLTAGE),
        "clock": problem("clock", "Clock", "'ON' if value_json.clock_synced == false else 'OFF'"),
        "spool": problem("spool", "Spool", "'ON' if value_json.mqtt.spool and value_json.mqtt.spool.error else 'OFF'"),
        "update": _component(
            topics,
            "update",
            "update",
            "Update",
            title=_PROJECT_NAME,
            state_topic=topics.info,
            value_template="{{ value_json.version }}",
            latest_version_topic=topics.latest_version,
            entity_category="diagnostic",
        ),
        "restart": _component(
            topics,
            "button",
            "restart",
            "Restart",
            command_topic=topics.request("restart"),
            payload_press="{}",
            device_class="restart",
            entity_category="config",
        ),
    }


def _model(topics: Topics, model: str, *, can_update: bool) -> dict[str, Any]:
    """Updates of the model, with a button if it does something."""
    button = {"command_topic": topics.request("update"), "payload_install": "{}", "entity_category": "config"}
    return _component(
        topics,
        "update",
        "model",
        "Model",
        title=model,
        state_topic=topics.update_state,
        value_template=_UPDATE,
        **(button if can_update else {"entity_category": "diagnostic"}),
    )


_UPDATE = (
    "{% set s = value_json %}"
    "{% set versions = dict(installed_version=s.installed_version, latest_version=s.latest_version) %}"
    "{{ dict(versions.items() | selectattr(1), in_progress=s.in_progress, "
    f"release_summary=(s.error.message if s.error else s.text or '')[:{MAX_STATE_CHARACTERS}]) | tojson }}}}"
)
"""homeassistant/components/mqtt/update.py, MQTT_JSON_UPDATE_SCHEMA: a message with another key, or with null for a
version, is refused as a whole; a key that is left out keeps its value."""
_UNDER_VOLTAGE = (
    "'None' if value_json.board.under_voltage is none else 'ON' if value_json.board.under_voltage else 'OFF'"
)
_LOST = (
    "{{ value_json.mqtt.dropped"
    " + (value_json.mqtt.spool.dropped + value_json.mqtt.spool.expired if value_json.mqtt.spool else 0) }}"
)


def _camera_components(
    topics: Topics,
    camera: str,
    watches: Sequence[str],
    alerts: Collection[str],
    units: Mapping[str, str],
    *,
    motion: bool,
) -> dict[str, dict[str, Any]]:
    with_camera = {
        "availability": [
            _available(topics),
            {"topic": topics.camera_status(camera), "value_template": _CAMERA_AVAILABLE},
        ],
        "availability_mode": "all",
    }
    components = {
        f"camera_{camera}": _component(
            topics,
            "sensor",
            f"camera_{camera}",
            f"{camera} status",
            state_topic=topics.camera_status(camera),
            value_template="{{ value_json.state }}",
            json_attributes_topic=topics.camera_status(camera),
            device_class="enum",
            options=list(CAMERA_STATES),
            entity_category="diagnostic",
        ),
        f"snapshot_{camera}": _component(
            topics,
            "image",
            f"snapshot_{camera}",
            f"{camera} snapshot",
            image_topic=topics.snapshot(camera),
            content_type="image/jpeg",
            **with_camera,
        ),
        f"take_{camera}": _component(
            topics,
            "button",
            f"take_{camera}",
            f"{camera} take snapshot",
            command_topic=topics.request("snapshot"),
            payload_press=f'{{"camera": "{camera}"}}',
            **with_camera,
        ),
    }
    if motion:
        components[f"motion_{camera}"] = _component(
            topics,
            "binary_sensor",
            f"motion_{camera}",
            f"{camera} motion",
            state_topic=topics.motion(camera),
            value_template=_ON_OFF,
            json_attributes_topic=topics.motion(camera),
            device_class="motion",
            **with_camera,
        )
    for watch in watches:
        if watch in alerts:
            components[f"alert_{watch}"] = _component(
                topics,
                "binary_sensor",
                f"alert_{watch}",
                f"{watch} alert",
                state_topic=topics.alert(camera, watch),
                value_template=_ON_OFF,
                json_attributes_topic=topics.alert(camera, watch),
                icon="mdi:bell",
                **with_camera,
            )
    for watch in watches:
        state: dict[str, str] = {"value_template": "{{ value_json.state }}"}
        if watch in units:
            state = {"value_template": _NUMBER, "unit_of_measurement": units[watch], "state_class": "measurement"}
        components[f"watch_{watch}"] = _component(
            topics,
            "sensor",
            f"watch_{watch}",
            watch,
            state_topic=topics.watch(camera, watch),
            **state,
            json_attributes_topic=topics.watch(camera, watch),
            json_attributes_template="{{ value_json.answer | tojson }}",
            icon="mdi:eye",
            **with_camera,
        )
    return components


def _switches(
    topics: Topics, camera: str, watches: Sequence[str], zones: Collection[str], *, motion: bool
) -> dict[str, dict[str, Any]]:
    """Available as long as the device is: a camera that is off is to be switched on."""

    def switch(key: str, name: str, feature: str, icon: str) -> dict[str, Any]:
        return _component(
            topics,
            "switch",
            key,
            name,
            command_topic=topics.feature_set(camera, feature),
            state_topic=topics.feature_state(camera, feature),
            icon=icon,
            entity_category="config",
        )

    switches = {f"enabled_{camera}": switch(f"enabled_{camera}", f"{camera} enabled", ENABLED, "mdi:cctv")}
    if motion:
        key = f"detection_{camera}"
        switches[key] = switch(key, f"{camera} motion detection", MOTION, "mdi:motion-sensor")
    for watch in watches:
        key = f"asking_{watch}"
        switches[key] = switch(key, f"{watch} watch", watch_feature(watch), "mdi:eye-check")
    for zone in zones:
        key = f"zone_{len(camera)}_{camera}_{zone}"  # with the length no two of a camera and a zone are the same
        switches[key] = switch(key, f"{camera} zone {zone}", zone_feature(zone), "mdi:vector-polygon")
    return switches
