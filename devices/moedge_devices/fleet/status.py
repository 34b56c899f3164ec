"""What devices say about themselves, one row a device. Takes messages from any thread; knows no connection."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

from moedge_runtime.counted import counted
from moedge_runtime.mqtt.line import one_line

from moedge_devices.fleet.load import Device, topics_of

HEALTH_INTERVALS = 2.5
"""A health message older than so many intervals is worth a word."""


@dataclass(frozen=True)
class LastAnswer:
    """The newest answer of a device, whatever camera and watch."""

    at: str
    age_s: float
    camera: str
    watch: str | None
    status: str
    text: str


@dataclass(frozen=True)
class Health:
    """The newest health message."""

    at: str
    age_s: float
    queued: int
    dropped: int
    rss_bytes: int | None


@dataclass(frozen=True)
class Row:
    """One device.

    Attributes:
        device: Its name.
        site: Its site's.
        group: Its group's.
        state: online, stopped or offline as it or its broker says; unknown if nothing has been heard of it.
        version: Of moedge; None if it has not said.
        system: Version of its system image; None if it has none, or has not said.
        system_ok: Whether that is the system of the fleet file; None if that is not said there or here.
        bundle: Name of the bundle that it runs.
        bundle_version: Its version, if its `model.bundle` is a link as in a bundle store.
        bundle_ok: Whether that is the bundle of the fleet file; None if that is not said there or here.
        cameras: The state of each of its cameras.
        last_answer: Of any of its cameras.
        health: Its newest health.
        problems: What is not as it should be, in words; empty for a device that is well.
    """

    device: str
    site: str
    group: str
    state: str
    version: str | None
    system: str | None
    system_ok: bool | None
    bundle: str | None
    bundle_version: str | None
    bundle_ok: bool | None
    cameras: dict[str, str]
    last_answer: LastAnswer | None
    health: Health | None
    problems: list[str]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


@dataclass(frozen=True)
class SystemSaid:
    """What a device says of its system image; None of all if it runs none, or has not said.

    Attributes:
        version: Of it.
        confirmed: Whether it counts.
        fault: Why its last update failed; None if it went well.
    """

    version: str | None = None
    confirmed: bool | None = None
    fault: str | None = None


@dataclass
class _Heard:
    state: str = "unknown"
    version: str | None = None
    system: SystemSaid = SystemSaid()
    bundle: str | None = None
    bundle_version: str | None = None
    manifest_sha256: str | None = None
    cameras: dict[str, str] = field(default_factory=dict)
    answer: dict[str, Any] | None = None
    answered_at: datetime | None = None
    health: dict[str, Any] | None = None
    health_at: datetime | None = None
    unreadable: list[str] = field(default_factory=list)


class FleetView:
    """What was heard so far of `devices`."""

    def __init__(self, devices: Iterable[Device]) -> None:
        self._lock = threading.Lock()
        self._devices = {device.name: device for device in devices}
        self._heard = {name: _Heard() for name in self._devices}
        self._roots = {topics_of(device).root: name for name, device in self._devices.items()}
        self.messages = 0

    def note(self, topic: str, payload: bytes) -> None:
        """A message has come. One that is none of moedge's is noted as a problem of its device."""
        ending = next((ending for ending in _TAKE if topic.endswith(ending)), None)
        if ending is None:
            return
        root, camera = topic.removesuffix(ending), ""
        if root not in self._roots:
            root, _, camera = root.rpartition("/")
        name = self._roots.get(root)
        if name is None or (ending not in _OF_CAMERAS if camera else ending == _ANSWER):
            return
        with self._lock:
            self.messages += 1
            heard = self._heard[name]
            try:
                value = json.loads(payload) if payload else None
                if ending == _STATUS and camera:
                    _take_camera(heard, camera, value)
                elif value is not None:
                    _TAKE[ending](heard, value)
            except (ValueError, LookupError, TypeError, AttributeError):
                word = f"what it says on {one_line(topic)} is not readable"
                if word not in heard.unreadable:
                    heard.unreadable.append(word)

    def silent(self) -> list[str]:
        """Devices of which nothing has been heard."""
        with self._lock:
            return [name for name, heard in self._heard.items() if heard.state == "unknown"]

    def rows(self, now: datetime | None = None) -> list[Row]:
        """One row a device, in the order of the fleet file."""
        now = now or datetime.now(timezone.utc)
        with self._lock:
            return [_row(device, self._heard[name], now) for name, device in self._devices.items()]


def filters_of(device: Device) -> list[str]:
    """What a view subscribes to for a device."""
    topics = topics_of(device)
    return [topics.status, topics.info, topics.health, topics.camera_status("+"), topics.last_answer("+")]


def status_text(rows: list[Row]) -> str:
    """A table, and a line that sums it up."""
    table = [("DEVICE", "GROUP", "STATE", "VERSION", "BUNDLE", "LAST ANSWER", "HEALTH")]
    table += [
        (
            row.device,
            f"{row.site}/{row.group}",
            row.state,
            _version_text(row),
            _bundle_text(row),
            "-" if row.last_answer is None else f"{_ago(row.last_answer.age_s)} {_clipped(row.last_answer.text)}",
            "; ".join(row.problems) or "ok",
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]) - 1)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]) for line in table
    ]
    return "\n".join([*lines, "", summary(rows)])


def summary(rows: list[Row]) -> str:
    """How many devices are in which state."""
    counts = {state: sum(row.state == state for row in rows) for state in ("online", "stopped", "offline", "unknown")}
    states = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
    well = sum(not row.problems for row in rows)
    return f"{counted(len(rows), 'device')}: {states}; {well:,} without problems."


def _version_text(row: Row) -> str:
    other = " (other)" if row.system_ok is False else ""
    return f"{row.version or '-'}{f', system {row.system}{other}' if row.system else ''}"


def _bundle_text(row: Row) -> str:
    if row.bundle is None:
        return "-"
    version = f"@{row.bundle_version}" if row.bundle_version else ""
    return f"{row.bundle}{version}{' (other)' if row.bundle_ok is False else ''}"


def _take_status(heard: _Heard, value: dict[str, Any]) -> None:
    if value["state"] not in ("online", "stopped", "offline"):
        raise ValueError
    heard.state = value["state"]


def _take_info(heard: _Heard, value: dict[str, Any]) -> None:
    heard.version = one_line(value["version"])
    heard.system = system_of(value)
    heard.bundle = one_line(value["model"]["bundle"])
    version = value["model"].get("version")
    heard.bundle_version = None if version is None else one_line(version)
    heard.manifest_sha256 = value["model"]["manifest_sha256"]


def system_of(info: dict[str, Any]) -> SystemSaid:
    """From a device's `info`."""
    system = info.get("system") or {}
    version, fault = system.get("image_version"), system.get("update_fault")
    failed = None if fault is None else f"{one_line(fault['version'] or 'an update')}: {one_line(fault['message'])}"
    return SystemSaid(None if version is None else one_line(version), system.get("confirmed"), failed)


def _take_camera(heard: _Heard, camera: str, value: dict[str, Any] | None) -> None:
    """A camera's state; none, and an emptied topic, of one that the device has no more."""
    if value is None:
        heard.cameras.pop(camera, None)
    else:
        heard.cameras[camera] = one_line(value["state"])


def _take_health(heard: _Heard, value: dict[str, Any]) -> None:
    at = _moment(value["at"])
    _ = value["mqtt"]["queued"], value["mqtt"]["dropped"], value["rss_bytes"]
    heard.health, heard.health_at = value, at


def _take_answer(heard: _Heard, value: dict[str, Any]) -> None:
    at = _moment(value["answered_at"])
    _ = value["camera"], value["watch"], value["status"], value["text"], value["data"], value["error"]
    if heard.answered_at is None or at >= heard.answered_at:
        heard.answer, heard.answered_at = value, at


_ANSWER, _STATUS = "/answer/last", "/status"
_OF_CAMERAS = (_ANSWER, _STATUS)
_TAKE: dict[str, Callable[[_Heard, dict[str, Any]], None]] = {
    _ANSWER: _take_answer,
    _STATUS: _take_status,
    "/info": _take_info,
    "/health": _take_health,
}


def _row(device: Device, heard: _Heard, now: datetime) -> Row:
    wanted = device.bundle
    bundle_ok = None
    if wanted is not None and heard.bundle is not None:
        bundle_ok = heard.bundle == wanted.name and heard.bundle_version in (None, wanted.version)
        if wanted.manifest_sha256 is not None:
            bundle_ok = bundle_ok and heard.manifest_sha256 == wanted.manifest_sha256
    system_ok = None if device.system is None or heard.system.version is None else heard.system.version == device.system
    health = _health(heard, now)
    return Row(
        device.name,
        device.site,
        device.group,
        heard.state,
        heard.version,
        heard.system.version,
        system_ok,
        heard.bundle,
        heard.bundle_version,
        bundle_ok,
        dict(heard.cameras),
        _last_answer(heard, now),
        health,
        _problems(device, heard, health, bundle_ok, system_ok),
    )


def _problems(
    device: Device, heard: _Heard, health: Health | None, bundle_ok: bool | None, system_ok: bool | None
) -> list[str]:
    problems = list(heard.unreadable)
    if heard.state != "online":
        problems.append({"unknown": "nothing heard"}.get(heard.state, heard.state))
    if bundle_ok is False and device.bundle is not None:
        problems.append(f"runs another bundle than {device.bundle.name}@{device.bundle.version} of the fleet file")
    if system_ok is False:
        problems.append(f"runs another system than {device.system} of the fleet file")
    if heard.system.confirmed is False:
        problems.append(f"system {heard.system.version} has not been confirmed")
    if heard.system.fault is not None:
        problems.append(f"its last update of the system failed: {heard.system.fault}")
    problems += [
        f"camera {one_line(name)} is {state}"
        for name, state in sorted(heard.cameras.items())
        if state not in ("online", "disabled")
    ]
    if health is not None:
        if heard.state == "online" and health.age_s > HEALTH_INTERVALS * device.config.health.interval:
            problems.append(f"health is {_ago(health.age_s)} old")
        if health.dropped:
            problems.append(f"{counted(health.dropped, 'answer')} dropped")
    if heard.answer is not None and heard.answer["status"] == "error":
        problems.append("its last answer is an error")
    return problems


def _health(heard: _Heard, now: datetime) -> Health | None:
    value, at = heard.health, heard.health_at
    if value is None or at is None:
        return None
    return Health(
        at=value["at"],
        age_s=_age_s(at, now),
        queued=value["mqtt"]["queued"],
        dropped=value["mqtt"]["dropped"],
        rss_bytes=value["rss_bytes"],
    )


def _last_answer(heard: _Heard, now: datetime) -> LastAnswer | None:
    value, at = heard.answer, heard.answered_at
    if value is None or at is None:
        return None
    text = value["error"]["message"] if value["status"] == "error" else value["text"]
    if value["data"] is not None:
        text = json.dumps(value["data"], ensure_ascii=False)
    return LastAnswer(
        at=value["answered_at"],
        age_s=_age_s(at, now),
        camera=one_line(value["camera"]),
        watch=value["watch"] if value["watch"] is None else one_line(value["watch"]),
        status=one_line(value["status"]),
        text=one_line(text),
    )


def _age_s(at: datetime, now: datetime) -> float:
    """Seconds; 0 for a board whose clock is ahead."""
    return max(0.0, round((now - at).total_seconds(), 1))


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if moment.tzinfo is None:
        raise ValueError
    return moment


def _ago(seconds: float) -> str:
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"


def _clipped(text: str, characters: int = 40) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"
