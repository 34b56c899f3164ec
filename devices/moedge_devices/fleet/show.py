"""A device's effective configuration with the place of every value. Pure."""

from __future__ import annotations

from typing import Any

from moedge_runtime.config.yaml_lines import Path, line_of

from moedge_devices.fleet.layers import layer_path
from moedge_devices.fleet.load import Device, Fleet
from moedge_devices.fleet.tree import Branch, Leaf, Node, leaves
from moedge_devices.fleet.yaml_text import flow

_INDENT = "  "
_FOLLOWS_YAML = 2
"""Blanks between a value and its comment."""


def show_text(fleet: Fleet, device: Device) -> str:
    """The device's moedge.yaml, valid YAML, with the layer and line of each value behind it."""
    lines = [f"# {device.name}: site {device.site}, group {device.group}"]
    for key in ("profile", "bundle", "system", "update"):
        node = device.tree.at(key)
        if node is not None:
            lines += [f"# {line}" for line in _aligned(_lines(fleet, key, node, 0))]
    own = Leaf(device.name, device.path)
    pairs = [("version: 1", ""), *_lines(fleet, "device", own, 0)]
    config = device.tree.at("config")
    for name, value in config.children.items() if isinstance(config, Branch) else ():
        pairs += _lines(fleet, str(name), value, 0)
    return "\n".join([*lines, *_aligned(pairs)])


def show_json(fleet: Fleet, device: Device) -> dict[str, Any]:
    """The same for programs."""
    return {
        "device": device.name,
        "site": device.site,
        "group": device.group,
        "profile": device.profile,
        "bundle": device.bundle.model_dump() if device.bundle else None,
        "system": device.system,
        "update": device.update.model_dump(),
        "config": device.values,
        "origins": [
            {
                "path": dotted(path),
                "value": leaf.value,
                "layer": layer_of(leaf.origin),
                "line": line_of(leaf.origin, fleet.lines),
            }
            for path, leaf in leaves(device.tree)
        ],
    }


def dotted(path: Path) -> str:
    """`("cameras", "gate", "fps")` as `cameras.gate.fps`; items of lists go by their name."""
    return ".".join(map(str, path))


def layer_of(origin: Path) -> str:
    """The layer that a place in the fleet file belongs to, such as sites.berlin.groups.press."""
    return dotted(layer_path(origin))


def _lines(fleet: Fleet, key: str, node: Node, depth: int, bullet: str = "") -> list[tuple[str, str]]:
    """Lines of YAML with their comments."""
    start = _INDENT * depth + bullet
    name = f"{flow(key)}: " if key else ""
    if isinstance(node, Leaf) or not node.children:
        value = node.plain
        where = f"{layer_of(node.origin)}, line {line_of(node.origin, fleet.lines)}"
        return [(f"{start}{name}{flow(value)}", where)]
    result = [(f"{start}{name.rstrip()}", "")] if key else []
    inside = depth + 1 if key else depth
    if node.is_list:
        for item in node.children.values():
            result += _item(fleet, item, inside)
        return result
    for child, inner in node.children.items():
        result += _lines(fleet, str(child), inner, inside)
    return result


def _item(fleet: Fleet, item: Node, depth: int) -> list[tuple[str, str]]:
    """An item of a list: its first line begins with the bullet, the others stand below its first key."""
    if isinstance(item, Leaf) or not item.children:
        return _lines(fleet, "", item, depth, "- ")
    lines = [line for key, child in item.children.items() for line in _lines(fleet, str(key), child, depth + 1)]
    first, where = lines[0]
    return [(f"{_INDENT * depth}- {first[len(_INDENT) * (depth + 1) :]}", where), *lines[1:]]


def _aligned(pairs: list[tuple[str, str]]) -> list[str]:
    """The comments below each other, as far as the lines are not too long."""
    column = max((len(line) for line, where in pairs if where and len(line) <= 60), default=0) + _FOLLOWS_YAML
    return [
        f"{line:<{column}}# {where}" if where and len(line) < column else f"{line}  # {where}" if where else line
        for line, where in pairs
    ]
