"""Checks of what a configuration talks to: its bundle, its cameras, its broker."""

from __future__ import annotations

import os
import threading
from contextlib import closing
from dataclasses import replace
from typing import Protocol

from moedge_runtime.camera import FrameSource, is_live
from moedge_runtime.config import CameraConfig, Config
from moedge_runtime.config.camera import without_credentials
from moedge_runtime.config.pushed import is_pushed
from moedge_runtime.daemon.broker import connection_of
from moedge_runtime.daemon.cameras import open_camera, preparation_of
from moedge_runtime.errors import BrokerError, MoedgeError
from moedge_runtime.frames.masked import Preparation
from moedge_runtime.mqtt.address import BrokerAddress, parse_broker_url
from moedge_runtime.mqtt.message import Message
from moedge_runtime.mqtt.session import Session
from moedge_runtime.mqtt.topics import Topics

from moedge_devices.doctor.finding import Finding

RECORDING_TIMEOUT_S = 15.0
"""A file or folder that has given no picture by then lies on something that hangs."""

GRACE_S = 5.0
"""Added to a live camera's own timeout, after which it raises an error by itself."""

ACKNOWLEDGEMENT_S = 10.0

VERB = "doctor"
"""The check publishes to <base>/<device>/response/doctor, where no consumer looks; it is not retained."""


class OpensCamera(Protocol):
    """Makes the source of a camera; `open_camera`, or a test's."""

    def __call__(self, camera: CameraConfig, intervals_s: list[float], preparation: Preparation) -> FrameSource:
        """See `open_camera`."""
        ...


def check_config_file(config: Config) -> Finding:
    """Which file counts, and whether the other one was changed later, to no effect."""
    assert config.path and config.source, "the doctor reads a file"
    path, source = config.path, config.source
    value = str(source)
    if not is_pushed(source):
        return Finding("config", "ok", f"'{path}' counts", value=value)
    text = f"'{source}' counts, which was pushed, and not '{path}'"
    if path.stat().st_mtime <= source.stat().st_mtime:
        return Finding("config", "ok", text, value=value)
    return Finding(
        "config",
        "warning",
        f"{text}, although that was changed later",
        f"remove '{source}' to have '{path}' again, then reload; or change the one that counts",
        value,
    )


def check_cameras(config: Config, opens: OpensCamera = open_camera) -> list[Finding]:
    """Every enabled camera: whether it gives a picture. One after the other, so that none is to blame for another."""
    return [
        check_camera(name, camera, opens, runs_commands=not _is_of_another_user(config))
        for name, camera in config.cameras.items()
    ]


def _is_of_another_user(config: Config) -> bool:
    """Whether the daemon wrote the configuration and somebody else reads it: root runs no commands of the daemon's."""
    return config.source is not None and is_pushed(config.source) and config.source.stat().st_uid != os.geteuid()


def check_camera(
    name: str, camera: CameraConfig, opens: OpensCamera = open_camera, *, runs_commands: bool = True
) -> Finding:
    """Whether a camera gives a picture within its own timeout."""
    check, shown = f"camera.{name}", without_credentials(camera.source)
    if not camera.enabled:
        return Finding(check, "skipped", f"{shown} is disabled")
    if camera.source.startswith("exec:") and not runs_commands:
        text = f"{shown} is a command of a pushed configuration, which only its owner runs"
        return Finding(check, "skipped", text, "run the doctor as the daemon's user: sudo -u moedge moedge doctor …")
    try:
        source = opens(camera, [], preparation_of(camera))
        timeout_s = camera.first_frame_timeout + GRACE_S if is_live(camera.source) else RECORDING_TIMEOUT_S
        size = _first_picture(source, timeout_s)
    except MoedgeError as error:
        return Finding(check, "failed", str(error))
    if size is None:
        advice = "check that it is there and gives pictures"
        return Finding(check, "failed", f"{shown} gave no picture within {timeout_s:.0f} s", advice)
    height, width = size
    return Finding(check, "ok", f"{shown} gives pictures of {width}x{height}", value=f"{width}x{height}")


def _first_picture(source: FrameSource, timeout_s: float) -> tuple[int, int] | None:
    """Height and width of the first frame; None if it ends without one, or takes longer.

    Raises:
        MoedgeError: What the source raised.
    """
    sizes: list[tuple[int, int]] = []
    failures: list[MoedgeError] = []

    def look() -> None:
        try:
            for frame in source.frames():
                sizes.append((frame.image.shape[0], frame.image.shape[1]))
                return
        except MoedgeError as error:
            failures.append(error)

    with closing(source):
        thread = threading.Thread(target=look, name="doctor-camera", daemon=True)
        thread.start()
        thread.join(timeout_s)
    if failures:
        raise failures[0]
    return sizes[0] if sizes else None


def check_broker(config: Config) -> list[Finding]:
    """Whether the broker lets this device in, publish below its own topic and hear its requests.

    It connects with the client id `<id>-doctor`, so that a daemon that runs stays connected. With MQTT 3.1.1 a broker
    has no way to say that it drops a message: publishing is then not checked.
    """
    mqtt = config.mqtt
    if mqtt.embedded is not None:
        text = f"the daemon starts its own on {mqtt.embedded.host}:{mqtt.embedded.port}"
        return [Finding("broker", "skipped", text)]
    assert mqtt.url is not None, "a configuration has a broker"
    return check_access(config, parse_broker_url(mqtt.url))


def check_access(config: Config, address: BrokerAddress) -> list[Finding]:
    """See `check_broker`."""
    connection = connection_of(config, address)
    topics = Topics(config.mqtt.base_topic, config.device)
    outcome: list[str | None] = []
    delivered = threading.Event()

    def note(number: int, refusal: str | None) -> None:
        outcome.append(refusal)
        delivered.set()

    session = Session(replace(connection, client_id=f"{connection.client_id}-doctor"), on_delivered=note)
    try:
        session.open()
    except BrokerError as error:
        return [Finding("broker.connect", "failed", str(error))]
    findings = [Finding("broker.connect", "ok", f"{address} accepts this device")]
    try:
        topic = topics.response(VERB)
        session.publish(Message(topic, b"{}"))
        answered = delivered.wait(ACKNOWLEDGEMENT_S)
        findings.append(_publishing(topic, answered, outcome[0] if outcome else None, connection.protocol == "5"))
        findings.append(_subscribing(session, topics.requests, *topics.feature_sets))
    finally:
        session.close()
    return findings


def _publishing(topic: str, answered: bool, refusal: str | None, tells: bool) -> Finding:
    advice = "let the broker's access list grant this device write to its own topics"
    if not answered:
        return Finding("broker.publish", "failed", f"a message to '{topic}' is not acknowledged", advice)
    if refusal is not None:
        return Finding("broker.publish", "failed", f"a message to '{topic}' is refused: {refusal}", advice)
    if not tells:
        return Finding("broker.publish", "skipped", "with MQTT 3.1.1 a broker does not say what it refuses")
    return Finding("broker.publish", "ok", f"'{topic}' may be published to")


def _subscribing(session: Session, *filters: str) -> Finding:
    try:
        session.subscribe(*filters, retained=False)
    except BrokerError as error:
        return Finding("broker.subscribe", "failed", str(error))
    return Finding("broker.subscribe", "ok", "'" + "', '".join(filters) + "' may be subscribed to")
