"""What the daemon says on MQTT: who it is, how it is, how its cameras are, and the answers."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping

from moedge_runtime import __version__
from moedge_runtime.bundle import Bundle
from moedge_runtime.config import Config
from moedge_runtime.config.schema import config_schema
from moedge_runtime.daemon.answers import answer_payload, error_info, precision_of
from moedge_runtime.daemon.clock import Ulids, clock_synced, rss_bytes, utc_now
from moedge_runtime.daemon.counters import WatchCounters
from moedge_runtime.daemon.events import alert_payload, answered_event, dropped_event, pending_event
from moedge_runtime.daemon.job_queue import JobQueue
from moedge_runtime.daemon.reader import CameraReader, State
from moedge_runtime.daemon.schedule import DropReason, Job, Result
from moedge_runtime.daemon.watcher import AlertNote, Watcher
from moedge_runtime.errors import CameraError
from moedge_runtime.frames.ledger import FrameCounts
from moedge_runtime.mqtt.address import BrokerAddress, Connection
from moedge_runtime.mqtt.client import MqttClient, Presence
from moedge_runtime.mqtt.line import one_line
from moedge_runtime.mqtt.message import Message, Received
from moedge_runtime.mqtt.outbox import MAX_QUEUED
from moedge_runtime.mqtt.payloads import (
    AlertPayload,
    AnswerModel,
    AnswerPayload,
    CameraHealth,
    CameraStatus,
    DeviceHealth,
    DeviceInfo,
    DeviceStatus,
    EventPayload,
    ModelInfo,
    MqttHealth,
)
from moedge_runtime.mqtt.topics import Topics

MANIFEST = "manifest.json"

PAUSE_MESSAGES = MAX_QUEUED // 2
"""Cameras that lose no frame pause while so many messages wait for the broker; requests and realtime cameras go on."""

log = logging.getLogger(__name__)


class Bridge:
    """The daemon's side of MQTT. Publishing methods may be called from any thread and never block.

    Args:
        config: The whole configuration; published without secrets.
        bundle: The opened bundle.
        address: The broker; the embedded one's address is known only once it runs.
        jobs: For the number of waiting requests; is told whether there is room for more answers.

    Attributes:
        topics: The device's topic tree.
        client: The MQTT client.
        readers: Cameras that run, by name; filled by the daemon before `start`.
        watchers: What counts their frames, likewise.
        on_request: Set by the daemon before `start`.
    """

    def __init__(self, config: Config, bundle: Bundle, address: BrokerAddress, jobs: JobQueue) -> None:
        self._config, self._bundle, self._jobs = config, bundle, jobs
        self._started_at, self._started_s = utc_now(), time.monotonic()
        self._identifiers = Ulids()
        self._counters = WatchCounters(watch.name for watch in config.watches)
        self.readers: Mapping[str, CameraReader] = {}
        self.watchers: Mapping[str, Watcher] = {}
        self.topics = Topics(config.mqtt.base_topic, config.device)
        self.on_request: Callable[[Received], None] = lambda message: None
        self._info = self._describe()
        self._answer_model = AnswerModel(
            name=self._info.model.name, bundle=self._info.model.bundle, precision=self._info.model.precision
        )
        self.client = MqttClient(
            connection_of(config, address),
            presence=Presence(*(self._status(state) for state in ("online", "stopped", "offline"))),
            requests=self.topics.requests,
            on_request=self._receive,
            on_delivered=jobs.recheck,
        )
        jobs.has_room = self._has_room

    def start(self) -> None:
        """Publish info and the cameras' first states, in this order on every connect, and begin to connect."""
        self.client.publish(Message(self.topics.info, self._info.encode(), retain=True))
        for name, camera in self._config.cameras.items():
            starting = CameraError(f"Camera '{name}' has given no frame yet.", key="camera.starting")
            if camera.enabled:
                self.camera_state(name, "connecting", starting)
            else:
                self.camera_state(name, "disabled", None)
        for watch in self._config.watches:
            if watch.alert is not None:
                self._publish_alert(
                    watch.camera,
                    watch.name,
                    AlertPayload(state="unknown", since=self._started_at, clock_synced=clock_synced()),
                )
        self.publish_health()
        self.client.start()

    def camera_state(self, camera: str, state: State, reason: CameraError | None) -> None:
        """Publish the state of a camera."""
        payload = CameraStatus(state=state, reason=error_info(reason) if reason else None)
        self.client.publish(Message(self.topics.camera_status(camera), payload.encode(), retain=True))

    def new_identifier(self) -> str:
        """For an event."""
        return self._identifiers.next()

    def pending(self, job: Job) -> None:
        """A watch asks; see Announcer."""
        self._counters.due(job.watch or "")
        if self.client.connected:  # old news when the broker is back: the end of the event says all of it
            self._publish_event(job, pending_event(job, at=utc_now(), synced=clock_synced()))

    def dropped(self, job: Job, reason: DropReason) -> None:
        """There will be no answer; see Announcer."""
        event = dropped_event(job, reason, at=utc_now(), synced=clock_synced())
        self._counters.ended(event.watch, event.status)
        self._publish_event(job, event)

    def answered(self, job: Job, result: Result, alert: AlertNote | None) -> None:
        """The model has answered a watch, or failed: publish its answer and what follows of it; see Announcer."""
        answer = self.answer(job, result)
        event = answered_event(job, result, alert, at=answer.answered_at, synced=answer.clock_synced)
        self._counters.ended(event.watch, event.status)
        encoded = answer.encode()
        self.client.publish(Message(self.topics.answer(job.camera), encoded))
        self.client.publish(Message(self.topics.last_answer(job.camera), encoded, retain=True))
        self._publish_event(job, event)
        if event.alert is not None and event.alert.changed:
            log.warning("%s/%s: the alert is %s.", job.camera, event.watch, event.alert.state)
            self._publish_alert(job.camera, event.watch, alert_payload(event))

    def answer(self, job: Job, result: Result) -> AnswerPayload:
        """Make and log the answer to `job`; does not publish it."""
        payload = answer_payload(
            job,
            result,
            identifier=job.identifier or self._identifiers.next(),
            answered_at=utc_now(),
            synced=clock_synced(),
            model=self._answer_model,
        )
        name = f"{job.camera}/{job.watch or 'request'}"
        if payload.error is None:
            self._counters.answered()
            log.info("%s: %s (%.1f s)", name, one_line(payload.text), result.ended_s - result.began_s)
        else:
            log.error("%s: %s", name, one_line(payload.error.message))
        return payload

    def _publish_event(self, job: Job, event: EventPayload) -> None:
        self.client.publish(Message(self.topics.event(job.camera), event.encode()))

    def _publish_alert(self, camera: str, watch: str, alert: AlertPayload) -> None:
        self.client.publish(Message(self.topics.alert(camera, watch), alert.encode(), retain=True))

    def publish_health(self) -> None:
        """Publish the counters."""
        self.client.publish(Message(self.topics.health, self.health().encode(), retain=True))

    def info(self) -> DeviceInfo:
        """What `info` says."""
        return self._info

    def health(self) -> DeviceHealth:
        """What `health` says, now."""
        queued, dropped = self.client.backlog()
        counters = self.client.counters
        return DeviceHealth(
            at=utc_now(),
            uptime_s=time.monotonic() - self._started_s,
            rss_bytes=rss_bytes(),
            clock_synced=clock_synced(),
            last_answer_age_s=self._counters.last_answer_age_s(),
            cameras={name: self._camera_health(name) for name in self._config.cameras},
            watches=self._counters.health(),
            requests_waiting=self._jobs.requests_waiting,
            mqtt=MqttHealth(
                connected=self.client.connected,
                connects=counters.connects,
                published=counters.published,
                received=counters.received,
                queued=queued,
                dropped=dropped,
            ),
        )

    def _camera_health(self, name: str) -> CameraHealth:
        reader, watcher = self.readers.get(name), self.watchers.get(name)
        state: State = "connecting" if self._config.cameras[name].enabled else "disabled"
        counts = watcher.counts() if watcher else FrameCounts()
        return CameraHealth(
            state=reader.state if reader else state,
            frames=counts.seen,
            skipped=counts.skipped,
            answered=counts.answered,
            dropped=counts.dropped,
            waiting=counts.waiting,
            reasons=counts.reasons,
            last_frame_age_s=reader.last_frame_age_s() if reader else None,
        )

    def _describe(self) -> DeviceInfo:
        manifest = self._bundle.manifest
        return DeviceInfo(
            device=self._config.device,
            version=__version__,
            started_at=self._started_at,
            model=ModelInfo(
                name=manifest.model.source.name,
                architecture=manifest.model.architecture,
                bundle=self._bundle.path.resolve().name,
                form=manifest.form,
                precision=precision_of(manifest),
                manifest_sha256=hashlib.sha256(self._bundle.file(MANIFEST).read_bytes()).hexdigest(),
            ),
            config=self._config.public(),
            config_schema=config_schema(),
        )

    def _status(self, state: str) -> Message:
        payload = DeviceStatus.model_validate({"state": state})
        return Message(self.topics.status, payload.encode(), retain=True)

    def _has_room(self) -> bool:
        return self.client.backlog()[0] < PAUSE_MESSAGES

    def _receive(self, message: Received) -> None:
        self.on_request(message)


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
