"""The JSON Schema of fleet.yaml. `python -m moedge_devices.fleet.schema > docs/fleet.schema.json` writes it."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

from moedge_runtime.config.schema import config_schema
from moedge_runtime.config.secrets import secret_keys

from moedge_devices.fleet.model import FleetFile

_PART = "ConfigPart"
_REFERENCE_PATTERN = r"^(\$\{[A-Za-z_][A-Za-z0-9_]*\})+$"


@cache
def fleet_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of fleet.yaml, the same object on every call: do not change it.

    `config` of every layer is the schema of moedge.yaml with nothing required but the names of watches: what is missing
    in one layer is in another.
    """
    schema: dict[str, Any] = FleetFile.model_json_schema()
    parts = _parts()
    for name, layer in schema["$defs"].items():
        if name.endswith("Layer"):
            field = layer["properties"]["config"]
            layer["properties"]["config"] = {"$ref": f"#/$defs/{_PART}", "description": field["description"]}
    _say_what_is_wrong_inside(schema)
    schema["properties"]["defaults"].pop("default")
    schema["$defs"] |= parts
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "fleet.yaml"}


def schema_text() -> str:
    """The schema as it stands in docs/fleet.schema.json."""
    return json.dumps(fleet_schema(), indent=2, ensure_ascii=False) + "\n"


def _say_what_is_wrong_inside(schema: Any) -> None:
    """Write "an X or null" so that an editor shows what is wrong in the X; of an anyOf it says that nothing fits."""
    if isinstance(schema, list):
        for item in schema:
            _say_what_is_wrong_inside(item)
    if not isinstance(schema, dict):
        return
    kinds = schema.get("anyOf", [])
    if len(kinds) == 2 and kinds[1] == {"type": "null"}:
        del schema["anyOf"]
        schema |= {"if": {"not": {"type": "null"}}, "then": kinds[0]}
    for inner in schema.values():
        _say_what_is_wrong_inside(inner)


def _parts() -> dict[str, Any]:
    """The sections of moedge.yaml as a layer may give them."""
    config = copy.deepcopy(config_schema())
    parts: dict[str, Any] = config.pop("$defs")
    parts[_PART] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            name: field for name, field in config["properties"].items() if name not in ("version", "device")
        },
        "title": _PART,
    }
    for part in parts.values():
        named = "name" in part.get("required", [])
        part.pop("required", None)
        if all(kind.keys() == {"required"} for kind in part.get("anyOf", [])):
            part.pop("anyOf", None)  # one of several keys that another layer may give
        if named:
            part["required"] = ["name"]
        for name, field in part.get("properties", {}).items():
            field.pop("minProperties", None)
            field.pop("default", None)  # what a layer does not say it inherits
            if name in secret_keys():
                part["properties"][name] = {
                    "anyOf": [{"type": "string", "pattern": _REFERENCE_PATTERN}, {"type": "null"}],
                    "description": field.get("description", ""),
                }
    return parts


if __name__ == "__main__":
    print(schema_text(), end="")
