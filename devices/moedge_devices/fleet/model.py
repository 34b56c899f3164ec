"""The typed objects of fleet.yaml, version 1. Docstrings become descriptions in docs/fleet.schema.json.

`config` is open here: what it inherits is known only after merging, and then the runtime's own type checks it.
"""

from __future__ import annotations

import difflib
import re
from functools import cache
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from moedge_runtime.config.values import Identifier, keys_disagree
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

FLEET_VERSION: Literal[1] = 1
"""The version of fleet.yaml that this code reads."""

_TIME_PATTERN = r"^([01]\d|2[0-3]):[0-5]\d$"
_DIGEST_PATTERN = r"^[0-9a-f]{64}$"
_PATH_PATTERN = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$"
_SYSTEM_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9.+~-]{0,63}$"


def _time(value: object) -> object:
    if isinstance(value, int):  # YAML 1.1 reads 12:30 as a number of base 60
        raise ValueError('write the time in quotes, for example "12:30"')
    return value


def _clock(value: str) -> str:
    if not re.fullmatch(_TIME_PATTERN, value):
        raise ValueError('write hours and minutes from "00:00" to "23:59"')
    return value


@cache
def _timezone(value: str) -> str:
    try:
        if value != "UTC":
            ZoneInfo(value)
    except (KeyError, ValueError, OSError) as error:
        close = difflib.get_close_matches(value, available_timezones(), n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise ValueError(f"write a time zone of the IANA database, for example Europe/Berlin.{hint}") from error
    return value


def _digest(value: str) -> str:
    if not re.fullmatch(_DIGEST_PATTERN, value):
        raise ValueError("write the 64 hexadecimal digits of a SHA-256, in small letters")
    return value


def _removal(value: str) -> str:
    if not re.fullmatch(_PATH_PATTERN, value):
        raise ValueError("write a path in config, for example cameras.gate, watches.lamps or mqtt.username")
    return value


def _absent_is_empty(value: object) -> object:
    return {} if value is None else value


ClockTime = Annotated[
    str, BeforeValidator(_time), AfterValidator(_clock), WithJsonSchema({"type": "string", "pattern": _TIME_PATTERN})
]
Digest = Annotated[str, AfterValidator(_digest), WithJsonSchema({"type": "string", "pattern": _DIGEST_PATTERN})]
SystemVersion = Annotated[str, Field(pattern=_SYSTEM_PATTERN)]
"""Of a system image, compared as Debian compares versions."""
Removal = Annotated[str, AfterValidator(_removal), WithJsonSchema({"type": "string", "pattern": _PATH_PATTERN})]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class BundleVersion(_Frozen):
    """The model that a device should have."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    """The bundle's name, as in the device's info message: the last part of `config.model.bundle`."""
    version: Annotated[str, Field(min_length=1, max_length=64)]
    """Its version, a word of your own; in quotes if it looks like a number."""
    manifest_sha256: Digest | None = None
    """SHA-256 of its manifest.json, which `moedge fleet status` compares with what the device says."""


class UpdateWindow(_Frozen):
    """When a device may be updated."""

    days: Annotated[list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]], Field(min_length=1)] = [
        "mon",
        "tue",
        "wed",
        "thu",
        "fri",
        "sat",
        "sun",
    ]
    """Days on which the window begins."""
    start: ClockTime
    """Hours and minutes, in quotes."""
    end: ClockTime
    """Hours and minutes; before `start`, the window ends on the next day."""
    timezone: Annotated[str, AfterValidator(_timezone)] = "UTC"
    """Name in the IANA database, such as Europe/Berlin."""

    @field_validator("end")
    @classmethod
    def _is_not_empty(cls, end: str, info: ValidationInfo) -> str:
        if info.data.get("start") == end:
            raise keys_disagree('a window from a time to the same time is empty; a whole day is "00:00" to "23:59"')
        return end


class Update(_Frozen):
    """From where and when a device is updated."""

    channel: Identifier | None = None
    """Name of the channel, such as stable."""
    windows: list[UpdateWindow] | None = None
    """Times in which it may be updated; null for any time. Replaces inherited ones as a whole."""


class Layer(_Frozen):
    """What a part of the fleet has in common. Everything is inherited further in and can be overridden there."""

    profile: Identifier | None = None
    """The kind of board, by the name of its profile."""
    bundle: BundleVersion | None = None
    """The model and its version. Replaces an inherited one as a whole."""
    system: SystemVersion | None = None
    """Version of the system image; in quotes if it looks like a number. null: the newest of the channel."""
    update: Update | None = None
    """Channel and windows of updates."""
    remove: list[Removal] = []
    """Paths in `config` that are not inherited, such as cameras.gate or watches.lamps. Taken away before this layer's
    own `config` is added."""
    config: dict[str, Any] = {}
    """A part of moedge.yaml (docs/configuration.md), without `version` and `device`."""


class DeviceLayer(Layer):
    """One device; its key is its name in every topic."""


class GroupLayer(Layer):
    """Devices that are configured alike; the step in which `moedge fleet apply` goes forward."""

    devices: Annotated[
        dict[
            Identifier,
            Annotated[DeviceLayer, BeforeValidator(_absent_is_empty, json_schema_input_type=DeviceLayer | None)],
        ],
        Field(min_length=1),
    ]
    """Devices by name, unique in the whole file."""


class SiteLayer(Layer):
    """A place."""

    groups: Annotated[dict[Identifier, GroupLayer], Field(min_length=1)]
    """Groups by name."""


class FleetFile(_Frozen):
    """All of fleet.yaml."""

    version: Literal[1]
    """Version of this file's form."""
    defaults: Annotated[Layer, BeforeValidator(_absent_is_empty, json_schema_input_type=Layer | None)] = Layer()
    """What all sites have in common."""
    sites: Annotated[dict[Identifier, SiteLayer], Field(min_length=1)]
    """Sites by name."""
