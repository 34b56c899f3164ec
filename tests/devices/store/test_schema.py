import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from moedge_devices.store.config import UpdateConfig, load_update_config
from moedge_devices.store.schema import schema_text, update_schema
from moedge_runtime.errors import ConfigError

ROOT = Path(__file__).parents[3]


def test_the_written_schema_is_not_stale() -> None:
    assert (ROOT / "docs/update.schema.json").read_text() == schema_text(), (
        "run: python -m moedge_devices.store.schema > docs/update.schema.json"
    )


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("source: https://models.example/moedge\nwithin: 20m\nanswers: 3\n", None),
        ("{}", None),
        ("version: 2\n", "version"),
        ("answers: -1\n", "answers"),
        ("within: soon\n", "within"),
        ("bundle: ../x\n", "bundle"),
        ("sources: x\n", ""),
    ],
)
def test_what_the_schema_allows_and_refuses_is_what_the_updater_does(
    tmp_path: Path, text: str, wrong: str | None
) -> None:
    jsonschema.Draft202012Validator.check_schema(update_schema())
    errors = jsonschema.Draft202012Validator(json.loads(schema_text())).iter_errors(yaml.safe_load(text))
    assert {"/".join(map(str, error.absolute_path)) for error in errors} == (set() if wrong is None else {wrong})
    path = tmp_path / "update.yaml"
    path.write_text(text)
    if wrong is None:
        load_update_config(path)
        return
    with pytest.raises(ConfigError, match=wrong or "sources"):
        load_update_config(path)


def test_every_key_is_documented() -> None:
    text = (ROOT / "docs/updates.md").read_text()
    properties: dict[str, Any] = update_schema()["properties"]
    assert properties.keys() == UpdateConfig.model_fields.keys()
    for key in properties:
        assert f"`{key}`" in text, key
