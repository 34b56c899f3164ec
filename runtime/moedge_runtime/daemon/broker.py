"""How this device connects to its broker, and where its answers wait for it."""

from __future__ import annotations

from pathlib import Path

from moedge_runtime.config import Config
from moedge_runtime.daemon.clock import clock_synced
from moedge_runtime.daemon.system import state_directory
from moedge_runtime.mqtt.address import BrokerAddress, Connection
from moedge_runtime.mqtt.spool import Spool
from moedge_runtime.mqtt.spool_clock import moment_now


def connection_of(config: Config, address: BrokerAddress) -> Connection:
    """How this device connects to the broker at `address`."""
    mqtt = config.mqtt
    return Connection(
        address,
        client_id=mqtt.client_id or f"moedge-{config.device}",
        username=mqtt.username,
        password=mqtt.password.get_secret_value() if mqtt.password else None,
        protocol=mqtt.protocol,
        ca=mqtt.ca,
        cert=mqtt.cert,
        key=mqtt.key,
        keepalive_s=round(mqtt.keepalive),
    )


def spool_directory(config: Config) -> Path | None:
    """Where answers wait on disk; None for in memory only."""
    if config.mqtt.spool.directory is not None:
        return config.mqtt.spool.directory
    state = state_directory()
    return state / "spool" if state else None


def spool_of(config: Config) -> Spool | None:
    """The answers on disk; None for in memory only.

    Raises:
        StorageError: Another process uses them.
    """
    directory = spool_directory(config)
    if directory is None:
        return None
    return Spool(
        directory,
        max_bytes=config.mqtt.spool.max_size,
        max_age_s=config.mqtt.spool.max_age,
        now=lambda: moment_now(clock_synced()),
    )
