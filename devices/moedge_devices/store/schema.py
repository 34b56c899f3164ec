"""The JSON Schema of update.yaml. `python -m moedge_devices.store.schema > docs/update.schema.json` writes it."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from moedge_devices.store.config import UpdateConfig


@cache
def update_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of update.yaml, the same object on every call: do not change it."""
    schema = UpdateConfig.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "update.yaml"}


def schema_text() -> str:
    """The schema as it stands in docs/update.schema.json."""
    return json.dumps(update_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(schema_text(), end="")
