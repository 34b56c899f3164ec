"""Which release a device gets, and why not. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from moedge_devices.store.documents import Offer, Release
from moedge_devices.store.errors import RefusedError

_Offered = TypeVar("_Offered", bound=Offer)


@dataclass(frozen=True)
class Device:
    """For whom.

    Attributes:
        name: As in moedge.yaml; None if it is not known.
        profile: The kind of board; None if it is not known.
        channel: The channel that it follows.
        moedge: The version that runs here.
    """

    name: str | None
    profile: str | None
    channel: str
    moedge: str


def choose(
    offers: Sequence[_Offered], name: str, version: str | None, device: Device, what: str = "bundle"
) -> _Offered:
    """The newest release of a name in the device's channel that is for it, or a certain version.

    Args:
        offers: All of the source.
        name: Of the bundle, or the system.
        version: The one that is wanted; None for the newest.
        device: For whom.
        what: Is offered; for errors.

    Raises:
        RefusedError: There is none, or this version is not for the device.
    """
    releases = sorted((each for each in offers if each.name == name), key=lambda each: -each.number)
    if not releases:
        names = ", ".join(sorted({release.name for release in offers})) or "nothing"
        raise RefusedError(f"The source has no {what} '{name}'. It has: {names}.", key=f"update.unknown_{what}")
    if version is not None:
        named = next((release for release in releases if release.version == version), None)
        if named is None:
            versions = ", ".join(release.version for release in releases)
            raise RefusedError(
                f"The source has no {name}@{version}. Versions of {name}: {versions}.", key="update.unknown_version"
            )
        reason = why_not(named, device)
        if reason:
            raise RefusedError(f"{named.label} is refused: {reason[1]}", key=reason[0])
        return named
    reasons = []
    for release in releases:
        reason = why_not(release, device)
        if reason is None:
            return release
        reasons.append(f"{release.label}: {reason[1]}")
    raise RefusedError(
        f"No release of {name} is for this device. " + " ".join(reasons[:5]), key="update.nothing_for_this_device"
    )


def why_not(release: Offer, device: Device) -> tuple[str, str] | None:
    """Key and sentence saying why a release is not for a device; None if it is."""
    if device.channel not in release.channels:
        channels = ", ".join(release.channels) or "none"
        return (
            "update.other_channel",
            f"it is in the channels {channels}; this device follows '{device.channel}'. Publish it to that channel.",
        )
    if release.devices and device.name not in release.devices:
        return (
            "update.other_device",
            f"it is for other devices than '{device.name or 'unnamed'}'. Publish one for this device.",
        )
    if release.profiles and device.profile not in release.profiles:
        return (
            "update.other_profile",
            f"it is for {', '.join(release.profiles)}; this board is '{device.profile or 'of no known profile'}'.",
        )
    if release.min_moedge is not None and numbers(device.moedge) < numbers(release.min_moedge):
        return (
            "update.needs_newer_moedge",
            f"it needs moedge {release.min_moedge} or newer; {device.moedge} runs here. Upgrade moedge first.",
        )
    return None


def check_not_older(new: Release, installed: Release | None) -> None:
    """Refuse a downgrade.

    Raises:
        RefusedError: `installed` is newer.
    """
    if installed is not None and new.number < installed.number:
        raise RefusedError(
            f"{new.label} (release {new.number}) is older than {installed.label} (release {installed.number}), which "
            f"is in use. Use --allow-downgrade if that is what you want.",
            key="update.downgrade",
        )


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, without zeros at the end."""
    match = re.match(r"\d+(\.\d+)*", version)
    found = [int(part) for part in match.group().split(".")] if match else []
    while found and found[-1] == 0:
        found.pop()
    return tuple(found)
