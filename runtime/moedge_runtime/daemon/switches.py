"""What is switched on and off while the daemon runs: cameras, their looking for motion, their zones, and watches.

The configuration says how a switch begins. What differs from that is kept in `switches.json`, in the directory that
systemd gives the unit (StateDirectory=): `{"version": 1, "switches": {"gate": {"enabled": false, "motion": false}}}`.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from moedge_runtime.config import Config
from moedge_runtime.daemon.cameras import cameras_with_motion
from moedge_runtime.daemon.system import state_directory
from moedge_runtime.durable import write_durably
from moedge_runtime.errors import MoedgeError, RequestError
from moedge_runtime.mqtt.topics import ENABLED, MOTION, watch_feature, zone_feature
from moedge_runtime.strict_json import parse_json

FILE_NAME = "switches.json"
FILE_VERSION = 1

log = logging.getLogger(__name__)

Switch = tuple[str, str]
"""A camera and one of its features: `enabled`, `motion`, `watch/<watch>` or `zone/<zone>`."""

Respond = Callable[[dict[str, str] | MoedgeError], None]


def defaults_of(config: Config) -> dict[Switch, bool]:
    """Every switch of a configuration, and how it begins."""
    defaults = {(name, ENABLED): camera.enabled for name, camera in config.cameras.items()}
    defaults |= {(name, MOTION): True for name in cameras_with_motion(config)}
    defaults |= {(name, zone_feature(zone)): True for name, camera in config.cameras.items() for zone in camera.zones}
    defaults |= {(watch.camera, watch_feature(watch.name)): watch.enabled for watch in config.watches}
    return defaults


class Switches:
    """Outlives reloads. `configure` and `carry_out` belong to the main thread, the others may be called from any.

    Args:
        path: Where choices are kept; None for until the process ends.
        on_request: Called when there is something to carry out.
    """

    def __init__(self, path: Path | None, on_request: Callable[[], None]) -> None:
        self._path, self._on_request = path, on_request
        self._lock = threading.Lock()
        self._defaults: dict[Switch, bool] = {}
        self._choices = _read(path) if path is not None else {}
        self._requests: dict[Switch, tuple[bool, Respond]] = {}

    @classmethod
    def of_unit(cls, on_request: Callable[[], None]) -> Switches:
        """Kept in the directory that systemd gives this unit; nowhere without one."""
        directory = state_directory()
        return cls(directory / FILE_NAME if directory else None, on_request)

    def configure(self, config: Config) -> None:
        """Take over a configuration: what it does not have, or says by itself, is no choice any more."""
        with self._lock:
            self._defaults = defaults_of(config)
        self._choose({})

    def states(self) -> dict[Switch, bool]:
        """All switches, and whether each is on."""
        with self._lock:
            return self._defaults | self._choices

    def is_on(self, camera: str, feature: str = ENABLED) -> bool:
        """Whether a switch is on; KeyError if there is none."""
        return self.states()[camera, feature]

    def zones_off(self, camera: str) -> set[str]:
        """Names of the zones of a camera that are off."""
        off = {feature for (of, feature), on in self.states().items() if of == camera and not on}
        return {feature.removeprefix("zone/") for feature in off if feature.startswith("zone/")}

    def request(self, camera: str, feature: str, on: bool, respond: Respond) -> None:
        """Have the main thread set a switch, and `respond` with its state then, or at once if another request for it
        takes the place of this one; never blocks.

        Raises:
            RequestError: There is no such camera or feature.
        """
        with self._lock:
            features = [name for of, name in self._defaults if of == camera]
            if not features:
                known = ", ".join(dict.fromkeys(of for of, _ in self._defaults))
                raise RequestError(
                    f"There is no camera '{camera[:64]}'; known are: {known}.", key="request.camera_unknown"
                )
            if feature not in features:
                raise RequestError(
                    f"Camera '{camera}' has no switch '{feature[:80]}'; known are: {', '.join(features)}.",
                    key="request.feature_unknown",
                )
            replaced = self._requests.pop((camera, feature), None)
            self._requests[camera, feature] = on, respond
        if replaced is not None:
            replaced[1](RequestError("A later one has taken its place.", key="request.replaced"))
        self._on_request()

    def carry_out(self, apply: Callable[[str, str, bool], None]) -> None:
        """Set what was asked for: on the disk first, then by `apply`, which gets camera, feature and state."""
        with self._lock:
            requests, self._requests = self._requests, {}
            requests = {switch: request for switch, request in requests.items() if switch in self._defaults}
        self._choose({switch: on for switch, (on, _) in requests.items()})
        for (camera, feature), (on, respond) in requests.items():
            apply(camera, feature, on)
            respond({"state": on_off(on)})

    def _choose(self, changes: Mapping[Switch, bool]) -> None:
        with self._lock:
            before = self._choices
            chosen = {**before, **changes}
            self._choices = {switch: on for switch, on in chosen.items() if self._defaults.get(switch, on) is not on}
            changed = self._choices != before
        if changed and self._path is None:
            log.warning("There is no STATE_DIRECTORY: what was switched is as the configuration says after a restart.")
        elif changed and self._path is not None:
            self._write(self._path)

    def _write(self, path: Path) -> None:
        by_camera: dict[str, dict[str, bool]] = {}
        for (camera, feature), on in sorted(self._choices.items()):
            by_camera.setdefault(camera, {})[feature] = on
        text = json.dumps({"version": FILE_VERSION, "switches": by_camera}) + "\n"
        try:
            write_durably(path, text.encode())
        except OSError as error:
            log.error(
                "'%s' cannot be written (%s): what was switched is as before after a restart. Free space, or let the "
                "daemon's user write there.",
                path,
                error.strerror or error,
            )


def on_off(on: bool) -> str:
    """As on MQTT."""
    return "ON" if on else "OFF"


def _read(path: Path) -> dict[Switch, bool]:
    """Choices as they were kept; none, and a word in the log, if they cannot be read."""
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict) or value.get("version") != FILE_VERSION:
            raise ValueError(f"it is not of version {FILE_VERSION}")
        choices = {
            (camera, feature): on for camera, features in value["switches"].items() for feature, on in features.items()
        }
        if not all(isinstance(on, bool) for on in choices.values()):
            raise ValueError("a switch is neither true nor false")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, AttributeError) as error:
        log.error("'%s' cannot be read (%s): every switch is as the configuration says.", path, error)
        return {}
    return choices
