"""Home Assistant's rules for MQTT discovery, from its documentation: integrations mqtt, sensor.mqtt,
binary_sensor.mqtt, image.mqtt, button.mqtt, switch.mqtt and update.mqtt.

Stricter than its own code: an option that it would silently ignore is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import jinja2

TOPIC_OF_DISCOVERY = re.compile(r"[^/+#]+(/[^/+#]+)*/device/[a-zA-Z0-9_-]+/config")
COMMON = {
    "platform", "unique_id", "name", "qos", "availability", "availability_mode", "entity_category", "icon",
    "enabled_by_default", "json_attributes_topic", "json_attributes_template", "object_id", "device_class",
}  # fmt: skip
OPTIONS = {
    "sensor": {
        "state_topic", "value_template", "unit_of_measurement", "state_class", "options", "expire_after",
        "suggested_display_precision", "force_update",
    },
    "binary_sensor": {"state_topic", "value_template", "payload_on", "payload_off", "expire_after", "off_delay"},
    "image": {"image_topic", "content_type", "image_encoding", "url_topic", "url_template"},
    "button": {"command_topic", "command_template", "payload_press", "retain"},
    "switch": {
        "command_topic", "command_template", "state_topic", "value_template", "payload_on", "payload_off", "state_on",
        "state_off", "optimistic", "retain",
    },
    "update": {
        "state_topic", "value_template", "latest_version_topic", "latest_version_template", "title", "release_url",
        "release_summary", "command_topic", "payload_install", "retain",
    },
}  # fmt: skip
NEEDED = {
    "sensor": {"state_topic"},
    "binary_sensor": {"state_topic"},
    "image": {"image_topic"},
    "button": {"command_topic"},
    "switch": {"command_topic"},
    "update": {"state_topic"},
}
DEVICE_CLASSES = {
    "sensor": {
        "duration": {"d", "h", "min", "s", "ms"},
        "data_size": {"B", "kB", "MB", "GiB", "MiB"},
        "enum": {None},
        "temperature": {"°C"},
    },
    "binary_sensor": {"problem": {None}, "connectivity": {None}, "motion": {None}},
    "image": {},
    "button": {"restart": {None}, "update": {None}, "identify": {None}},
    "switch": {"switch": {None}, "outlet": {None}},
    "update": {"firmware": {None}},
}
DEVICE_KEYS = {
    "identifiers", "connections", "name", "manufacturer", "model", "model_id", "sw_version", "hw_version",
    "serial_number", "suggested_area", "configuration_url", "via_device",
}  # fmt: skip
ORIGIN_KEYS = {"name", "sw_version", "support_url"}


UPDATE_STATE = {
    "installed_version": str, "latest_version": str, "title": str, "release_summary": str, "release_url": str,
    "entity_picture": str, "in_progress": bool, "update_percentage": int | float | None,
}  # fmt: skip
"""homeassistant/components/mqtt/update.py, MQTT_JSON_UPDATE_SCHEMA: another key or type makes it refuse the message."""


def update_problems(state: dict[str, Any]) -> list[str]:
    """Why Home Assistant would refuse what the template of an update entity gives, as JSON."""
    return [f"{key}: {value!r}" for key, value in state.items() if not isinstance(value, UPDATE_STATE.get(key, ()))]


def problems(topic: str, payload: dict[str, Any]) -> list[str]:
    """Everything that Home Assistant would refuse or ignore."""
    return [*_frame(topic, payload), *_unique(payload), *(p for c in _components(payload) for p in _component(*c))]


def _components(payload: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from payload.get("components", {}).items()


def _frame(topic: str, payload: dict[str, Any]) -> Iterator[str]:
    if not TOPIC_OF_DISCOVERY.fullmatch(topic):
        yield f"the discovery topic {topic} is none"
    allowed = {"device", "origin", "components", "availability", "availability_mode", "qos", "encoding", "state_topic"}
    if unknown := payload.keys() - allowed:
        yield f"unknown keys: {unknown}"
    if missing := {"device", "origin", "components"} - payload.keys():
        yield f"missing keys: {missing}"
    if not payload["device"].get("identifiers") and not payload["device"].get("connections"):
        yield "the device has no identifiers"
    if unknown := payload["device"].keys() - DEVICE_KEYS:
        yield f"unknown keys of the device: {unknown}"
    if "name" not in payload["origin"] or payload["origin"].keys() - ORIGIN_KEYS:
        yield f"the origin is wrong: {payload['origin']}"
    yield from _availability("device", payload)


def _unique(payload: dict[str, Any]) -> Iterator[str]:
    identifiers = [component["unique_id"] for _, component in _components(payload) if "unique_id" in component]
    if len(set(identifiers)) != len(identifiers):
        yield "a unique_id is given twice"


def _component(key: str, component: dict[str, Any]) -> Iterator[str]:
    platform = component.get("platform", "")
    if platform not in OPTIONS:
        yield f"{key}: there is no platform {platform}"
        return
    if component.keys() == {"platform"}:
        return  # removes the component
    if not re.fullmatch(r"[a-zA-Z0-9_-]+", key):
        yield f"{key}: a component's id has letters, digits, _ and - only"
    if unknown := component.keys() - COMMON - OPTIONS[platform]:
        yield f"{key}: a {platform} has no {unknown}"
    if missing := ({"unique_id", "name"} | NEEDED[platform]) - component.keys():
        yield f"{key}: {missing} missing"
    if component.get("qos", 0) not in (0, 1, 2):
        yield f"{key}: qos {component['qos']}"
    for name, value in component.items():
        if name.endswith("topic") and (not value or len(value.encode()) > 65535 or set(value) & set("+#\0")):
            yield f"{key}: {name} {value!r} is no topic of messages"
        if name.endswith("template"):
            yield from _template(f"{key}.{name}", value)
    if platform == "update" and ("command_topic" in component) != ("payload_install" in component):
        yield f"{key}: command_topic and payload_install belong together"
    if component.get("entity_category") not in (None, "diagnostic", "config"):
        yield f"{key}: entity_category"
    read_only = platform in ("sensor", "binary_sensor") or (platform == "update" and "command_topic" not in component)
    if component.get("entity_category") == "config" and read_only:
        yield f"{key}: what can only be read is no configuration"
    yield from _device_class(key, platform, component)
    yield from _availability(key, component)


def _device_class(key: str, platform: str, component: dict[str, Any]) -> Iterator[str]:
    kind, unit = component.get("device_class"), component.get("unit_of_measurement")
    if kind is not None and kind not in DEVICE_CLASSES[platform]:
        yield f"{key}: a {platform} has no device class {kind}"
    elif kind is not None and unit not in DEVICE_CLASSES[platform][kind]:
        yield f"{key}: {kind} is not measured in {unit}"
    if (kind == "enum") != bool(component.get("options")):
        yield f"{key}: options and the device class enum belong together"
    if component.get("options") and component.get("state_class"):
        yield f"{key}: options have no state class"
    if component.get("state_class") not in (None, "measurement", "total", "total_increasing"):
        yield f"{key}: state class"


def _availability(key: str, holder: dict[str, Any]) -> Iterator[str]:
    entries = holder.get("availability", [])
    for entry in entries:
        if "topic" not in entry or entry.keys() - {
            "topic",
            "value_template",
            "payload_available",
            "payload_not_available",
        }:
            yield f"{key}: availability {entry}"
        yield from _template(f"{key}.availability", entry.get("value_template", ""))
    if len(entries) > 1 and holder.get("availability_mode") not in ("all", "any", "latest"):
        yield f"{key}: more than one availability without a mode"


def _template(key: str, text: str) -> Iterator[str]:
    try:
        jinja2.Environment(autoescape=False).parse(text)
    except jinja2.TemplateSyntaxError as error:
        yield f"{key}: {error}"
