"""Puts a mask or zone into the text of a moedge.yaml or takes a mask away; leaves everything else as it was. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal

import yaml

from moedge_runtime.config.yaml_lines import read_yaml
from moedge_runtime.errors import ConfigError
from moedge_runtime.frames.polygon import Polygon

Kind = Literal["masks", "zones"]

_DECIMALS = 4
"""Of a coordinate: a tenth of a pixel at 1,000 pixels."""


def rounded(polygon: Polygon) -> list[list[float]]:
    """`polygon` as it is written."""
    return [[round(x, _DECIMALS), round(y, _DECIMALS)] for x, y in polygon]


def with_polygon(text: str, camera: str, kind: Kind, polygon: Polygon, name: str | None = None) -> str:
    """`text` with `polygon` added to a camera.

    Only the camera's `masks`, or `zones`, are written anew, in one line; the result is read again and compared.

    Args:
        text: A whole moedge.yaml.
        camera: Its key in `cameras`.
        kind: Where to.
        polygon: In fractions of the whole picture.
        name: Of a zone; one that is there already is replaced.

    Raises:
        ConfigError: The text is written in a way that cannot be changed safely, say with aliases.
    """

    def more(before: Any) -> Any:
        if kind == "masks":
            return [*(before or []), rounded(polygon)]
        return {**(before or {}), name: rounded(polygon)}

    return _changed(text, camera, kind, more)


def without_mask(text: str, camera: str, index: int) -> str:
    """`text` without one mask of a camera; as careful as `with_polygon`.

    Args:
        text: A whole moedge.yaml.
        camera: Its key in `cameras`.
        index: Which of its masks, from 0.

    Raises:
        ConfigError: There is no such mask, or the text cannot be changed safely.
    """

    def fewer(masks: Any) -> Any:
        if not 0 <= index < len(masks):
            raise LookupError(index)
        return [*masks[:index], *masks[index + 1 :]]

    return _changed(text, camera, "masks", fewer)


def _changed(text: str, camera: str, kind: Kind, change: Callable[[Any], Any]) -> str:
    try:
        raw, _, _ = read_yaml(text)
        section = raw["cameras"][camera]
        value = change(section.get(kind))
        wanted = {**raw, "cameras": {**raw["cameras"], camera: {**section, kind: value}}}
        changed = _edited(text, camera, kind, json.dumps(value, ensure_ascii=False))
        if changed is not None and read_yaml(changed)[0] == wanted:
            return changed
    except (yaml.YAMLError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        pass
    raise ConfigError(
        f"cameras.{camera}.{kind}: the file is written in a way that cannot be changed safely. Change it there "
        f"by hand.",
        key="config.not_editable",
    )


def _edited(text: str, camera: str, kind: Kind, value: str) -> str | None:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    entry = _entry(_value(_value(root, "cameras"), camera), kind)
    if entry is not None:
        key, old = entry
        return f"{text[: key.end_mark.index]}: {value}{text[_end(old) :]}"
    section = _value(_value(root, "cameras"), camera)
    if not isinstance(section, yaml.MappingNode) or not section.value:
        return None
    first = section.value[0][0].start_mark
    separator = ", " if section.flow_style else "\n" + " " * first.column
    return f"{text[: first.index]}{kind}: {value}{separator}{text[first.index :]}"


def _entry(node: yaml.Node | None, name: str) -> tuple[yaml.Node, yaml.Node] | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next(((key, value) for key, value in node.value if key.value == name), None)


def _value(node: yaml.Node | None, name: str) -> yaml.Node | None:
    entry = _entry(node, name)
    return entry[1] if entry else None


def _end(node: yaml.Node) -> int:
    """Where the last character of `node` is; the end mark of a block is where the next thing begins."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)
