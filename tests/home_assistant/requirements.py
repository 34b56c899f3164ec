"""Prints what the integrations of an installed Home Assistant need, one a line: `python requirements.py mqtt sensor`.

Run by the Python that has Home Assistant. With --skip-pip it installs nothing by itself when it starts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from homeassistant import bootstrap, components


def requirements(integrations: set[str]) -> set[str]:
    """Those of the integrations and of all that they import: what they depend on, and what they go after."""
    found: set[str] = set()
    done: set[str] = set()
    while left := integrations - done:
        done |= left
        for integration in left:
            path = Path(components.__path__[0], integration, "manifest.json")
            manifest = json.loads(path.read_text(encoding="utf-8"))
            found.update(manifest.get("requirements", ()))
            integrations |= {*manifest.get("dependencies", ()), *manifest.get("after_dependencies", ())}
    return found


if __name__ == "__main__":
    print(*sorted(requirements({*sys.argv[1:], *bootstrap.DEFAULT_INTEGRATIONS})), sep="\n")
