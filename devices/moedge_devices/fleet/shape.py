"""Where values of a layer are merged and where they are replaced, taken from the types. Pure.

Only what the types know as parts are merged: objects with named fields, objects by name, and lists of objects that have
a name. Everything else, a JSON Schema for example, is one value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any, get_args, get_origin

from moedge_runtime.config import Config
from pydantic import BaseModel

from moedge_devices.fleet.model import Layer


@dataclass(frozen=True)
class Whole:
    """One value: a later layer replaces it."""


@dataclass(frozen=True)
class Section:
    """An object with the keys of a type; unknown keys are whole values."""

    fields: dict[str, Shape] = field(default_factory=dict)


@dataclass(frozen=True)
class ByName:
    """An object whose keys are names."""

    item: Shape


@dataclass(frozen=True)
class NamedList:
    """A list of objects that have a `name`, merged by it."""

    item: Shape


Shape = Whole | Section | ByName | NamedList

WHOLE = Whole()


@cache
def config_shape() -> Section:
    """The shape of moedge.yaml."""
    return _section(Config)


@cache
def layer_shape() -> Section:
    """The shape of what a layer of fleet.yaml passes on."""
    fields = _section(Layer).fields
    whole = dict.fromkeys(("profile", "bundle", "system"), WHOLE)
    return Section({**whole, "update": fields["update"], "config": config_shape()})


def _section(kind: type[BaseModel]) -> Section:
    return Section({name: _shape(info.annotation) for name, info in kind.model_fields.items()})


def _shape(kind: Any) -> Shape:
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _section(kind)
    if origin is dict and isinstance(_shape(arguments[1]), Section):
        return ByName(_shape(arguments[1]))
    if origin is list:
        item = _shape(arguments[0])
        return NamedList(item) if isinstance(item, Section) and "name" in item.fields else WHOLE
    sections = [shape for shape in map(_shape, arguments) if not isinstance(shape, Whole)]
    return sections[0] if len(sections) == 1 and origin not in (dict, list) else WHOLE
