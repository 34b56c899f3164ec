"""update.yaml: from where and how a board is updated. Every key can be given on the command line as well."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from moedge_runtime.config.problems import path_text, schema_problems
from moedge_runtime.config.pushed import in_force
from moedge_runtime.config.values import Duration, Identifier
from moedge_runtime.errors import ConfigError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moedge_devices.fleet.model import BundleVersion, SystemVersion, Update
from moedge_devices.store.documents import ReleaseName
from moedge_devices.store.store import DEFAULT_STORE
from moedge_devices.typed_yaml import load_typed

DEFAULT_CONFIG = Path("/etc/moedge/update.yaml")


class UpdateConfig(BaseModel):
    """All of update.yaml, version 1."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    version: Literal[1] = 1
    """Version of this file's form."""
    store: Path = DEFAULT_STORE
    """Where bundles are on this board."""
    source: str | None = None
    """https://HOST/PATH, or a directory."""
    keys: Path = Path("/etc/moedge/update-keys.json")
    """Keys that may sign, as they were when the board was set up."""
    ca: Path | None = None
    """PEM of the authorities that may sign the server's certificate; null for the system's."""
    cert: Path | None = None
    """PEM of this device's certificate, for servers that ask for one."""
    key: Path | None = None
    """PEM of its key."""
    bundle: ReleaseName | None = None
    """Name of the bundle that `moedge bundle update` keeps up to date; null for the one in device.json."""
    channel: Identifier | None = None
    """Channel to follow; null for the one in device.json, or else stable."""
    device: Path | None = None
    """device.json that `moedge fleet render` made: device, profile, bundle, system, channel, windows. null for none."""
    runtime_directory: Path = Path("/run/moedge")
    """Where the daemon writes model.json."""
    answers: Annotated[int, Field(ge=0)] = 1
    """Frames that the new model must answer before the update counts; 0: it is enough that it is loaded."""
    within: Duration = 900.0
    """Time for that, loading included."""
    keep: Annotated[int, Field(ge=0)] = 1
    """Versions that stay beside the one in use."""


class DeviceFile(BaseModel):
    """device.json."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    device: Identifier
    profile: Identifier | None = None
    bundle: BundleVersion | None = None
    system: SystemVersion | None = None
    update: Update = Update()


def load_update_config(path: Path | None, **given: Any) -> UpdateConfig:
    """The configuration in a file, with what the command line says over it.

    Args:
        path: None for the default, which may be missing.
        given: Values of the command line; None is nothing given.

    Raises:
        ConfigError: The file cannot be read, or a value is wrong.
    """
    if path is None and not DEFAULT_CONFIG.exists():
        config = UpdateConfig()
    else:
        config = load_typed(path or DEFAULT_CONFIG, UpdateConfig, "The update configuration")
    changes = {key: value for key, value in given.items() if value is not None}
    try:
        return UpdateConfig.model_validate(config.model_dump() | changes)
    except ValidationError as error:
        problems = "; ".join(
            f"--{path_text(at).replace('_', '-')}: {text}" for at, text in schema_problems(error, UpdateConfig)
        )
        raise ConfigError(f"The command line is wrong: {problems}.") from error


def load_device(path: Path | None) -> DeviceFile | None:
    """device.json, or what was pushed in its place; None without one.

    Raises:
        ConfigError: It cannot be read, or a value is wrong.
    """
    return None if path is None else load_typed(in_force(path), DeviceFile, "The device file")
