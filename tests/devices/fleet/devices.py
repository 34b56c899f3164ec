"""Devices without a file."""

from __future__ import annotations

import copy
from typing import Any

from moedge_devices.fleet.load import Device
from moedge_devices.fleet.shape import layer_shape
from moedge_devices.fleet.tree import Branch, merge
from moedge_runtime.config.load import validate


def device(config: dict[str, Any]) -> Device:
    """A device with `config` on top of what it cannot do without."""
    base = {"model": {"bundle": "/b"}, "mqtt": {"url": "mqtt://b"}, "cameras": {"base": {"source": "csi:0"}}}
    tree = merge(Branch({}, ()), {"config": base}, layer_shape(), ())
    config = copy.deepcopy(config)
    for camera in config.get("cameras", {}).values():
        camera["source"] = "csi:0"
    for watch in config.get("watches", []):
        watch |= {"camera": "base", "question": watch.get("question", "what")}
    tree = merge(tree, {"config": config}, layer_shape(), ())
    assert isinstance(tree, Branch)
    values = {"version": 1, "device": "d", **tree.plain["config"]}
    typed, problems = validate(values, {"another_machine": True})
    assert typed is not None and not problems
    return Device("d", "s", "g", (), tree, values, typed)
