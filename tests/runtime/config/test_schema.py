import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from moedge_runtime.config import load_config
from moedge_runtime.config.schema import config_schema, schema_text

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs/configuration.md"


def test_the_written_schema_is_not_stale() -> None:
    assert (ROOT / "docs/moedge.schema.json").read_text() == schema_text(), (
        "run: python -m moedge_runtime.config.schema > docs/moedge.schema.json"
    )


def keys(schema: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name, field in schema.get("properties", {}).items():
        found.append(f"{prefix}{name}")
        for inner in (field, *field.get("anyOf", [])):
            for reference, mark in (
                (inner, "."),
                (inner.get("items", {}), "[]."),
                (next(iter(inner.get("patternProperties", {}).values()), {}), ".NAME."),
            ):
                if isinstance(reference, dict) and "$ref" in reference:
                    section = config_schema()["$defs"][reference["$ref"].rpartition("/")[2]]
                    found += keys(section, f"{prefix}{name}{mark}")
    return found


@pytest.mark.parametrize("key", keys(config_schema()))
def test_every_key_is_documented(key: str) -> None:
    assert f"| `{key}` |" in DOCUMENT.read_text()


def test_documented_keys_exist() -> None:
    documented = re.findall(r"^\| `([a-z_\[\].A-Z]+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(keys(config_schema()))


def test_the_example_of_the_document_is_valid(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(version: 1\n.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert example is not None
    (tmp_path / "moedge.yaml").write_text(example[1])
    config = load_config(tmp_path / "moedge.yaml", {"MOEDGE_MQTT_PASSWORD": "x"})
    assert config.watches
    jsonschema.validate(yaml.safe_load(example[1]), json.loads(schema_text()))
