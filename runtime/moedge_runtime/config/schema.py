"""The JSON Schema of moedge.yaml. `python -m moedge_runtime.config.schema > docs/moedge.schema.json` writes it."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from moedge_runtime.config.model import Config


@cache
def config_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of moedge.yaml, the same object on every call: do not change it."""
    schema: dict[str, Any] = Config.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "moedge.yaml"}


def schema_text() -> str:
    """The schema as it stands in docs/moedge.schema.json."""
    return json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(schema_text(), end="")
