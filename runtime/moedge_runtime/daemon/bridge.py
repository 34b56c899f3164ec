"""What the daemon says on MQTT: who it is, how it is, how its cameras are, and the answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import timedelta

from moedge_runtime import __version__
from moedge_runtime.bundle import Bundle
from moedge_runtime.camera import Frame
from moedge_runtime.config import Config
from moedge_runtime.config.schema import config_schema
from moedge_runtime.daemon.announcing import announcements, removals
from moedge_runtime.daemon.answers import answer_payload, error_info, precision_of
from moedge_runtime.daemon.broker import connection_of, spool_of
from moedge_runtime.daemon.bundle_check import bundle_names, manifest_sha256
from moedge_runtime.daemon.cameras import cameras_with_motion
from moedge_runtime.daemon.clock import Ulids, clock_synced, rss_bytes, utc_now
from moedge_runtime.daemon.counters import WatchCounters
from moedge_runtime.daemon.events import (
    alert_payload,
    answered_event,
    dropped_event,
    motion_payload,
    pending_event,
)
from moedge_runtime.daemon.job_queue import JobQueue
from moedge_runtime.daemon.log_topic import LogTopic, redactor
from moedge_runtime.daemon.reader import CameraReader, State, starting
from moedge_runtime.daemon.schedule import DropReason, Job, Result
from moedge_runtime.daemon.snapshot import encode_jpeg
from moedge_runtime.daemon.switches import Switch, on_off
from moedge_runtime.daemon.system import system_info
from moedge_runtime.daemon.watcher import AlertNote, Watcher
from moedge_runtime.errors import CameraError
from moedge_runtime.frames.motion import Moving
from moedge_runtime.mqtt.address import BrokerAddress
from moedge_runtime.mqtt.certificate import ends_at
from moedge_runtime.mqtt.client import MqttClient, Presence
from moedge_runtime.mqtt.home_assistant import ONLINE, birth_topic, watch_state
from moedge_runtime.mqtt.line import one_line
from moedge_runtime.mqtt.message import Message, Received
from moedge_runtime.mqtt.payloads import (
    AlertPayload,
    AnswerModel,
    AnswerPayload,
    BoardHealth,
    CameraHealth,
    CameraStatus,
    DeviceHealth,
    DeviceInfo,
    DeviceStatus,
    EventPayload,
    LogPayload,
    ModelInfo,
    MqttHealth,
    Snapshot,
    SnapshotRef,
    SpoolHealth,
    UpdateState,
)
from moedge_runtime.mqtt.topics import Topics

log = logging.getLogger(__name__)


class Bridge:
    """The daemon's side of MQTT. Publishing methods may be called from any thread and never block.

    Args:
        config: The whole configuration; published without secrets.
        bundle: The opened bundle.
        address: The broker; the embedded one's address is known only once it runs.
        jobs: For the number of waiting requests; is told whether there is room for more answers.

    Raises:
        StorageError: Another process uses the spool.

    Attributes:
        topics: The device's topic tree.
        client: The MQTT client.
        readers: All cameras by name; filled by the daemon before `start`.
        watchers: What counts their frames, likewise.
        on_request: Set by the daemon before `start`.
        on_answer: Called with every answer that was made, on the model's thread; likewise.
        board: Says how the board is; likewise.
        restart_required: What `info` says of that; likewise.
        updates: Says how updates are, but for the version in use; likewise.
        on_asked: Called for every frame about which the model was asked, with whether it answered; likewise.
    """

    def __init__(self, config: Config, bundle: Bundle, address: BrokerAddress, jobs: JobQueue) -> None:
        self._config, self._bundle, self._jobs = config, bundle, jobs
        self._started_s = time.monotonic()
        self._synced = clock_synced()
        self._system = system_info()
        self._identifiers = Ulids()
        self._counters = WatchCounters(watch.name for watch in config.watches)
        self._state_fields = {watch.name: watch.state for watch in config.watches}
        self.readers: Mapping[str, CameraReader] = {}
        self.watchers: Mapping[str, Watcher] = {}
        self.topics = Topics(config.mqtt.base_topic, config.device)
        self.on_request: Callable[[Received], None] = lambda message: None
        self.on_answer: Callable[[Job, Result, AnswerPayload], None] = lambda job, result, answer: None
        self.board: Callable[[], BoardHealth] = BoardHealth
        self.updates: Callable[[], UpdateState] = UpdateState
        self.restart_required = False
        self.on_asked: Callable[[bool], None] = lambda answered: None
        self._model = self._describe_model()
        self._answer_model = AnswerModel(
            name=self._model.name,
            bundle=self._model.bundle,
            version=self._model.version,
            precision=self._model.precision,
        )
        home = config.mqtt.home_assistant
        self._birth = birth_topic(home.prefix) if home else None
        self._spool = spool_of(config)
        self.client = MqttClient(
            connection_of(config, address),
            presence=Presence(*(self._status(state) for state in ("online", "stopped", "offline"))),
            requests=self.topics.requests,
            on_request=self._receive,
            sets=self.topics.feature_sets,
            on_delivered=jobs.recheck,
            on_connected=self._connected,
            also=[self._birth] if self._birth else [],
            on_also=self._home_assistant_said,
            spool=self._spool,
        )
        jobs.has_room = self.client.has_room
        level = config.mqtt.log
        self._log = LogTopic(level, self._publish_log, redactor(config)) if level else None
        self._stale: list[Message] = []
        self._update_state: UpdateState | None = None

    def start(self, switches: Mapping[Switch, bool], *, before: Config | None = None) -> None:
        """Publish discovery, info and the cameras' first states, in this order on every connect, and begin to connect.

        Args:
            switches: Every switch, and whether it is on.
            before: The configuration before a reload: what it announced and is gone is removed from the broker.
        """
        self._stale = removals(self._config, before) if before is not None else []
        self._update_state = self._update_state_now()
        for message in announcements(self._config, self._model.name, before, can_update=self._update_state.can_start):
            self.client.publish(message)
        self._publish_info()
        self._publish_update_state()
        with_motion = cameras_with_motion(self._config)
        for name, reader in self.readers.items():
            self.camera_state(name, reader.state, starting(name) if reader.enabled else None)
            if name in with_motion:
                self._publish_motion(name, None)
        for watch in self._config.watches:
            if watch.alert is not None:
                self._publish_alert(
                    watch.camera,
                    watch.name,
                    AlertPayload(state="unknown", since=utc_now(), clock_synced=clock_synced()),
                )
        for (camera, feature), on in switches.items():
            self.switched(camera, feature, on)
        self.publish_health()
        self.client.start()
        if self._log is not None:
            logging.getLogger().addHandler(self._log)

    def close(self, timeout_s: float, *, farewell: bool) -> bool:
        """Publish the log no more, and close the client; see MqttClient.close."""
        if self._log is not None:
            logging.getLogger().removeHandler(self._log)
        return self.client.close(timeout_s, farewell=farewell)

    @property
    def model_name(self) -> str:
        """Of the model that answers."""
        return self._model.name

    def camera_state(self, camera: str, state: State, reason: CameraError | None) -> None:
        """Publish the state of a camera."""
        payload = CameraStatus(state=state, reason=error_info(reason) if reason else None)
        self.client.publish(Message(self.topics.camera_status(camera), payload.encode(), retain=True))

    def switched(self, camera: str, feature: str, on: bool) -> None:
        """Publish that a feature of a camera is on, or off."""
        self.client.publish(Message(self.topics.feature_state(camera, feature), on_off(on).encode(), retain=True))

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
        self.client.publish(Message(self.topics.answer(job.camera), encoded, late=_replayed(answer)))
        self.client.publish(Message(self.topics.last_answer(job.camera), encoded, retain=True))
        if self._config.mqtt.home_assistant:
            self.client.publish(
                Message(
                    self.topics.watch(job.camera, event.watch),
                    watch_state(answer, self._state_fields[event.watch]).encode(),
                    retain=True,
                )
            )
        self._publish_event(job, event)
        if event.alert is not None and event.alert.changed:
            log.warning("%s/%s: the alert is %s.", job.camera, event.watch, event.alert.state)
            self._publish_alert(job.camera, event.watch, alert_payload(event))

    def motion(self, camera: str, moving: Moving | None) -> None:
        """Motion began, reached another zone, or is over, or is not looked for; see Announcer."""
        self._publish_motion(camera, moving)

    def answer(self, job: Job, result: Result) -> AnswerPayload:
        """Make and log the answer to `job`; publishes its picture, if pictures are to be, and nothing else."""
        identifier = job.identifier or self._identifiers.next()
        payload = answer_payload(
            job,
            result,
            identifier=identifier,
            answered_at=utc_now(),
            synced=clock_synced(),
            model=self._answer_model,
        )
        if self._config.mqtt.snapshots.publish:
            reference = self._publish_picture(job.camera, job.frame, identifier)
            payload = payload.model_copy(update={"snapshot": reference})
        name = f"{job.camera}/{job.watch or 'request'}"
        self.on_asked(payload.error is None)
        if payload.error is None:
            self._counters.answered()
            log.info("%s: %s (%.1f s)", name, one_line(payload.text), result.ended_s - result.began_s)
        else:
            log.error("%s: %s", name, one_line(payload.error.message))
        self.on_answer(job, result, payload)
        return payload

    def snapshot(self, camera: str, frame: Frame) -> Snapshot:
        """Publish the picture of a frame."""
        identifier = self._identifiers.next()
        return Snapshot(
            id=identifier,
            camera=camera,
            captured_at=frame.captured_at,
            clock_synced=clock_synced(),
            snapshot=self._publish_picture(camera, frame, identifier),
        )

    def _publish_event(self, job: Job, event: EventPayload) -> None:
        late = None if event.type == "new" else _replayed(event)
        self.client.publish(Message(self.topics.event(job.camera), event.encode(), late=late))

    def _publish_alert(self, camera: str, watch: str, alert: AlertPayload) -> None:
        self.client.publish(Message(self.topics.alert(camera, watch), alert.encode(), retain=True))

    def _publish_motion(self, camera: str, moving: Moving | None) -> None:
        payload = motion_payload(moving, at=utc_now(), synced=clock_synced())
        self.client.publish(Message(self.topics.motion(camera), payload.encode(), retain=True))

    def publish_health(self) -> None:
        """Publish the counters, and info again if the clock has been set, or the system confirmed, meanwhile."""
        synced, system = clock_synced(), system_info()
        if (synced, system) != (self._synced, self._system):
            self._synced, self._system = synced, system
            self._publish_info()
        self.publish_update_state()
        self.client.publish(Message(self.topics.health, self.health().encode(), retain=True))

    def publish_update_state(self) -> None:
        """Publish how updates are if that has changed."""
        state, before = self._update_state_now(), self._update_state
        if before is None or state == before:
            return
        self._update_state = state
        if state.can_start != before.can_start:
            for message in announcements(self._config, self._model.name, None, can_update=state.can_start):
                self.client.publish(message)
        self._publish_update_state()

    def info(self) -> DeviceInfo:
        """What `info` says."""
        uptime = timedelta(seconds=time.monotonic() - self._started_s)
        return DeviceInfo(
            device=self._config.device,
            version=__version__,
            started_at=utc_now() - uptime,
            clock_synced=clock_synced(),
            system=self._system,
            model=self._model,
            restart_required=self.restart_required,
            config_file=str(source.absolute()) if (source := self._config.source) else None,
            config=self._config.public(),
            config_schema=config_schema(),
        )

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
            cameras={name: self._camera_health(name) for name in self.readers},
            watches=self._counters.health(),
            requests_waiting=self._jobs.requests_waiting,
            board=self.board(),
            mqtt=MqttHealth(
                connected=self.client.connected,
                connects=counters.connects,
                published=counters.published,
                received=counters.received,
                queued=queued,
                dropped=dropped,
                refused=counters.refused,
                log_dropped=(self._log.dropped if self._log else 0) + counters.lost,
                certificate_ends_at=ends_at(cert) if (cert := self._config.mqtt.cert) else None,
                spool=self._spool_health(),
            ),
        )

    def _spool_health(self) -> SpoolHealth | None:
        spool = self._spool
        if spool is None:
            return None
        return SpoolHealth(
            messages=spool.messages,
            bytes=spool.size_bytes,
            dropped=spool.counters.dropped,
            expired=spool.counters.expired,
            damaged=spool.counters.damaged,
            replayed=self.client.counters.replayed,
            written_bytes=spool.written_bytes,
            syncs=spool.syncs,
            error=self.client.spool_error,
        )

    def _camera_health(self, name: str) -> CameraHealth:
        reader, counts = self.readers[name], self.watchers[name].counts()
        return CameraHealth(
            state=reader.state,
            frames=counts.seen,
            skipped=counts.skipped,
            answered=counts.answered,
            dropped=counts.dropped,
            waiting=counts.waiting,
            reasons=counts.reasons,
            last_frame_age_s=reader.last_frame_age_s(),
        )

    def _describe_model(self) -> ModelInfo:
        manifest = self._bundle.manifest
        name, version = bundle_names(self._config.model.bundle, self._bundle)
        return ModelInfo(
            name=manifest.model.source.name,
            architecture=manifest.model.architecture,
            bundle=name,
            version=version,
            form=manifest.form,
            precision=precision_of(manifest),
            manifest_sha256=manifest_sha256(self._bundle),
        )

    def _publish_log(self, line: LogPayload) -> bool:
        return self.client.offer(Message(self.topics.log, line.encode(), qos=0))

    def _publish_info(self) -> None:
        self.client.publish(Message(self.topics.info, self.info().encode(), retain=True))

    def _update_state_now(self) -> UpdateState:
        return self.updates().model_copy(update={"installed_version": self._model.version})

    def _publish_update_state(self) -> None:
        if self._update_state is not None:
            self.client.publish(Message(self.topics.update_state, self._update_state.encode(), retain=True))

    def _publish_picture(self, camera: str, frame: Frame, identifier: str) -> SnapshotRef:
        options = self._config.mqtt.snapshots
        picture = encode_jpeg(
            frame.image, max_bytes=options.max_size, quality=options.quality, comment=f"moedge {identifier}"
        )
        topic = self.topics.snapshot(camera)
        self.client.publish(
            Message(topic, picture.content, retain=True, identifier=identifier, content_type="image/jpeg")
        )
        return picture.reference(topic)

    def _connected(self) -> None:
        self.publish_health()
        # After the announcement: Home Assistant reads these topics until that says otherwise, and an empty message on
        # one of them is an error in its log.
        stale, self._stale = self._stale, []
        for message in stale:
            self.client.publish(message)

    def _home_assistant_said(self, message: Received) -> None:
        if message.payload == ONLINE.encode():
            self.client.restate()

    def _status(self, state: str) -> Message:
        payload = DeviceStatus.model_validate({"state": state})
        return Message(self.topics.status, payload.encode(), retain=True)

    def _receive(self, message: Received) -> None:
        self.on_request(message)


def _replayed(payload: AnswerPayload | EventPayload) -> Callable[[], bytes]:
    """Encodes what is told late, which few answers are."""
    return lambda: payload.model_copy(update={"replayed": True}).encode()
