"""moedge.yaml while the daemon runs: read again, checked, and replaced as a whole or not at all; and device.json."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Literal

from moedge_runtime.config import Config
from moedge_runtime.config.load import load_config, parse_config
from moedge_runtime.config.pushed import pushed_path
from moedge_runtime.durable import Drafts, sync_path
from moedge_runtime.errors import ConfigError, RequestError, StorageError
from moedge_runtime.strict_json import parse_json

DEVICE_FILE = "device.json"
"""Beside moedge.yaml."""


class NewConfig:
    """A configuration that is to take the place of the running one.

    Args:
        running: The one that runs; it knows its file.
        text: The new one, which replaces the file when it has been applied; None to read the file again.
        via: Where it came from.
        device_file: New content of DEVICE_FILE beside it, for the updater (docs/updates.md); None to leave it as it is.

    Attributes:
        config: The new one, valid in itself.

    Raises:
        RequestError: The running one is of no file, or may not be replaced so.
        ConfigError: The new one is wrong, or its device_file is.
        StorageError: A file cannot be replaced.
    """

    def __init__(
        self,
        running: Config,
        text: str | None,
        via: Literal["MQTT", "web"] = "MQTT",
        device_file: str | None = None,
    ) -> None:
        path = running.path
        if path is None:
            raise RequestError("The configuration of this daemon is of no file.", key="request.no_config_file")
        self._path = pushed_path(path)
        self._before = running.source or path
        self._drafts = Drafts()
        if text is None:
            self.config = load_config(path)
            return
        if via == "web" and not (running.web and running.web.allow_changes):
            raise RequestError(
                "This device's configuration is not changed by its page: web.allow_changes is false. "
                "Copy the change into the file on the board and send the request reload.",
                key="request.config_not_allowed",
            )
        if via == "MQTT" and not running.mqtt.remote_config:
            raise RequestError(
                "This device's configuration is not changed over MQTT: mqtt.remote_config is false. "
                "Change the file on the board and send the request reload.",
                key="request.config_not_allowed",
            )
        self.config = parse_config(text, path, source=self._path)
        _check_commands(running, self.config)
        texts = {self._path: text}
        if device_file is not None:
            _check_device_file(device_file, self.config.device)
            # Replaced before the configuration: whoever is interrupted between them finds the old one and sends both
            # again.
            texts = {self._path.with_name(DEVICE_FILE): device_file, **texts}
        try:
            for path, content in texts.items():
                self._write_beside(path, content)
        except OSError as error:
            self.discard()
            raise self._not_writable(error) from error

    def commit(self) -> None:
        """Make what is new the files' content; it is on the disk when this returns.

        Raises:
            StorageError: The configuration cannot be replaced; it is as before.
        """
        try:
            self._drafts.take_over()
        except OSError as error:
            raise self._not_writable(error) from error

    def discard(self) -> None:
        """Leave the files as they are."""
        self._drafts.discard()

    def _write_beside(self, path: Path, text: str) -> None:
        """With owner and mode of the file that counts now."""
        before = self._before.stat()
        if not path.parent.exists():
            path.parent.mkdir(mode=0o750)
            sync_path(path.parent.parent)
        owner = before.st_uid, before.st_gid
        self._drafts.add(path, text.encode(), mode=stat.S_IMODE(before.st_mode), owner=owner)

    def _not_writable(self, error: OSError) -> StorageError:
        return StorageError(
            f"The configuration '{self._path}' cannot be replaced ({error.strerror or error}). Let the daemon's user "
            f"write into its directory (docs/install.md), or change the file on the board and send the request reload.",
            key="config.not_writable",
        )


def _check_device_file(text: str, device: str) -> None:
    """Refuse what is no device.json of this device; what is in it otherwise the updater checks.

    Raises:
        ConfigError: It is not.
    """
    try:
        value = parse_json(text)
    except ValueError as error:
        raise ConfigError(f"device_file is not valid JSON: {error}.", key="config.invalid") from error
    named = value.get("device") if isinstance(value, dict) else None
    if named != device:
        raise ConfigError(
            f"device_file is not of this device: its `device` is {str(named)[:64]!r}, that of the configuration is "
            f"'{device}'. Send what `moedge fleet render` writes for this device.",
            key="config.invalid",
        )


def _check_commands(running: Config, new: Config) -> None:
    """Refuse commands that came over the network: whoever may publish a request must not run programs."""
    known = {camera.source for camera in running.cameras.values()}
    for name, camera in new.cameras.items():
        if camera.source.startswith("exec:") and camera.source not in known:
            raise ConfigError(
                f"cameras.{name}.source: a command (exec:) cannot be set over MQTT. Write it into the file on the "
                f"board and send the request reload.",
                key="config.command_not_allowed",
            )
