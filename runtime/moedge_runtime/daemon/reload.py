"""Another configuration for a running daemon: checked before anything changes, and taken as a whole or not at all."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from moedge_runtime.bundle import Bundle
from moedge_runtime.config import Config
from moedge_runtime.daemon.broker import spool_directory, spool_of
from moedge_runtime.daemon.bundle_check import open_bundle
from moedge_runtime.daemon.commands import Command
from moedge_runtime.daemon.config_file import NewConfig
from moedge_runtime.daemon.config_history import ConfigHistory
from moedge_runtime.daemon.preflight import check_config
from moedge_runtime.daemon.setup import Setup
from moedge_runtime.errors import MoedgeError
from moedge_runtime.mqtt.payloads import ConfigResult

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reload:
    """A new configuration that is right as far as can be said while the old one runs."""

    command: Command
    new: NewConfig
    bundle: Bundle


def prepare(
    command: Command, setup: Setup, history: ConfigHistory, *, exit_when_done: bool, verify: bool | None
) -> Reload | None:
    """Read and check what `command` asks for.

    Returns:
        What is to be applied; None if nothing changes or something is wrong: the sender has been told then.
    """
    try:
        text = command.text if command.rollback is None else history.find(command.rollback).config
        new = NewConfig(setup.config, text, command.via, command.device_file)
    except MoedgeError as error:
        _refuse(command, error)
        return None
    try:
        if new.config.model_dump() == setup.config.model_dump() and not _points_elsewhere(setup):
            new.commit()
            command.respond(ConfigResult(changed=False, model_loaded=False).model_dump())
            return None
        check_config(new.config, exit_when_done=exit_when_done or new.config.exit_when_done)
        if spool_directory(new.config) != spool_directory(setup.config) and (spool := spool_of(new.config)):
            spool.close()
        if new.config.model != setup.config.model or _points_elsewhere(setup):
            return Reload(command, new, open_bundle(new.config.model, verify))
        check_config(new.config, setup.answerer.check)
        return Reload(command, new, setup.bundle)
    except MoedgeError as error:
        new.discard()
        _refuse(command, error)
        return None


def apply(reload: Reload, setup: Setup) -> Callable[[], None]:
    """Change `setup`, then the file, or leave both as they are. No job may run.

    Returns:
        What tells the sender which.
    """
    before, bundle = setup.config, setup.bundle
    try:
        loaded = setup.change(reload.new.config, reload.bundle)
        try:
            reload.new.commit()
        except MoedgeError:
            setup.change(before, bundle)
            raise
    except MoedgeError as error:
        reload.new.discard()
        return partial(_refuse, reload.command, error)
    log.info("The configuration '%s' was taken over.", setup.config.source)
    return partial(reload.command.respond, ConfigResult(changed=True, model_loaded=loaded).model_dump())


def keeps_status(before: Config, after: Config) -> bool:
    """Whether the device says `online` on the same topic of the same broker in both."""
    return (
        before.device == after.device
        and before.mqtt.base_topic == after.mqtt.base_topic
        and before.mqtt.url == after.mqtt.url
        and before.mqtt.embedded == after.mqtt.embedded
    )


def _points_elsewhere(setup: Setup) -> bool:
    """Whether `model.bundle` is a link that points to another bundle than the one that is loaded."""
    return setup.config.model.bundle.resolve() != setup.bundle.path.resolve()


def _refuse(command: Command, error: MoedgeError) -> None:
    log.error("The configuration stays as it is. %s", error)
    command.respond(error)
