import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from devices.fleet.sample import FLEET
from devices.fleet.test_load import PLANTED
from moedge_devices.fleet import load_fleet
from moedge_devices.fleet.schema import fleet_schema, schema_text

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs/fleet.md"


def test_the_written_schema_is_not_stale() -> None:
    assert (ROOT / "docs/fleet.schema.json").read_text() == schema_text(), (
        "run: python -m moedge_devices.fleet.schema > docs/fleet.schema.json"
    )


def faults(document: Any) -> set[str]:
    jsonschema.Draft202012Validator.check_schema(fleet_schema())
    validator = jsonschema.Draft202012Validator(json.loads(schema_text()))
    return {"/".join(map(str, error.absolute_path)) for error in validator.iter_errors(document)}


def test_what_the_schema_allows_and_refuses_is_what_the_check_does() -> None:
    assert faults(yaml.safe_load(FLEET)) == set()
    found = faults(yaml.safe_load(PLANTED))
    press = "sites/berlin/groups/press"
    assert found >= {
        "defaults/update",
        "defaults/bundle",
        "defaults/config/model",
        "defaults/config/mqtt/password",
        "defaults/config/watches/0/interval",
        "defaults/config/watches/1/question",
        "sites/berlin/config",
        "sites/berlin/config/log/level",
        f"{press}/update/windows/0/start",
        f"{press}/devices/panel-02/config/cameras/gate/fps",
    }


@pytest.mark.parametrize("name", ["example of the page", "example file"])
def test_the_examples_are_valid(tmp_path: Path, name: str) -> None:
    example = ROOT / "examples/fleet/fleet.yaml"
    if name == "example of the page":
        text = DOCUMENT.read_text().partition("```yaml\n")[2].partition("```")[0]
        example = tmp_path / "fleet.yaml"
        example.write_text(text)
    assert load_fleet(example).devices
    assert faults(yaml.safe_load(example.read_text())) == set()


def keys(schema: dict[str, Any]) -> set[str]:
    return {key for name in ("Layer", "BundleVersion", "Update", "UpdateWindow") for key in _of(schema, name)}


def _of(schema: dict[str, Any], name: str) -> list[str]:
    return list(schema["$defs"][name]["properties"])


def test_every_key_is_documented() -> None:
    text = DOCUMENT.read_text()
    for key in {*keys(fleet_schema()), "defaults", "sites", "groups", "devices", "version"}:
        assert f"{key}` |" in text, key
