"""Walks a fleet file, also one with mistakes, and lays its layers over each other down to the devices. Pure but for the
JSON Schemas that it reads.

Every problem is noted once, at the layer that has to change; the walk goes on, so that all of them are found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path as FilePath
from typing import Any

from moedge_runtime.config.environment import substitute
from moedge_runtime.config.secrets import secrets
from moedge_runtime.config.suggestion import did_you_mean
from moedge_runtime.config.values import read_json_schema
from moedge_runtime.config.yaml_lines import Path, Problems

from moedge_devices.fleet.shape import layer_shape
from moedge_devices.fleet.tree import Branch, merge, remove

HOW = "no secret may be in a fleet file: write ${NAME} and set the environment variable NAME on the board"

_OWN_KEYS = {
    "version": "the version of moedge.yaml is set when it is rendered; remove it",
    "device": "the device's name is its key in the fleet file; remove it",
}


@dataclass(frozen=True)
class Placed:
    """A device with all that it inherits.

    Attributes:
        name: Its name.
        site: Its site's.
        group: Its group's.
        path: Where it is in the file.
        tree: What its layers say together, as `layer_shape` has it.
    """

    name: str
    site: str
    group: str
    path: Path
    tree: Branch


class LayerWalk:
    """One walk over `raw`, the values of a fleet file.

    Args:
        raw: As YAML gave them.
        base_dir: Directory of the fleet file, against which paths of JSON Schemas are resolved.
        profiles: Names of the known profiles.

    Attributes:
        problems: What was found so far, with its path in the file.
    """

    def __init__(self, raw: Any, base_dir: FilePath, profiles: frozenset[str]) -> None:
        self._raw, self._base_dir, self._profiles = raw, base_dir, profiles
        self.problems: Problems = []
        self._read = cache(read_json_schema)

    def devices(self) -> Iterator[Placed]:
        """Every device, in the order of the file."""
        root = _mapping(self._raw)
        base = self._layer(Branch({}, ()), root.get("defaults"), ("defaults",))
        first: dict[str, Path] = {}
        for site, site_raw in _mapping(root.get("sites")).items():
            at_site: Path = ("sites", str(site))
            in_site = self._layer(base, site_raw, at_site)
            for group, group_raw in _mapping(_mapping(site_raw).get("groups")).items():
                at_group: Path = (*at_site, "groups", str(group))
                in_group = self._layer(in_site, group_raw, at_group)
                for device, device_raw in _mapping(_mapping(group_raw).get("devices")).items():
                    at: Path = (*at_group, "devices", str(device))
                    if first.setdefault(str(device), at) != at:
                        there = ".".join(map(str, first[str(device)][:4]))
                        self.problems.append((at, f"there is another device '{device}' in {there}; names are unique"))
                    yield Placed(str(device), str(site), str(group), at, self._layer(in_group, device_raw, at))

    def _layer(self, inherited: Branch, raw: Any, at: Path) -> Branch:
        """What holds in a layer: `raw`, which stands at `at`, laid over `inherited`."""
        layer = _mapping(raw)
        tree = self._removed(inherited, layer.get("remove"), (*at, "remove"))
        own = {key: layer[key] for key in layer_shape().fields if layer.get(key) is not None or key in layer}
        if "config" in own:
            own["config"] = self._config(_mapping(own["config"]), (*at, "config"))
        self._check_profile(own.get("profile"), (*at, "profile"))
        merged = merge(tree, own, layer_shape(), at)
        assert isinstance(merged, Branch)
        return merged

    def _removed(self, tree: Branch, paths: Any, at: Path) -> Branch:
        config = tree.at("config")
        for index, path in enumerate(paths if isinstance(paths, list) else []):
            if not isinstance(path, str) or not all(path.split(".")):
                continue  # the type of the file says what is wrong with it
            within = config if isinstance(config, Branch) else Branch({}, at)
            config, problem = remove(within, tuple(path.split(".")))
            if problem is not None:
                self.problems.append(((*at, index), f"got '{path}'; {problem}"))
        return Branch({**tree.children, "config": config}, tree.origin) if isinstance(config, Branch) else tree

    def _config(self, config: dict[Any, Any], at: Path) -> dict[Any, Any]:
        """The layer's part of moedge.yaml, without what does not belong there, JSON Schemas in place."""
        for key, reason in _OWN_KEYS.items():
            if key in config:
                self.problems.append(((*at, key), reason))
        self.problems += [(path, HOW) for path in secrets(config, at)]
        self.problems += substitute(config, _EveryVariable(), at)[1]
        config = {key: value for key, value in config.items() if key not in _OWN_KEYS}
        watches = config.get("watches")
        if isinstance(watches, list):
            items = enumerate(watches)
            config["watches"] = [self._watch(watch, (*at, "watches", index, "json_schema")) for index, watch in items]
        return config

    def _watch(self, watch: Any, at: Path) -> Any:
        path = watch.get("json_schema") if isinstance(watch, dict) else None
        if not isinstance(path, str):
            return watch
        try:
            return {**watch, "json_schema": self._read(self._base_dir / path)}
        except ValueError as error:
            self.problems.append((at, f"got '{path}'; {error}"))
            return {key: value for key, value in watch.items() if key != "json_schema"}

    def _check_profile(self, name: Any, at: Path) -> None:
        if not isinstance(name, str) or name in self._profiles:
            return
        close = did_you_mean(name, sorted(self._profiles)) or f" Known are: {', '.join(sorted(self._profiles))}."
        self.problems.append((at, f"there is no profile '{name}'.{close}"))


def layer_path(origin: Path) -> Path:
    """The layer that a place in the fleet file belongs to."""
    if origin[:1] != ("sites",):
        return origin[:1]
    length = 2
    for number, level in ((2, "groups"), (4, "devices")):
        if origin[number : number + 1] != (level,):
            break
        length = number + 2
    return origin[:length]


class _EveryVariable(dict[str, str]):
    """An environment in which everything is set, for finding references that are no names."""

    def __contains__(self, name: object) -> bool:
        return True

    def get(self, name: str, default: object = None) -> str:
        return ""


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}
