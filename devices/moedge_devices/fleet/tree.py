"""Layers laid over each other: values that remember from which place of the file they came. Pure.

Trees are never changed: a merge makes new branches only where the new layer says something, and shares the rest with
what it inherits. Thousands of devices of a group cost what is different between them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from moedge_runtime.config.suggestion import did_you_mean
from moedge_runtime.config.yaml_lines import Path

from moedge_devices.fleet.shape import WHOLE, ByName, NamedList, Section, Shape


@dataclass(frozen=True)
class Leaf:
    """One value. `origin` is its path in fleet.yaml."""

    value: Any
    origin: Path

    @property
    def plain(self) -> Any:
        """The value as YAML has it."""
        return self.value


@dataclass(frozen=True)
class Branch:
    """Values by key. `origin` is the place that changed something in it last."""

    children: Mapping[Hashable, Node]
    origin: Path
    is_list: bool = False

    @cached_property
    def plain(self) -> Any:
        """The values as YAML has them; the same object on every call: do not change it."""
        if self.is_list:
            return [child.plain for child in self.children.values()]
        return {key: child.plain for key, child in self.children.items()}

    def at(self, part: object) -> Node | None:
        """The child of a key, or of a list its item by number."""
        if self.is_list and isinstance(part, int):
            items = list(self.children.values())
            return items[part] if 0 <= part < len(items) else None
        return next((child for key, child in self.children.items() if key == part or str(key) == part), None)


Node = Leaf | Branch


def merge(inherited: Node | None, raw: Any, shape: Shape, at: Path) -> Node:
    """`raw`, which stands at `at` in the file, laid over `inherited`."""
    under = inherited if isinstance(inherited, Branch) else None
    if isinstance(shape, NamedList) and isinstance(raw, list):
        return _merge_list(under, raw, shape, at)
    if not isinstance(shape, Section | ByName) or not isinstance(raw, dict):
        return Leaf(raw, at)
    if under is not None and not raw:
        return under
    children: dict[Hashable, Node] = dict(under.children) if under else {}
    for key, value in raw.items():
        inner = shape.item if isinstance(shape, ByName) else shape.fields.get(str(key), WHOLE)
        children[key] = merge(children.get(key), value, inner, (*at, str(key)))
    return Branch(children, at)


def remove(tree: Branch, path: tuple[str, ...]) -> tuple[Branch, str | None]:
    """`tree` without what is at `path`, and if nothing is there what to say about that."""
    key = next((key for key in tree.children if str(key) == path[0]), None)
    if key is None:
        known = [str(name) for name in tree.children if isinstance(name, str | int)]
        close = did_you_mean(path[0], known)
        listing = "" if close else f" Inherited there: {', '.join(known[:20]) or 'nothing'}."
        return tree, f"nothing is inherited as '{path[0]}'.{close}{listing}"
    children = dict(tree.children)
    if len(path) == 1:
        del children[key]
        return Branch(children, tree.origin, tree.is_list), None
    child = children[key]
    if not isinstance(child, Branch):
        return tree, f"'{path[0]}' is one value and has no parts to remove"
    children[key], problem = remove(child, path[1:])
    return (tree, problem) if problem else (Branch(children, tree.origin, tree.is_list), None)


def origin_of(tree: Branch, path: Path) -> Path | None:
    """Where in the file the value at `path` of the merged tree is to be changed; None if no layer says anything of it.

    Below the last part that a layer has said something of, the path goes on as it is: the place of a key that is
    missing, or inside one value.
    """
    node: Node = tree
    for number, part in enumerate(path):
        child = node.at(part) if isinstance(node, Branch) else None
        if child is None:
            return None if number == 0 else (*node.origin, *path[number:])
        node = child
    return node.origin


def leaves(node: Node, path: Path = ()) -> Iterator[tuple[Path, Leaf]]:
    """Every value of the tree with its path; items of a list go by their name. An empty branch is a value too."""
    if isinstance(node, Leaf):
        yield path, node
        return
    if not node.children:
        yield path, Leaf(node.plain, node.origin)
    for key, child in node.children.items():
        yield from leaves(child, (*path, key if isinstance(key, str | int) else str(key)))


def duplicate_items(raw: list[Any]) -> set[int]:
    """Indices of items that repeat the name of an earlier one of the same list."""
    seen: set[Any] = set()
    repeated = set()
    for index, item in enumerate(raw):
        name = _name(item)
        if name is not None and name in seen:
            repeated.add(index)
        seen.add(name)
    return repeated


def _merge_list(under: Branch | None, raw: list[Any], shape: NamedList, at: Path) -> Node:
    children: dict[Hashable, Node] = dict(under.children) if under else {}
    repeated = duplicate_items(raw)
    for index, item in enumerate(raw):
        name = _name(item)
        # What has no name of its own stands for itself, and is reported when the whole is validated.
        key: Hashable = name if name is not None and index not in repeated else (*at, index)
        children[key] = merge(children.get(key), item, shape.item, (*at, index))
    return Branch(children, at, is_list=True) if raw or under is None else under


def _name(item: Any) -> str | None:
    name = item.get("name") if isinstance(item, dict) else None
    return name if isinstance(name, str) else None
