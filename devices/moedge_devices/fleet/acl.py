"""The access list of a broker, for the devices of a fleet that are on it. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from moedge_runtime.errors import ConfigError
from moedge_runtime.mqtt.acl import Access, acl_text

from moedge_devices.fleet.load import Device


def fleet_acl(
    devices: Sequence[Device],
    *,
    bridged: bool = False,
    operators: Sequence[str] = (),
    viewers: Sequence[str] = (),
    home_assistant: str | None = None,
) -> str:
    """The text of mosquitto's acl_file; a user of several base topics has a block for each, which mosquitto adds up.

    Args:
        devices: All on one broker, or bridged to it.
        bridged: Whether they may be on several.
        operators: Users that read everything and may send every request.
        viewers: Users that read everything.
        home_assistant: Its user; None for none.

    Raises:
        ConfigError: The devices are on several brokers, log in under other names than their own, or a name is none.
    """
    brokers = list(dict.fromkeys(device.config.mqtt.url or "of their own" for device in devices))
    if len(brokers) > 1 and not bridged:
        raise ConfigError(
            f"The devices are on {len(brokers)} brokers: {', '.join(brokers)}. An access list is for one: choose with "
            f"--site, --group or --device, or give --all-brokers for one that all of them are bridged to.",
            key="fleet.brokers",
        )
    users = {device.name: device.config.mqtt.username for device in devices}
    others = [f"{name} ('{user}')" for name, user in users.items() if user not in (None, name)]
    if others:
        raise ConfigError(
            f"Access is by the user's name, which has to be the device's: {', '.join(others[:5])} log in otherwise. "
            f"Set mqtt.username to the device's name, or leave it out and use certificates.",
            key="fleet.user_names",
        )
    together: dict[tuple[str, str], list[str]] = defaultdict(list)
    for device in devices:
        mqtt = device.config.mqtt
        prefix = mqtt.home_assistant.prefix if mqtt.home_assistant else "homeassistant"
        together[mqtt.base_topic, prefix].append(device.name)
    try:
        return "\n".join(
            acl_text(Access(base, names, operators, viewers, (), home_assistant, prefix))
            for (base, prefix), names in together.items()
        )
    except ValueError as error:
        raise ConfigError(f"The access list cannot be written: {error}.", key="fleet.acl") from error
