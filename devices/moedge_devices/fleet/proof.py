"""Whether devices have the bundle and the system of the fleet file, by what they say on MQTT. Knows no connection."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from moedge_runtime.mqtt.line import one_line

from moedge_devices.fleet.load import Device
from moedge_devices.fleet.status import SystemSaid, system_of


class Proofs:
    """What was heard of devices, by their names."""

    def __init__(self) -> None:
        self._answers: dict[str, tuple[str, str, str | None]] = {}
        self._systems: dict[str, SystemSaid] = {}

    def take_answer(self, name: str, value: dict[str, Any]) -> None:
        """Note an answer as (time, bundle, version) if it is the newest of its device, and none of an error."""
        model, at = value.get("model"), value.get("answered_at")
        if value.get("status") != "ok" or not isinstance(model, dict) or not isinstance(at, str):
            return
        version = model.get("version")
        if name not in self._answers or at >= self._answers[name][0]:
            self._answers[name] = (at, one_line(model.get("bundle")), None if version is None else one_line(version))

    def take_info(self, name: str, value: dict[str, Any]) -> None:
        """Note the system of a device."""
        with suppress(LookupError, TypeError, AttributeError):
            self._systems[name] = system_of(value)

    def bundle_missing(self, device: Device, within_s: float) -> str | None:
        """Why the newest answer of a device is not made with its bundle; None if it is, or it is to have none."""
        wanted, answer = device.bundle, self._answers.get(device.name)
        if wanted is None:
            return None
        if answer is not None and answer[1] == wanted.name and answer[2] in (None, wanted.version):
            return None
        last = "it has not answered at all" if answer is None else f"its last answer is of {_label(*answer[1:])}"
        return f"no answer with {_label(wanted.name, wanted.version)} within {within_s:g} s: {last}"

    def system_missing(self, device: Device, within_s: float) -> str | None:
        """Why the system of a device is not in use and confirmed; None if it is, or it is to have none."""
        wanted, said = device.system, self._systems.get(device.name)
        if wanted is None or (said is not None and said.version == wanted and said.confirmed):
            return None
        if said is None or said.version is None:
            last = "it runs no system image"
        elif said.version == wanted:
            last = "it runs, and has not been confirmed"
        else:
            last = f"system {said.version} runs"
        why = f"; its last update failed: {said.fault}" if said and said.fault else ""
        return f"no system {wanted} within {within_s:g} s: {last}{why}"


def _label(bundle: str, version: str | None) -> str:
    return bundle if version is None else f"{bundle}@{version}"
