"""Turns what is wrong with a configuration into one line a problem: where, what was got, what is allowed."""

from __future__ import annotations

from datetime import date
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from moedge_runtime.config.camera import camera_problems
from moedge_runtime.config.model import Config
from moedge_runtime.config.suggestion import did_you_mean
from moedge_runtime.config.values import KEYS_DISAGREE, NAME_PATTERN
from moedge_runtime.config.yaml_lines import Path, Problems

_SECRET_KEYS = {"password", "token"}

_SHOWN_CHARACTERS = 100

_WORDS = {
    "dict_type": "keys with values are wanted: `key: value`",
    "model_type": "keys with values are wanted: `key: value`",
    "list_type": "a list is wanted: [a, b]",
    "int_parsing": "a whole number is wanted",
    "int_type": "a whole number is wanted",
    "int_from_float": "a whole number is wanted",
    "float_parsing": "a number is wanted",
    "float_type": "a number is wanted",
    "bool_parsing": "true or false is wanted",
    "bool_type": "true or false is wanted",
    "empty": "at least one is wanted",
}
"""What pydantic says in words of Python, by its name for the problem."""

LOOP_NEVER_ENDS = "with exit_when_done a camera that loops never ends"


def schema_problems(error: ValidationError, root: type[BaseModel] = Config) -> Problems:
    """Every error of pydantic as a path and a sentence; `root` is the type that was validated."""
    problems: Problems = []
    for detail in error.errors():
        path = tuple(part for part in detail["loc"] if part != "[key]")
        pattern = detail.get("ctx", {}).get("pattern")
        if detail["type"] == KEYS_DISAGREE:
            problems.append((path[:-1], detail["msg"]))
            continue
        kind = "identifier" if pattern == f"^{NAME_PATTERN.pattern}$" else detail["type"]
        if kind == "too_short" and detail["ctx"]["min_length"] == 1:
            kind = "empty"
        problems.append((path, _sentence(kind, path, detail["msg"], detail["input"], root)))
    return problems


def reference_problems(raw: Any) -> Problems:
    """What one key asks of another; works on unvalidated values, so that all problems are reported together."""
    problems: Problems = []
    root = _mapping(raw)
    mqtt, cameras = _mapping(root.get("mqtt")), _mapping(root.get("cameras"))
    embedded = mqtt.get("embedded") not in (None, False)
    if "mqtt" in root and embedded == (mqtt.get("url") is not None):
        problems.append((("mqtt",), "give exactly one of url (a broker that runs) and embedded (one started here)"))
    if embedded and mqtt.get("username") is not None:
        problems.append(
            (("mqtt", "username"), "the embedded broker knows no users; give the url of a broker that does")
        )
    if (mqtt.get("cert") is None) != (mqtt.get("key") is None):
        problems.append((("mqtt",), "cert and key belong together; give both or neither"))
    if mqtt.get("password") is not None and mqtt.get("username") is None:
        problems.append((("mqtt", "password"), "a password needs a username"))
    if str(mqtt.get("url", "")).startswith("mqtt://") and any(mqtt.get(key) for key in ("ca", "cert", "key")):
        problems.append((("mqtt", "url"), "ca, cert and key need an mqtts:// url"))
    names: dict[str, int] = {}
    watches = root.get("watches")
    for index, watch in enumerate(watches if isinstance(watches, list) else []):
        camera, name = _mapping(watch).get("camera"), _mapping(watch).get("name")
        if isinstance(camera, str) and camera not in cameras:
            known = ", ".join(map(str, cameras)) or "none"
            close = did_you_mean(camera, map(str, cameras))
            text = f"there is no camera '{camera}'; known are: {known}{'.' if close else ''}{close}"
            problems.append((("watches", index, "camera"), text))
        elif isinstance(camera, str):
            problems += _zone_problems(index, _mapping(watch), _mapping(cameras[camera]), camera)
        if isinstance(name, str) and names.setdefault(name, index) != index:
            problems.append((("watches", index, "name"), f"'{name}' is also the name of watches[{names[name]}]"))
    for name, camera in cameras.items():
        problems += [(("cameras", str(name), key), text) for key, text in camera_problems(_mapping(camera))]
        if root.get("exit_when_done") is True and _mapping(camera).get("loop") is True:
            problems.append((("cameras", str(name), "loop"), LOOP_NEVER_ENDS))
    return problems


def _zone_problems(index: int, watch: dict[Any, Any], camera: dict[Any, Any], name: str) -> Problems:
    wanted, zones = watch.get("zones"), _mapping(camera.get("zones"))
    known = ", ".join(map(str, zones)) or "none"
    return [
        (("watches", index, "zones", place), f"camera '{name}' has no zone '{zone}'; known are: {known}")
        for place, zone in enumerate(wanted if isinstance(wanted, list) else [])
        if isinstance(zone, str) and zone not in zones
    ]


def path_text(path: Path) -> str:
    """`("watches", 0, "name")` as `watches[0].name`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _sentence(kind: str, path: Path, message: str, value: Any, root: type[BaseModel]) -> str:
    if kind == "extra_forbidden":
        known = _fields_at(path[:-1], root)
        close = did_you_mean(str(path[-1]), known)
        return f"unknown key.{close}" if close else f"unknown key; known are: {', '.join(known)}"
    if kind == "missing":
        return "this key is required"
    reason = message.removeprefix("Value error, ").removeprefix("Input ").replace("String should", "it has to", 1)
    if kind == "identifier":
        reason = "use 1 to 64 of the characters a-z, A-Z, 0-9, _ and -"
    elif kind in _WORDS:
        reason = _WORDS[kind]
    if kind == "string_type" and isinstance(value, int | float | date):  # what YAML makes of 2026.10, no and 2026-11-24
        reason = "a text is wanted: write it in quotes"
    if (path and path[-1] in _SECRET_KEYS) or (isinstance(value, str) and "@" in value):  # a URL may hold a password
        return reason
    if path and path[-1] == "source" and isinstance(value, str) and "?" in value:  # so may its query
        value = value.partition("?")[0] + "?…"
    return got(value, reason)


def got(value: object, reason: str) -> str:
    """`reason` with the value in front, if that is short enough to be read."""
    if isinstance(value, int) and abs(value) >= 10**_SHOWN_CHARACTERS:
        return f"got an integer of more than {_SHOWN_CHARACTERS} digits; {reason}"
    if isinstance(value, str) and len(value) > _SHOWN_CHARACTERS:
        return f"got {value[:_SHOWN_CHARACTERS]!r}…; {reason}"
    return f"got {value!r}; {reason}" if isinstance(value, str | int | float | bool | None) else reason


def _fields_at(path: Path, root: type[BaseModel]) -> list[str]:
    """Keys that the type `root` allows at `path`."""
    kind: Any = root
    for part in path:
        kind = _model_in(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(part)].annotation if part in kind.model_fields else None
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
        elif get_origin(kind) is list:
            kind = get_args(kind)[0]
    kind = _model_in(kind)
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def _model_in(kind: Any) -> Any:
    """The model inside `Model | None`; anything else as it is."""
    models = [part for part in get_args(kind) if isinstance(part, type) and issubclass(part, BaseModel)]
    return models[0] if models and get_origin(kind) not in (dict, list) else kind
