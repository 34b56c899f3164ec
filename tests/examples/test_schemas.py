"""Editors find the schema that an example names in its first line, and nothing in the example to complain about."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
NAMED = "# yaml-language-server: $schema="
EXAMPLES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "examples").rglob("*.yaml"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_schema_that_an_example_names_takes_it(name: str) -> None:
    text = (ROOT / name).read_text()
    assert text.startswith(NAMED)
    schema = ((ROOT / name).parent / text.splitlines()[0].removeprefix(NAMED)).resolve()
    assert schema.parent == ROOT / "docs"
    jsonschema.Draft202012Validator(json.loads(schema.read_text())).validate(yaml.safe_load(text))


def test_there_are_examples_of_both_files() -> None:
    assert len(EXAMPLES) >= 2
