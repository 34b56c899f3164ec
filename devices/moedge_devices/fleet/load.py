"""Reads fleet.yaml: the file's own form, then every device's merged configuration as the runtime's type checks it."""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path as FilePath
from typing import Any

import yaml
from moedge_runtime.config import Config
from moedge_runtime.config.load import validate
from moedge_runtime.config.problems import got, path_text, schema_problems
from moedge_runtime.config.yaml_lines import Path, Problems, line_of, read_yaml
from moedge_runtime.counted import counted
from moedge_runtime.errors import ConfigError
from moedge_runtime.mqtt.topics import Topics
from pydantic import ValidationError

from moedge_devices.data_files import profile_names
from moedge_devices.fleet.layers import HOW, LayerWalk, Placed, layer_path
from moedge_devices.fleet.model import FLEET_VERSION, BundleVersion, FleetFile, Update
from moedge_devices.fleet.tree import Branch, origin_of

MAX_VALUES = 2_000_000
"""Keys and items of a fleet file, every use of an alias counted; 5,000 devices of two cameras have 110,000."""

DIFFERS_BY_DEVICE = "; known are: "
"""What follows in a problem's text is that of the first device; the problem is one."""

NAMED_DEVICES = 3
"""Of the devices that a problem concerns, as many are named."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CONTEXT = {"another_machine": True}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `line` counts from 1; None if the file has no such place."""

    line: int | None
    path: str
    text: str


class FleetError(ConfigError):
    """A fleet file is wrong: everything that is, in `problems`."""

    key = "fleet.invalid"

    def __init__(self, path: FilePath, lines: dict[Path, int], problems: Problems) -> None:
        located = sorted({(line_of(at, lines) or 0, path_text(at), text) for at, text in problems})
        self.problems = [Problem(line or None, where, text) for line, where, text in located]
        listing = [
            "  " + (f"line {line}: " if line else "") + (f"{where}: " if where else "") + text
            for line, where, text in located
        ]
        super().__init__("\n".join([f"Fleet file '{path}' has {counted(len(located), 'error')}:", *listing]))
        self.report = {"file": str(path), "problems": [asdict(problem) for problem in self.problems]}


@dataclass(frozen=True)
class Device:
    """One device of a fleet without mistakes.

    Attributes:
        name: Its name in every topic.
        site: Its site's name.
        group: Its group's name.
        path: Where it is in the fleet file.
        tree: What its layers say together, with the place of every value.
        values: Its moedge.yaml, as YAML values: the same object is shared between devices, do not change it.
        config: The same, typed; paths are as the board will read them.
    """

    name: str
    site: str
    group: str
    path: Path
    tree: Branch
    values: dict[str, Any]
    config: Config

    @property
    def profile(self) -> str | None:
        """Name of its profile."""
        return _plain(self.tree, "profile")  # type: ignore[no-any-return]

    @property
    def bundle(self) -> BundleVersion | None:
        """The model that it should have."""
        value = _plain(self.tree, "bundle")
        return None if value is None else BundleVersion.model_validate(value)

    @property
    def system(self) -> str | None:
        """Version of the system image that it should have."""
        return _plain(self.tree, "system")  # type: ignore[no-any-return]

    @property
    def update(self) -> Update:
        """From where and when it is updated."""
        return Update.model_validate(_plain(self.tree, "update") or {})


@dataclass(frozen=True)
class Fleet:
    """A fleet without mistakes.

    Attributes:
        path: Its file.
        devices: By name, in the order of the file.
        lines: Line (from 1) of every path in the file.
    """

    path: FilePath
    devices: dict[str, Device]
    lines: dict[Path, int]

    def groups(self) -> dict[tuple[str, str], list[Device]]:
        """Devices by site and group, in the order of the file."""
        groups: dict[tuple[str, str], list[Device]] = defaultdict(list)
        for device in self.devices.values():
            groups[device.site, device.group].append(device)
        return dict(groups)


def load_fleet(path: str | FilePath) -> Fleet:
    """Read and check the fleet file at `path`.

    Raises:
        ConfigError: The file cannot be read or is no YAML, or values are wrong: then every one of them is listed with
            its line.
    """
    with _no_garbage_collection():
        return _load(FilePath(path))


def _load(path: FilePath) -> Fleet:
    raw, lines, problems = _read(path)
    _check_version(path, raw)
    try:
        FleetFile.model_validate(raw)
    except ValidationError as error:
        problems += schema_problems(error, FleetFile)
    walk = LayerWalk(raw, path.absolute().parent, profile_names())
    placed = list(walk.devices())
    problems += walk.problems
    found = _Found(placed, {at for at, text in walk.problems if text == HOW})
    devices = {}
    for place in placed:
        values = {"version": 1, "device": place.name, **_plain(place.tree, "config", {})}
        config, wrong = validate(values, _CONTEXT)
        found.add(place, wrong)
        if config is not None:
            devices[place.name] = Device(place.name, place.site, place.group, place.path, place.tree, values, config)
    found.add_collisions(list(devices.values()))
    problems += found.problems()
    if problems:
        raise FleetError(path, lines, problems)
    return Fleet(path, devices, lines)


class _Found:
    """What is wrong with merged configurations, each problem once, at the place that has to change."""

    def __init__(self, placed: list[Placed], secrets: set[Path]) -> None:
        self._secrets = secrets
        self._placed = {place.path: place for place in placed}
        self._devices: dict[tuple[Path, str], list[Placed]] = defaultdict(list)
        self._texts: dict[tuple[Path, str], str] = {}
        self._unsaid: dict[tuple[Path, str], list[Placed]] = defaultdict(list)
        self._names: dict[Path, list[Placed]] = defaultdict(list)
        for place in placed:
            for length in (0, 2, 4):
                self._names[place.path[:length]].append(place)

    def add(self, place: Placed, problems: Problems) -> None:
        """Problems of a device, with their paths in its moedge.yaml."""
        config = place.tree.at("config")
        tree = config if isinstance(config, Branch) else Branch({}, ())
        for path, text in problems:
            if path == ("device",):
                continue  # the type of the file says the same of the key
            origin = origin_of(tree, path)
            if origin is None:
                self._unsaid[path, text].append(place)
            elif origin not in self._secrets:
                self._note(origin, text, place)

    def add_collisions(self, devices: list[Device]) -> None:
        """What devices on one broker must not share: client ids, and places for their topics."""
        ids: dict[tuple[str, str], str] = {}
        roots = {(device.config.mqtt.url, topics_of(device).root): device.name for device in devices}
        for device in devices:
            mqtt = device.config.mqtt
            if mqtt.url is None:
                continue
            other = roots.get((mqtt.url, mqtt.base_topic))
            if other is not None:
                self._collision(device, "base_topic", f"device '{other}' has its own topics there; choose another one")
            if mqtt.client_id is None:
                continue
            other = ids.setdefault((mqtt.url, mqtt.client_id), device.name)
            if other != device.name:
                self._collision(
                    device,
                    "client_id",
                    f"device '{other}' has the same client id on the same broker, and they would disconnect each other "
                    f"for ever; leave it out for moedge-<device>",
                )

    def _collision(self, device: Device, key: str, text: str) -> None:
        config = device.tree.at("config")
        assert isinstance(config, Branch)
        place = self._placed[device.path]
        origin = origin_of(config, ("mqtt", key)) or (*device.path, "config", "mqtt", key)
        self._note(origin, got(getattr(device.config.mqtt, key), text), place)

    def _note(self, origin: Path, text: str, place: Placed) -> None:
        key = origin, text.partition(DIFFERS_BY_DEVICE)[0]
        self._texts.setdefault(key, text)
        self._devices[key].append(place)

    def problems(self) -> Problems:
        """All of them, with paths in the fleet file."""
        result = [(key[0], self._texts[key] + self._whom(places, key[0])) for key, places in self._devices.items()]
        for (path, text), places in self._unsaid.items():
            result += [((*layer, "config", *path), text) for layer in self._layers(places)]
        return result

    def _layers(self, places: list[Placed]) -> list[Path]:
        """The outermost layers all of whose devices are among `places`."""
        layers: list[Path] = []
        among = {place.path for place in places}
        for place in places:
            for length in (0, 2, 4, 6):
                layer = place.path[:length]
                inside = self._names.get(layer, [place])
                if length == 6 or (len(inside) > 1 and all(other.path in among for other in inside)):
                    layers.append(layer or ("defaults",))
                    break
        return list(dict.fromkeys(layers))

    def _whom(self, places: list[Placed], origin: Path) -> str:
        """Which devices are meant, if that is not every one below the place of the problem."""
        layer = layer_path(origin)
        inside = self._names.get(() if layer == ("defaults",) else layer, [])
        if len(layer) == 6 or len(places) == len(inside):
            return ""
        names = ", ".join(place.name for place in places[:NAMED_DEVICES])
        more = f" and {len(places) - NAMED_DEVICES:,} more" if len(places) > NAMED_DEVICES else ""
        return f" (in {'device' if len(places) == 1 else 'devices'} {names}{more})"


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Hundreds of thousands of objects come to stay and none forms a cycle: looking for some takes half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def topics_of(device: Device) -> Topics:
    """The topic tree of a device."""
    return Topics(device.config.mqtt.base_topic, device.name)


def _plain(tree: Branch, key: str, default: Any = None) -> Any:
    node = tree.at(key)
    return default if node is None else node.plain


def _read(path: FilePath) -> tuple[Any, dict[Path, int], Problems]:
    try:
        return read_yaml(path.read_text(encoding="utf-8"), max_values=MAX_VALUES, loader_class=_LOADER)
    except OSError as error:
        raise ConfigError(
            f"Fleet file '{path}' cannot be read ({error.strerror}). Give an existing file.", key="fleet.unreadable"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"Fleet file '{path}' is not UTF-8 text ({error}).", key="fleet.unreadable") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"Fleet file '{path}' is not valid YAML: {error}", key="fleet.invalid_yaml") from error
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError(f"Fleet file '{path}' is not valid YAML: {reason}.", key="fleet.invalid_yaml") from error


def _check_version(path: FilePath, raw: object) -> None:
    if not isinstance(raw, dict):
        raise ConfigError(
            f"Fleet file '{path}' holds no keys. Start from the example in docs/fleet.md.", key="fleet.invalid"
        )
    version = raw.get("version", FLEET_VERSION)
    if isinstance(version, int) and version != FLEET_VERSION:
        raise ConfigError(
            f"Fleet file '{path}' has version {version}; this moedge reads version {FLEET_VERSION}. "
            f"Upgrade moedge, or write the file for version {FLEET_VERSION}.",
            key="fleet.version_unsupported",
        )
