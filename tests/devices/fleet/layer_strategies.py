"""Layers of a fleet for hypothesis: parts of moedge.yaml over few names, so that they meet."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

NAMES = st.sampled_from(["a", "b", "c"])
CAMERA = st.fixed_dictionaries(
    {},
    optional={
        "fps": st.integers(1, 30),
        "size": st.sampled_from(["640x480", "1280x720"]),
        "enabled": st.booleans(),
    },
)
WATCH = st.fixed_dictionaries(
    {},
    optional={
        "interval": st.sampled_from([1, "5s", "1m", "60s"]),
        "question": st.sampled_from(["how", "why"]),
        "max_tokens": st.integers(1, 9),
        "json_schema": st.sampled_from([{"type": "object"}, {"type": "array", "items": {}}]),
    },
)


def _named(watches: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, **watch} for name, watch in watches.items()]


CONFIG = st.fixed_dictionaries(
    {},
    optional={
        "health": st.fixed_dictionaries({}, optional={"interval": st.sampled_from([30, "1m", 60])}),
        "log": st.fixed_dictionaries({}, optional={"level": st.sampled_from(["info", "debug"])}),
        "exit_when_done": st.booleans(),
        "cameras": st.dictionaries(NAMES, CAMERA, max_size=3),
        "watches": st.dictionaries(NAMES, WATCH, max_size=3).map(_named),
    },
)

Flat = dict[tuple[str, ...], Any]


def flat(config: dict[str, Any]) -> Flat:
    """Every value by its path, watches by name: written without the code under test."""
    found: Flat = {}
    for key in ("health", "log"):
        for name, value in config.get(key, {}).items():
            found[key, name] = value
    if "exit_when_done" in config:
        found["exit_when_done",] = config["exit_when_done"]
    for name, camera in config.get("cameras", {}).items():
        for key, value in camera.items():
            found["cameras", name, key] = value
    for watch in config.get("watches", []):
        for key, value in watch.items():
            found["watches", watch["name"], key] = value
    return found
