"""moedge.yaml while the daemon runs: read again, checked, and replaced as a whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

from moedge_runtime.config import Config
from moedge_runtime.config.load import load_config, parse_config
from moedge_runtime.errors import ConfigError, RequestError, StorageError


class NewConfig:
    """A configuration that is to take the place of the running one.

    Args:
        running: The one that runs; it knows its file.
        text: The new one, which replaces the file when it has been applied; None to read the file again.
        via: Where it came from.

    Attributes:
        config: The new one, valid in itself.

    Raises:
        RequestError: The running one is of no file, or may not be replaced so.
        ConfigError: The new one is wrong.
        StorageError: The file cannot be replaced.
    """

    def __init__(self, running: Config, text: str | None, via: Literal["MQTT", "web"] = "MQTT") -> None:
        path = running.path
        if path is None:
            raise RequestError("The configuration of this daemon is of no file.", key="request.no_config_file")
        self._path = path.resolve()
        self._draft: Path | None = None
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
        self.config = parse_config(text, path)
        _check_commands(running, self.config)
        self._draft = self._write_beside(text)

    def commit(self) -> None:
        """Make the new configuration the file's content; it is on the disk when this returns.

        Raises:
            StorageError: It cannot be replaced; it is as before.
        """
        if self._draft is None:
            return
        try:
            self._draft.replace(self._path)
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            self.discard()
            raise self._not_writable(error) from error
        self._draft = None

    def discard(self) -> None:
        """Leave the file as it is."""
        if self._draft is not None:
            with suppress(OSError):
                self._draft.unlink()
        self._draft = None

    def _write_beside(self, text: str) -> Path:
        draft = self._path.with_name(f".{self._path.name}.new")
        try:
            before = self._path.stat()
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                with suppress(OSError):  # only root gives files away
                    os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, before.st_mode & 0o7777)
                file.write(text)
                file.flush()
                os.fsync(descriptor)
        except OSError as error:
            with suppress(OSError):
                draft.unlink()
            raise self._not_writable(error) from error
        return draft

    def _not_writable(self, error: OSError) -> StorageError:
        return StorageError(
            f"The configuration '{self._path}' cannot be replaced ({error.strerror or error}). Let the daemon's user "
            f"write into its directory, or change the file on the board and send the request reload.",
            key="config.not_writable",
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
