"""Writes the golden payloads: `python tests/runtime/mqtt/make_golden.py`. Read the difference before committing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"


def golden_text(encoded: bytes) -> str:
    """A payload as it stands in its golden file and in docs/mqtt.md."""
    return json.dumps(json.loads(encoded), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    from runtime.mqtt.examples import EXAMPLES

    for name, payload in EXAMPLES.items():
        (GOLDEN / f"{name}.json").write_text(golden_text(payload.encode()))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
