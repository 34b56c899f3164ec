"""What a change of the fleet file means for each device: configurations compared as the board reads them. Pure.

`interval: 60` and `interval: 1m`, a value that moves from a device to its group, a default that is written out: none of
them is a change. Cameras and watches are compared by name.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel, SecretStr

from moedge_devices.fleet.load import Device, Fleet
from moedge_devices.fleet.shape import ByName, NamedList, Section, Shape, Whole, config_shape

Path = tuple[str, ...]

ABSENT = object()
"""The value of what is not there."""

_BY_KEY = ByName(ByName(Whole()))
"""Bundle and update: each of their keys is one value."""

_NAMED_DEVICES = 5

_PLACE = {"url", "embedded", "base_topic"}
"""Keys of `mqtt` that say where a device is reached."""


@dataclass(frozen=True)
class Change:
    """One value of a device. `old` or `new` is ABSENT for a camera or a watch that comes or goes."""

    path: Path
    old: Any
    new: Any

    def to_json(self) -> dict[str, Any]:
        """For programs; what is absent has no key."""
        sides = {"old": self.old, "new": self.new}
        return {"path": ".".join(self.path), **{name: value for name, value in sides.items() if value is not ABSENT}}


@dataclass(frozen=True)
class FleetDiff:
    """All of the difference between two fleets; devices in the order of the files."""

    added: list[str]
    removed: list[str]
    changed: dict[str, list[Change]]

    @property
    def empty(self) -> bool:
        """Whether nothing changes for any device."""
        return not (self.added or self.removed or self.changed)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        changed = {
            name: {"means": consequences(changes), "changes": [change.to_json() for change in changes]}
            for name, changes in self.changed.items()
        }
        return {"added": self.added, "removed": self.removed, "changed": changed}


def diff_fleets(old: Fleet, new: Fleet) -> FleetDiff:
    """What the step from `old` to `new` means for each device."""
    changed = {
        name: changes
        for name, device in new.devices.items()
        if name in old.devices and (changes := diff_devices(old.devices[name], device))
    }
    return FleetDiff(
        added=[name for name in new.devices if name not in old.devices],
        removed=[name for name in old.devices if name not in new.devices],
        changed=changed,
    )


def diff_devices(old: Device, new: Device) -> list[Change]:
    """What is different between two states of a device."""
    facts = [
        Change((key,), before, after)
        for key, before, after in (
            ("site", old.site, new.site),
            ("group", old.group, new.group),
            ("profile", old.profile, new.profile),
            ("system", old.system, new.system),
        )
        if before != after
    ]
    facts += _compare(_BY_KEY, {"bundle": _json(old.bundle)}, {"bundle": _json(new.bundle)}, ())
    facts += _compare(_BY_KEY, {"update": _json(old.update)}, {"update": _json(new.update)}, ())
    if old.values == new.values:
        return facts
    return facts + [
        Change(("config", *change.path), change.old, change.new)
        for change in _compare(config_shape(), meaning(old), meaning(new), ())
    ]


def consequences(changes: Sequence[Change]) -> list[str]:
    """What changes of a device make it do, in words, when it is given its new configuration (docs/mqtt.md)."""
    paths = [change.path for change in changes]
    model = any(path[:2] == ("config", "model") for path in paths)
    words = [
        (
            any(path[:2] == ("config", "mqtt") and path[2] in _PLACE for path in paths),
            "moves to another broker or topic",
        ),
        (model, "loads the model again"),
        (not model and any(path[0] == "config" for path in paths), "keeps its model loaded"),
        (any(path[0] == "bundle" for path in paths), "is to have another bundle"),
        (any(path[0] == "system" for path in paths), "is to have another system"),
        (any(path[0] == "update" for path in paths), "is updated from elsewhere or at other times"),
        (any(path[0] in {"site", "group", "profile"} for path in paths), "belongs elsewhere in the fleet"),
    ]
    return [word for holds, word in words if holds]


def meaning(device: Device) -> dict[str, Any]:
    """The configuration as the board reads it: every default filled in, times in seconds, sizes in bytes."""
    values: dict[str, Any] = _json(device.config)
    return values


def diff_text(diff: FleetDiff) -> str:
    """For people: devices with the same changes together."""
    lines = [f"+ {name}: new" for name in diff.added] + [f"- {name}: gone" for name in diff.removed]
    together: dict[str, list[str]] = defaultdict(list)
    for name, changes in diff.changed.items():
        head = f"~ NAMES: {', '.join(consequences(changes))}"
        together["\n".join([head, *(f"    {_line(change)}" for change in changes)])].append(name)
    lines += [text.replace("NAMES", _names(names), 1) for text, names in together.items()]
    return "\n".join(lines) if lines else "Nothing changes for any device."


def _line(change: Change) -> str:
    where = ".".join(change.path)
    if change.old is ABSENT:
        return f"{where}: new, {_short(change.new)}"
    if change.new is ABSENT:
        return f"{where}: gone"
    return f"{where}: {_short(change.old)} -> {_short(change.new)}"


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMED_DEVICES])
    more = f" and {len(names) - _NAMED_DEVICES:,} more" if len(names) > _NAMED_DEVICES else ""
    return f"{shown}{more}" if len(names) == 1 else f"{len(names):,} devices ({shown}{more})"


def _compare(shape: Shape, old: Any, new: Any, path: Path) -> Iterator[Change]:
    if old == new:
        return
    if isinstance(shape, Whole) or not isinstance(old, dict | list) or not isinstance(new, dict | list):
        yield Change(path, old, new)
        return
    if isinstance(shape, NamedList):
        old, new = ({item["name"]: item for item in items} for items in (old, new))
    for key in dict.fromkeys((*old, *new)):
        inner = shape.fields[key] if isinstance(shape, Section) else shape.item
        if key in old and key in new:
            yield from _compare(inner, old[key], new[key], (*path, key))
        else:
            assert isinstance(shape, ByName | NamedList)
            yield Change((*path, key), old.get(key, ABSENT), new.get(key, ABSENT))


def _json(value: Any) -> Any:
    """A typed value as JSON has it; the text of a secret is only the name of a variable, and stays."""
    if isinstance(value, BaseModel):
        return {name: _json(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value) if isinstance(value, PurePath) else value
