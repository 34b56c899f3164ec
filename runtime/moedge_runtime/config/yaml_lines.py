"""Reads YAML into plain values and remembers the line of every key; a key given twice is an error."""

from __future__ import annotations

from typing import Any

import yaml

Path = tuple[str | int, ...]
Problems = list[tuple[Path, str]]

MAX_VALUES = 100_000
"""Keys and items of a file, every use of an alias counted: ten lines of aliases can stand for billions."""


def read_yaml(
    text: str,
    *,
    max_values: int = MAX_VALUES,
    loader_class: type[yaml.SafeLoader] | type[yaml.CSafeLoader] | None = None,
) -> tuple[Any, dict[Path, int], Problems]:
    """Parse `text`.

    Args:
        text: The document.
        max_values: Keys and items that it may hold.
        loader_class: PyYAML's loader; None for its own in Python, whose messages show the line that is wrong.
            CSafeLoader is several times faster.

    Returns:
        The value, the line (from 1) of every path in it, and a problem for every key given twice.

    Raises:
        yaml.YAMLError: `text` is no YAML.
        ValueError: An alias contains itself, aliases multiply to more than `max_values` values, or a value is none of
            its type, such as a 31st of February.
        RecursionError: It is nested very deeply.
    """
    loader = (loader_class or yaml.SafeLoader)(text)
    lines: dict[Path, int] = {}
    problems: Problems = []
    try:
        node = loader.get_single_node()
        if node is None:
            return None, lines, problems
        _note_lines(node, (), lines, problems, set(), max_values=max_values)
        value = loader.construct_document(node)
    finally:
        loader.dispose()
    return value, lines, problems


def line_of(path: Path, lines: dict[Path, int]) -> int | None:
    """Line of `path`, or of the nearest parent that the file has."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path)


def _note_lines(
    node: yaml.Node,
    path: Path,
    lines: dict[Path, int],
    problems: Problems,
    parents: set[yaml.Node],
    *,
    max_values: int,
) -> None:
    if node in parents:
        raise ValueError(f"line {node.start_mark.line + 1}: what an anchor stands for contains itself")
    if len(lines) > max_values:
        raise ValueError(f"its aliases multiply to more than {max_values:,} values")
    lines.setdefault(path, node.start_mark.line + 1)
    parents.add(node)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            key = str(key_node.value)
            child = (*path, key)
            if key in seen:
                problems.append((child, f"the key is given twice, here and in line {lines[child]}"))
            seen.add(key)
            lines[child] = key_node.start_mark.line + 1
            _note_lines(value_node, child, lines, problems, parents, max_values=max_values)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _note_lines(item, (*path, index), lines, problems, parents, max_values=max_values)
    parents.remove(node)
